"""``python -m kgl_mm doctor``: what is installed, which files are imported, what is missing and how to get it."""

import importlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

import kgl_mm
from kgl_mm._require import transformers_limit

HOME = Path(kgl_mm.__file__).resolve().parent
MM = ('mmengine', 'mmcv', 'mmpretrain')
DATA_SETS = ('KolektorSDD', 'KolektorSDD2')
PIP = f'{sys.executable} -m pip'
INSTALL = 'make venv' if (HOME.parent / 'tools/make_venv.py').exists() else f"{PIP} install 'kgl_mm[onedl]'"
REINSTALL = 'install a set that fits together with:'


class Finding(NamedTuple):
    """One line of the report; it is a problem when there is a remedy."""

    subject: str
    state: str
    remedy: str = ''


def _holds(distribution: Distribution, package: str, origin: Path) -> bool:
    if Path(distribution.locate_file(f'{package}/__init__.py')).resolve() == origin:
        return True
    source = json.loads(distribution.read_text('direct_url.json') or '{}')
    editable = source.get('dir_info', {}).get('editable', False)
    return editable and Path(url2pathname(urlparse(source['url']).path)).resolve() in origin.parents


def _name(distribution: Distribution) -> str:
    """Nothing where a pip that was killed left none."""
    try:
        return (distribution.metadata['Name'] or '').lower()
    except FileNotFoundError:  # so says importlib_metadata, where a package has put it in place of Python's own
        return ''


def owners(package: str) -> set[str]:
    """The distributions that installed the files which ``import package`` finds: two, when laid over each other."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return set()
    origin = Path(spec.origin).resolve()
    names = {distribution: _name(distribution) for distribution in distributions()}
    named = {d: name for d, name in names.items() if name.removeprefix('onedl-').split('-')[0] == package}
    return {name for d, name in named.items() if _holds(d, package, origin)}


def family() -> Literal['onedl', 'openmmlab', 'mixed'] | None:
    """The family of the mm packages that an import would find, without importing them."""
    found = {'onedl' if name.startswith('onedl-') else 'openmmlab' for package in MM for name in owners(package)}
    return 'mixed' if len(found) > 1 else next(iter(found), None)


def _package(name: str) -> Finding:
    if find_spec(name) is None:
        return Finding(name, 'not installed', f'install it with: {INSTALL}')
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken binary raises whatever it likes, and the report must go on
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return Finding(name, f'does not import: {reason}', f'{REINSTALL} {INSTALL}')
    by = f' from {" and ".join(sorted(owners(name)))}' if name in MM else ''
    return Finding(name, f'{module.__version__}{by}, {Path(module.__file__).parent}')


def _cuda() -> Finding:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding('devices', f'{", ".join(names) or "CPU only"} (torch is built for CUDA {torch.version.cuda})')


def _family() -> Finding:
    found = family()
    if found != 'mixed':
        return Finding('mm family', found or 'none')
    names = ' '.join(sorted(name for package in MM for name in owners(package)))
    return Finding(
        'mm family', f'both at once: {names}', f'go back to one with: {PIP} uninstall -y {names}, then {INSTALL}'
    )


def _transformers() -> Iterator[Finding]:
    if limit := transformers_limit():
        lacking = "mmpretrain's models of images and text, which kgl_mm does not need, are off: pip install "
        yield Finding('transformers', f"{version('transformers')}, so {lacking}'transformers<{limit}' brings them back")


def _models() -> Finding:
    try:
        importlib.import_module('kgl_mm.models')
        importlib.import_module('mmpretrain.models')
    except Exception as error:  # of a package that mmpretrain uses where it finds it, such as transformers
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return Finding('models', f'do not import: {reason}', f'put right what this names, or {REINSTALL} {INSTALL}')
    return Finding('models', 'those of mmpretrain and kgl_mm import')


def _resume() -> Finding:
    try:
        import torch
        from mmengine.logging import HistoryBuffer

        from kgl_mm.engine.checkpoint_io import load_from_file

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'stock.pth')
            torch.save(dict(message_hub=dict(loss=HistoryBuffer([0.5], [1]))), path)
            load_from_file(path)
    except Exception as error:  # whatever breaks here would break a resume
        return Finding('resume', f'a checkpoint of mmengine does not load: {error}', f'{REINSTALL} {INSTALL}')
    return Finding('resume', 'checkpoints of mmengine load with weights_only')


def _data(name: str) -> Finding:
    root = Path(os.environ.get('KGL_DATA_ROOT') or 'data')
    folder = root / name
    return Finding(name, str(folder.resolve()) if folder.is_dir() else f'not in {root} (needed by its configs alone)')


def findings() -> Iterator[Finding]:
    yield Finding('kgl_mm', f'{kgl_mm.__version__}, {HOME}')
    yield Finding('Python', f'{platform.python_version()}, {sys.executable}')
    yield Finding('platform', f'{platform.platform()}, {os.cpu_count()} cores')
    packages = {name: _package(name) for name in ('torch', 'torchvision', 'numpy', 'cv2', *MM)}
    yield from packages.values()
    if not packages['torch'].remedy:
        yield _cuda()
    yield _family()
    if not any(finding.remedy for finding in packages.values()):
        yield from _transformers()
        models = _models()
        yield models
        if not models.remedy:
            yield _resume()
    yield from map(_data, DATA_SETS)


def main() -> int:
    """Print the report; 1 when something is missing or wrong."""
    problems = 0
    for subject, state, remedy in findings():
        print(f'{subject:<13} {state}')
        if remedy:
            problems += 1
            print(f'{"":<13} -> {remedy}')
    print('all good' if not problems else f'{problems} problem{"s" * (problems > 1)}')
    return int(problems > 0)

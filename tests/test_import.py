"""``import kgl_mm`` is free of torch and mm, and the first use of a component says what is missing."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import kgl_mm._require
from kgl_mm._require import require_mm, transformers_limit

# None in sys.modules makes Python answer an import as if the package were not there.
HIDE = 'import sys; sys.modules["{hidden}"] = None; import {component}'


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)


def test_importing_the_package_loads_neither_torch_nor_mm():
    heavy = {'torch', 'torchvision', 'numpy', 'cv2', 'mmengine', 'mmcv', 'mmpretrain'}
    done = python(f'import sys, kgl_mm, kgl_mm.errors, kgl_mm.__main__; print({heavy} & set(sys.modules))')
    assert done.stdout == 'set()\n', done.stderr


def test_descriptions_need_neither_torch_nor_mm():
    heavy = {'torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain'}
    done = python(f'import sys, kgl_mm.descriptions.sheet as sheet; sheet.render; print({heavy} & set(sys.modules))')
    assert done.stdout == 'set()\n', done.stderr


@pytest.mark.parametrize('module', ['kgl_mm.datasets', 'kgl_mm.engine.run'])
def test_what_packages_say_while_they_are_imported_is_no_result(module):
    code = f'import {module}; from mmpretrain.registry import DATASETS; DATASETS.import_from_location()'
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ''


@pytest.mark.parametrize(
    ('hidden', 'component'),
    [
        ('cv2', 'kgl_mm.descriptions'),
        ('torch', 'kgl_mm.datasets'),
        ('torch', 'kgl_mm.engine'),
        ('torch', 'kgl_mm.models'),
        ('torch', 'kgl_mm.priors'),
        ('torch', 'kgl_mm.saliency'),
        ('cv2', 'kgl_mm.visualization'),
        ('torchvision', 'kgl_mm.models'),
    ],
)
def test_a_component_says_in_one_sentence_what_to_install(hidden, component):
    done = python(HIDE.format(hidden=hidden, component=component))
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith(f'ImportError: kgl_mm needs {hidden}, which is not installed; ')
    assert "pip install 'kgl_mm[onedl]'" in last_line


def test_in_a_checkout_with_an_environment_it_says_to_enter_it(tmp_path):
    for name in ('kgl_mm/_require.py', '.venv/bin/activate'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('')
    (tmp_path / 'kgl_mm/_require.py').write_bytes(Path(kgl_mm._require.__file__).read_bytes())
    code = f'import sys; sys.path[:0] = [{str(tmp_path / "kgl_mm")!r}]; from _require import REMEDY; print(REMEDY)'
    assert python(code).stdout.strip() == f'source {tmp_path}/.venv/bin/activate first'
    assert 'make venv' in python(f'import sys; sys.prefix = {str(tmp_path / ".venv")!r}; {code}').stdout


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """A function that makes it look as if a version of a distribution were installed, without any file to import."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def distribution(name, version):
        info = tmp_path / f'{name}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')

    return distribution


@pytest.mark.parametrize(
    ('mmpretrain', 'transformers', 'limit'),
    [
        ('1.2.0', '4.51.3', ''),
        ('1.2.0', '4.52.1', '4.52'),
        ('1.3.6', '4.57.6', ''),
        ('1.3.6', '5.0.0', '5'),
        ('1.3.6', '5.24.0', '5'),
    ],
)
def test_too_new_a_transformers_switches_off_what_needs_it(distribution, monkeypatch, mmpretrain, transformers, limit):
    monkeypatch.setattr(import_module('mmpretrain'), '__version__', mmpretrain)
    dependency = import_module('mmpretrain.utils.dependency')
    monkeypatch.setattr(dependency, 'WITH_MULTIMODAL', True)
    distribution('transformers', transformers)
    assert transformers_limit() == limit
    require_mm()
    assert dependency.WITH_MULTIMODAL is not bool(limit)


def test_the_other_models_import_with_too_new_a_transformers(distribution, tmp_path):
    distribution('transformers', '5.24.0')
    distribution('pycocotools', '2.0.11')
    done = python(
        f'import sys; sys.path.insert(0, {str(tmp_path)!r}); from mmpretrain.utils import dependency as d; '
        'before = d.WITH_MULTIMODAL; import kgl_mm.engine, mmpretrain.models; print(before, d.WITH_MULTIMODAL)'
    )
    assert done.stdout.split()[-2:] == ['True', 'False'], done.stderr

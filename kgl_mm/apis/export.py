"""Exporting from the command line: what ``tools/export.py`` does."""

import tempfile
from importlib.util import find_spec
from pathlib import Path

from mmengine.registry import DefaultScope

from kgl_mm.engine.config import set_data
from kgl_mm.errors import UsageError
from kgl_mm.export.check import LOSS, Comparison, compare, refuse_what_differs, variations
from kgl_mm.export.files import build, write_openvino
from kgl_mm.export.quantise import calibration, quantise
from kgl_mm.saliency.cam import CAM

from .generate import load_dataset
from .inspector import DefectInspector

FORMATS = ('onnx', 'openvino')


def export(
    target: str,
    kind: str = 'onnx',
    int8: bool = False,
    checkpoint: str | None = None,
    out: str | None = None,
    with_map: bool = True,
    data: str | None = None,
) -> Path:
    """Write a model as a file, run it by its own runtime beside the original, and keep it if both say the same.

    Args:
        target: as for :class:`~kgl_mm.apis.DefectInspector`.
        kind: ``'onnx'`` or ``'openvino'``.
        int8: write a quantised one too.
        checkpoint: which one; a config needs it.
        out: where to; by default ``WORK_DIR/export/NAME.onnx`` or ``.xml``.
        with_map: whether the graph makes a heat map.
        data: where the images lie that it is compared on, if they have moved.
    """
    for name in ('onnx', 'onnxscript', 'onnxruntime', *(['openvino'] if kind == 'openvino' else [])):
        if not find_spec(name):
            extra = 'openvino' if name == 'openvino' else 'export'
            raise UsageError(f"exporting needs {name}, which is not installed: pip install 'kgl_mm[{extra}]'")
    original = DefectInspector(target, checkpoint, device='cpu')
    if data is not None:
        if not Path(data).is_dir():
            raise UsageError(f'--data {data}: no such folder')
        set_data(original.network.config, data_root=data)
    path = _place(target, original.network.checkpoint, kind, out)
    images, labels = _images(original.network.config, 'test')
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.export-', dir=path.parent) as folder:
        onnx = Path(folder, f'{path.stem}.onnx')
        with DefaultScope.overwrite_default_scope(original.network.config.get('default_scope', 'mmengine')):
            facts, no_map = build(original.network, onnx, with_map)
        if no_map:
            print(f'It will give no heat map: {no_map}.')
        made = _finish(onnx, facts, kind)
        try:
            _check(original, made, images, labels)
        except UsageError as error:
            raise UsageError(f'{error}; {path} is of an export before') if path.exists() else error from None
        small = path.with_name(f'{path.stem}.int8{path.suffix}')
        for part in (small, small.with_suffix('.bin')):  # of an export before, whatever model that was
            part.unlink(missing_ok=True)
        _move(made, path)
        print(f'written:\n  {path}')
        if int8:
            chosen = calibration(*_images(original.network.config, 'train', required=True))
            quantised = Path(folder, f'{small.stem}.onnx')
            quantise(onnx if onnx.exists() else path, facts, quantised, chosen)
            made = _finish(quantised, dict(facts, precision='int8'), kind)
            _check_loss(DefectInspector(path, device='cpu'), made, images, labels, small)
            _move(made, small)
            print(f'  {small}')
    return path


def _finish(onnx: Path, facts: dict[str, str], kind: str) -> Path:
    if kind == 'onnx':
        return onnx
    path = onnx.with_suffix('.xml')
    write_openvino(onnx, facts, path)
    return path


def _place(target: str, checkpoint: Path, kind: str, out: str | None) -> Path:
    suffix = dict(onnx='.onnx', openvino='.xml')[kind]
    if out is None:
        folder = Path(target) if Path(target).is_dir() else checkpoint.parent
        return folder / 'export' / f'{folder.resolve().name}{suffix}'
    if Path(out).suffix != suffix:
        raise UsageError(f'--out {out}: the name of a file for {kind} ends in {suffix}')
    return Path(out)


def _images(cfg, split: str, required: bool = False) -> tuple[list[str], list[int]]:
    """Paths and labels of a split; none where its data are not here."""
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
            dataset = load_dataset(cfg, split)
            infos = [dataset.get_data_info(number) for number in range(len(dataset))]
    except UsageError as error:
        if required:
            raise UsageError(f'--int8: needs images of the training to calibrate with ({error})') from None
        print(f'Its {split} images are not here, so it will be compared on noise alone ({error}).')
        return [], []
    return [str(info['img_path']) for info in infos], [int(info['gt_label']) for info in infos]


def _check(original: DefectInspector, made: Path, images: list[str], labels: list[int]) -> None:
    exported = DefectInspector(made, device='cpu')
    method = original.network.method
    by_gradients = isinstance(method, CAM) or getattr(getattr(method, 'head', None), 'maps', '') == 'mkd'
    if images:
        found = compare(original, exported, images, labels, by_gradients)
        refuse_what_differs(found, made.name)
        print(f'Compared on {found.images} test images: {found}; {_speeds(found)}.')
    others = compare(original, exported, variations(images), by_gradients=by_gradients)
    refuse_what_differs(others, made.name)
    print(f'Compared on {others.images} images of other sizes and kinds: {others}.')


def _check_loss(exact: DefectInspector, made: Path, images: list[str], labels: list[int], path: Path) -> None:
    """Whether a quantised file is as good on the test images as the exact one."""
    found = compare(exact, DefectInspector(made, device='cpu'), images, labels)
    if found.ap is None:
        raise UsageError(f'{path}: not written, since there are no good and defective test images to measure it on')
    before, after = found.ap
    change = f'AP {before:.4f} -> {after:.4f} ({100 * (after - before):+.2f} points)'
    if before - after > LOSS:
        raise UsageError(f'{path}: not written, since in INT8 it loses too much: {change}, {100 * LOSS} allowed')
    print(f'INT8 on {found.images} test images: {change}; {_speeds(found)}.')


def _speeds(found: Comparison) -> str:
    return '{:.1f} -> {:.1f} ms an image, reading it included'.format(*found.speed)


def _move(made: Path, path: Path) -> None:
    """Put what was checked in its place, the weights of OpenVINO before the graph that names them."""
    for part in (made.with_suffix('.bin'), made):
        if part.is_file():
            part.replace(path.with_suffix(part.suffix))

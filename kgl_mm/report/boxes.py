"""The section of a detector of boxes: figures by class, and the picture of its test."""

from kgl_mm.datasets.masks import decode

from . import page
from .data import Run
from .pictures import embed

WIDTH = 1040  # pixels, that of the page
FIELDS = {'AP_50_': 'IoU 0.5', 'AP_': 'IoU 0.5 to 0.95'}


def finds_boxes(run: Run) -> bool:
    """Whether boxes are all that the run was tested for."""
    return run.shown is None and any('num_boxes' in stage.metrics.get('test', {}) for stage in run.stages)


def boxes_section(run: Run) -> str:
    """Average precision of each class, and found and true boxes of some images, of every stage that has them."""
    parts = []
    for stage in run.stages:
        found = stage.metrics.get('test', {})
        classes = [key.removeprefix('AP_50_') for key in found if key.startswith('AP_50_')]
        if not classes:
            continue
        rows = [(name, *(page.cell(field + name, found) for field in FIELDS)) for name in classes]
        parts.append(page.table(['class', *FIELDS.values()], rows, f'Average precision of boxes, {stage.name}'))
        image = decode(stage.folder / 'test.png')
        if image is not None:
            shown = page.picture(
                embed(image, WIDTH), 'Found and true boxes of test images', f'{stage.name}: test images'
            )
            parts.append(f'<div class="scroll" tabindex="0" role="region" aria-label="Test images">{shown}</div>')
    return ''.join(parts)

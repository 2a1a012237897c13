from kgl_mm._require import require_mm

require_mm(['cv2'])

from .boxes import draw_box_sheet, draw_boxes, draw_found  # noqa: E402
from .comparison import draw_comparison  # noqa: E402
from .contact_sheet import SHEET, draw_contact_sheet  # noqa: E402
from .gallery import draw_gallery  # noqa: E402
from .overlay import overlay  # noqa: E402
from .verdict import draw_verdict  # noqa: E402

__all__ = [
    'SHEET',
    'DefectVisualizer',
    'draw_box_sheet',
    'draw_boxes',
    'draw_comparison',
    'draw_contact_sheet',
    'draw_found',
    'draw_gallery',
    'draw_verdict',
    'overlay',
]


def __getattr__(name: str):
    """``DefectVisualizer`` needs mmengine, which drawing does without."""
    if name != 'DefectVisualizer':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    require_mm()
    from .visualizer import DefectVisualizer

    return DefectVisualizer

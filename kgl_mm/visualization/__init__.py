from kgl_mm._require import require_mm

require_mm()

from .contact_sheet import SHEET, draw_contact_sheet  # noqa: E402
from .gallery import draw_gallery  # noqa: E402
from .overlay import overlay  # noqa: E402
from .visualizer import DefectVisualizer  # noqa: E402

__all__ = ['SHEET', 'DefectVisualizer', 'draw_contact_sheet', 'draw_gallery', 'overlay']

from kgl_mm._require import require_mm

require_mm()

from .comparison import draw_comparison  # noqa: E402
from .contact_sheet import SHEET, draw_contact_sheet  # noqa: E402
from .gallery import draw_gallery  # noqa: E402
from .overlay import overlay  # noqa: E402
from .visualizer import DefectVisualizer  # noqa: E402

__all__ = ['SHEET', 'DefectVisualizer', 'draw_comparison', 'draw_contact_sheet', 'draw_gallery', 'overlay']

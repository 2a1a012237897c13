from kgl_mm._require import require_mm

require_mm()

from .binarize import binarize, otsu_threshold  # noqa: E402
from .store import PriorStore  # noqa: E402

__all__ = [
    'PriorStore',
    'binarize',
    'otsu_threshold',
]

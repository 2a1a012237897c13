"""Defects described in words and drawn onto good images; numpy, OpenCV and PyYAML are enough."""

from kgl_mm._require import require_mm

require_mm(['numpy', 'cv2', 'yaml'])

from .files import as_descriptions, load_descriptions  # noqa: E402
from .parser import parse, suggestions  # noqa: E402
from .record import Description  # noqa: E402
from .renderer import render  # noqa: E402

__all__ = ['Description', 'as_descriptions', 'load_descriptions', 'parse', 'render', 'suggestions']

from kgl_mm._require import require_mm

require_mm()

from .backbones import SlimVGG  # noqa: E402
from .necks import GlobalPooling  # noqa: E402

__all__ = ['GlobalPooling', 'SlimVGG']

from kgl_mm._require import require_mm

require_mm()

from .binarize import binarize, otsu_threshold, painted_mask  # noqa: E402
from .store import PriorStore  # noqa: E402

__all__ = [
    'PriorSource',
    'PriorStore',
    'binarize',
    'otsu_threshold',
    'painted_mask',
]


def __getattr__(name: str):
    """A store needs no torch, a source does."""
    if name != 'PriorSource':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .sources import PriorSource

    return PriorSource

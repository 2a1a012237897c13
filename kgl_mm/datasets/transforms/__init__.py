from .load_mask import LoadMask
from .pack_defect import PackDefect

__all__ = ['LoadMask', 'PackDefect']

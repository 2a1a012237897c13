from .binarize_prior import BinarizePrior
from .load_mask import LoadMask
from .load_prior import LoadPrior
from .moving import Moved, let_priors_move
from .pack_defect import PackDefect
from .resize import Resize

__all__ = ['BinarizePrior', 'LoadMask', 'LoadPrior', 'Moved', 'PackDefect', 'Resize', 'let_priors_move']

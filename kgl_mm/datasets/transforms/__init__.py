from .binarize_prior import BinarizePrior
from .load_mask import LoadMask
from .load_prior import LoadPrior
from .moving import Moved, let_priors_move
from .pack_boxes import PackBoxes
from .pack_defect import PackDefect
from .resize import Resize
from .synthesize_defect import SynthesizeDefect

__all__ = [
    'BinarizePrior',
    'LoadMask',
    'LoadPrior',
    'Moved',
    'PackBoxes',
    'PackDefect',
    'Resize',
    'SynthesizeDefect',
    'let_priors_move',
]

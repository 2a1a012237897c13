import contextlib
import importlib
import sys

from kgl_mm._require import require_mm

require_mm()
with contextlib.redirect_stdout(sys.stderr):  # says that it lacks OneDL, which is no result of any tool
    importlib.import_module('mmpretrain.datasets')

from .box_dataset import BoxDataset, Boxed  # noqa: E402
from .categories import Categories, CategoryFolder  # noqa: E402
from .coco_boxes import CocoBoxes  # noqa: E402
from .defect_dataset import DefectDataset, Sample  # noqa: E402
from .defect_folder import DefectFolder  # noqa: E402
from .kolektor_sdd import KolektorSDD  # noqa: E402
from .kolektor_sdd2 import KolektorSDD2  # noqa: E402
from .mvtec_ad import MVTecAD  # noqa: E402
from .neu_det import NEUDet  # noqa: E402
from .samplers import BalancedSampler  # noqa: E402
from .synthetic_surface import SyntheticSurface  # noqa: E402
from .transforms import BinarizePrior, LoadMask, LoadPrior, Moved, PackBoxes, PackDefect, SynthesizeDefect  # noqa: E402
from .voc_boxes import VocBoxes  # noqa: E402

__all__ = [
    'BalancedSampler',
    'BinarizePrior',
    'BoxDataset',
    'Boxed',
    'Categories',
    'CategoryFolder',
    'CocoBoxes',
    'DefectDataset',
    'DefectFolder',
    'KolektorSDD',
    'KolektorSDD2',
    'LoadMask',
    'LoadPrior',
    'MVTecAD',
    'Moved',
    'NEUDet',
    'PackBoxes',
    'PackDefect',
    'Sample',
    'SynthesizeDefect',
    'SyntheticSurface',
    'VocBoxes',
]

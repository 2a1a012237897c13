from kgl_mm._require import require_mm

require_mm()

from .defect_dataset import DefectDataset, Sample  # noqa: E402
from .defect_folder import DefectFolder  # noqa: E402
from .kolektor_sdd import KolektorSDD  # noqa: E402
from .kolektor_sdd2 import KolektorSDD2  # noqa: E402
from .mvtec_ad import MVTecAD  # noqa: E402
from .samplers import BalancedSampler  # noqa: E402
from .synthetic_surface import SyntheticSurface  # noqa: E402
from .transforms import BinarizePrior, LoadMask, LoadPrior, Moved, PackDefect  # noqa: E402

__all__ = [
    'BalancedSampler',
    'BinarizePrior',
    'DefectDataset',
    'DefectFolder',
    'KolektorSDD',
    'KolektorSDD2',
    'LoadMask',
    'LoadPrior',
    'MVTecAD',
    'Moved',
    'PackDefect',
    'Sample',
    'SyntheticSurface',
]

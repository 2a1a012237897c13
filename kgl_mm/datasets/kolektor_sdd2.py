from functools import lru_cache
from pathlib import Path

from kgl_mm.errors import UsageError
from kgl_mm.registry import DATASETS

from .defect_dataset import DefectDataset, Sample, read_mask


@DATASETS.register_module()
class KolektorSDD2(DefectDataset):
    """KolektorSDD2 (Bozic et al. 2021): 3,335 surfaces in an official split; each image is a unit of its own.

    Args:
        data_root: has ``train/10000.png``, ``train/10000_GT.png``, ..., and ``test/`` alike.
        **kwargs: as for :class:`DefectDataset`.
    """

    NAME = 'KolektorSDD2'
    MISSING = (
        'get KolektorSDD2 from https://www.vicos.si/resources/kolektorsdd2/ '
        '(or by: python tools/download_data.py ksdd2) so that there are train/10000.png, train/10000_GT.png, ...'
    )

    def find_samples(self) -> list[Sample]:
        return list(_find(self.data_root))


@lru_cache(maxsize=8)
def _find(root: str) -> tuple[Sample, ...]:
    samples = []
    for split in ('train', 'test'):
        # the official archive has a stray copy, '10301 (copy).png': names are digits
        for image in sorted(path for path in Path(root, split).glob('*.png') if path.stem.isdigit()):
            mask = image.with_name(f'{image.stem}_GT.png')
            if not mask.exists():
                raise UsageError(f'{image}: its mask {mask.name} is missing')
            samples.append(Sample(str(image), int(read_mask(mask).any()), str(mask), f'{split}/{image.stem}', split))
    return tuple(samples)

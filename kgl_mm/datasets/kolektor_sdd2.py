from pathlib import Path

from kgl_mm.registry import DATASETS

from .defect_dataset import DefectDataset, Sample
from .masks import read_labels


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
        # the official archive has a stray copy, '10301 (copy).png': names are digits
        images = [
            path
            for split in ('train', 'test')
            for path in sorted(Path(self.data_root, split).glob('*.png'))
            if path.stem.isdigit()
        ]
        pairs = [(image, image.with_name(f'{image.stem}_GT.png')) for image in images]
        return [
            Sample(str(image), label, str(mask), f'{image.parent.name}/{image.stem}', image.parent.name)
            for (image, mask), label in zip(pairs, read_labels(pairs), strict=True)
        ]

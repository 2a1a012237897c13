import logging
from pathlib import Path

from mmengine.logging import print_log

from kgl_mm.errors import UsageError
from kgl_mm.registry import DATASETS

from .checks import some
from .defect_dataset import DefectDataset, Sample
from .masks import read_labels

_TEST_UNITS = (
    (2, 8, 9, 10, 15, 19, 21, 25, 27, 28, 30, 37, 38, 41, 43, 46, 47),
    (1, 3, 4, 6, 11, 17, 22, 24, 29, 31, 32, 36, 39, 40, 42, 44, 48),
    (5, 7, 12, 13, 14, 16, 18, 20, 23, 26, 33, 34, 35, 45, 49, 50),
)
# Units that show the parts of another one, and by fold those of them that a clean fold drops from training. Two are the
# same bytes; kos38 and kos39 are two pictures of one commutator, PartK of the one being Part(K+6 mod 8) of the other.
_SAME = dict(kos26='kos01', kos34='kos27', kos39='kos38')
_TWINS_OF_TEST = ((34, 39), (26, 38), (1, 27))


@DATASETS.register_module()
class KolektorSDD(DefectDataset):
    """KolektorSDD (Tabernik et al. 2019): 50 commutators of 8 surfaces, 52 defective ones, three folds by unit.

    Two pairs of units are the same pictures, and a third one shows the same parts a few pixels apart; every official
    fold tests on parts it was trained on. A clean fold keeps the official test part whole and trains without its twins.

    Args:
        data_root: has ``kosNN/PartK.jpg`` and ``kosNN/PartK_label.bmp``.
        fold: 0, 1 or 2.
        protocol: ``'official'`` or ``'clean'``.
        **kwargs: as for :class:`DefectDataset`.
    """

    NAME = 'KolektorSDD'
    MISSING = (
        'get KolektorSDD from https://www.vicos.si/resources/kolektorsdd/ '
        '(or by: python tools/download_data.py ksdd) so that there are kos01/Part0.jpg, kos01/Part0_label.bmp, ...'
    )

    def __init__(self, data_root: str | None = None, fold: int = 0, protocol: str = 'official', **kwargs) -> None:
        if fold not in (0, 1, 2):
            raise UsageError(f'fold={fold!r}: not one of 0, 1, 2')
        if protocol not in ('official', 'clean'):
            raise UsageError(f"protocol={protocol!r}: not one of 'official', 'clean'")
        self.fold = fold
        self.protocol = protocol
        super().__init__(data_root, **kwargs)

    def group_of(self, sample: Sample) -> str:
        return _SAME.get(sample.unit, sample.unit)

    def find_samples(self) -> list[Sample]:
        dropped = _TWINS_OF_TEST[self.fold] if self.protocol == 'clean' else ()
        samples = []
        for image, mask, label in find_parts(self.data_root):
            number = int(image.parent.name.removeprefix('kos'))
            split = 'test' if number in _TEST_UNITS[self.fold] else 'train'
            if number not in dropped:
                samples.append(Sample(str(image), label, str(mask), image.parent.name, split))
        whole = {f'kos{number:02d}' for number in range(1, 51) if number not in dropped}
        lacking = sorted(whole - {sample.unit for sample in samples})
        if samples and lacking:
            print_log(
                f'Warning: {self.data_root} has no {some(lacking)}: figures will not be those of KolektorSDD.',
                logger='current',
                level=logging.WARNING,
            )
        return samples


def find_parts(root: str) -> list[tuple[Path, Path, int]]:
    """Image, mask and label (whether the mask is marked) of each part in ``root/kosNN/``."""
    pairs = []
    for image in sorted(Path(root).glob('kos*/Part*')):
        is_image = image.suffix.lower() in ('.jpg', '.png', '.bmp') and not image.stem.endswith('_label')
        if is_image and image.parent.name.removeprefix('kos').isdigit():
            masks = [image.with_name(f'{image.stem}_label{suffix}') for suffix in ('.bmp', '.png')]
            pairs.append((image, next((mask for mask in masks if mask.exists()), masks[0])))
    return [(*pair, label) for pair, label in zip(pairs, read_labels(pairs), strict=True)]

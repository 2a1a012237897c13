from pathlib import Path

from kgl_mm.registry import DATASETS

from .defect_dataset import DefectDataset, Sample

TWIN = 'patches_105'
"""The same picture, byte for byte, as patches_101."""


@DATASETS.register_module()
class NEUDet(DefectDataset):
    """NEU-DET (Song and Yan 2013): six kinds of defect of hot-rolled steel, no good image; every fifth is for the test.

    There is no official split. Of two images that are the same one is left out. Some are crops that overlap, mostly of
    neighbouring numbers: 16 of the 354 test images have a training image that shifted correlates by more than 0.9,
    which flatters trainings with most of the images, hardly those with few. ``num_positives=30`` trains with five
    images of each kind. Its boxes are those of :class:`VocBoxes`.

    Args:
        data_root: has ``IMAGES/crazing_1.jpg``, ...
        **kwargs: as for :class:`DefectDataset`.
    """

    METAINFO = dict(classes=('crazing', 'inclusion', 'patches', 'pitted_surface', 'rolled-in_scale', 'scratches'))
    NAME = 'NEU-DET'
    MISSING = 'get NEU-DET, so that there are IMAGES/crazing_1.jpg, ... of six kinds'

    def find_samples(self) -> list[Sample]:
        kinds = self.METAINFO['classes']
        images = sorted(Path(self.data_root, 'IMAGES').glob('*.jpg'))
        images = [path for path in images if _kind(path) in kinds and path.stem != TWIN]
        return [
            Sample(str(path), kinds.index(_kind(path)), None, path.stem, 'train' if number % 5 else 'test')
            for number, path in enumerate(images)
        ]


def _kind(path: Path) -> str:
    return path.stem.rsplit('_', 1)[0]

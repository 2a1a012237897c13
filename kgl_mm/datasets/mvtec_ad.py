from pathlib import Path

from kgl_mm.errors import UsageError, check_choice
from kgl_mm.image_files import find_images
from kgl_mm.registry import DATASETS

from .defect_dataset import DefectDataset, Sample
from .splits import cut_by_unit


@DATASETS.register_module()
class MVTecAD(DefectDataset):
    """A category in the layout of MVTec AD, split for learning from labelled defects.

    The data set as published has good images alone for training. Here half of the defective test images of each
    kind, chosen by ``seed``, are for training; the other half and the good test images stay the test part. What learns
    from good images alone is tested on all of them, as published, with ``learn_defects=False``.

    Args:
        data_root: has ``CATEGORY/train/good``, ``CATEGORY/test/KIND`` and ``CATEGORY/ground_truth/KIND/NAME_mask.png``.
        category: a folder of ``data_root``.
        labels: ``'binary'``, or ``'kind'`` for one class a kind of defect.
        learn_defects: see above.
        **kwargs: as for :class:`DefectDataset`.
    """

    NAME = 'MVTecAD'
    MISSING = (
        'get MVTec AD from https://www.mvtec.com/company/research/datasets/mvtec-ad '
        'so that there are CATEGORY/train/good, ...'
    )

    def __init__(
        self,
        data_root: str | None = None,
        category: str = 'metal_nut',
        labels: str = 'binary',
        learn_defects: bool = True,
        **kwargs,
    ) -> None:
        check_choice((True, False), learn_defects=learn_defects)
        if labels not in ('binary', 'kind'):
            raise UsageError(f"labels={labels!r}: not one of 'binary', 'kind'")
        self.category = category
        self.labels = labels
        self.learn_defects = learn_defects
        super().__init__(data_root, **kwargs)

    def find_samples(self) -> list[Sample]:
        root = Path(self.data_root, self.category)
        if not root.is_dir():
            there = sorted(path.name for path in Path(self.data_root).iterdir() if path.is_dir())
            raise UsageError(f'category={self.category!r}: {self.data_root} has {", ".join(there) or "no folders"}')
        kinds = sorted(path.name for path in (root / 'test').glob('*') if path.is_dir() and path.name != 'good')
        if self.labels == 'kind':
            self._metainfo['classes'] = ('good', *kinds)
        samples = [
            Sample(path, 0, None, f'{split}/good/{Path(path).stem}', split)
            for split in ('train', 'test')
            for path in find_images(root / split / 'good')
        ]
        for label, kind in enumerate(kinds, start=1):
            images = find_images(root / 'test' / kind)
            units = [f'{kind}/{Path(path).stem}' for path in images]
            places = ['test'] * len(units)
            if self.learn_defects:
                places = cut_by_unit(units, [label] * len(units), dict(train=0.5, test=0.5), self.seed)
            for path, unit, split in zip(images, units, places, strict=True):
                mask = root / 'ground_truth' / kind / f'{Path(path).stem}_mask.png'
                found = str(mask) if mask.exists() else None
                samples.append(Sample(path, label if self.labels == 'kind' else 1, found, unit, split))
        return samples

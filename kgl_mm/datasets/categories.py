from pathlib import Path

from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.logging import print_log

from kgl_mm.errors import UsageError
from kgl_mm.image_files import HIDDEN, find_images
from kgl_mm.registry import DATASETS

from .defect_dataset import DefectDataset, Sample


@DATASETS.register_module()
class CategoryFolder(DefectDataset):
    """Images of which nobody has said whether they are defective, in one folder a category: a material, or a source.

    ::

        ROOT/steel_pipe/**/*.png  ROOT/leather/**/*.jpg

    Where there are images but no folders, all are of one category. The label that a training gets is the category.
    Who looks at the images as a test does, such as a source of priors, gets no label, since it would be taken for one
    of defects.

    Args:
        data_root: the folder.
        ignore: folders of these names, at any depth, are left out: masks are no images to learn from, and what is kept
            for a test must not be seen before it.
        **kwargs: as for :class:`DefectDataset`.
    """

    METAINFO = dict()  # the categories are found with the images
    NAME = 'categories'
    MISSING = 'pass the folder that holds one folder of images a category: --data DIR, or data_root='

    def __init__(
        self, data_root: str | None = None, ignore: tuple[str, ...] = ('masks', 'ground_truth', 'val', 'test'), **kwargs
    ) -> None:
        if isinstance(ignore, str):
            raise UsageError(f'ignore={ignore!r}: not a list of names of folders')
        self.ignore = set(ignore)
        super().__init__(data_root, **kwargs)

    def find_samples(self) -> list[Sample]:
        root = Path(self.data_root)
        folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(HIDDEN)]
        folders = [path for path in folders if path.name not in self.ignore] or [root]
        if any(path.name == 'good' for path in folders):
            raise UsageError(
                f"{root}: holds a folder 'good', so its folders are labels and no categories: pass the folder above it"
            )
        found = [(path, label) for label, folder in enumerate(folders) for path in find_images(folder)]
        kept = [(path, label) for path, label in found if not self.ignore & {*Path(path).relative_to(root).parts[:-1]}]
        if len(kept) < len(found):
            names = ', '.join(sorted(self.ignore))
            print_log(f'{len(found) - len(kept)} images of {root} are in {names}, and left out.', logger='current')
        self._metainfo['classes'] = tuple(folder.name for folder in folders)
        return [Sample(path, label, None, Path(path).stem, 'train') for path, label in kept]

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        if self.test_mode:
            info.pop('gt_label', None)
        return info


@DATASETS.register_module()
class Categories(ConcatDataset):
    """Several data sets as one, each with a pipeline of its own, in which the label of an image is where it is from.

    So each category can read a store of its own.

    Args:
        datasets: by the names of the categories.
        lazy_init: as in mmengine.

    Example::

        dataset = dict(
            type='kgl_mm.Categories',
            datasets=dict(
                nut=dict(type='kgl_mm.MVTecAD', category='metal_nut', pipeline=[...]),
                commutator=dict(type='kgl_mm.KolektorSDD', pipeline=[...]),
            ),
        )
    """

    def __init__(self, datasets: dict[str, dict | BaseDataset], lazy_init: bool = False) -> None:
        built = [DATASETS.build(dict(each)) if isinstance(each, dict) else each for each in datasets.values()]
        super().__init__(built, lazy_init, ignore_keys=sorted({key for each in built for key in each.metainfo}))
        self._metainfo = dict(classes=tuple(datasets))

    def __getitem__(self, idx: int) -> dict:
        data = super().__getitem__(idx)
        data['data_samples'].set_gt_label(self._get_ori_dataset_idx(idx)[0])
        return data

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from kgl_mm.errors import UsageError, check_number
from kgl_mm.image_files import image_size

from .checks import some, twins
from .defect_dataset import SPLITS, naming_broken_files
from .seeding import SampleSeed
from .splits import cut_by_unit, nested_order
from .transforms.moving import GEOMETRIC, MIXED, SEVERAL, innermost_of, name_of

MOVE_BOXES = {'Pad', 'RandomChoiceResize', 'RandomFlip', 'RandomResize', 'Resize'}
"""What moves boxes together with their image; all else that moves images does not."""


@dataclass(frozen=True)
class Boxed:
    """An image and its boxes; ``split`` is None where nobody said it."""

    img_path: str
    boxes: tuple[tuple[float, float, float, float], ...]
    names: tuple[str, ...]
    size: tuple[int, int] | None = None
    split: str | None = None
    source: str = ''


class BoxDataset(BaseDataset):
    """Images with boxes of named classes; the base of the data sets for detectors.

    A subclass says in :meth:`find_boxes` what there is; splits, choices and checks are done here. ``get_data_info(i)``
    gives ``img_path``, ``gt_bboxes`` (N x 4, float32: left, top, right, bottom in pixels, the last two outside),
    ``gt_bboxes_labels`` and ``sample_idx``; where every image has a box also ``gt_label``, the class of most of them,
    which a classifier can learn. An image may have no boxes.

    Args:
        data_root: the folder of the data set.
        split: ``'train'``, ``'val'`` or ``'test'``.
        pipeline: transforms, of which no other may move images than resizes, flips and padding.
        classes: their names in order; by default all there are, sorted.
        test_fraction: the share of the images that is the test part, where the data set has none of its own; each class
            in proportion.
        val_fraction: the share of the rest that is kept for validation.
        num_images: how many images training may use; classes take turns, and the first 50 are among the first 100.
            Images without boxes are one more class here.
        num_per_class: how many of each class instead.
        seed: of the choice and of the validation part.
        split_seed: of the test part.
        **kwargs: as for ``mmengine.dataset.BaseDataset``.
    """

    MISSING = 'pass data_root='
    categories: set[str] = frozenset()
    """The names of all classes, where a data set says them."""

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        pipeline=(),
        classes: Sequence[str] | None = None,
        test_fraction: float = 0.0,
        val_fraction: float = 0.0,
        num_images: int | None = None,
        num_per_class: int | None = None,
        seed: int = 0,
        split_seed: int = 0,
        lazy_init: bool = False,
        **kwargs,
    ) -> None:
        if split not in SPLITS:
            raise UsageError(f'split={split!r}: not one of {", ".join(SPLITS)}')
        check_number(0, 0.99, test_fraction=test_fraction, val_fraction=val_fraction)
        check_number(1, whole=True, none='all', num_images=num_images, num_per_class=num_per_class)
        check_number(0, whole=True, seed=seed, split_seed=split_seed)
        if num_images and num_per_class:
            raise UsageError(f'num_images={num_images}, num_per_class={num_per_class}: give one of them')
        self.split = split
        self.classes = classes
        self.fractions = dict(test=test_fraction, val=val_fraction)
        self.num_images = num_images
        self.num_per_class = num_per_class
        self.seed = seed
        self.split_seed = split_seed
        self.sample_seed = SampleSeed()
        kwargs.setdefault('test_mode', split != 'train')
        root = str(Path(data_root).expanduser())
        super().__init__(data_root=root, data_prefix=dict(), pipeline=list(pipeline), lazy_init=True, **kwargs)
        for name in map(name_of, innermost_of(self.pipeline.transforms)):
            if name in (GEOMETRIC | MIXED | SEVERAL) - MOVE_BOXES:
                raise UsageError(f'{name} moves the image and not its boxes: use {", ".join(sorted(MOVE_BOXES))}')
        if not lazy_init:
            self.full_init()

    def find_boxes(self) -> list[Boxed]:
        """All images of all splits."""
        raise NotImplementedError

    def load_data_list(self) -> list[dict]:
        if not Path(self.data_root).is_dir():
            raise UsageError(f'{self.data_root}: no such folder; {self.MISSING}')
        found = sorted(self.find_boxes(), key=lambda image: image.img_path)
        if not found:
            raise UsageError(f'{self.data_root}: no images with annotations; {self.MISSING}')
        names = tuple(self.classes or sorted(self.categories or {name for image in found for name in image.names}))
        self._metainfo['classes'] = names
        if faults := [fault for image in found for fault in _faults(image, names)]:
            number = f'{len(faults)} faults: ' if len(faults) > 1 else ''
            raise UsageError(f'{type(self).__name__}: {number}{some(faults)}')
        infos = [_info(image, names) for image in found]
        kinds = [_kind(info, len(names)) for info in infos]
        splits = self._splits(found, kinds)
        if self.split == 'train' and (groups := twins([image.img_path for image in found], splits)):
            print_log(
                f'Warning: {len(groups)} images stand in more than one split of {self.data_root}, so figures will '
                f'flatter: {some([" = ".join(group) for group in groups], most=3)}.',
                logger='current',
                level=logging.WARNING,
            )
        chosen = [index for index, split in enumerate(splits) if split == self.split]
        if not chosen:
            hint = f'; set {self.split}_fraction=0.2 (say)' if self.split in self.fractions else ''
            raise UsageError(f'{self.data_root}: there is no {self.split} part{hint}')
        if self.split == 'train':
            chosen = self._few(chosen, found, kinds)
            if not any(found[index].boxes for index in chosen):
                raise UsageError(f'{self.data_root}: none of the {len(chosen)} training images has a box')
        if all(map(len, (info['gt_bboxes'] for info in infos))):
            infos = [info | dict(gt_label=kind) for info, kind in zip(infos, kinds, strict=True)]
        return [infos[index] for index in chosen]

    def set_epoch(self, seed: int, epoch: int) -> None:
        """From now on each sample draws from (seed, epoch, its index), in every worker."""
        self.sample_seed.set(seed, epoch)

    def prepare_data(self, idx: int) -> dict:
        info = self.get_data_info(idx)
        with naming_broken_files([info]), self.sample_seed.of(info['sample_idx']):
            return self.pipeline(info)

    def _splits(self, found: list[Boxed], kinds: list[int]) -> list[str]:
        """As the data set says; what has no part of its own is cut from training."""
        splits = [image.split or 'train' for image in found]
        for part, seed in (('test', self.split_seed), ('val', self.seed)):
            if not (share := self.fractions[part]):
                continue
            if part in splits:
                raise UsageError(
                    f'{part}_fraction={share}: {self.data_root} has a {part} part of its own; set {part}_fraction=0'
                )
            train = [index for index, split in enumerate(splits) if split == 'train']
            units = [found[index].img_path.removeprefix(self.data_root) for index in train]
            drawn = cut_by_unit(units, [kinds[index] for index in train], {'train': 1 - share, part: share}, seed)
            for index, place in zip(train, drawn, strict=True):
                splits[index] = place
        return splits

    def _few(self, train: list[int], found: list[Boxed], kinds: list[int]) -> list[int]:
        """Those that ``num_images`` or ``num_per_class`` chooses."""
        if self.num_images and self.num_images > len(train):
            raise UsageError(f'num_images={self.num_images}: the training part has {len(train)} images')
        counts = Counter(kinds[index] for index in train)
        if self.num_per_class and self.num_per_class > min(counts.values()):
            few, number = min(counts.items(), key=lambda item: item[1])
            name = (*self.metainfo['classes'], 'no class')[few]
            raise UsageError(f'num_per_class={self.num_per_class}: the training part has {number} images of {name}')
        paths = [found[index].img_path.removeprefix(self.data_root) for index in train]
        order = nested_order(paths, [kinds[index] for index in train], self.seed)
        # kinds take turns, so that each is complete where the smallest one is
        number = self.num_images or (self.num_per_class or len(train)) * len(counts)
        return sorted(train[place] for place in order[:number])


def _info(image: Boxed, names: tuple[str, ...]) -> dict:
    boxes = np.array(image.boxes, np.float32).reshape(-1, 4)
    width, height = image_size(image.img_path)
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    labels = np.array([names.index(name) for name in image.names], np.int64)
    return dict(img_path=image.img_path, gt_bboxes=boxes, gt_bboxes_labels=labels)


def _kind(info: dict, classes: int) -> int:
    """The class of most boxes; one more for an image without any."""
    counts = np.bincount(info['gt_bboxes_labels'], minlength=1)
    return int(counts.argmax()) if counts.any() else classes


def _faults(image: Boxed, names: tuple[str, ...]) -> list[str]:
    """One sentence for each thing that cannot be right; a pixel too much is how some programs count."""
    where = image.source or image.img_path
    try:
        width, height = image_size(image.img_path)
    except UsageError as error:
        return [str(error)]
    faults = []
    if image.size and image.size != (width, height):
        faults.append('{}: says {} x {} pixels, but the image has {} x {}'.format(where, *image.size, width, height))
    for (left, top, right, bottom), name in zip(image.boxes, image.names, strict=True):
        if name not in names:
            faults.append(f'{where}: unknown class {name!r}, which is none of {", ".join(names)}')
        if not (-1 <= left < right <= width + 1 and -1 <= top < bottom <= height + 1):
            box = f'({left:g}, {top:g}, {right:g}, {bottom:g})'
            faults.append(f'{where}: the box {box} is empty or outside the image of {width} x {height} pixels')
    return faults

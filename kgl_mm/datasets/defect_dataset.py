import copy
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmcv.transforms import Resize as MMResize
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from kgl_mm.errors import UsageError, check_number
from kgl_mm.image_files import image_size

from .binding import bind_priors, has_good_class
from .cache import PipelineCache
from .checks import file_faults, refuse, some, twins
from .masks import decode
from .seeding import SampleSeed
from .splits import cut_by_unit, nested_order
from .transforms import LoadMask, let_priors_move

SPLITS = ('train', 'val', 'test')
MUCH_SMALLER = 4  # a resize computes a pixel from its neighbours, and skips what lies between


@dataclass(frozen=True)
class Sample:
    """An image of a data set; ``label`` 0 is good, images of one ``unit`` show the same part."""

    img_path: str
    label: int
    mask_path: str | None
    unit: str
    split: str


class DefectDataset(BaseDataset):
    """Images of good and defective parts; the base of all data sets here.

    A subclass says in :meth:`find_samples` what there is. Splitting, limiting, checking, caching and seeding are done
    here, so they are the same for all. ``get_data_info(i)`` gives ``img_path``, ``gt_label`` (0 is good),
    ``mask_path`` (or None), ``unit`` and ``sample_idx``.

    Args:
        data_root: the folder of the data set; by default ``$KGL_DATA_ROOT/NAME``, else ``data/NAME``.
        split: ``'train'``, ``'val'`` or ``'test'``.
        pipeline: transforms.
        num_positives: how many defective images training may use, of all kinds in turn; the first five are among the
            first ten. With 0 it learns from good images alone, and there need not be any other.
        val_fraction: the share of the training part, by unit, that is kept for validation.
        leave_out: ``(part, parts)``: of so many parts of the training images, by unit, the one that is left out.
        seed: of the validation part and of the choice of defective images.
        cache: ``'memory'`` or a folder, where the results of the leading deterministic transforms are kept.
        **kwargs: as for ``mmengine.dataset.BaseDataset``.
    """

    METAINFO = dict(classes=('good', 'defect'))
    NAME = ''
    MISSING = 'pass data_root='
    """What to do where the data set is not there."""
    _keeps = True  # what leave_out leaves, and not what it leaves out

    def __init__(
        self,
        data_root: str | None = None,
        split: str = 'train',
        pipeline=(),
        num_positives: int | None = None,
        val_fraction: float = 0.0,
        leave_out: tuple[int, int] | None = None,
        seed: int = 0,
        cache: str | None = None,
        lazy_init: bool = False,
        **kwargs,
    ) -> None:
        if split not in SPLITS:
            raise UsageError(f'split={split!r}: not one of {", ".join(SPLITS)}')
        check_number(0, whole=True, none='all', num_positives=num_positives)
        check_number(0, whole=True, seed=seed)
        check_number(0, val_fraction=val_fraction)
        if val_fraction >= 1:
            raise UsageError(f'val_fraction={val_fraction}: not a share from 0 to below 1')
        self.split = split
        self.num_positives = num_positives
        self.val_fraction = val_fraction
        self.leave_out = leave_out
        self.seed = seed
        self.sample_seed = SampleSeed()
        self._needs_defects = split == 'train' and num_positives != 0
        self._cache = None
        kwargs.setdefault('test_mode', split != 'train')
        root = Path(data_root or Path(os.environ.get('KGL_DATA_ROOT') or 'data', self.NAME)).expanduser()
        super().__init__(data_root=str(root), data_prefix=dict(), pipeline=list(pipeline), lazy_init=True, **kwargs)
        let_priors_move(self.pipeline.transforms)
        if cache:
            self._cache = PipelineCache(self.pipeline.transforms, cache)
        if not lazy_init:
            self.full_init()

    def find_samples(self) -> list[Sample]:
        """All images of all splits, in an order that is always the same."""
        raise NotImplementedError

    def group_of(self, sample: Sample) -> str:
        """What a validation part takes whole or not at all."""
        return sample.unit

    def full_init(self) -> None:
        if self._fully_initialized:
            return
        super().full_init()
        bind_priors(self)
        if self._cache and self._cache.where == 'memory':
            infos = [self.get_data_info(i) for i in range(len(self))]
            with naming_broken_files(infos):
                self._cache.fill(infos)

    def load_data_list(self) -> list[dict]:
        if not Path(self.data_root).is_dir():
            raise UsageError(f'{self.data_root}: no such folder; {self.MISSING}')
        samples = self.find_samples()
        if not samples:
            there = some(sorted(path.name for path in Path(self.data_root).iterdir())) or 'nothing'
            layout = f'no images in the layout of {type(self).__name__}'
            raise UsageError(f'{self.data_root}: {layout}; {self.MISSING} (the folder holds {there})')
        samples = self._cut_validation(samples)
        chosen = [sample for sample in samples if sample.split == self.split]
        if self.split == 'train' and self.num_positives:
            chosen = self._limit_positives(chosen)
        if self.split == 'train' and self.leave_out:
            chosen = self._part(chosen)
        if self.split == 'train' and self.num_positives == 0:  # parts are the same with and without defective images
            chosen = [sample for sample in chosen if not self._is_defective(sample)]
        self._check(chosen, samples)
        return [
            dict(img_path=s.img_path, gt_label=s.label, mask_path=s.mask_path, unit=s.unit)
            for s in sorted(chosen, key=lambda s: s.img_path)
        ]

    def left_out(self) -> 'DefectDataset':
        """The images that ``leave_out`` leaves out, or all where it leaves out none."""
        seen = copy.copy(self)
        if self.leave_out:
            seen._keeps = False
            seen._fully_initialized = False
            seen.full_init()
        return seen

    def with_defects(self) -> 'DefectDataset':
        """The same, with the defective images that ``num_positives=0`` leaves out, where there are any."""
        seen = copy.copy(self)
        if self.split == 'train' and self.num_positives == 0:
            seen.num_positives = None
            seen._fully_initialized = False
            seen.full_init()
        return seen

    def _copy_without_annotation(self, memo: dict | None = None) -> 'DefectDataset':
        # mmengine 0.10.7 keeps one memo for all copies of a process: an object made where one copied before was freed
        # would be taken for that one
        return super()._copy_without_annotation({} if memo is None else memo)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """From now on each sample draws from (seed, epoch, its index), in every worker."""
        self.sample_seed.set(seed, epoch)

    def prepare_data(self, idx: int) -> dict:
        info = self.get_data_info(idx)
        with naming_broken_files([info]), self.sample_seed.of(info['sample_idx']):
            if not self._cache:
                return self.pipeline(info)
            results = self._cache(info)
            for transform in self._cache.rest:
                results = results and transform(results)
            return results

    def get_cat_ids(self, idx: int) -> list[int]:
        return [self.get_data_info(idx)['gt_label']]

    def _cut_validation(self, samples: list[Sample]) -> list[Sample]:
        has_own = any(sample.split == 'val' for sample in samples)
        if self.val_fraction and has_own:
            raise UsageError(f'val_fraction={self.val_fraction}: {self.data_root} has a validation part of its own')
        if not self.val_fraction:
            if self.split == 'val' and not has_own:
                name = type(self).__name__
                raise UsageError(f"split='val': {name} has no validation part of its own; set val_fraction=0.2 (say)")
            return samples
        train = [sample for sample in samples if sample.split == 'train']
        shares = dict(train=1 - self.val_fraction, val=self.val_fraction)
        places = cut_by_unit([self.group_of(s) for s in train], [s.label for s in train], shares, self.seed)
        cut = [replace(sample, split=place) for sample, place in zip(train, places, strict=True)]
        return cut + [sample for sample in samples if sample.split == 'test']

    def _part(self, samples: list[Sample]) -> list[Sample]:
        part, parts = self.leave_out
        shares = {str(i): 1 / parts for i in range(parts)}
        places = cut_by_unit([self.group_of(s) for s in samples], [s.label for s in samples], shares, self.seed)
        if (there := len(set(places))) < parts:
            raise UsageError(
                f'crossfit={parts}: the training images of {self.data_root} have units for {there} parts, no more'
            )
        for kind in (False, True):  # each network must see both
            if len({place for s, place in zip(samples, places, strict=True) if bool(s.label) is kind}) == 1:
                raise UsageError(
                    f'crossfit={parts}: all {"defective" if kind else "good"} training images of {self.data_root} are '
                    'of one unit, which a network that must not see it cannot learn from'
                )
        return [s for s, place in zip(samples, places, strict=True) if (place != str(part)) == self._keeps]

    def _limit_positives(self, samples: list[Sample]) -> list[Sample]:
        defective = [sample for sample in samples if self._is_defective(sample)]
        if self.num_positives > len(defective):
            raise UsageError(
                f'num_positives={self.num_positives}: the training part has {len(defective)} defective images'
            )
        order = nested_order([s.img_path for s in defective], [s.label for s in defective], self.seed)
        good = [sample for sample in samples if not self._is_defective(sample)]
        return good + [defective[i] for i in order[: self.num_positives]]

    def _is_defective(self, sample: Sample) -> bool:
        return bool(sample.label) or not has_good_class(self)

    def _check(self, chosen: list[Sample], samples: list[Sample]) -> None:
        """Everything that is wrong, in one message; what may be meant as it is, as a warning."""
        faults = []
        counts = Counter(sample.label for sample in samples if sample.split == self.split)
        classes = list(enumerate(self.metainfo['classes']))
        if self.split == 'train' and not self._needs_defects:
            classes = classes[:1]
            if not has_good_class(self):
                faults.append(f'num_positives=0: {self.data_root} has no good images to learn from')
        if empty := [name for label, name in classes if not counts[label]]:
            sentence = f'the {self.split} part of {self.data_root} has no image of class {", ".join(empty)}'
            if self.split == 'train' or not chosen:
                faults.append(sentence)
            else:
                print_log(f'Warning: {sentence}.', logger='current', level=logging.WARNING)
        # a training that ends in a test should not learn at its end what is wrong there
        checked = samples if self.split == 'train' else chosen
        faults += file_faults((sample.img_path, sample.mask_path) for sample in checked)
        refuse(self, faults)
        if self.split == 'train' and chosen and _is_dark(chosen[0].img_path):
            print_log(
                f'Warning: {chosen[0].img_path} uses less than a quarter of its 16 bits: read with 8, few shades are '
                'left; stretch the images first (12 bits: times 16).',
                logger='current',
                level=logging.WARNING,
            )
        if self.split == 'train' and chosen and (loss := self._loss_by_resizing(chosen[0].img_path)):
            print_log(f'Warning: {loss}.', logger='current', level=logging.WARNING)
        if self.split == 'train' and (groups := twins([s.img_path for s in samples], [s.split for s in samples])):
            examples = some([' = '.join(group) for group in groups], most=3)
            print_log(
                f'Warning: {len(groups)} images stand in more than one split of {self.data_root}, '
                f'so figures will flatter: {examples}.',
                logger='current',
                level=logging.WARNING,
            )

    def _loss_by_resizing(self, path: str) -> str:
        """What cannot be seen of an image that is made much smaller, where that is the first that moves it."""
        moving = (step for step in self.pipeline.transforms if not isinstance(step, LoadImageFromFile | LoadMask))
        step = next(moving, None)
        if not isinstance(step, MMResize) or step.scale is None or step.keep_ratio:
            return ''
        if step.interpolation == 'area' or step.backend == 'pillow':  # these take the mean of what they put together
            return ''
        (width, height), seen = image_size(path), step.scale
        times = max(width / seen[0], height / seen[1])
        if times <= MUCH_SMALLER:
            return ''
        return (
            f'an image of {width} x {height} pixels is seen at {seen[0]} x {seen[1]}, where marks of less than '
            f'{math.ceil(times)} pixels can vanish; set the scale of Resize, or --data-options scale=WIDTH,HEIGHT'
        )


def _is_dark(path: str) -> bool:
    """Whether it is of a camera of 10 to 14 bits whose pixels were put into 16 as they are."""
    image = decode(path)
    return image is not None and image.dtype == np.uint16 and int(image.max()) < 2**14


@contextmanager
def naming_broken_files(infos: list[dict]) -> Iterator[None]:
    """Turns an error that comes from a file into one that names it."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        for path in filter(None, (info.get(key) for info in infos for key in ('img_path', 'mask_path'))):
            found = decode(path)
            if found is None:
                raise UsageError(f'{path}: cannot be read as an image') from error
            if found.dtype.kind != 'u' and isinstance(error, AssertionError):  # as mmcv's loader says it found none
                raise UsageError(f'{path}: holds {found.dtype} pixels; save it with 8 or 16 bits') from error
        if len(infos) == 1:
            error.add_note(f'while preparing {infos[0]["img_path"]}')
        raise

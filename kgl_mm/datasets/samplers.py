"""A sampler that shows a network as many good images as defective ones."""

import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, repeat

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Dataset, Sampler

from kgl_mm.errors import UsageError, check_number
from kgl_mm.registry import DATA_SAMPLERS

from .seeding import Drawn


def _is_defective(dataset: Dataset, index: int) -> bool:
    with suppress(AttributeError, KeyError):
        return bool(np.any(dataset.get_data_info(index)['gt_label']))
    with suppress(AttributeError, KeyError):
        return bool(np.any(dataset.get_cat_ids(index)))
    raise UsageError(
        f'BalancedSampler finds no label for image {index} of {type(dataset).__name__}: give the data set a '
        "get_data_info(index) with 'gt_label', or a get_cat_ids(index)."
    )


@DATA_SAMPLERS.register_module()
class BalancedSampler(Sampler):
    """Every defective image (label other than 0) once per epoch, and ``ratio`` good ones for each.

    Good images rotate: at any moment of the training, over all processes, their numbers of uses differ by at most
    one, and an epoch repeats one only where there are fewer than it needs. The order is a function of seed and epoch
    alone, so a resumed run continues it. Rank ``r`` of ``N`` takes every ``N``-th image from ``r`` on: a global batch
    holds the same images for any ``N`` that divides the epoch. Without good images all are shuffled as
    ``DefaultSampler`` does.

    Args:
        dataset: Gives the label by ``get_data_info(i)['gt_label']`` or ``get_cat_ids(i)``.
        ratio: Good images per defective one; an epoch has ``max(1, round(ratio * defects))``.
        seed: The same on all processes; drawn and shared among them if ``None``.
        round_up: Fill the epoch with further good images until ``N`` divides it.
        at_least: Images an epoch; what is above is repeated within one until it has as many, so that a schedule that
            counts epochs fits any number of defects. Each time an image is augmented anew.
    """

    def __init__(
        self,
        dataset: Dataset,
        ratio: float = 1.0,
        seed: int | None = None,
        round_up: bool = True,
        at_least: int = 0,
    ) -> None:
        if not 0 < ratio < math.inf:
            raise UsageError(f'BalancedSampler needs a ratio above 0, not {ratio}.')
        check_number(0, whole=True, at_least=at_least)
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

        defective = np.fromiter((_is_defective(dataset, i) for i in range(len(dataset))), bool, len(dataset))
        self.defects, self.goods = np.flatnonzero(defective), np.flatnonzero(~defective)
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        if classes and len(classes) > 2 and classes[0] != 'good':
            print_log(
                f'Warning: BalancedSampler takes class 0, {classes[0]!r}, for the good one, and shows as many of it as '
                'of all others; where it is a kind of defect, use DefaultSampler.',
                logger='current',
                level=logging.WARNING,
            )
        if not len(self.defects):
            raise UsageError(
                f'All {len(dataset)} images of {type(dataset).__name__} are good, so BalancedSampler has nothing to '
                'balance: use DefaultSampler.'
            )
        self.num_goods = max(1, round(ratio * len(self.defects))) if len(self.goods) else 0
        total = len(self.defects) + self.num_goods
        self.surplus = -total % self.world_size if round_up else 0
        self.total_size = total + self.surplus
        self.passes = max(1, math.ceil(at_least / self.total_size))

    def _rotation(self) -> Iterator[np.ndarray]:
        """The good images of pass 0, 1, ...: slices of an endless sequence of shuffled passes over all of them."""
        rng = np.random.default_rng((self.seed, 0))
        queue = self.goods[:0]
        while True:
            epoch = tail = queue[: self.num_goods + self.surplus]
            queue = queue[len(tail) :]
            while missing := self.num_goods + self.surplus - len(epoch):
                queue = rng.permutation(self.goods)
                # those that the epoch has from the pass before wait until it is over, so that it has no image twice
                fresh = np.flatnonzero(~np.isin(queue, tail))[:missing]
                queue = np.concatenate((queue[fresh], np.delete(queue, fresh)))
                epoch, queue = np.concatenate((epoch, queue[:missing])), queue[missing:]
            yield epoch

    def _order(self, number: int, goods: np.ndarray) -> np.ndarray:
        """The images of a pass over all processes, ``(total_size,)``, with the good ones that are its turn."""
        slots = np.random.default_rng((self.seed, 1, number)).permutation(len(self.defects) + self.num_goods)
        is_defect = slots < len(self.defects)
        order = np.empty_like(slots)
        order[is_defect] = self.defects[slots[is_defect]]
        # in the order of the rotation, which is shuffled already: its fairness holds inside the epoch as well
        order[~is_defect] = goods[: self.num_goods]
        return np.resize(np.concatenate((order, goods[self.num_goods :])), self.total_size)

    def __iter__(self) -> Iterator[int]:
        passes = range(self.epoch * self.passes, (self.epoch + 1) * self.passes)
        turns = islice(self._rotation(), passes.start, None) if len(self.goods) else repeat(self.goods)
        orders = [(number, self._order(number, goods)) for number, goods in zip(passes, turns, strict=False)]
        return iter(
            [Drawn(i, number) for number, order in orders for i in order[self.rank :: self.world_size].tolist()]
        )

    def __len__(self) -> int:
        return self.passes * len(range(self.rank, self.total_size, self.world_size))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

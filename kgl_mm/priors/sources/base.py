"""Where priors come from: one interface, whatever is behind it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.dist import all_gather_object, get_dist_info
from torch import nn
from torch.utils.data import DataLoader

from kgl_mm.errors import UsageError, first_line
from kgl_mm.priors.fingerprint import hash_of_model
from kgl_mm.registry import PRIOR_SOURCES, SALIENCY
from kgl_mm.saliency import Explanation, SaliencyMethod
from kgl_mm.saliency.base import FLIPS

TINY = float(np.finfo(np.float32).tiny)


class PriorSource:
    """Gives a map for each image: how much speaks for a defect at each place.

    A subclass says so in :meth:`maps`, and is registered in ``kgl_mm.registry.PRIOR_SOURCES``. Its maps are

    - B x H x W floats of the size of the images it is given, finite, not negative, best in [0, 1];
    - comparable across images: where they are scaled, then by what good images have, never by an image's own range;
    - a function of the image alone and of what :meth:`fit` has seen: of no other image of the batch, of no chance.

    >>> from kgl_mm.registry import PRIOR_SOURCES
    >>> @PRIOR_SOURCES.register_module(force=True)
    ... class Darkness(PriorSource):
    ...     def maps(self, images, samples=()):
    ...         return 1 - images.mean(1) / 255
    >>> Darkness().maps(torch.zeros(1, 3, 1, 2)).tolist()
    [[[1.0, 1.0]]]
    """

    model: nn.Module | None = None
    """Whose preprocessor makes the images and on whose device they are; None for images as the pipeline packs them."""
    flips: Sequence[str] = ()
    """Over which maps are averaged."""
    can_flip = True
    """Whether a flipped image has a map of its own, by which the source can be judged."""
    judged_by_skill = True
    """Whether how well it tells defective images apart says how well it teaches; not where no label has taught it."""
    NEEDS_GOOD = ''
    """What :meth:`fit` does with good images, where it cannot do without: the end of a sentence."""

    @staticmethod
    def needs_model(settings: dict) -> bool:
        """Whether a source of these settings looks with a trained network."""
        return True

    @property
    def learns(self) -> bool:
        """Whether :meth:`fit` must come before the first map."""
        return type(self).fit is not PriorSource.fit

    def fit(self, dataset: BaseDataset) -> None:
        """Learn from the good images among these, seen as a test sees them; the same in every process."""

    def check(self, dataset: BaseDataset) -> None:
        """Say what would keep it from giving maps of these images, before a long training comes to that."""
        if self.learns and self.NEEDS_GOOD:
            needed_good(dataset, self.NEEDS_GOOD)

    def maps(self, images: torch.Tensor, samples: Sequence = ()) -> torch.Tensor:
        """Maps (B, H, W) of images (B, C, H, W); ``samples`` are their data samples, with ``img_path``."""
        raise NotImplementedError

    def settings(self) -> dict:
        """What shapes the maps beside the weights, in plain values."""
        return dict(type=type(self).__name__)

    def weights(self) -> str | None:
        """A hash of all that was trained or remembered."""
        return None if self.model is None else hash_of_model(self.model)

    def taken_from(self, dataset: BaseDataset) -> str | None:
        """A hash of what the maps hold of a data set beside its images."""

    def prepare(self, images: torch.Tensor) -> None:
        """Choose what is left to the source by images like these, so that it does not depend on what comes first."""

    def explain(self, images: torch.Tensor, samples: Sequence = (), also: Sequence[str] = ()) -> Explanation:
        """Maps, the highest value of each as evidence, and the maps of the images flipped as ``also`` says."""
        maps = self._checked(images, samples)
        views = [maps]
        for flip in dict.fromkeys(also) if self.can_flip else ():
            dims = FLIPS[flip]
            views.append(self._checked(images.flip(dims), samples).flip([dim - 1 for dim in dims]))
        return Explanation(maps, maps.amax((1, 2)), torch.stack(views))

    def _checked(self, images: torch.Tensor, samples: Sequence) -> torch.Tensor:
        found, size = self.maps(images, samples), (len(images), *images.shape[2:])
        if not isinstance(found, torch.Tensor) or found.shape != size:
            given = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise UsageError(f'{type(self).__name__}.maps: gave {given}, where these images have maps {size}')
        return found.detach()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.maps(images)


def is_judged_by_skill(made_of: dict) -> bool:
    """The same of what has written a layer, by its manifest."""
    name = (made_of.get('method') or {}).get('type')
    kind = PRIOR_SOURCES.module_dict.get(name) or SALIENCY.module_dict.get(name)
    return getattr(kind, 'judged_by_skill', True)


def as_source(given: PriorSource | SaliencyMethod) -> PriorSource:
    from .saliency_source import SaliencySource

    return SaliencySource(given) if isinstance(given, SaliencyMethod) else given


def good_indices(dataset: BaseDataset) -> list[int]:
    """The images that are labelled good, that have no label, or, where defects have boxes, that have none.

    Of kinds of defect alone none is good, whatever comes first.
    """
    from kgl_mm.datasets import DefectDataset  # which needs a store of priors
    from kgl_mm.datasets.binding import has_good_class

    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    if isinstance(dataset, DefectDataset) and not has_good_class(dataset):
        return [index for index, info in enumerate(infos) if 'gt_label' not in info]
    return [index for index, info in enumerate(infos) if not np.any(info.get('gt_label', 0)) and not _has_boxes(info)]


def _has_boxes(info: dict) -> bool:
    return len(info.get('gt_bboxes', ())) > 0


def needed_good(dataset: BaseDataset, why: str) -> list[int]:
    """The same, where none is an error, and ``why``."""
    if good := good_indices(dataset):
        return good
    raise UsageError(f'{type(dataset).__name__}: has no good image, {why}')


def spread(values: Sequence, number: int) -> list:
    """So many of them, evenly over their order.

    >>> spread('abcdefg', 3)
    ['a', 'd', 'g']
    """
    if number >= len(values):
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, number).round().astype(int)]


def shared_out(
    look: Callable[[torch.Tensor, Sequence[int]], list],
    model: nn.Module | None,
    dataset: BaseDataset,
    indices: Sequence[int],
    batch_size: int = 1,
    num_workers: int = 0,
) -> list:
    """``look(images, their indices)`` of all batches, shared out among the processes: what it gives, in order.

    A batch is the same whatever the number of processes, and so are its last bits; each process gets all of them.
    """
    rank, world = get_dist_info()
    sampler = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)][rank::world]
    batches = loaded(dataset, sampler, num_workers)
    mine = []
    for part, batch in zip(sampler, batches, strict=True):
        images, samples = inputs_of(model, batch)
        with naming_images(samples):
            mine.append(look(images, part))
    every = all_gather_object(mine)
    found = [every[place % world][place // world] for place in range(sum(map(len, every)))]
    return [item for part in found for item in part]


def loaded(dataset: BaseDataset, batches: Sequence[Sequence[int]], num_workers: int = 0) -> DataLoader:
    """A data set's samples in these batches, each as lists."""
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=pseudo_collate, worker_init_fn=_begin_worker
    )


@contextmanager
def naming_images(samples: Sequence) -> Iterator[None]:
    """Turns what a network cannot do with images into a sentence that names the first of them."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:  # too small for its strides or windows, too large for the memory
        height, width = (samples[0].get('img_shape') or (0, 0))[:2]
        raise UsageError(
            f'{samples[0].get("img_path")}: the network cannot take images of {width} x {height} pixels '
            f'({first_line(error)})'
        ) from error


def _begin_worker(_: int) -> None:
    """No threads of OpenCV: a fork lacks those of its parent, and may wait for ever for what one of them held."""
    cv2.setNumThreads(0)


def inputs_of(model: nn.Module | None, batch: dict) -> tuple[torch.Tensor, list]:
    """What the model itself makes of a batch for a test: images as it takes them, and the data samples."""
    data = model.data_preprocessor(batch, training=False) if hasattr(model, 'data_preprocessor') else batch
    images = data['inputs']
    if len({tuple(sample.get('img_shape') or ()) for sample in data['data_samples']}) > 1:
        raise UsageError('the images of a batch differ in size: resize them in the pipeline, or use batch_size=1')
    if not isinstance(images, torch.Tensor):
        images = torch.stack(list(images)).float()
    return images, data['data_samples']


def quantile_of_good(peaks: Sequence[float], quantile: float, whose: str) -> float:
    """The scale of maps by the maxima of those of good images, above 0."""
    if not len(peaks):
        raise UsageError(f'{whose}: there is no good image to compare with, and its maps need one')
    found = float(np.quantile(np.asarray(peaks, np.float64), quantile))
    if not np.isfinite(found):
        raise UsageError(f'{whose}: the maps of good images are not finite')
    return max(found, TINY)


@contextmanager
def steady(threads: int) -> Iterator[None]:
    """The same number of threads everywhere, since the last bits of a sum depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

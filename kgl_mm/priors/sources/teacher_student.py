from collections.abc import Sequence

import torch
from mmengine.dataset import BaseDataset
from torch import nn

from kgl_mm.errors import UsageError
from kgl_mm.registry import PRIOR_SOURCES
from kgl_mm.saliency import AnomalyMap
from kgl_mm.saliency.base import full_precision

from .base import needed_good, shared_out, spread
from .saliency_source import SaliencySource

MOST = 500
"""Good images, evenly over their order, that a quantile is made of."""


@PRIOR_SOURCES.register_module()
class TeacherStudentSource(SaliencySource):
    """The maps of a :class:`~kgl_mm.models.TeacherStudentDetector`, which has learned from good images alone.

    They are calibrated by the good images of its training; where its checkpoint does not know of any, by those of
    :meth:`fit`.

    Args:
        model: the detector.
        flips: of ``'h'``, ``'v'``, ``'hv'``: the maps of the flipped images, flipped back, are averaged in.
        amp: mixed precision, as for a saliency method.
        normalize: changes nothing, since the maps are calibrated.
    """

    def __init__(
        self, model: nn.Module, flips: Sequence[str] = (), amp: bool | str = False, normalize: str | None = None
    ) -> None:
        super().__init__(AnomalyMap(model, flips=flips, amp=amp, normalize=normalize))

    @property
    def learns(self) -> bool:
        return not self.model.head.is_calibrated

    def fit(self, dataset: BaseDataset) -> None:
        calibrate(self.model, dataset, batch_size=1)  # images may differ in size


def calibrate(model: nn.Module, dataset: BaseDataset, batch_size: int = 4, num_workers: int = 0) -> None:
    """Set the scales of a detector by good images of a data set, seen as a test sees them; by all processes."""
    good = spread(needed_good(dataset, 'by which the scores of a detector are scaled'), MOST)
    model.head.calibrate([1.0], [1.0])
    method = AnomalyMap(model, raw=True)

    def look(images: torch.Tensor, _indices: Sequence[int]) -> list[tuple[float, float]]:
        found = method.explain(images)
        return list(zip(found.evidence.double().exp().tolist(), found.maps.amax((1, 2)).tolist(), strict=True))

    values = shared_out(look, model, dataset, good, batch_size, num_workers)
    model.head.calibrate(*torch.tensor(values, dtype=torch.float64).T.tolist())


def standardize(model: nn.Module, dataset: BaseDataset, batch_size: int = 4, num_workers: int = 0) -> None:
    """Set mean and deviation of a detector's channels by its teacher's maps of good images, as above."""
    good = spread(needed_good(dataset, 'by which the channels of a teacher are scaled'), MOST)

    def look(images: torch.Tensor, _indices: Sequence[int]) -> list[list[torch.Tensor]]:
        with torch.no_grad(), full_precision(images):
            rows = [feature.double().transpose(0, 1).flatten(1) for feature in model.teacher(images)]
        return [[torch.stack([x.sum(1), x.square().sum(1), torch.full_like(x[:, 0], x.shape[1])]).cpu() for x in rows]]

    found = shared_out(look, model, dataset, good, batch_size, num_workers)
    for scale, sums in zip(model.scales, zip(*found, strict=True), strict=True):
        total, squares, number = torch.stack(sums).sum(0)
        mean = total / number
        if not squares.isfinite().all():
            raise UsageError('what the teacher puts out is not finite: its weights or data_preprocessor are broken')
        scale.set(mean, (squares / number - mean.square()).clamp_min(0).sqrt())

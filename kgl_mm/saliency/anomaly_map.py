from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError
from kgl_mm.registry import SALIENCY

from .base import SaliencyMethod, resize
from .one_pass import OnePass


@SALIENCY.register_module()
class AnomalyMap(SaliencyMethod):
    """The own map of a detector: how far its student is from its teacher at each place, in [0, 1).

    It is calibrated by good images (:class:`~kgl_mm.models.AnomalyHead`), so maps compare across images and
    ``normalize`` changes nothing. A map of distances needs a forward pass alone, one of the gradient a backward pass.

    Args:
        raw: give what the calibration begins with instead: distances, or slopes, of any size.
        **kwargs: as for :class:`SaliencyMethod`.
    """

    judged_by_skill = False

    def __init__(self, model: nn.Module, normalize: str | None = None, raw: bool = False, **kwargs) -> None:
        super().__init__(model, normalize=normalize, **kwargs)
        self.normalize = None
        self.raw = raw
        self.head = getattr(model, 'head', None)
        if not hasattr(self.head, 'calibrated'):
            raise UsageError(f'AnomalyMap: {type(model).__name__} is no detector, whose head tells distances')

    def settings(self) -> dict:
        return super().settings() | self.head.settings()

    def watch(self, run: OnePass, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        feats, gradients = [], []
        finished = (lambda maps: maps) if self.raw else self.head.calibrated
        run.at_call(self.head, lambda given, *_: feats.append(given))
        if self.head.maps == 'mkd':
            run.at_input(lambda _images, gradient: gradients.append(gradient))

        def result(_score: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                if not gradients:
                    maps = resize(finished(self.head.combined(feats[-1])), images.shape[2:])
                    return maps if self.raw else maps.clamp(max=1)  # interpolation may round up
                # the target is the logarithm of the score
                slopes = gradients[-1].abs().sum(1) * self.head.score(feats[-1])[:, None, None]
                return finished(_blurred(slopes, self.head.blur))

        return result


def _blurred(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Maps (B, H, W) under a Gaussian; beyond an edge they go on as they are there."""
    reach = int(3 * sigma + 0.5)
    if not reach:
        return maps
    kernel = torch.exp(-torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype).square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(maps[:, None], [reach] * 4, mode='replicate')
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[:, 0]

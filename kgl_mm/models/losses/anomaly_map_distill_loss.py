from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError, check_choice, check_number
from kgl_mm.registry import MODELS


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """Where features are strong: the sum of their squared channels, (B, C, h, w) to (B, h, w).

    >>> attention_map(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).item()
    25.0
    """
    return features.square().sum(1)


def map_distances(features: Sequence[torch.Tensor], maps: torch.Tensor, antialias: bool = False) -> torch.Tensor:
    """``2 - 2 cos`` between the attention of each stage and the map of each image, (stages, B), each in [0, 2].

    It is 0 where the map is empty, or nothing is left of it at the size of the stage; the arguments are those of
    :class:`AnomalyMapDistillLoss`.
    """
    if maps.ndim == 3:
        maps = maps[:, None]
    distances = []
    for stage in features:
        _check(stage, maps)
        stage = stage.to(torch.promote_types(stage.dtype, torch.float32))
        size = stage.shape[2:]
        wanted = F.interpolate(maps.to(stage), size, mode='bilinear', align_corners=False, antialias=antialias)
        wanted = _unit(wanted / _largest(wanted))
        # any scale gives the same distance and the same gradient, and this one can neither overflow nor vanish
        cosine = (_unit(attention_map(stage / _largest(stage).detach())) * wanted).sum(1)
        distances.append(torch.where(wanted.any(1), 2 - 2 * cosine.clamp_max(1), 0.0))
    return torch.stack(distances)


@MODELS.register_module()
class AnomalyMapDistillLoss(nn.Module):
    r"""How far the attention of a network is from a map of anomalies, at each of its stages.

    With the features F of stage l and the map M of an image, brought to their size from the original each time:

    .. math::
        A_l = \sum_c F_{l,c}^2, \quad L = \sum_l 2 - 2 \frac{\langle A_l, M_l \rangle}{|A_l|\,|M_l|}

    L is the mean over the images that have a map, of all processes, times ``loss_weight``. Neither the scale of the
    features counts nor that of the map, only where they are. A weight of 2 is the squared distance of the unit vectors
    times 2, as it was published for Swin.

    Args:
        loss_weight: beside another loss.
        antialias: whether a map that is finer than the features is averaged over their cells; else it is read at a few
            points of each, where a thin defect may be missed. For a coarser map it is the same.
        least: a map that is nowhere above this counts as empty. Sources that scale their maps by good images, q being
            what these reach, give v / (v + q): 0.5 leaves out what holds no more than a good image does.

    >>> features = torch.ones(1, 8, 1, 2), torch.tensor([[[[0.0, 3.0]]]])
    >>> AnomalyMapDistillLoss()(features, torch.tensor([[[0.0, 1.0]]])).item()  # 2 - 2 / sqrt(2), and 0
    0.5857864618301392
    """

    def __init__(self, loss_weight: float = 1.0, antialias: bool = False, least: float = 0.0) -> None:
        super().__init__()
        check_number(0, loss_weight=loss_weight, least=least)
        check_choice((True, False), antialias=antialias)
        self.loss_weight = loss_weight
        self.antialias = antialias
        self.least = least

    def forward(self, features: Sequence[torch.Tensor], maps: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar in float32, or in float64 of such features.

        Args:
            features: of each stage (B, C, h, w), of any size.
            maps: (B, H, W) or (B, 1, H, W), not negative, of any size; all 0 for an image without a map.
        """
        has_map = maps.flatten(1).amax(1) > self.least
        maps = maps * has_map.view(-1, *[1] * (maps.ndim - 1))
        # of an image without a map all distances are 0, and in the graph: several processes need the same in each step
        total = map_distances(features, maps, self.antialias).sum()
        count = has_map.sum(dtype=total.dtype)
        all_reduce(count, 'mean')
        return self.loss_weight * total / count.clamp_min(1e-6)

    def extra_repr(self) -> str:
        return f'loss_weight={self.loss_weight}, antialias={self.antialias}, least={self.least}'


def _unit(maps: torch.Tensor) -> torch.Tensor:
    return F.normalize(maps.flatten(1), dim=1)


def _largest(values: torch.Tensor) -> torch.Tensor:
    """Of each image, above 0."""
    return values.abs().amax(tuple(range(1, values.ndim)), keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)


def _check(stage: torch.Tensor, maps: torch.Tensor) -> None:
    if not isinstance(stage, torch.Tensor) or stage.ndim != 4:
        what = f'shape {tuple(stage.shape)}' if isinstance(stage, torch.Tensor) else type(stage).__name__
        raise UsageError(
            f'the distillation needs feature maps (images, channels, height, width), not {what}: set what makes the '
            "backbone put out maps, such as out_type='featmap'"
        )
    if maps.ndim != 4 or maps.shape[:2] != (len(stage), 1):
        raise UsageError(f'maps of shape {tuple(maps.shape)}: not one for each of {len(stage)} images')

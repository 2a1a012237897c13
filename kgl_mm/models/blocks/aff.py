import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError, check_number
from kgl_mm.registry import MODELS


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm that a single value a channel, which has no variance, does not stop: it takes the running one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() > x.shape[1]:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


@MODELS.register_module()
class AFF(nn.Module):
    """Attentional feature fusion (WACV 2021): a mean of two maps whose weights depend on place and channel.

    ::

        w   = sigmoid(local(x + y) + whole(mean(x + y)))
        out = w * x + (1 - w) * y,   all B x C x H x W

    ``local`` and ``whole`` are 1x1 convolutions C -> C/r -> C, each followed by batch norm, with a ReLU between.

    Args:
        channels: of both maps.
        reduction: r.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        check_number(1, whole=True, channels=channels, reduction=reduction)
        inner = max(channels // reduction, 1)

        def gate() -> list[nn.Module]:
            first, last = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
            return [first, _BatchNorm(inner), nn.ReLU(), last, _BatchNorm(channels)]

        self.local = nn.Sequential(*gate())
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), *gate())

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.shape != y.shape:
            raise UsageError(f'AFF: maps of {tuple(x.shape)} and {tuple(y.shape)} cannot be fused, bring them to one')
        both = x + y
        weight = (self.local(both) + self.whole(both)).sigmoid()
        return torch.lerp(y.to(both), x.to(both), weight.to(both))  # which mixed precision makes of several types

import torch
from torch import nn

from kgl_mm.errors import check_number
from kgl_mm.registry import MODELS


@MODELS.register_module()
class SimAM(nn.Module):
    """Attention without parameters (ICML 2021): what differs from the rest of its channel counts more.

    Of a channel with mean m and variance v (over HW - 1) of its positions::

        out = x * sigmoid((x - m)^2 / (4 (v + lambda)) + 1/2)

    Maps (B, C, H, W) keep shape and type; half precision is computed in float32. A constant map, so also one of a
    single position, is scaled by sigmoid(1/2).

    Args:
        weight: lambda, above 0.

    >>> SimAM(weight=1.0)(torch.tensor([[[[1.0, 3.0]]]], dtype=torch.float64)).round(decimals=4).tolist()
    [[[[0.6418, 1.9255]]]]
    """

    def __init__(self, weight: float = 1e-4) -> None:
        super().__init__()
        check_number(0, above=True, weight=weight)
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        apart = wide - wide.mean((2, 3), keepdim=True)
        apart = (apart - apart.mean((2, 3), keepdim=True)).square()  # what rounding left of a constant map is gone
        variance = apart.sum((2, 3), keepdim=True) / max(x.shape[2] * x.shape[3] - 1, 1)
        return x * (apart * (0.25 / (variance + self.weight)) + 0.5).sigmoid().to(x.dtype)

    def extra_repr(self) -> str:
        return f'weight={self.weight}'

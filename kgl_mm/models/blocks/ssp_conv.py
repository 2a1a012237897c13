from functools import partial

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import SqueezeExcitation

from kgl_mm.errors import check_choice, check_number
from kgl_mm.registry import MODELS

from .sim_am import SimAM


@MODELS.register_module()
class SSPConv(nn.Module):
    """Predicts each position of a map from four corners around it (CVPR 2022), self-supervised.

    With K_i the kernels, of ``corner`` x ``corner``, and ``gap`` positions between each and the one in the middle::

        out = attention(ReLU(s (K_1 * x + K_2 * x + K_3 * x + K_4 * x) + b)),   x, out: B x C x H x W
        loss = mean((out - x)^2)

    ``s`` is 1, and where some corners lie beyond the border, the number of all their positions over that of those seen;
    where all do, out = attention(ReLU(b)).
    The convolution is blind: without attention the value at a position never influences the output at that position.
    Attention is not, since it sees the mean of the whole map, in which that value has its share.

    Args:
        channels: of the map, and of the output.
        corner: side of a corner kernel.
        gap: see above.
        attention: ``'none'``, ``'se'`` (squeeze and excite) or ``'simam'``.
        reduction: of squeeze and excite.
    """

    def __init__(
        self, channels: int, corner: int = 1, gap: int = 1, attention: str = 'none', reduction: int = 8
    ) -> None:
        super().__init__()
        check_number(1, whole=True, channels=channels, corner=corner, reduction=reduction)
        check_number(0, whole=True, gap=gap)
        check_choice(('none', 'se', 'simam'), attention=attention)
        self.corner, self.gap = corner, gap
        # the same place of all four corners is one convolution, its rows and columns far apart
        self.apart = corner + 2 * gap + 1
        taps = [nn.Conv2d(channels, channels, 2, dilation=self.apart, bias=False) for _ in range(corner**2)]
        self.corners = nn.ModuleList(taps)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        squeeze = partial(SqueezeExcitation, channels, max(channels // reduction, 1))
        self.attention = dict(none=nn.Identity, se=squeeze, simam=SimAM)[attention]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = sum(conv(part) for conv, part in zip(self.corners, self._places(x), strict=True))
        one, four = torch.ones_like(x[:1, :1]), x.new_ones(1, 1, 2, 2)
        seen = sum(F.conv2d(part, four, dilation=self.apart) for part in self._places(one)).clamp_min(1)
        return self.attention((found * (4 * self.corner**2 / seen) + self.bias.to(found.dtype)).relu())

    def _places(self, x: torch.Tensor) -> list[torch.Tensor]:
        """For each place of a corner the part of the padded map on which its convolution is as large as the map."""
        padded = F.pad(x, [self.corner + self.gap] * 4)
        height, width = (size - self.corner + 1 for size in padded.shape[2:])
        places = range(self.corner)
        return [padded[:, :, row : row + height, column : column + width] for row in places for column in places]

    @staticmethod
    def loss(predicted: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """How far the prediction is from the map it was made of, a scalar."""
        wide = torch.promote_types(x.dtype, torch.float32)  # squares leave the range of half precision
        return F.mse_loss(predicted.to(wide), x.to(wide))

    def extra_repr(self) -> str:
        return f'corner={self.corner}, gap={self.gap}'

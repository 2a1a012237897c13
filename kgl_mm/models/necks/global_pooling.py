from typing import Literal

import torch
from torch import nn

from kgl_mm.errors import check_choice
from kgl_mm.registry import MODELS

POOLS = {'avg': [torch.mean], 'max': [torch.amax], 'max_avg': [torch.amax, torch.mean]}


@MODELS.register_module()
class GlobalPooling(nn.Module):
    """Feature maps (N, C, H, W) to vectors: mean, maximum, or the maximum and the mean side by side (N, 2C)."""

    def __init__(self, mode: Literal['avg', 'max', 'max_avg'] = 'avg'):
        super().__init__()
        check_choice(tuple(POOLS), mode=mode)
        self.mode = mode
        self.parts = POOLS[mode]

    def extra_repr(self) -> str:
        return self.mode

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.cat([pool(x, dim=(2, 3)) for pool in self.parts], 1) for x in inputs)

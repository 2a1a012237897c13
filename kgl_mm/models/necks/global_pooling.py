from typing import Literal

import torch
from torch import nn

from kgl_mm.errors import UsageError
from kgl_mm.registry import MODELS


@MODELS.register_module()
class GlobalPooling(nn.Module):
    """Feature maps (N, C, H, W) to vectors: mean, maximum, or the maximum and the mean side by side (N, 2C)."""

    def __init__(self, mode: Literal['avg', 'max', 'max_avg'] = 'avg'):
        super().__init__()
        parts = {'avg': [torch.mean], 'max': [torch.amax], 'max_avg': [torch.amax, torch.mean]}
        if mode not in parts:
            raise UsageError(f"GlobalPooling: mode is {mode!r}, choose 'avg', 'max' or 'max_avg'.")
        self.mode = mode
        self.parts = parts[mode]

    def extra_repr(self) -> str:
        return self.mode

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.cat([pool(x, dim=(2, 3)) for pool in self.parts], 1) for x in inputs)

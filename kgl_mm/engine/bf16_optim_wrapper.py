from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from kgl_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """Mixed precision in bfloat16 with channels last, on the CPU as well, where mmengine's own wrapper refuses.

    bfloat16 has the range of float32, so no loss is scaled and the state is that of a plain ``OptimWrapper``.

    Example::

        optim_wrapper = dict(type='kgl_mm.Bf16OptimWrapper')
    """

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        super().initialize_count_status(model, init_counts, max_counts)
        model.to(memory_format=torch.channels_last)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield

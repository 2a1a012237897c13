from collections.abc import Callable

import torch
from torch import nn

from kgl_mm.errors import UsageError
from kgl_mm.registry import SALIENCY

from .base import SaliencyMethod, resize
from .one_pass import OnePass


@SALIENCY.register_module()
class SegmentationMap(SaliencyMethod):
    """What a model's own segmentation branch, a module named ``seg_branch``, marks: sigmoid of its logits.

    The map of a guided model, and the priors of its next round. It needs a forward pass alone.
    """

    def __init__(self, model: nn.Module, **kwargs) -> None:
        super().__init__(model, **kwargs)
        found = [module for name, module in model.named_modules() if name.split('.')[-1] == 'seg_branch']
        if len(found) != 1:
            raise UsageError(
                f'SegmentationMap: {type(model).__name__} has {len(found)} modules named seg_branch, not 1'
            )
        self.branch = found[0]

    def watch(self, run: OnePass, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        logits = []
        run.at_output(self.branch, logits.append)
        return lambda _score: resize(logits[-1][:, 0].sigmoid(), images.shape[2:])

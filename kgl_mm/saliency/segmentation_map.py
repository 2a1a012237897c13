from collections.abc import Callable

import torch
from torch import nn

from kgl_mm.errors import UsageError
from kgl_mm.registry import SALIENCY

from .base import SaliencyMethod, resize
from .one_pass import OnePass


@SALIENCY.register_module()
class SegmentationMap(SaliencyMethod):
    """What the segmentation branch of a guided model marks: sigmoid of the logits that its head's ``segment`` gives.

    The map of a guided model, and the priors of its next round. It needs a forward pass alone.
    """

    def __init__(self, model: nn.Module, **kwargs) -> None:
        super().__init__(model, **kwargs)
        found = [module for module in model.modules() if hasattr(module, 'seg_branch') and hasattr(module, 'segment')]
        if len(found) != 1:
            raise UsageError(f'SegmentationMap: {type(model).__name__} has {len(found)} heads that segment, not 1')
        self.head = found[0]

    def watch(self, run: OnePass, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        feats = []
        run.at_call(self.head, lambda given, *_: feats.append(given))

        def result(_score: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():  # once more, since a head that injects nothing does not segment by itself
                dtype = next(self.head.seg_branch.parameters()).dtype
                logits = self.head.segment(tuple(feature.to(dtype) for feature in feats[-1]))
            return resize(logits[:, 0].float().sigmoid(), images.shape[2:])

        return result

from collections.abc import Sequence

import torch
from torch import nn

from kgl_mm.registry import PRIOR_SOURCES, SALIENCY
from kgl_mm.saliency import Explanation, SaliencyMethod

from .base import PriorSource


@PRIOR_SOURCES.register_module()
class SaliencySource(PriorSource):
    """What a trained network holds for a defect, by any saliency method; it averages over flips by itself.

    Args:
        method: a saliency method, or its config.
        model: the network, for a config.
    """

    def __init__(self, method: SaliencyMethod | dict, model: nn.Module | None = None) -> None:
        self.method = method if isinstance(method, SaliencyMethod) else SALIENCY.build(dict(method, model=model))
        self.model = self.method.model

    @property
    def flips(self) -> Sequence[str]:
        return self.method.flips

    @property
    def target(self):
        return self.method.target

    def maps(self, images: torch.Tensor, samples: Sequence = ()) -> torch.Tensor:
        return self.method(images)

    def settings(self) -> dict:
        return self.method.settings()

    def prepare(self, images: torch.Tensor) -> None:
        self.method.prepare(images)

    def explain(self, images: torch.Tensor, samples: Sequence = (), also: Sequence[str] = ()) -> Explanation:
        return self.method.explain(images, also=also)

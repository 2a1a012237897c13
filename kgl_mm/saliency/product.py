from collections.abc import Callable, Sequence

import torch
from mmengine.registry import DefaultScope
from torch import nn

from kgl_mm.errors import UsageError
from kgl_mm.registry import SALIENCY

from .base import SaliencyMethod, by_maximum
from .one_pass import OnePass

_SHARED = {'target', 'normalize', 'flips', 'amp'}
_DEFAULT = dict(type='LayerCAM', fuse='mean'), dict(type='FullGrad', scale='none')


@SALIENCY.register_module()
class SaliencyProduct(SaliencyMethod):
    r"""What several methods agree on: the product of their maps, from one forward and one backward pass.

    .. math:: M = \prod_i M_i / \max M_i

    By default LayerCAM, which is empty on the background but wide, times FullGrad, whose peak is narrow but whose
    background is not empty.

    Args:
        model: any module that maps images to logits.
        methods: their settings, such as ``dict(type='kgl_mm.GradCAM')``; target, flips and precision are those of the
            product.
        **kwargs: as for :class:`SaliencyMethod`.
    """

    def __init__(self, model: nn.Module, methods: Sequence[dict] = (), **kwargs) -> None:
        super().__init__(model, **kwargs)
        if isinstance(methods, str | dict) or not all(isinstance(each, dict) and 'type' in each for each in methods):
            raise UsageError(f"SaliencyProduct: methods={methods!r}: not a list such as [dict(type='GradCAM'), ...]")
        for settings in methods:
            if shared := _SHARED & settings.keys():
                raise UsageError(f'SaliencyProduct: {min(shared)} is set for the product, not for {settings["type"]}')
        with DefaultScope.overwrite_default_scope('kgl_mm'):
            self.methods = [SALIENCY.build(dict(settings, model=model)) for settings in methods or _DEFAULT]

    def prepare(self, images: torch.Tensor) -> None:
        for method in self.methods:
            method.prepare(images)

    def settings(self) -> dict:
        own = ({k: v for k, v in method.settings().items() if k not in _SHARED} for method in self.methods)
        return dict(super().settings(), methods=list(own))

    def watch(self, run: OnePass, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        results = [method.watch(run, images) for method in self.methods]
        return lambda score: torch.stack([by_maximum(result(score)) for result in results]).prod(0)

from collections.abc import Callable, Sequence

import torch
from torch import nn

from kgl_mm.errors import UsageError

from .base import SaliencyMethod, by_maximum, resize
from .layers import choose_layers, feature_map, named_layers
from .one_pass import OnePass


class CAM(SaliencyMethod):
    """Class activation maps: a formula on the activation A and the gradient G of the target at a layer.

    A subclass gives the formula, :meth:`layer_map`. The map of a single layer is resized to the image as it is; those
    of several are first divided by their own maximum, since gradients grow with depth.

    Args:
        model: any module that maps images to logits.
        layers: names as in ``model.named_modules()``, or ``'auto'``: the last layers at the deepest resolutions, as
            many as :attr:`depth` says, chosen at the first images and then kept.
        fuse: ``'max'`` or ``'mean'`` of several layers.
        **kwargs: as for :class:`SaliencyMethod`.
    """

    depth = 1

    def __init__(self, model: nn.Module, layers: str | Sequence[str] = 'auto', fuse: str = 'max', **kwargs) -> None:
        super().__init__(model, **kwargs)
        if fuse not in ('max', 'mean'):
            raise UsageError(f"fuse={fuse!r}: not 'max' or 'mean'")
        if layers != 'auto':
            layers = [layers] if isinstance(layers, str) else list(layers)
            named_layers(model, layers)
        self.layers = layers
        self.fuse = fuse

    def layer_map(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The map (B, h, w), not negative, of two tensors (B, C, h, w)."""
        raise NotImplementedError

    def prepare(self, images: torch.Tensor) -> None:
        if self.layers == 'auto':
            self.layers = choose_layers(self.model, images, self.depth)

    def settings(self) -> dict:
        return dict(super().settings(), layers=self.layers, fuse=self.fuse)

    def watch(self, run: OnePass, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        size = images.shape[2:]
        maps = {}

        def reduce(name, activation, gradient):
            view = feature_map(activation.shape, size)
            if view is None:
                raise UsageError(
                    f'layer {name}: puts out shape {tuple(activation.shape)}, which is no map of these '
                    f'{size[0]} x {size[1]} images; name another layer'
                )
            if name not in maps:  # of a layer that is used twice, the last use counts
                maps[name] = self.layer_map(view(activation), view(gradient))

        for name, module in named_layers(self.model, self.layers).items():
            run.at_activation(module, lambda a, g, name=name: reduce(name, a, g))

        def result(_score: torch.Tensor) -> torch.Tensor:
            silent = [name for name in self.layers if name not in maps]
            if silent:
                raise UsageError(
                    f'layer {silent[0]}: the logits do not depend on what it puts out, or it puts out no tensor; '
                    'name another layer'
                )
            layers = [maps[name] for name in self.layers]
            if len(layers) > 1:
                layers = [by_maximum(layer) for layer in layers]
            fused = torch.stack([resize(layer, size) for layer in layers])
            return fused.amax(0) if self.fuse == 'max' else fused.mean(0)

        return result

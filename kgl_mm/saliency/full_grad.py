import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from kgl_mm.errors import UsageError
from kgl_mm.registry import SALIENCY

from .base import SaliencyMethod, full_precision, resize
from .layers import feature_map
from .one_pass import OnePass, undisturbed
from .targets import Target

_ALLOWED_GAP = 0.01
_TINY = 1e-7


class Decomposition(NamedTuple):
    """The terms that the target's number is made of: ``total`` is the sum of all of them.

    ``input_term`` (B, C, H, W); ``bias_terms``, one tensor a layer, of the shape that the layer puts out, and
    ``layers``, their names (a layer that is used twice stands there twice); ``logits`` and ``total`` (B,).
    """

    input_term: torch.Tensor
    bias_terms: list[torch.Tensor]
    logits: torch.Tensor
    total: torch.Tensor
    layers: list[str]


@SALIENCY.register_module()
class FullGrad(SaliencyMethod):
    r"""FullGrad (Srinivas and Fleuret 2019): the whole answer of a network, shared out among image and biases.

    For a network that is linear in pieces :math:`f(x) = \langle\nabla_x f, x\rangle + \sum_l \langle\nabla_{b_l} f,
    b_l\rangle`, exactly. Every layer with a bias has a term; batch norm in evaluation mode has the implicit bias
    :math:`\beta - \gamma \mu / \sigma`. :meth:`decompose` gives the terms, nothing rescaled. The map is the sum of
    their absolute values over channels, resized to the image; terms without a place, as of a linear layer, are left
    out. Other non-linearities (sigmoid gates, swish, layer norm) leave a gap, which is measured at the first images
    and warned of, unless mixed precision hides it.

    Args:
        model: any module that maps images to logits.
        scale: what is brought to [0, 1] in each image before it is added: ``'channel'``: every channel, so a dead one
            counts as much as a strong one; ``'layer'``: the sum over the channels of a layer; ``'none'``: nothing,
            terms keep their share of the answer.
        **kwargs: as for :class:`SaliencyMethod`.
    """

    def __init__(self, model: nn.Module, scale: str = 'layer', **kwargs) -> None:
        super().__init__(model, **kwargs)
        if scale not in ('none', 'layer', 'channel'):
            raise UsageError(f"scale={scale!r}: not 'none', 'layer' or 'channel'")
        self.scale = scale
        self.gap: float | None = None
        """How much of the answer the terms miss, as a share of it, at the first images; None before them."""

    def settings(self) -> dict:
        return dict(super().settings(), scale=self.scale)

    def watch(self, run: OnePass, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        size = tuple(images.shape[2:])
        sums: dict[tuple[int, int], torch.Tensor] = {}
        scratch = _Scratch()
        measures = self.gap is None and not self.amp
        totals = []  # of every layer

        def add(layer: torch.Tensor) -> None:
            place = tuple(layer.shape[1:])
            sums[place] = sums[place] + layer if place in sums else layer

        def at_bias(gradient: torch.Tensor, module: nn.Module) -> None:
            bias = bias_of(module, gradient)
            if measures:
                totals.append(_by_image(gradient * bias, len(images)))
            view = feature_map(gradient.shape, size) if len(gradient) == len(images) else None
            if view is None or max(view(gradient).shape[2:]) == 1:
                return
            if bias.numel() == view(gradient).shape[1]:
                add(self._layer_map(view(gradient), bias.flatten(), scratch))
            else:
                add(self._layer_map(view(gradient * bias), None, scratch))

        def at_input(seen: torch.Tensor, gradient: torch.Tensor) -> None:
            terms = seen * gradient
            if measures:
                totals.append(_by_image(terms, len(images)))
            add(self._layer_map(terms, None, scratch))

        for module in biased_layers(self.model).values():
            run.at_gradient(module, lambda gradient, module=module: at_bias(gradient, module))
        run.at_input(at_input)

        def result(score: torch.Tensor) -> torch.Tensor:
            if totals:
                self._tell_gap(torch.stack(totals).sum(0), score)
            return torch.stack([resize(layer, size) for layer in sums.values()]).sum(0)

        return result

    def decompose(self, images: torch.Tensor, target: Target | None = None) -> Decomposition:
        """The exact terms for a batch; all of them are kept, which is much more than the map needs."""
        terms, names, at_input = [], [], []
        with undisturbed(self.model), full_precision(images), OnePass(self.model) as run:
            for name, module in biased_layers(self.model).items():

                def keep(gradient, name=name, module=module):
                    names.append(name)
                    terms.append(gradient * bias_of(module, gradient))

                run.at_gradient(module, keep)
            run.at_input(lambda seen, gradient: at_input.append(seen * gradient))
            score = run(images, self.target if target is None else target)
        total = sum(_by_image(term, len(images)) for term in (*at_input, *terms))
        return Decomposition(at_input[0], terms[::-1], score, total, names[::-1])  # from the image upwards

    def _layer_map(self, terms: torch.Tensor, weights: torch.Tensor | None, scratch: '_Scratch') -> torch.Tensor:
        """The map (B, h, w) of terms (B, C, h, w), or of gradients and the biases (C,) that weigh them."""
        weights = terms.new_ones(terms.shape[1]) if weights is None else weights.abs()
        sizes = scratch.absolute(terms).flatten(2)
        if self.scale == 'channel':
            low, high = sizes.amin(2), sizes.amax(2)  # ten times as fast as aminmax
            weights = weights / (_TINY + weights * (high - low))
            layer = (weights[:, None] @ sizes.sub_(low[..., None]))[:, 0]
        else:
            layer = weights @ sizes
        if self.scale == 'layer':
            low, high = layer.amin(1, keepdim=True), layer.amax(1, keepdim=True)
            layer = (layer - low) / (_TINY + (high - low))
        return layer.unflatten(1, terms.shape[2:])

    def _tell_gap(self, total: torch.Tensor, score: torch.Tensor) -> None:
        self.gap = float((total - score).abs().mean() / score.abs().mean().clamp_min(_TINY))
        if self.gap > _ALLOWED_GAP:
            warnings.warn(
                f'FullGrad: the terms add up to {total.mean():.4g} where the network says {score.mean():.4g} '
                f'(a gap of {self.gap:.0%} of the answer): {type(self.model).__name__} is not linear in pieces, so '
                'its maps are approximate',
                stacklevel=4,
            )


class _Scratch:
    """Room for absolute values that all layers of a pass share, since fresh memory costs more than the sums."""

    def __init__(self) -> None:
        self.room = torch.empty(0)

    def absolute(self, terms: torch.Tensor) -> torch.Tensor:
        if self.room.numel() < terms.numel() or self.room.dtype != terms.dtype:
            self.room = terms.new_empty(terms.numel())
        return torch.abs(terms, out=self.room[: terms.numel()].view(terms.shape))


def biased_layers(model: nn.Module) -> dict[str, nn.Module]:
    """All modules that add a constant to what they put out, by name."""
    return {name: module for name, module in model.named_modules() if _own_bias(module) or _is_fixed_norm(module)}


def bias_of(module: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """What a layer adds, in evaluation mode, to an output of this shape: of a shape that goes with it."""
    bias = module.bias if _own_bias(module) else None
    if _is_fixed_norm(module):
        shift = -module.running_mean.to(output) * (module.running_var.to(output) + module.eps).rsqrt()
        if module.weight is not None:
            shift = shift * module.weight.to(output)
        bias = shift if bias is None else shift + bias
    bias = bias.detach().to(output)
    if bias.ndim > 1:  # a norm over several dimensions
        return bias
    last = output.shape[-1] == len(bias)
    if last and (output.shape[1] != len(bias) or isinstance(module, nn.Linear | nn.LayerNorm)):
        return bias
    return bias.reshape(-1, *[1] * (output.ndim - 2))


def _by_image(terms: torch.Tensor, batch: int) -> torch.Tensor:
    """Their sum for each image (B,); the windows of attention, several to an image, stand in its place."""
    return terms.reshape(batch, -1).sum(1)


def _own_bias(module: nn.Module) -> bool:
    """Whether it has a bias itself, and does not merely show one of a module inside."""
    own = 'bias' in module._parameters or 'bias' in module._buffers or is_parametrized(module, 'bias')
    return own and isinstance(module.bias, torch.Tensor)


def _is_fixed_norm(module: nn.Module) -> bool:
    """Whether it is a norm that uses what it has learned of mean and deviation, not those of its input."""
    return all(isinstance(getattr(module, name, None), torch.Tensor) for name in ('running_mean', 'running_var'))

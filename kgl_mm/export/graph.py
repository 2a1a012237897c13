"""What an inspector computes, as a graph of plain tensor operations: images of any size in, scores and maps out.

The graph is a trace of the very code that the inspector runs, also of the backward pass that a saliency method makes:
where that asks for a gradient, the operations that compute it are part of the graph.
"""

from collections.abc import Callable

import torch
from mmpretrain.datasets.transforms import PackInputs
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from kgl_mm.datasets.transforms.resize import HALF_UP, Resize
from kgl_mm.errors import UsageError
from kgl_mm.saliency import evidence

aten = torch.ops.aten
OUTPUTS = ('score', 'probabilities', 'map')
EXAMPLE = (2, 150, 131, 3)
"""The shape of the images that are traced; number, height and width stay free."""


class Inspection(nn.Module):
    """Score (N,), probabilities (N, C) and maps (N, h, w) of images (N, H, W, 3), BGR, uint8, of any size.

    Args:
        network: a ``TorchNetwork``; without a saliency method there is no map.
    """

    def __init__(self, network) -> None:
        super().__init__()
        self.scale, self.is_float = _read(network)
        self.model = network.model
        self.method = network.method
        self.has_good = network.judge.has_good
        self.activation = _activation(network.model.head)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen = resize(images, self.scale) if self.scale else images.float()
        if self.scale and not self.is_float:
            seen = (seen + HALF_UP).round()
        seen = seen.permute(0, 3, 1, 2).contiguous()
        height, width = seen.shape[2:]
        inputs = self.model.data_preprocessor(dict(inputs=seen))['inputs']
        logits, maps = self._look(inputs)
        probabilities = self.activation(logits)
        if probabilities.shape[1] == 1:
            probabilities = torch.cat([1 - probabilities, probabilities], 1)
        if self.has_good:
            defect = probabilities[:, 1:].sum(1)
            score = defect / (probabilities[:, 0] + defect)
        else:
            score = probabilities.amax(1)
        return (score, probabilities) if maps is None else (score, probabilities, maps[:, :height, :width])

    def _look(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.method is None:
            with torch.no_grad():
                return self.model(inputs), None
        found = []

        def target(logits: torch.Tensor) -> torch.Tensor:
            found.append(logits.detach())
            return evidence(logits, 'defect' if self.has_good else 'predicted')

        maps = self.method.explain(inputs, target).maps
        return found[0], maps


def trace(inspection: Inspection) -> torch.fx.GraphModule:
    """The operations of an inspection, of images of any number and size."""
    images = torch.randint(0, 256, EXAMPLE, dtype=torch.uint8)
    inspection(images)  # chooses the layers of a saliency method, which a trace could not
    traced = make_fx(inspection, _decompositions(), tracing_mode='symbolic', _allow_non_fake_inputs=True)(images)
    return traced.eval()


def resize(images: torch.Tensor, scale: tuple[int, int]) -> torch.Tensor:
    """uint8 images (N, H, W, C) at a width and height, as :class:`kgl_mm.datasets.transforms.Resize` before rounding.

    A runtime's own operator is no help: with places in float32 it is a tenth of a gray level off in large images.
    """
    top, bottom, down = _places(images.shape[1], scale[1])
    left, right, across = _places(images.shape[2], scale[0])
    rows = []
    for row in (images.index_select(1, top), images.index_select(1, bottom)):
        rows.append(_between(row.index_select(2, left).float(), row.index_select(2, right).float(), across[:, None]))
    return _between(*rows, down[:, None, None])


def _places(old: int, new: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two pixels that each of ``new`` pixels lies between, and how near to the second one, from whole numbers."""
    place = ((2 * torch.arange(new) + 1) * old - new).clamp_min(0)  # of its centre, in parts of a pixel, 2 * new each
    first = place // (2 * new)
    share = (place - first * (2 * new)).float() / (2 * new)
    return first.clamp_max(old - 1), (first + 1).clamp_max(old - 1), share


def _between(first: torch.Tensor, second: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    return first + (second - first) * share


def _read(network) -> tuple[tuple[int, int] | None, bool]:
    """The size at which the test looks at images, if it has one, and whether it loads them as floats."""
    remedy = 'an exported model reads images as OpenCV does, in colour: leave it out'
    for key, usual in (('color_type', 'color'), ('imdecode_backend', 'cv2')):
        if (value := network.loader.get(key, usual)) != usual:
            raise UsageError(f'{key}={value!r} of LoadImageFromFile in the pipeline of the test: {remedy}')
    scale = None
    for step in network.pipeline.transforms:
        if isinstance(step, PackInputs):
            continue
        if not isinstance(step, Resize) or step.keep_ratio or step.scale is None or scale is not None:
            name = type(step).__name__ if type(step).__module__.startswith('kgl_mm') else _full_name(step)
            raise UsageError(
                f'{name} in the pipeline of the test: no part of an exported graph; train and test with '
                "dict(type='kgl_mm.Resize', scale=(WIDTH, HEIGHT)) alone between loading and packing"
            )
        scale = tuple(step.scale)
    return scale, bool(network.loader.get('to_float32'))


def _full_name(step) -> str:
    return f'{type(step).__module__.partition(".")[0]}.{type(step).__name__}'


def _activation(head: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the head makes probabilities of logits with, found by trying."""
    kinds = (lambda logits: logits.softmax(1), lambda logits: logits.sigmoid())
    logits = torch.linspace(-2, 3, 2 * (getattr(head, 'num_classes', None) or 2)).view(2, -1)
    if hasattr(head, '_get_predictions'):
        with torch.no_grad():
            expected = torch.stack([sample.pred_score for sample in head._get_predictions(logits.clone(), None)])
        for kind in kinds:
            if expected.shape == logits.shape and torch.allclose(kind(logits), expected, atol=1e-6):
                return kind
    raise UsageError(f'{type(head).__name__}: makes its scores neither by softmax nor by sigmoid, so it has no export')


def _decompositions() -> dict:
    """What the operations of a backward pass are made of; an exporter knows those of a forward pass alone."""
    names = [name for name in dir(aten) if name.endswith(('_backward', '_backward_data'))]
    table = torch._decomp.get_decompositions([getattr(aten, name) for name in names])
    return {
        **table,
        aten.convolution_backward.default: _convolution_backward,
        aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    }


def _convolution_backward(
    grad, images, weight, _bias, stride, padding, dilation, transposed, output_padding, groups, wanted
):
    """The gradient of the images alone: those of weights are not asked for."""
    if transposed or wanted[1] or wanted[2]:
        return NotImplemented
    extra = [step - 1 for step in stride]  # of the sizes that come to this one the largest, which is cut to what it was
    back = aten.convolution.default(grad, weight, None, stride, padding, dilation, True, extra, groups)
    return back[:, :, : images.shape[2], : images.shape[3]], None, None


def _max_pool_backward(grad, images, _kernel, _stride, _padding, _dilation, _ceil, indices):
    flat = torch.zeros_like(images).flatten(2)
    return flat.scatter_add(2, indices.flatten(2), grad.flatten(2)).view(images.shape)

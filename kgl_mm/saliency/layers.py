"""Layers by name or chosen, and what they put out as feature maps."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from kgl_mm.errors import UsageError

from .one_pass import undisturbed

_POOLING = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd)
_MOST_EXTRA_TOKENS = 8


def feature_map(shape: Sequence[int], size: Sequence[int]) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """How to see a tensor of this shape as B x C x h x w, for images of ``size`` (H, W); None where it is no map.

    Feature maps are taken as they are, channels last where only that fits the proportions of the image. Of tokens
    B x N x C those at the front that do not fill a grid, such as a class token, are left out.
    """
    if len(shape) == 4:
        if _fits(shape[1:3], size) and not _fits(shape[2:4], size):
            return lambda x: x.permute(0, 3, 1, 2)
        return lambda x: x
    if len(shape) == 3:
        for extra in range(_MOST_EXTRA_TOKENS + 1):
            for height in range(1, shape[1] - extra + 1):
                width, left = divmod(shape[1] - extra, height)
                if not left and _fits((height, width), size):
                    return lambda x: x[:, extra:].unflatten(1, (height, width)).permute(0, 3, 1, 2)
    return None


def _fits(grid: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a grid is the image at some stride, rounded up or down."""
    least = max(side / (cells + 1) for cells, side in zip(grid, size, strict=True))
    most = min(side / max(cells - 1, 0.5) for cells, side in zip(grid, size, strict=True))
    return least < most and max(grid) > 1 and max(grid) <= max(size)


def named_layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The layers of these names, or one sentence that says which there are."""
    modules = dict(model.named_modules(remove_duplicate=False))
    missing = [name for name in names if not name or name not in modules]
    if missing or not names:
        leaves = [name for name, module in modules.items() if name and not any(module.children())]
        outer = sorted({name.rpartition('.')[0] for name in leaves} - {''}, key=lambda name: (name.count('.'), name))
        raise UsageError(
            f'layers={list(names)}: {"no such layer as " + missing[0] if missing else "none named"}; '
            f'the last ones of this model are {", ".join(leaves[-6:])}, and there are {", ".join(outer[:12])}'
        )
    return {name: modules[name] for name in names}


def choose_layers(model: nn.Module, images: torch.Tensor, depth: int) -> list[str]:
    """The last of the outermost layers at each of the ``depth`` deepest resolutions, shallow to deep.

    Of a network with a ``backbone`` only that is looked at. What comes out of pooling is passed over, since there the
    gradient sits in single cells. Of a transformer the norm layers are taken, and only those from which the target
    still hears the patches: behind the last attention a class token is all that counts.
    """
    backbone = getattr(model, 'backbone', None)
    prefix, inner = ('backbone.', backbone) if isinstance(backbone, nn.Module) else ('', model)
    seen: dict[str, tuple] = {}  # in the order in which layers end, so that a block comes after its parts
    pooled, handles = [], []
    for name, module in inner.named_modules():
        if name:

            def note(module, _inputs, output, name=name):
                if isinstance(module, _POOLING):
                    pooled.append(output)
                elif isinstance(output, torch.Tensor) and not any(output is other for other in pooled):
                    seen.pop(name, None)
                    seen[name] = (tuple(output.shape), isinstance(module, nn.LayerNorm))

            handles.append(module.register_forward_hook(note))
    try:
        with undisturbed(model), torch.no_grad():
            model(images[:1].clone())
    finally:
        for handle in handles:
            handle.remove()
    size = images.shape[2:]
    grids = {name: _grid(shape, size) for name, (shape, _) in seen.items()}
    grids = {name: grid for name, grid in grids.items() if grid and max(grid) > 1}
    if grids and _of_tokens(seen[list(grids)[-1]][0], size):
        grids = {name: grid for name, grid in grids.items() if seen[name][1]}
        if any(len(seen[name][0]) == 3 and seen[name][0][1] != grids[name][0] * grids[name][1] for name in grids):
            grids = dict(list(grids.items())[:-2])  # the norms behind the last attention see a class token alone
    if not grids:
        raise UsageError(
            f'no layer of {type(inner).__name__} puts out feature maps of these {size[0]} x {size[1]} images; '
            'name the layers: layers=[...]'
        )
    last = {}
    for name, grid in grids.items():
        if grid not in last or name.count('.') <= last[grid].count('.'):
            last.pop(grid, None)
            last[grid] = name
    return [prefix + name for name in list(last.values())[-depth:]]


def _grid(shape: Sequence[int], size: Sequence[int]) -> tuple[int, int] | None:
    view = feature_map(shape, size)
    return tuple(view(torch.empty(shape, device='meta')).shape[2:]) if view else None


def _of_tokens(shape: Sequence[int], size: Sequence[int]) -> bool:
    return len(shape) == 3 or (_fits(shape[1:3], size) and not _fits(shape[2:4], size))

"""What all saliency methods share: target, flips, normalisation, and one pass for several methods."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError

from .one_pass import OnePass, undisturbed
from .targets import Target

FLIPS = dict(h=(3,), v=(2,), hv=(2, 3))
NORMALIZE = ('max', 'evidence', None)


class Explanation(NamedTuple):
    """Maps (B, H, W) as :attr:`SaliencyMethod.normalize` asks for, and what they explain (B,).

    ``views`` are the raw maps of the images and of each flip, flipped back, (1 + flips, B, H, W): how far they agree
    says how far a map can be trusted.
    """

    maps: torch.Tensor
    evidence: torch.Tensor
    views: torch.Tensor


class SaliencyMethod:
    """A map for each image of what speaks for the target: ``method(images)``, B x C x H x W to B x H x W, not negative.

    One forward and one backward pass serve a batch and all layers. Maps stay on the device; the model's flags,
    gradients, buffers and hooks are as they were, also after an error. Images are what the model takes: normalised.

    Args:
        model: any module that maps images to logits.
        target: what is explained, see :func:`~kgl_mm.saliency.evidence`; the evidence for a defect by default.
        normalize: ``'max'``: each map by its own maximum, to [0, 1]; ``'evidence'``: that times sigmoid(evidence), so
            that a good part's map stays faint and maps compare across images; None: as the formula gives it.
        flips: of ``'h'``, ``'v'``, ``'hv'``: the maps of the flipped images, flipped back, are averaged in.
        amp: mixed precision: True, or a type such as ``'bfloat16'``.
    """

    def __init__(
        self,
        model: nn.Module,
        target: Target = 'defect',
        normalize: str | None = 'max',
        flips: Sequence[str] = (),
        amp: bool | str | torch.dtype = False,
    ) -> None:
        if normalize not in NORMALIZE:
            raise UsageError(f"normalize={normalize!r}: not 'max', 'evidence' or None")
        if isinstance(flips, str) or not set(flips) <= set(FLIPS):
            raise UsageError(f"flips={flips!r}: not a list of 'h', 'v' and 'hv'")
        if isinstance(amp, str):
            amp = getattr(torch, amp, amp)
        if not isinstance(amp, bool | torch.dtype):
            raise UsageError(f'amp={amp!r}: not True, False or a type such as bfloat16')
        if not (callable(target) or isinstance(target, str | int | list | tuple | torch.Tensor)):
            raise UsageError(f"target={target!r}: not 'defect', 'predicted', a class or a function of the logits")
        self.model = model
        self.target = target
        self.normalize = normalize
        self.flips = tuple(dict.fromkeys(flips))
        self.amp = amp

    def __call__(self, images: torch.Tensor, target: Target | None = None) -> torch.Tensor:
        return self.explain(images, target).maps

    def explain(self, images: torch.Tensor, target: Target | None = None, also: Sequence[str] = ()) -> Explanation:
        """The maps with what they explain; ``target`` replaces the method's own for these images.

        Views are of ``flips`` and then of those in ``also``, which are looked at and not averaged in.
        """
        return explain([self], images, target, also)[0]

    def prepare(self, images: torch.Tensor) -> None:
        """Choose what is left to the method by images like these, so that it does not depend on what comes first."""

    def settings(self) -> dict:
        """What shapes the maps beside the weights, in plain values."""
        names = ('target', 'normalize', 'flips', 'amp')
        return dict(type=type(self).__name__, **{name: _plain(getattr(self, name)) for name in names})

    def watch(self, run: OnePass, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Register what the pass shall call back; what is returned makes the raw maps of the numbers that came out."""
        raise NotImplementedError

    def finish(self, raw: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        """Normalised maps of raw ones (B, H, W)."""
        if self.normalize is None:
            return raw
        maps = by_maximum(raw)
        return maps if self.normalize == 'max' else maps * score.sigmoid().to(maps)[:, None, None]


def explain(
    methods: Sequence[SaliencyMethod], images: torch.Tensor, target: Target | None = None, also: Sequence[str] = ()
) -> list[Explanation]:
    """What several methods say of the same images, from one forward and one backward pass in all.

    Model, target, flips and precision are those of the first method.
    """
    first = methods[0]
    if (
        not isinstance(images, torch.Tensor)
        or images.ndim != 4
        or not images.is_floating_point()
        or not images.shape[0]
    ):
        raise UsageError('images must be a tensor of floats, images x channels x height x width, normalised')
    target = first.target if target is None else target
    for method in methods:
        method.prepare(images)
    views, scores = [[] for _ in methods], []
    with undisturbed(first.model), full_precision(images):
        for dims in [(), *(FLIPS[flip] for flip in dict.fromkeys((*first.flips, *also)))]:
            seen = images.flip(dims) if dims else images
            with OnePass(first.model) as run:
                results = [method.watch(run, seen) for method in methods]
                scores.append(run(seen, target, _precision(first.amp, images)))
            for into, result in zip(views, results, strict=True):
                raw = result(scores[-1])
                into.append(raw.flip([dim - 1 for dim in dims]) if dims else raw)
    averaged = slice(1 + len(first.flips))
    score = torch.stack(scores[averaged]).mean(0)
    stacked = [torch.stack(of_method) for of_method in views]
    maps = [method.finish(view[averaged].mean(0), score) for method, view in zip(methods, stacked, strict=True)]
    return [Explanation(m, score, v) for m, v in zip(maps, stacked, strict=True)]


def by_maximum(maps: torch.Tensor) -> torch.Tensor:
    """Maps (B, h, w), each divided by its maximum; an empty one stays empty."""
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def resize(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Maps (B, h, w) to (B, *size): bilinear, half-pixel centres, as OpenCV does it."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size=tuple(size), mode='bilinear', align_corners=False)[:, 0]


def _plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, str | int | float | list | None) else getattr(value, '__qualname__', str(value))


def _precision(amp: bool | torch.dtype, images: torch.Tensor) -> torch.dtype | None:
    if amp is not True:
        return amp or None
    half = images.is_cuda and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if half else torch.bfloat16


def full_precision(images: torch.Tensor):
    """Convolutions of a GPU in full float32, and always the same ones: their default rounds maps at 1e-3."""
    if not images.is_cuda:
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)

import hashlib
from collections.abc import Sequence
from numbers import Number
from pathlib import Path

import torch
from mmengine.dataset import BaseDataset
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError, check_number
from kgl_mm.priors.fingerprint import hash_of_model
from kgl_mm.registry import PRIOR_SOURCES
from kgl_mm.saliency import Explanation
from kgl_mm.saliency.base import FLIPS, full_precision, resize

from . import clip
from .base import PriorSource, needed_good, quantile_of_good, shared_out, spread

ROWS = 2048  # patches compared at once


@PRIOR_SOURCES.register_module()
class ClipSource(PriorSource):
    """What CLIP holds for a defect by what is said of it, and how far each patch is from those of a few good images.

    The formulas are those of KeAD (`AGSSP <https://arxiv.org/abs/2509.18919>`_)::

        S(f) = exp(<f, b> / T) / (exp(<f, a> / T) + exp(<f, b> / T))
        M    = mean over layers of S(f(y, x)) + (1 - max over remembered patches p of cos(f(y, x), p)) / 2
        map  = M / (M + q),  M resized to the image

    with f the patches and a, b the directions of *good* and *defective* (:mod:`kgl_mm.priors.sources.clip`), and q the
    ``quantile`` of the maxima of M over good images; of one that is remembered, its own patches are left out, and
    where there is a single good image it is compared with itself flipped. The evidence of an image is the mean of its
    maximum of M and of S of the whole image; S alone with ``k=0``.

    Args:
        network: a plain ViT, as open_clip names it; ``'local-dir:FOLDER'`` and ``'hf-hub:NAME'`` bring their weights.
        pretrained: the name of its weights, which open_clip downloads once, or a local file of them.
        descriptions: of defects: a file, the name of shipped ones, or sentences in a list; None for none.
        object: what is seen; in descriptions of a file or name it takes the place of theirs. Here and in sentences
            ``_`` is a space, since options of a command lose theirs.
        layers: after how many blocks patches are taken, counted from 1.
        vv_blocks: how many of the last blocks have a second path, on which values attend to values.
        temperature: the T above.
        k: good images that are remembered, evenly over the order of the data set; 0 for none.
        compare: good images, at most, that q is made of.
        quantile: see above; None takes M as it is, halved where patches are remembered, so that it stays in [0, 1].
            With ``k=0`` too no good image is needed.
        image_size: at which CLIP sees images, (height, width) or both in one; None for that of its training.
    """

    judged_by_skill = False
    NEEDS_GOOD = 'and ClipSource compares with some'

    def __init__(
        self,
        network: str = 'ViT-B-16-plus-240',
        pretrained: str | Path | None = 'laion400m_e32',
        descriptions: str | Path | Sequence | None = 'metal',
        object: str = 'metal surface',
        layers: Sequence[int] = (3, 6, 9, 12),
        vv_blocks: int = 9,
        temperature: float = 0.07,
        k: int = 4,
        compare: int = 50,
        quantile: float | None = 0.99,
        image_size: int | Sequence[int] | None = None,
    ) -> None:
        check_number(0, whole=True, k=k)
        check_number(1, whole=True, compare=compare)
        check_number(0, above=True, temperature=temperature)
        check_number(0, 1, above=True, none='M as it is', quantile=quantile)
        if image_size is not None:
            image_size = [image_size] * 2 if isinstance(image_size, Number) else list(image_size)
            if len(image_size) != 2:
                raise UsageError(f'image_size={image_size}: neither a number nor height and width')
            for side in image_size:
                check_number(1, whole=True, image_size=side)
        if not isinstance(object, str) or not (object := clip.in_words(object)):
            raise UsageError(f'object={object!r}: name in words what is seen')
        kinds, sentences = clip.wordings(descriptions, object)
        self.texts = clip.prompts(object, kinds, sentences)
        self.model, self.tokenizer = clip.load(network, pretrained, image_size)
        depth = len(self.model.visual.transformer.resblocks)
        check_number(0, depth, whole=True, vv_blocks=vv_blocks)
        if not layers:
            raise UsageError('layers=[]: name at least one')
        for layer in layers:
            check_number(1, depth, whole=True, layers=layer)
        self.layers, self.vv_blocks, self.temperature = list(layers), vv_blocks, temperature
        self.k, self.compare, self.quantile = k, compare, quantile
        self.options = dict(
            network=Path(network).name, descriptions=sentences, object=object, layers=self.layers, vv_blocks=vv_blocks,
            temperature=temperature, k=k, compare=compare, quantile=quantile, image_size=image_size,
        )  # fmt: skip
        self.directions: torch.Tensor | None = None
        self.memory: torch.Tensor | None = None
        self.scale: float | None = None

    @staticmethod
    def needs_model(_settings: dict) -> bool:
        return False

    @property
    def learns(self) -> bool:
        return self.k > 0 or self.quantile is not None

    def settings(self) -> dict:
        return dict(super().settings(), **self.options)

    def weights(self) -> str:
        digest = hashlib.sha256(hash_of_model(self.model).encode())
        for part in (self.directions, self.memory):
            digest.update(b'' if part is None else part.cpu().numpy().tobytes())
        digest.update(repr(self.scale).encode())
        return digest.hexdigest()

    def prepare(self, images: torch.Tensor) -> None:
        """Embed the prompts; here, where each process computes with as many threads."""
        if self.directions is None:
            with torch.no_grad():
                self.directions = clip.text_directions(self.model, self.tokenizer, self.texts)

    def fit(self, dataset: BaseDataset) -> None:
        good = needed_good(dataset, self.NEEDS_GOOD)
        kept, single = spread(good, self.k), len(good) == 1
        remember = lambda images, _: [self.embed(images)[0].cpu()]  # noqa: E731
        if kept:
            parts = shared_out(remember, self.model, dataset, kept)
            self.memory = torch.cat(parts, 1).to(self.model.logit_scale.device)

        def look(images: torch.Tensor, indices: Sequence[int]) -> list[float]:
            memory = self.memory
            if indices[0] in kept and single:
                images = torch.cat([images.flip(dims) for dims in FLIPS.values()])
            elif indices[0] in kept:
                memory = memory[:, [place for place, index in enumerate(kept) if index != indices[0]]]
            return [float(self.see(images, memory)[0].max())]

        self.scale = 1.0
        if self.quantile is not None:
            others = [index for index in good if index not in kept or len(kept) > 1 or single]
            peaks = shared_out(look, self.model, dataset, spread(others, self.compare))
            self.scale = quantile_of_good(peaks, self.quantile, 'ClipSource')

    def maps(self, images: torch.Tensor, samples: Sequence = ()) -> torch.Tensor:
        return self._finished(self._seen(images)[0], images)

    def explain(self, images: torch.Tensor, samples: Sequence = (), also: Sequence[str] = ()) -> Explanation:
        found, whole = self._seen(images)
        evidence = whole if self.memory is None else (whole + found.amax((1, 2))) / 2
        views = [self._finished(found, images)]
        for flip in dict.fromkeys(also):
            dims = FLIPS[flip]
            views.append(self.maps(images.flip(dims)).flip([dim - 1 for dim in dims]))
        return Explanation(views[0], evidence, torch.stack(views))

    def see(self, images: torch.Tensor, memory: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """M of each patch (B, h, w) by this memory, and S of the whole images (B,)."""
        self.prepare(images)
        patches, whole = self.embed(images)
        found = self.score(patches).mean(0)
        if memory is not None:
            found = found + torch.stack([_distance(*pair) for pair in zip(patches, memory, strict=True)]).mean(0) / 2
        return found.unflatten(1, self.model.visual.grid_size), self.score(whole)

    def score(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The S of embeddings (..., D) of length 1."""
        return (embeddings @ self.directions.T / self.temperature).softmax(-1)[..., 1]

    def embed(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of images as the preprocessor of the model makes them: patches (layers, B, h w, D) and wholes (B, D)."""
        visual = self.model.visual
        if tuple(images.shape[2:]) != tuple(visual.image_size):
            images = F.interpolate(images, tuple(visual.image_size), mode='bicubic', antialias=True)
        with torch.no_grad(), full_precision(images):
            return clip.patches_and_whole(visual, images, self.layers, self.vv_blocks)

    def _seen(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.learns and self.scale is None:
            raise UsageError('ClipSource: nothing is known of good images yet, call fit with some first')
        return self.see(images, self.memory)

    def _finished(self, found: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        found = resize(found, images.shape[2:])
        if self.quantile is None:
            return found if self.memory is None else found / 2
        return found / (found + self.scale)


def _distance(patches: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """1 - cos to the nearest of the patches (k, N, D), of each patch (B, N, D)."""
    known = known.flatten(0, 1).T
    nearest = torch.cat([(part @ known).amax(1) for part in patches.flatten(0, 1).split(ROWS)])
    return (1 - nearest).clamp_min(0).view(patches.shape[:2])

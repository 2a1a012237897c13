import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import broadcast_object_list, get_rank
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kgl_mm.descriptions import Description, as_descriptions, render
from kgl_mm.errors import UsageError, check_number
from kgl_mm.priors.fingerprint import hash_of_model
from kgl_mm.registry import PRIOR_SOURCES
from kgl_mm.saliency.base import full_precision, resize

from .base import PriorSource, inputs_of, needed_good, quantile_of_good, shared_out, spread

LEVELS = 4
HELD_BACK = 5  # of so many good images one is kept for the scale


@PRIOR_SOURCES.register_module()
class DescriptionSource(PriorSource):
    """What a small network holds for a defect that has only seen drawn ones: described defects on good images.

    ::

        d   = log(1 + exp(z)),  z the logit that the network gives
        map = d / (d + q)

    with q the ``quantile`` of the maxima of d over good images, of which one in five is not trained on where there are
    five. The network is trained by :meth:`fit` with the exact map of what was drawn, by cross entropy and the overlap
    (Dice); on the CPU, so that its weights are the same wherever it goes on.

    Args:
        model: whose preprocessor makes the images; nothing else of it is used.
        descriptions: a file of them, the name of shipped ones, or a list of sentences and of records as dicts.
        steps: of the training.
        batch_size: images of a step.
        crop: side in pixels of what is cut out of an image in a step.
        size: images whose shorter side has more pixels are seen shrunk to this; None for none.
        width: channels of the network.
        lr: learning rate of Adam, which falls to 0 along a cosine.
        good: share of images in a step that nothing is drawn on.
        k: good images, at most, that are drawn on, evenly over the order of the data set.
        compare: good images, at most, that q is made of.
        quantile: see above.
        seed: of weights and drawings.
    """

    judged_by_skill = False
    NEEDS_GOOD = 'and DescriptionSource draws on some'

    def __init__(
        self,
        model: nn.Module | None = None,
        descriptions: str | Path | Sequence[str | dict | Description] = 'metal',
        steps: int = 300,
        batch_size: int = 8,
        crop: int = 128,
        size: int | None = 256,
        width: int = 16,
        lr: float = 0.005,
        good: float = 0.3,
        k: int = 200,
        compare: int = 50,
        quantile: float = 0.99,
        seed: int = 0,
    ) -> None:
        check_number(1, whole=True, steps=steps, batch_size=batch_size, crop=crop, width=width, k=k, compare=compare)
        check_number(1, whole=True, none='the size that images have', size=size)
        check_number(0, above=True, lr=lr)
        check_number(0, 1, good=good)
        check_number(0, 1, above=True, quantile=quantile)
        check_number(0, whole=True, seed=seed)
        self.descriptions = as_descriptions(descriptions)
        self.options = dict(
            steps=steps, batch_size=batch_size, crop=crop, size=size, width=width, lr=lr, good=good, k=k,
            compare=compare, quantile=quantile, seed=seed,
        )  # fmt: skip
        self.model = None
        if (preprocessor := getattr(model, 'data_preprocessor', None)) is not None:
            self.model = nn.Module()
            self.model.data_preprocessor = preprocessor
        self.network: nn.Module | None = None
        self.scale = 1.0

    @staticmethod
    def needs_model(settings: dict) -> bool:
        return False

    def settings(self) -> dict:
        return dict(super().settings(), descriptions=[asdict(record) for record in self.descriptions], **self.options)

    def weights(self) -> str:
        parts = [hash_of_model(self.model) if self.model else '', hash_of_model(self.network), repr(self.scale)]
        return hashlib.sha256(' '.join(parts).encode()).hexdigest()

    def fit(self, dataset: BaseDataset) -> None:
        good = needed_good(dataset, self.NEEDS_GOOD)
        kept_back = spread(good, min(self.options['compare'], len(good) // HELD_BACK))
        drawn_on = spread([index for index in good if index not in kept_back], self.options['k'])
        first, _ = inputs_of(self.model, dict(inputs=[dataset[good[0]]['inputs']], data_samples=[DataSample()]))
        self.network = _network(first.shape[1], self.options['width'], self.options['seed'])
        self.network.load_state_dict(_of_the_first(lambda: self._trained(dataset[index] for index in drawn_on)))
        self.network.to(first.device).eval()

        def look(images: torch.Tensor, _indices: Sequence[int]) -> list[float]:
            return self._distance(images).amax((1, 2)).tolist()

        peaks = shared_out(look, self.model, dataset, kept_back or spread(good, self.options['compare']))
        self.scale = quantile_of_good(peaks, self.options['quantile'], 'DescriptionSource')

    def maps(self, images: torch.Tensor, samples: Sequence = ()) -> torch.Tensor:
        if self.network is None:
            raise UsageError('DescriptionSource: it has not learned yet, call fit with good images first')
        distance = self._distance(images)
        return distance / (distance + self.scale)

    @torch.no_grad()
    def _distance(self, images: torch.Tensor) -> torch.Tensor:
        """The d of each pixel (B, H, W)."""
        height, width = _seen_size(images.shape[2:], self.options['size'])
        with full_precision(images):
            seen = F.interpolate(images, (height, width), mode='bilinear', antialias=True)
            logits = self.network(seen if (height, width) != images.shape[2:] else images)
        return F.softplus(resize(logits, images.shape[2:]))

    def _trained(self, samples: Iterable[dict]) -> dict[str, torch.Tensor]:
        """The weights after training on these good images."""
        options, network = self.options, self.network.train()
        images = [_shrunk(sample['inputs'], options['size']) for sample in samples]
        optimizer = torch.optim.Adam(network.parameters(), options['lr'])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options['steps'])
        for step in _progress(options['steps']):
            inputs, targets = self._batch(images, np.random.default_rng((options['seed'], step)))
            loss = _loss(network(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if not np.isfinite(loss.item()):
            raise UsageError(f'DescriptionSource: its training has diverged; set lr below {options["lr"]}')
        return network.state_dict()

    def _batch(self, images: list[np.ndarray], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Images with and without drawn defects as the network sees them, and the exact maps, on the CPU."""
        chosen = [images[i] for i in rng.integers(len(images), size=self.options['batch_size'])]
        size = np.minimum(self.options['crop'], np.min([image.shape[:2] for image in chosen], 0))
        parts, targets = [], []
        for image in chosen:
            turned = image[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))].copy()
            target = np.zeros(image.shape[:2], np.float32)
            if rng.random() >= self.options['good']:
                record = self.descriptions[rng.integers(len(self.descriptions))]
                turned, target = render(turned, record, int(rng.integers(2**31)))
            rows, columns = _window(rng, target, size)
            parts.append(torch.from_numpy(turned[rows, columns].transpose(2, 0, 1).copy()))
            targets.append(torch.from_numpy(target[rows, columns]))
        inputs, _ = inputs_of(self.model, dict(inputs=parts, data_samples=[DataSample() for _ in parts]))
        height, width = inputs.shape[2:]  # the preprocessor may have padded
        return inputs.cpu(), F.pad(torch.stack(targets), (0, width - size[1], 0, height - size[0]))


class _Network(nn.Module):
    """Logits (B, H, W) of images (B, C, H, W): what several resolutions see, added up at the finest."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [channels, width, *[2 * width] * (LEVELS - 1)]
        self.norm = nn.BatchNorm2d(channels)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.AvgPool2d(2) if level else nn.Identity(), _layer(before, after), _layer(after, after))
            for level, (before, after) in enumerate(itertools.pairwise(widths))
        )
        self.to_finest = nn.ModuleList(nn.Conv2d(after, width, 1) for after in widths[1:])
        self.last = nn.Sequential(nn.ReLU(), _layer(width, width), nn.Conv2d(width, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        stride = 2 ** (LEVELS - 1)
        found = self.norm(F.pad(images, (0, -width % stride, 0, -height % stride), mode='replicate'))
        size, total = found.shape[2:], 0
        for level, out in zip(self.levels, self.to_finest, strict=True):
            found = level(found)
            total = total + F.interpolate(out(found), size, mode='bilinear', align_corners=False)
        return self.last(total)[:, 0, :height, :width]


def _layer(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def _network(channels: int, width: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _Network(channels, width)


def _loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy and 1 - Dice, both of soft targets and of the whole batch."""
    found = logits.sigmoid()
    overlap = (2 * (found * targets).sum() + 1) / (found.sum() + targets.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, targets) + 1 - overlap


def _of_the_first(make: Callable[[], object]) -> object:
    """What the first process makes, in all; of its mistake they all know."""
    made = [None]
    if get_rank() == 0:
        try:
            made = [make()]
        except UsageError as error:
            made = [error]
    broadcast_object_list(made)
    if isinstance(made[0], UsageError):
        raise made[0]
    return made[0]


def _seen_size(size: Sequence[int], shorter: int | None) -> tuple[int, int]:
    """The size of an image whose shorter side is shrunk to so many pixels, where it has more.

    >>> _seen_size((512, 1408), 256), _seen_size((64, 128), 256)
    ((256, 704), (64, 128))
    """
    scale = min(1.0, (shorter or min(size)) / min(size))
    return tuple(max(1, round(side * scale)) for side in size)


def _shrunk(inputs: torch.Tensor, shorter: int | None) -> np.ndarray:
    """An image as the pipeline packs it (C, H, W) as H x W x C of that size."""
    image = np.ascontiguousarray(inputs.permute(1, 2, 0).numpy())
    height, width = _seen_size(image.shape[:2], shorter)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)


def _window(rng: np.random.Generator, target: np.ndarray, size: np.ndarray) -> tuple[slice, slice]:
    """A window of this size, mostly with some of the defect in it."""
    middle = rng.random(2) * target.shape
    marked = np.argwhere(target > 0.5)
    if len(marked) and rng.random() < 0.8:
        middle = marked[rng.integers(len(marked))] + rng.uniform(-0.5, 0.5, 2) * size
    starts = np.clip(np.rint(middle - size / 2), 0, np.array(target.shape) - size).astype(int)
    return tuple(slice(start, start + side) for start, side in zip(starts.tolist(), size.tolist(), strict=True))


def _progress(steps: int) -> Iterator[int]:
    console = Console(stderr=True)
    return track(range(steps), 'learning drawn defects', console=console, disable=not console.is_terminal)

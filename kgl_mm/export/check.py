"""Whether an exported model, run by its own runtime, says what the original says."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kgl_mm.errors import UsageError
from kgl_mm.evaluation import functional

SCORES, MAPS, AP = 1e-4, 1e-3, 1e-3
"""How far an export may be from the original."""
LOSS = 0.005
"""How much AP a quantised model may lose."""
JUMPS, HIGHEST = 1e-2, 0.05
"""A map by gradients jumps where an activation is 0 but for its last bit, in single cells, and so does that of the
original on another processor: such a share of its pixels may be further apart, though no more than this."""
SIZES = ((64, 64), (97, 61), (131, 257), (640, 480))
"""Width and height of the images beside those of the test set."""


@dataclass(frozen=True)
class Comparison:
    """Largest differences over so many images, where the first is, AP on both sides, and milliseconds an image.

    ``ap`` is None where the images are not labelled, or all of one kind; ``maps`` where there are none. ``jumps`` is
    how far the pixels are apart that may be, where maps are made by gradients. ``turned`` counts the images of which
    the label differs, since they lie so near to the threshold.
    """

    images: int
    scores: float
    worst: str
    maps: float | None
    jumps: float
    ap: tuple[float, float] | None
    turned: int
    speed: tuple[float, float]

    def faults(self) -> list[str]:
        """What is further apart than allowed."""
        found = []
        if not self.scores <= SCORES:
            found.append(f'scores differ by {self.scores:.1e}, at {self.worst} ({SCORES:.0e} allowed)')
        if self.maps is not None and not self.maps <= MAPS:
            found.append(f'maps differ by {self.maps:.1e} ({MAPS:.0e} allowed)')
        if not self.jumps <= HIGHEST:
            found.append(f'single pixels of maps differ by {self.jumps:.1e} ({HIGHEST} allowed)')
        if self.ap and not abs(self.ap[0] - self.ap[1]) <= AP:
            found.append(f'the AP is {self.ap[1]:.4f}, not {self.ap[0]:.4f}')
        return found

    def __str__(self) -> str:
        parts = [f'scores within {self.scores:.0e}']
        parts += [f'maps within {self.maps:.0e}'] if self.maps is not None else []
        parts += [f'but for single pixels, within {self.jumps:.0e}'] if self.jumps > MAPS else []
        parts += [f'AP {self.ap[0]:.4f} and {self.ap[1]:.4f}'] if self.ap else []
        parts += [f'{self.turned} on the other side of the threshold'] if self.turned else []
        return ', '.join(parts)


def compare(
    original, exported, images: Sequence[Any], labels: Sequence[int] = (), by_gradients: bool = False
) -> Comparison:
    """Both inspectors on the same images, in batches of different size."""
    apart, maps, jumps, names, turned, seconds, probabilities = [], [], [0.0], [], 0, [0.0, 0.0], ([], [])
    streams = _timed(original.stream(images, batch_size=4)), _timed(exported.stream(images, batch_size=3))
    for (mine, *before), (other, *after) in zip(*streams, strict=True):
        seconds = [total + more for total, more in zip(seconds, (*before, *after), strict=True)]
        names.append(mine.name)
        apart.append(np.abs(np.subtract(mine.probabilities, other.probabilities)).max())
        turned += mine.label != other.label
        if mine.map is not None and other.map is not None:
            pixels = np.sort(np.abs(mine.map - other.map), axis=None)
            allowed = int(JUMPS * pixels.size) if by_gradients else 0
            maps.append(pixels[-1 - allowed])
            jumps.append(pixels[-1] if allowed else 0.0)
        for side, result in zip(probabilities, (mine, other), strict=True):
            side.append(result.probabilities)
    ap = [_average_precision(np.array(side), labels, original.judge.has_good) for side in probabilities]
    return Comparison(
        images=len(names),
        scores=float(np.max(apart)),
        worst=names[int(np.argmax(apart))],
        maps=float(np.max(maps)) if maps else None,
        jumps=float(np.max(jumps)),
        ap=None if None in ap else tuple(ap),
        turned=turned,
        speed=tuple(1000 * total / len(names) for total in seconds),
    )


def _timed(results: Iterable) -> Iterator[tuple[Any, float]]:
    results = iter(results)
    while True:
        start = time.perf_counter()
        result = next(results, None)
        if result is None:
            return
        yield result, time.perf_counter() - start


def _average_precision(probabilities: np.ndarray, labels: Sequence[int], has_good: bool) -> float | None:
    """Of defects; where no class is good the mean over classes."""
    labels = np.array(labels)
    if not has_good:
        return functional.macro_average_precision(probabilities, labels) if len(set(labels.tolist())) > 1 else None
    if len(labels) == 0 or labels.all() or not labels.any():
        return None
    return functional.average_precision(functional.log_odds(probabilities), labels)


def variations(paths: Sequence[str | Path]) -> list[np.ndarray]:
    """Images of other sizes and kinds: made of the first of these, or of noise where there are none."""
    first = [image for path in paths[:2] if (image := cv2.imread(str(path))) is not None]
    if not first:
        coarse = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
        first = [cv2.resize(image, (300, 200), interpolation=cv2.INTER_CUBIC) for image in coarse]
    images = [cv2.resize(image, size) for image in first for size in SIZES]
    gray = cv2.cvtColor(first[-1], cv2.COLOR_BGR2GRAY)
    return [*images, gray, gray.astype(np.uint16) * 257, cv2.cvtColor(first[0], cv2.COLOR_BGR2BGRA)]


def refuse_what_differs(comparison: Comparison, name: str) -> None:
    if faults := comparison.faults():
        raise UsageError(f'{name}: not the same as the original on {comparison.images} images: {"; ".join(faults)}')

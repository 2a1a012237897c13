"""One picture of what guidance changed: an image, both maps of it, the true defect, all scores, and both curves."""

from collections.abc import Sequence

import cv2
import numpy as np

from ._tiles import CAPTION, GAP, INK, PAPER, TRUTH, as_bgr, captioned, outline, resize, write
from .overlay import overlay

BEFORE, AFTER = (90, 160, 240), (120, 200, 90)
HEAD = (70, 70, 70)
HEIGHT = 300


def draw_comparison(
    image: np.ndarray,
    maps: Sequence[np.ndarray],
    mask: np.ndarray | None,
    scores: Sequence[np.ndarray],
    labels: np.ndarray,
    shown: int,
    curves: Sequence[tuple[np.ndarray, np.ndarray, float]],
    names: Sequence[str] = ('stage1', 'guided'),
) -> bytes:
    """Six parts as a PNG file; the first of each pair is before, the second after.

    Args:
        image: that is shown, BGR.
        maps: two, of any size, in [0, 1].
        mask: the true defect, where it is known.
        scores: two arrays (N,), probabilities of a defect of all test images.
        labels: (N,), 0 is good.
        shown: which of the N images it is.
        curves: two of (recall, precision, average precision).
        names: of before and after.
    """
    height, width = image.shape[:2]
    scale = min(HEIGHT / height, 1.6 * HEIGHT / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = resize(as_bgr(image), size)
    truth = image.copy()
    if mask is not None:
        outline(truth, mask, TRUTH)
    heats = [overlay(image, map, top=max(float(np.max(map)), 1e-6)) for map in maps]
    verdicts = [f'{name}: score {score[shown]:.3f}' for name, score in zip(names, scores, strict=True)]
    plot = max(size[0], 420), max(size[1], 220)
    above = [
        captioned(image, 'test image that gained most', HEAD),
        captioned(truth, 'true defect' if mask is not None else 'no mask', HEAD),
        captioned(
            _scores(scores, labels, shown, names, plot), f'{len(labels)} test images: good, defective, this one', HEAD
        ),
    ]
    below = [
        captioned(heats[0], verdicts[0], BEFORE),
        captioned(heats[1], verdicts[1], AFTER),
        captioned(_curves(curves, names, plot), 'precision over recall', HEAD),
    ]
    columns = [max(one.shape[1], other.shape[1]) for one, other in zip(above, below, strict=True)]
    rows = []
    for tiles in (above, below):
        height = max(tile.shape[0] for tile in tiles)
        rows.append(np.hstack([_filled(tile, height, width) for tile, width in zip(tiles, columns, strict=True)]))
    return cv2.imencode('.png', np.vstack(rows))[1].tobytes()


def _filled(tile: np.ndarray, height: int, width: int) -> np.ndarray:
    missing = height - tile.shape[0] + GAP, width - tile.shape[1] + GAP
    return cv2.copyMakeBorder(tile, 0, missing[0], 0, missing[1], cv2.BORDER_CONSTANT, value=PAPER)


def _scores(scores, labels, shown, names, size) -> np.ndarray:
    """Each image a dot, by its score from 0 below to 1 above; dots of one score spread sideways."""
    canvas, bottom = _canvas(*size)
    lane = (size[0] - 44) // 4  # good and defective, before and after
    for column, (name, values) in enumerate(zip(names, scores, strict=True)):
        left = 36 + 2 * lane * column
        write(canvas, name, (left + lane // 2, size[1] - 4), 0.45)
        random = np.random.default_rng(0)
        for defect in (False, True):
            for index in np.flatnonzero((labels != 0) == defect):
                across = left + lane * defect + random.integers(8, lane - 8)
                place = int(across), round(bottom - values[index] * (bottom - 10))
                cv2.circle(canvas, place, 3, TRUTH if defect else (150, 150, 150), -1, cv2.LINE_AA)
                if index == shown:
                    cv2.circle(canvas, place, 8, INK, 2, cv2.LINE_AA)
    return canvas


def _curves(curves, names, size) -> np.ndarray:
    canvas, bottom = _canvas(*size)
    is_low = np.mean([score for *_, score in curves]) < 0.5
    first = 30 if is_low else bottom - 30  # the row of the legend, where no curve is
    for place, ((recall, precision, score), name, colour) in enumerate(
        zip(curves, names, (BEFORE, AFTER), strict=True)
    ):
        points = (
            np.stack([36 + recall * (size[0] - 46), bottom - precision * (bottom - 10)], 1).round().astype(np.int32)
        )
        cv2.polylines(canvas, [points], False, colour, 2, cv2.LINE_AA)
        row = first + 20 * place
        cv2.line(canvas, (50, row - 5), (70, row - 5), colour, 3)
        write(canvas, f'{name}: AP {score:.3f}', (78, row), 0.5)
    return canvas


def _canvas(width: int, height: int) -> tuple[np.ndarray, int]:
    """An empty plot with a scale from 0 to 1, and the row of its 0."""
    canvas, bottom = np.full((height, width, 3), PAPER, np.uint8), height - CAPTION
    for value in (0, 0.5, 1):
        row = round(bottom - value * (bottom - 10))
        cv2.line(canvas, (32, row), (width - 8, row), (80, 80, 80), 1)
        write(canvas, f'{value:g}', (4, row + 5), 0.4)
    return canvas, bottom

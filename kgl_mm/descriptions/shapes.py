"""Outlines of defects in pixels, and how they are filled: all in 8 bits, which every machine computes alike."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .record import Description
from .vocabulary import ROUND

BITS = 4  # of a fraction of a pixel, as OpenCV takes coordinates
FINE = 130_000
"""Pixels of a box that is drawn at four times its size; up to ``COARSE``, at twice."""
COARSE = 4_000_000
SOFT = 4  # standard deviation of a blur, in pixels of the canvas, that needs no more of them


@dataclass(frozen=True)
class Outline:
    """Points (N, 2) of x and y about the origin: a polygon, or a stroke of N - 1 widths."""

    points: np.ndarray
    widths: np.ndarray | None
    width: float

    def anchor(self, rng: np.random.Generator) -> np.ndarray:
        """A place that belongs to the defect."""
        return np.zeros(2) if self.widths is None else self.points[rng.integers(len(self.points))]


def outline(rng: np.random.Generator, record: Description, side: int) -> Outline:
    """One defect of a description in an image whose shorter side has so many pixels."""
    length = max(1.5, drawn(rng, record.length) * side)
    width = max(1.0, drawn(rng, record.width) * side)
    low, high = (0, 180) if record.orientation == 'any' else record.orientation
    angle = -math.radians(rng.uniform(low, high))  # rows count downwards
    rough = dict(smooth=0.0, speckled=0.5, rough=1.0)[record.texture]
    if record.shape in ROUND:
        uneven = 0.06 + 0.1 * rough + 0.12 * (record.shape == 'patch')
        points, widths = _rim(rng, length, width, uneven, 5 + round(7 * rough)), None
    elif record.shape == 'band':
        points, widths = _strip(rng, length, width, 0.02 + 0.1 * rough), None
    elif record.shape == 'ring':
        inner = max(1.0, length - width)
        points = _rim(rng, inner, inner * rng.uniform(0.75, 1), 0.02 + 0.05 * rough, 4)
        points = np.concatenate([points, points[:1]])
        widths = width * _waves(rng, len(points) - 1, 0.3, closed=True)
    else:
        points, widths = _stroke(rng, length, width, rough)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return Outline(points @ turn, widths, width)


def drawn(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """A value between two, by ratio, so that small ones are not rare."""
    low, high = limits
    return low * (high / low) ** rng.random()


def fill(shape: Outline, box: tuple[int, int, int, int], blur: float) -> np.ndarray:
    """The share of each pixel of a box (left, top, right, bottom) that is covered, as uint8, blurred so far."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if blur > SOFT:
        scale = 1 / 2 ** int(math.log2(blur / SOFT) + 1)
    else:
        scale = 4 if width * height <= FINE else 2 if width * height <= COARSE else 1
    size = math.ceil(width * scale), math.ceil(height * scale)
    canvas = np.zeros(size[::-1], np.uint8)
    corners = np.rint(((shape.points - (left, top)) * scale - 0.5) * 2**BITS).astype(np.int32)
    if shape.widths is None:
        cv2.fillPoly(canvas, [corners], 255, cv2.LINE_8, BITS)
    else:
        for start, end, wide in zip(corners[:-1], corners[1:], np.rint(shape.widths * scale), strict=True):
            cv2.line(canvas, start.tolist(), end.tolist(), 255, max(1, int(wide)), cv2.LINE_8, BITS)
    if scale < 1:
        canvas = _blurred(canvas, blur * scale)
        grown = cv2.resize(canvas, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_LINEAR_EXACT)
        return grown[:height, :width]
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return _blurred(small, blur) if blur else small


def noise(rng: np.random.Generator, size: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth chance of uint8 (height, width), 128 in the mean, whose hills are so many pixels wide."""
    height, width = size
    step = max(1, round(cell))
    few = [math.ceil(side / step) + 1 for side in size]
    coarse = rng.integers(0, 256, few, np.uint8)
    grown = cv2.resize(coarse, (few[1] * step, few[0] * step), interpolation=cv2.INTER_LINEAR_EXACT)
    top, left = rng.integers(0, step, 2)
    return np.ascontiguousarray(grown[top : top + height, left : left + width])


def _blurred(canvas: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(canvas, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def _waves(rng: np.random.Generator, number: int, height: float, closed: bool = False, most: int = 4) -> np.ndarray:
    """So many values about 1 that rise and fall by ``height``."""
    at = np.linspace(0, 2 * np.pi if closed else np.pi, number, endpoint=not closed)
    numbers = np.arange(1, most + 1)
    waves = rng.standard_normal(most)[:, None] * np.cos(np.outer(numbers, at) + rng.uniform(0, 2 * np.pi, (most, 1)))
    return np.clip(1 + height * waves.sum(0) * math.sqrt(2 / most), 0.3, 1.9)


def _rim(rng: np.random.Generator, length: float, width: float, uneven: float, most: int) -> np.ndarray:
    """An ellipse with a wavy rim."""
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    numbers = np.arange(2, most + 1)
    waves = rng.standard_normal(len(numbers)) / np.sqrt(numbers / 2)
    phases = rng.uniform(0, 2 * np.pi, (len(numbers), 1))
    rim = (waves[:, None] * np.cos(np.outer(numbers, angles) + phases)).sum(0)
    rim = np.clip(1 + uneven * rim, 0.5, 1.6)
    rim /= np.sqrt(np.mean(rim**2))
    return np.stack([np.cos(angles) * length, np.sin(angles) * width], 1) / 2 * rim[:, None]


def _strip(rng: np.random.Generator, length: float, width: float, uneven: float) -> np.ndarray:
    number = int(np.clip(length / max(width, 4) * 4, 8, 80))
    along = np.linspace(-length / 2, length / 2, number)
    sides = [width / 2 * _waves(rng, number, uneven, most=8) for _ in range(2)]
    upper, lower = (np.stack([along, sign * side], 1) for sign, side in zip((-1, 1), sides, strict=True))
    return np.concatenate([upper, lower[::-1]])


def _stroke(rng: np.random.Generator, length: float, width: float, rough: float) -> tuple[np.ndarray, np.ndarray]:
    """A path of this length that bends, jagged where it is rough, and thins out at its ends."""
    number = int(np.clip(length / max(2 * width, 2.5), 4, 60))
    at = np.linspace(-1, 1, number)
    headings = rng.normal(0, 0.3) * at + 0.12 * (_waves(rng, number, 1.0, most=3) - 1)
    headings += 0.45 * rough * rng.standard_normal(number)
    steps = length / number * np.stack([np.cos(headings), np.sin(headings)], 1)
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    chord = points[-1]
    cosine, sine = chord / max(np.hypot(*chord), 1e-9)
    points = (points - chord / 2) @ np.array([[cosine, -sine], [sine, cosine]])  # from end to end along x
    taper = np.clip((1 - np.abs(at)) * 3 + 0.4, 0, 1)
    return points, width * taper * _waves(rng, number, 0.15 + 0.2 * rough, most=6)

"""Drawing described defects onto good images, with the exact map of what was drawn."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from kgl_mm.errors import UsageError, check_number

from .record import Description
from .shapes import Outline, fill, noise, outline
from .vocabulary import ROUND

WHITES = {'u': (255, 1023, 4095, 16383, 65535), 'f': (1, 255, 65535)}
"""What may be the brightest value of an image, since 12 bits often come in 16 and floats in any range."""
OVERSHOT = 1.2  # times white, which floats may reach where they were sharpened or resized
DARKEST = 0.1  # share of white that a black image counts as, so that a contrast to it can be seen
LENS = 0.8  # pixels that the sharpest edge of a picture may be blurred by
CUT = 0.15  # share of defects that the border may cut
CLUSTERED = 0.5  # share of images in which several defects lie together


def render(image: np.ndarray, record: Description, seed: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the defects of a description: the new image, and the map of them.

    With a paint P that has the tone of the description and some of the ground's own texture::

        new image = (1 - map) image + map P

    rounded where the image has whole numbers; so where the map is 0, the image is what it was. The strongest place of
    a defect has 1. P differs from the mean M of what is around it by contrast x M; where the image varies more than
    that (between its 1st and 99th hundredth), by contrast x this range. What is beyond black or white is cut; where an
    image has negative values, which has neither, what is further from all of it than this range.

    Args:
        image: H x W, or H x W x 1 to 4, of which a second or fourth channel is an alpha, which stays; uint8, uint16
            or finite floats. It is not changed.
        record: see :class:`Description`.
        seed: the same one draws the same, on any machine: pixel by pixel, of floats up to rounding.

    Returns:
        An image of the same shape and type, and the map: H x W, float32 from 0 to 1, at least one place 1.

    >>> image = np.full((40, 60), 100, np.uint8)
    >>> drawn, map = render(image, Description('plate', 'pit', contrast=0.5), seed=0)
    >>> bool((drawn[map == 0] == 100).all()), int(drawn[map == 1].min()) in range(40, 61)
    (True, True)
    """
    colours = _colours(image)
    if not isinstance(record, Description):
        raise UsageError(f'{record!r}: not a Description; parse(sentence) makes one of a sentence')
    for word in seed if isinstance(seed, Sequence) and not isinstance(seed, str) and seed else [seed]:
        check_number(0, whole=True, seed=word)
    rng = np.random.default_rng(seed)
    work = colours.astype(np.float64 if image.dtype == np.float64 else np.float32)
    black, white, least = _range_of(work, image.dtype.kind)
    height, width = image.shape[:2]
    left_over = np.ones((height, width), np.float32)
    number = int(rng.integers(record.count[0], record.count[1] + 1))
    centre = _cluster(rng, (width, height)) if number > 1 and rng.random() < CLUSTERED else None
    for _ in range(number):
        (left, top, right, bottom), alpha = _one(rng, record, (width, height), centre)
        box = np.s_[top:bottom, left:right]
        paint = _paint(rng, record, work[box], alpha, least)
        work[box] += alpha[..., None] * (np.clip(paint, black, white) - work[box])
        left_over[box] *= 1 - alpha
    map = 1 - left_over
    result = image.copy()
    rows, columns = (np.flatnonzero(map.any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if image.dtype.kind == 'f':
        changed = np.clip(work[box], np.finfo(image.dtype).min, np.finfo(image.dtype).max)
    else:
        changed = np.rint(work[box])
    _colours(result)[box] = changed.astype(image.dtype)
    return result, map


def _colours(image: np.ndarray) -> np.ndarray:
    """The channels of an image that have brightness, as a view H x W x C."""
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or not image.size:
        raise UsageError(f'an image of shape {np.shape(image)}: nothing can be drawn on it; give H x W or H x W x C')
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels > 4:
        raise UsageError(f'an image of shape {image.shape}: it has {channels} channels; give H x W or H x W x 1 to 4')
    if image.dtype.kind not in WHITES or image.dtype.itemsize > (2 if image.dtype.kind == 'u' else 8):
        raise UsageError(f'an image of {image.dtype}: give uint8, uint16 or floats')
    if image.dtype.kind == 'f' and not np.isfinite(image).all():
        raise UsageError('an image with values that are not finite: nothing can be drawn on it')
    return image.reshape(*image.shape[:2], channels)[..., : channels - (channels in (2, 4))]


def _range_of(work: np.ndarray, kind: str) -> tuple[float, float, float]:
    """Black, white, and what contrast is a share of at least: how far the image spreads, by some thousand pixels."""
    step = max(1, math.isqrt(work.shape[0] * work.shape[1] // 20_000))
    few = work[::step, ::step].mean(2)
    low, high = np.quantile(few, (0.01, 0.99))
    darkest, brightest = float(work.min()), float(work.max())
    if darkest < 0:
        spread = float(high - low) or 1.0
        return darkest - spread, brightest + spread, spread
    beyond = OVERSHOT if kind == 'f' else 1
    white = next((white for white in WHITES[kind] if brightest <= beyond * white), brightest)
    return 0.0, max(white, brightest), max(float(high - low), DARKEST * white)


def _cluster(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """The middle of several defects, and how far they lie about it."""
    return rng.random(2) * size, rng.uniform(0.08, 0.3) * max(size)


def _one(
    rng: np.random.Generator, record: Description, size: tuple[int, int], centre: tuple[np.ndarray, float] | None
) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """One defect: its box (left, top, right, bottom), and how much of each pixel there it is, in steps of 1/255."""
    shape = outline(rng, record, min(size))
    blur = rng.uniform(0, LENS)
    if record.edge == 'soft':
        blur = max(LENS, shape.width * (0.15 if record.shape in ROUND else 0.3))
    shape, anchor = _placed(rng, shape, size, centre)
    margin = 1 + 3 * blur + (shape.width if shape.widths is not None else 0)
    low = np.maximum(np.floor(shape.points.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(shape.points.max(0) + margin), size).astype(int)
    box = (*low.tolist(), *high.tolist())
    cover = fill(shape, box, blur)
    x, y = (anchor - low).astype(int)
    if not cover.any():  # too small for its pixel
        cover[y, x] = 255
    solid = cover
    if record.shape == 'patch':
        cover = _uneven(rng, cover, shape.width, record.edge == 'sharp')
    if record.texture == 'speckled':
        cell = shape.width / 10 if record.shape in ROUND else shape.width * 1.2
        grains = np.clip((noise(rng, cover.shape, max(1.5, cell)).astype(np.int32) - 112) * 6, 0, 255)
        cover = (cover * grains // 255).astype(np.uint8)
    if cover.max() < 16:  # chance has left next to nothing of it
        cover = solid
    return box, cover.astype(np.float32) / np.float32(cover.max())


def _placed(
    rng: np.random.Generator, shape: Outline, size: tuple[int, int], centre: tuple[np.ndarray, float] | None
) -> tuple[Outline, np.ndarray]:
    """Somewhere in the image: whole where it has room, but for a few; and the place of its anchor."""
    anchor = shape.anchor(rng)
    wanted = rng.random(2) * size if centre is None else centre[0] + centre[1] * rng.standard_normal(2)
    wanted = np.clip(wanted, 0, np.array(size) - 1e-3)
    reach = shape.width / 2 if shape.widths is not None else 0
    least, most = reach - shape.points.min(0), np.array(size) - reach - shape.points.max(0)
    shift = wanted - anchor
    if rng.random() >= CUT and (least <= most).all():
        shift = np.clip(shift, least, most) if centre is not None else rng.uniform(least, most)
    points = shape.points + shift
    return Outline(points, shape.widths, shape.width), np.clip(anchor + shift, 0, np.array(size) - 1)


def _uneven(rng: np.random.Generator, cover: np.ndarray, width: float, hard: bool) -> np.ndarray:
    """A patch of which noise takes a part, here more and there less, most at its rim."""
    sigma = max(0.5, width / 8)
    soft = cv2.GaussianBlur(cover, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) if sigma < 8 else cover
    hills = noise(rng, cover.shape, width / 3).astype(np.int32) + noise(rng, cover.shape, width / 9)
    strength = soft.astype(np.int32) * 2 + hills - 384  # 0 where half is covered and chance is fair
    gain = 4 if hard else 1
    ragged = np.clip(strength * gain + 64, 0, 255) * (cover > 0)
    return (ragged * cover // 255).astype(np.uint8)


def _paint(
    rng: np.random.Generator, record: Description, ground: np.ndarray, alpha: np.ndarray, least: float
) -> np.ndarray:
    """What a defect covers the ground with (h, w, C)."""
    level = ground.mean((0, 1), dtype=np.float64).astype(ground.dtype)
    contrast = rng.uniform(*record.contrast) * np.maximum(level, least)
    size, thick = alpha.shape, math.sqrt(max(1.0, float(alpha.sum()))) if record.shape in ROUND else 3.0
    strength = np.ones(size, ground.dtype)
    uneven = dict(smooth=0.15, speckled=0.4, rough=0.5)[record.texture]
    cell = thick / 2 if record.texture == 'smooth' else max(1.5, thick / 12)
    strength += uneven * _signed(noise(rng, size, cell), ground.dtype)
    if record.tone == 'mixed':
        strength *= _light_and_dark(rng, record, size, thick).astype(ground.dtype)
    elif record.tone == 'dark':
        strength = -strength
    kept = ground.dtype.type(0.3 if record.edge == 'sharp' else 0.7)
    return level + kept * (ground - level) + strength[..., None] * contrast.astype(ground.dtype)


def _light_and_dark(rng: np.random.Generator, record: Description, size: tuple[int, int], thick: float) -> np.ndarray:
    """Signs, soft in between: of a blob one side is in the light, all else changes along itself."""
    if record.shape != 'blob':
        return np.clip(4 * _signed(noise(rng, size, max(4.0, thick / 2)), np.float32), -1, 1)
    angle = rng.uniform(0, 2 * np.pi)
    across, down = (np.linspace(-1, 1, side, dtype=np.float32) for side in size[::-1])
    return np.clip(2 * (np.float32(math.cos(angle)) * across + np.float32(math.sin(angle)) * down[:, None]), -1, 1)


def _signed(chance: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (chance.astype(dtype) - 128) / 128

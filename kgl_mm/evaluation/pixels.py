"""Pixel-level metrics of maps against masks, by counts that do not grow with the number of images; numpy and OpenCV.

Each pixel of a map in [0, 1] falls into one of some 80,000 steps and counts there: once among the pixels of its kind
(in a defect or not), and in a defect also with 1 over the area of its region. All that ranks pixels follows from these
three rows of counts, as far as their values differ by a step. The steps are no wider than those of a PNG of 16 bits,
whose maps are ranked exactly, and near 0 and near 1, where most of a map may lie, they are as fine in proportion: 256
an octave, down to 2^-40.
"""

import cv2
import numpy as np

from kgl_mm.errors import UsageError

EDGE, OCTAVES = np.float32(2**-8), 32
"""Nearer than this to 0 or 1 steps are proportional, for so many octaves."""
FINE, FINEST = 256 * OCTAVES, (EDGE * np.float32(2.0**-OCTAVES)).view(np.int32) >> 15
HALF = FINE + 2**15 - 2**8
STEPS = 2 * HALF + 1
LIMIT = 0.3
"""False positive rate up to which AUPRO looks, as the data set MVTec AD has it."""


class PixelTally:
    """Counts of the pixels of any number of images.

    >>> tally = PixelTally()
    >>> tally.add([[0.9, 0.8], [0.1, 0.85]], [[1, 1], [0, 0]])
    >>> {name: round(value, 4) for name, value in tally.metrics().items()}
    {'pixel_AUROC': 0.75, 'pixel_AP': 0.8333, 'AUPRO': 0.5}
    """

    def __init__(self) -> None:
        self.inside = np.zeros(STEPS, np.int64)
        self.outside = np.zeros(STEPS, np.int64)
        self.by_region = np.zeros(STEPS)
        self.regions = 0
        self.images = 0

    def add(self, map, mask) -> None:
        """Count the pixels of an image: a map (H, W) in [0, 1], and its mask (H, W), everything but 0 inside."""
        map, inside = np.asarray(map, np.float32), np.asarray(mask) != 0
        if map.shape != inside.shape or map.ndim != 2:
            raise UsageError(f'a map {map.shape} and its mask {inside.shape} must have the same two dimensions.')
        if not ((map >= 0) & (map <= 1)).all():
            raise UsageError('a map must lie in [0, 1] to be compared with masks.')
        steps = steps_of(map)
        self.outside += np.bincount(steps[~inside], minlength=STEPS)
        self.images += 1
        if not inside.any():
            return
        found = np.bincount(steps[inside], minlength=STEPS)
        self.inside += found
        count, parts, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
        weights = 1 / stats[parts[inside], cv2.CC_STAT_AREA]
        self.by_region += np.bincount(steps[inside], weights, STEPS)
        self.regions += count - 1

    def merge(self, other: 'PixelTally') -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def metrics(self) -> dict[str, float]:
        """Empty where there are no pixels of both kinds."""
        if not (self.inside.any() and self.outside.any()):
            return {}
        hits, alarms = (counts[::-1].astype(np.float64) for counts in (self.inside, self.outside))
        found, wrong = hits.cumsum(), alarms.cumsum()
        called = found + wrong
        precision = np.divide(found, called, out=np.zeros(STEPS), where=called > 0)
        area = (alarms * (found - hits / 2)).sum() / (found[-1] * wrong[-1])
        rates, overlaps = wrong / wrong[-1], self.by_region[::-1].cumsum() / self.regions
        return dict(
            pixel_AUROC=float(area),
            pixel_AP=float((hits * precision).sum() / found[-1]),
            AUPRO=_area_up_to(np.r_[0, rates], np.r_[0, overlaps], LIMIT) / LIMIT,
        )


def steps_of(map: np.ndarray) -> np.ndarray:
    """The step of each pixel of a float32 map: 0 at 0, ``STEPS - 1`` at 1, the middle one for 1/2 alone."""
    near = np.minimum(map, 1 - map)
    # a positive float is ordered as its bits are, of which the first after the exponent split an octave evenly
    fine = np.maximum((near.view(np.int32) >> 15) - FINEST, 0)
    even = FINE + ((near - EDGE) * 65536).astype(np.int32)
    step = np.where(near < EDGE, fine, even)
    return np.where(map < 0.5, step, STEPS - 1 - step)


def _area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Under the line through these points, x ascending, from 0 to ``limit``."""
    end = np.interp(limit, x, y)
    before = x < limit
    return float(np.trapezoid(np.r_[y[before], end], np.r_[x[before], limit]))


class SharedTally:
    """A :class:`PixelTally` over several processes that counts each image once.

    A sampler that fills up the last round gives some images twice, the second time to a process as its last one. So
    each process holds its last image back until it is known who else has it.
    """

    def __init__(self) -> None:
        self.tally, self.seen, self.lacking = PixelTally(), set(), set()
        self.held: tuple | None = None

    def add(self, key: tuple, map, mask, is_good: bool) -> None:
        """The map of an image, (H, W) or larger where the image was padded; a mask of None is not there."""
        if key in self.seen or (self.held and key == self.held[0]):
            return
        if mask is None and not is_good:
            self.lacking.add(key)
            return
        self._count_held()
        map = np.asarray(map, np.float32)
        mask = np.zeros(map.shape, bool) if mask is None else np.asarray(mask)
        self.held = key, map[: mask.shape[0], : mask.shape[1]], mask

    def total(self, gather) -> tuple[PixelTally, int]:
        """The tally of all processes, and how many defective images have a map and no mask; afterwards it is empty.

        ``gather`` gives what each process has, in order, to all of them.
        """
        last = PixelTally()
        if self.held:
            last.add(*self.held[1:])
        parts = gather((self.tally, self.seen, self.held and self.held[0], last, self.lacking))
        self.__init__()
        total, seen = PixelTally(), set().union(*(part[1] for part in parts))
        for tally, _, key, held, _ in parts:
            total.merge(tally)
            if key is not None and key not in seen:
                seen.add(key)
                total.merge(held)
        return total, len(set().union(*(part[4] for part in parts)))

    def _count_held(self) -> None:
        if self.held:
            key, map, mask = self.held
            self.tally.add(map, mask)
            self.seen.add(key)

"""Masks of the strong part of a map."""

from bisect import bisect_left

import cv2
import numpy as np

from kgl_mm.errors import check_number

from .png import as_map


def otsu_threshold(map) -> float:
    """Value of the map above which Otsu's method marks: ``map > threshold`` is OpenCV's own mask.

    OpenCV sees the map scaled by its maximum to 8 bits. The threshold is the largest value that it leaves unmarked, so
    a constant map, or one that is constant in 8 bits, has nothing above it.

    >>> otsu_threshold([[0.0, 0.25], [0.25, 1.0]])
    0.25
    """
    map = as_map(map)
    peak = map.max()
    if map.min() == peak:
        return float(peak)
    gray = np.rint(np.divide(map, peak, dtype=np.float64) * 255).astype(np.uint8)
    if gray.min() == gray.max():
        return float(peak)
    level, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)
    return float(map[gray <= level].max())


def painted_mask(map) -> np.ndarray:
    """Mask of 0 and 1, uint8, of a map in [0, 1] that a person painted, at whatever size it is read.

    It is what Otsu's method marks, so that a thin stroke survives that shrinking has made faint; of a map that is white
    all over it is everything.
    """
    map = as_map(map)
    return np.ones(map.shape, np.uint8) if map.min() >= 1 else binarize(map)


def binarize(map, dilation: int = 0, max_area: float | None = None) -> np.ndarray:
    """Mask of 0 and 1, uint8, of what Otsu's method marks; empty for a constant map.

    Args:
        map: A prior, 2-D, of non-negative numbers.
        dilation: Radius in pixels by which the marked regions grow.
        max_area: Share of the image that may be marked. Where the grown regions are larger, the threshold rises to the
            lowest one at which they fit, so that only the strongest pixels stay; of equal pixels all stay or none.
    """
    map = as_map(map)
    check_number(0, whole=True, dilation=dilation)
    check_number(0, 1, above=True, none='no limit', max_area=max_area)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * int(dilation) + 1,) * 2)

    def marked(threshold) -> np.ndarray:
        mask = (map > threshold).astype(np.uint8)
        return cv2.dilate(mask, kernel) if dilation else mask

    def fits(threshold) -> bool:
        return np.count_nonzero(marked(threshold)) <= max_area * map.size

    threshold = otsu_threshold(map)
    if max_area is not None and not fits(threshold):
        # The last candidate is the maximum, above which nothing is marked.
        candidates = np.unique(map[map > threshold])
        threshold = candidates[bisect_left(candidates, True, key=fits)]
    return marked(threshold)

"""Where a defect is: the connected parts of a heat map, in pixels of the image."""

from dataclasses import dataclass

import cv2
import numpy as np

CUT = 0.5
"""Share of the highest value of a map from which a pixel belongs to a region."""


@dataclass(frozen=True)
class Region:
    """``box`` is (left, top, right, bottom), the last two just outside; ``polygon`` the corners of the edge.

    ``area`` is in pixels of the image, ``peak`` the highest value of the heat map inside.
    """

    box: tuple[int, int, int, int]
    polygon: tuple[tuple[int, int], ...]
    area: float
    peak: float


def find_regions(heat: np.ndarray, size: tuple[int, int], cut: float = CUT) -> list[Region]:
    """The parts of a heat map that reach a share ``cut`` of its highest value, the hottest first.

    Args:
        heat: h x w, not negative, of the whole image.
        size: width and height of the image; the cost does not depend on it.
        cut: see above. A map of zeros has no region.

    >>> (region,) = find_regions(np.array([[0.0, 0.0], [0.0, 1.0]]), (20, 10))
    >>> region.box, region.polygon, region.area
    ((10, 5, 20, 10), ((15, 7),), 50.0)
    """
    heat = np.asarray(heat, np.float32)
    top = float(heat.max(initial=0))
    if not top > 0:
        return []
    across, down = size[0] / heat.shape[1], size[1] / heat.shape[0]
    count, parts, stats, _ = cv2.connectedComponentsWithStats((heat >= cut * top).astype(np.uint8))
    regions = []
    for part in range(1, count):
        x, y, w, h, area = map(int, stats[part])
        inside = parts[y : y + h, x : x + w] == part
        (edge, *_), _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        centres = (edge[:, 0] + (x + 0.5, y + 0.5)) * (across, down)  # a pixel of the map is a rectangle of the image
        left, top_row = int(x * across), int(y * down)
        right, bottom = int(np.ceil((x + w) * across - 1e-9)), int(np.ceil((y + h) * down - 1e-9))
        regions.append(
            Region(
                (left, top_row, min(right, size[0]), min(bottom, size[1])),
                tuple((int(column), int(row)) for column, row in centres),
                area * across * down,
                float(heat[y : y + h, x : x + w][inside].max()),
            )
        )
    return sorted(regions, key=lambda region: (-region.peak, -region.area, region.box))

"""The picture of an inspected image."""

from collections.abc import Sequence

import cv2
import numpy as np

from ._tiles import PAPER, as_bgr, captioned, resize
from .gallery import RIGHT, WRONG
from .overlay import overlay

MARK = (230, 120, 250)


def draw_verdict(
    image: np.ndarray,
    heat: np.ndarray | None,
    polygons: Sequence[Sequence[tuple[int, int]]],
    boxes: Sequence[tuple[int, int, int, int]],
    caption: str,
    defective: bool | None,
    longest: int = 1600,
    top: float = 1.0,
) -> np.ndarray:
    """An image (BGR) with its heat map, regions and verdict, uint8 of shape H x W x 3 (BGR).

    Args:
        image: as :func:`overlay` takes it; a side of more than ``longest`` pixels is shrunk to it.
        heat: in [0, 1], of any size, where there is one.
        polygons: the edges of regions, in pixels of the image.
        boxes: (left, top, right, bottom) of each, the last two outside.
        caption: written above.
        defective: green for good, red for defective, gray where nobody says so.
        longest: see ``image``.
        top: the heat that is drawn hottest, as is all above.
    """
    scale = min(1.0, longest / max(image.shape[:2]))
    picture = as_bgr(image)
    if scale < 1:
        picture = resize(picture, tuple(max(1, round(side * scale)) for side in picture.shape[1::-1]))
    if heat is not None:
        picture = overlay(picture, heat, top=top)
    for polygon, (left, top, right, bottom) in zip(polygons, boxes, strict=True):
        cv2.polylines(picture, [_scaled(polygon, scale)], True, MARK, 1, cv2.LINE_AA)
        corners = _scaled([(left, top), (right - 1, bottom - 1)], scale).tolist()
        cv2.rectangle(picture, *corners, MARK, 1)
    return captioned(picture, caption, {None: PAPER, False: RIGHT, True: WRONG}[defective])


def _scaled(points: Sequence[tuple[int, int]], scale: float) -> np.ndarray:
    return (np.asarray(points, np.float64) * scale).astype(np.int32)

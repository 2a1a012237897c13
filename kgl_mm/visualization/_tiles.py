"""What the pictures share: tiles with captions, strips of tiles under a title, pages of strips. Colours are BGR."""

import cv2
import numpy as np

from kgl_mm.errors import UsageError

TRUTH, INK, PAPER = (230, 220, 0), (255, 255, 255), (32, 32, 32)
TILE, CAPTION, GAP = 200, 22, 6


def read(path: str, flags: int) -> np.ndarray:
    image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if image is None:
        raise UsageError(f'{path}: cannot be read as an image')
    return image


def as_bgr(image: np.ndarray) -> np.ndarray:
    """An image H x W, H x W x 1, 3 (BGR) or 4 (BGRA) of any depth as uint8, H x W x 3.

    What is not uint8 already is stretched to its own range, since 12 bits in 16 would look black.
    """
    image = np.atleast_3d(image)
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise UsageError(f'an image of shape {image.shape} cannot be drawn; give H x W with 1, 3 or 4 channels.')
    image = image[..., :3]
    if image.dtype != np.uint8:
        image = image.astype(np.float64)
        low, high = image.min(), image.max()
        image = ((image - low) / ((high - low) or 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """To ``size`` (width, height): bilinear to enlarge, means of areas to shrink."""
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def to_tile(image: np.ndarray) -> np.ndarray:
    """``TILE`` pixels across; a long image is drawn narrower, so that it does not tower above the others."""
    height, width = image.shape[:2]
    scale = TILE / max(min(width, height), 0.6 * max(width, height))
    return resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))


def outline(picture: np.ndarray, mask: np.ndarray, colour: tuple) -> None:
    """Draw the edge of a mask of any size into a picture, a little outside, so that a thin defect stays in sight."""
    size = picture.shape[1::-1]
    inside = cv2.resize((mask > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0  # loses no pixel
    for reach, ink in ((7, PAPER), (5, colour)):  # a dark rim, so that the colour stands out on any ground
        reached = cv2.dilate(inside.astype(np.uint8), np.ones((reach, reach), np.uint8))
        edges = cv2.findContours(reached, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(picture, edges, -1, ink, 1)


def captioned(picture: np.ndarray, text: str, colour: tuple) -> np.ndarray:
    """The picture under its caption, made as wide as the caption needs."""
    missing = max(0, _width(text, 0.5) + 8 - picture.shape[1])
    wide = cv2.copyMakeBorder(picture, 0, 0, 0, missing, cv2.BORDER_CONSTANT, value=PAPER)
    tile = cv2.copyMakeBorder(wide, CAPTION, 0, 0, 0, cv2.BORDER_CONSTANT, value=colour)
    write(tile, text, (4, CAPTION - 6), 0.5)
    return tile


def strip(title: str, tiles: list[np.ndarray]) -> np.ndarray:
    """Tiles beside each other under a title."""
    height = max(tile.shape[0] for tile in tiles)
    row = np.hstack([cv2.copyMakeBorder(t, 0, height - t.shape[0], 0, GAP, 0, value=PAPER) for t in tiles])
    head = np.full((CAPTION + 4, max(row.shape[1], _width(title, 0.55) + 8), 3), PAPER, np.uint8)
    write(head, title, (4, CAPTION - 4), 0.55)
    return np.vstack([head, cv2.copyMakeBorder(row, 0, 0, 0, head.shape[1] - row.shape[1], 0, value=PAPER)])


def page(strips: list[np.ndarray]) -> bytes:
    """Strips below each other, as a PNG file."""
    width = max(part.shape[1] for part in strips)
    parts = [cv2.copyMakeBorder(part, 0, GAP, 0, width - part.shape[1], 0, value=PAPER) for part in strips]
    return cv2.imencode('.png', np.vstack(parts))[1].tobytes()


def write(image: np.ndarray, text: str, origin: tuple[int, int], size: float) -> None:
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)


def _width(text: str, size: float) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]

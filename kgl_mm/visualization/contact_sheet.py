"""One picture of many priors, each beside its image, all in the same colours."""

import cv2
import numpy as np

from kgl_mm.errors import UsageError

from ._tiles import CAPTION, GAP, PAPER, TILE, as_bgr, captioned, page, read, strip, to_tile, write
from .overlay import overlay

SHEET = 'contact_sheet.png'


def draw_contact_sheet(rows: dict[str, list[dict]], top: float | None = None) -> bytes:
    """Rows of images and their priors under the rows' titles, and a bar of the colours, as a PNG file.

    Args:
        rows: by title, such as first, strongest or weakest, the tiles of a row: ``image`` (an array or the path of a
            file) and ``prior``, and where there are any ``mask`` and ``caption``, all as :func:`overlay` takes them.
        top: the value that is drawn hottest; by default the largest of the sheet.
    """
    rows = {title: tiles for title, tiles in rows.items() if tiles}
    if not rows:
        raise UsageError('a contact sheet needs at least one prior; none was given.')
    top = top or max(float(np.nanmax(tile['prior'])) for tiles in rows.values() for tile in tiles) or 1.0
    strips = [strip(title, [_tile(tile, top) for tile in tiles]) for title, tiles in rows.items()]
    return page([_colour_bar(top), *strips])


def _tile(tile: dict, top: float) -> np.ndarray:
    image = tile['image']
    if not isinstance(image, np.ndarray):
        image = read(image, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    image = to_tile(as_bgr(image))
    heat = overlay(image, tile['prior'], tile.get('mask'), top)
    height, width = image.shape[:2]
    if width > height:
        pair = np.vstack([image, np.full((2, width, 3), PAPER, np.uint8), heat])
    else:
        pair = np.hstack([image, np.full((height, 2, 3), PAPER, np.uint8), heat])
    return captioned(pair, tile.get('caption', ''), PAPER)


def _colour_bar(top: float) -> np.ndarray:
    ramp = np.linspace(0, top, TILE)[None]
    bar = overlay(np.full((CAPTION, TILE), 128, np.uint8), ramp, top=top)
    bar = cv2.copyMakeBorder(bar, GAP, 0, 20, 100, cv2.BORDER_CONSTANT, value=PAPER)
    write(bar, '0', (4, GAP + CAPTION - 6), 0.5)
    write(bar, f'{top:.3g}', (TILE + 26, GAP + CAPTION - 6), 0.5)
    return bar

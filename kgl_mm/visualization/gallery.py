"""One picture of what a model found: the most telling images of a test, with score, verdict and the true defect."""

import cv2
import numpy as np

from ._tiles import TRUTH, captioned, outline, page, read, strip, to_tile

RIGHT, WRONG = (80, 160, 60), (60, 60, 220)


def draw_gallery(table: list[dict], masks: dict[str, str | None], threshold: float = 0.5, columns: int = 6) -> bytes:
    """Rows of hits, misses, false alarms and good parts, each with its most telling images, as a PNG file.

    Args:
        table: one row an image: ``img_path``, ``label`` (0 is good) and ``score`` in [0, 1].
        masks: the mask file of an image, where it has one; its outline is drawn.
        threshold: a score of at least this is called defective.
        columns: how many images a row has at most.
    """
    called = [row['score'] >= threshold for row in table]
    kinds = {
        'hits': [row for row, defect in zip(table, called, strict=True) if defect and row['label']],
        'misses': [row for row, defect in zip(table, called, strict=True) if not defect and row['label']],
        'false alarms': [row for row, defect in zip(table, called, strict=True) if defect and not row['label']],
        'good parts': [row for row, defect in zip(table, called, strict=True) if not defect and not row['label']],
    }
    strips = []
    for kind, rows in kinds.items():
        if not rows:
            continue
        rows = sorted(rows, key=lambda row: row['score'], reverse=kind in ('hits', 'false alarms'))[:columns]
        colour = WRONG if kind in ('misses', 'false alarms') else RIGHT
        tiles = [_tile(row, masks.get(row['img_path']), colour) for row in rows]
        strips.append(strip(f'{kind}: {len(kinds[kind])}', tiles))
    return page(strips)


def _tile(row: dict, mask_path: str | None, colour: tuple) -> np.ndarray:
    tile = to_tile(read(row['img_path'], cv2.IMREAD_COLOR))
    if mask_path:
        mask = read(mask_path, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)  # in 8 bits, 16 would lose small numbers
        outline(tile, np.atleast_3d(mask).max(2), TRUTH)
    return captioned(tile, f'{row["score"]:.3f}', colour)

"""One picture of what a model found: the most telling images of a test, with score, verdict and the true defect."""

import cv2
import numpy as np

from kgl_mm.errors import UsageError

RIGHT, WRONG, TRUTH, INK, PAPER = (80, 160, 60), (60, 60, 220), (90, 220, 90), (255, 255, 255), (32, 32, 32)
TILE, CAPTION, GAP = 200, 22, 6


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
        strips.append(_strip(f'{kind}: {len(kinds[kind])}', tiles, columns))
    width = max(strip.shape[1] for strip in strips)
    page = np.vstack([cv2.copyMakeBorder(s, 0, GAP, 0, width - s.shape[1], 0, value=PAPER) for s in strips])
    return cv2.imencode('.png', page)[1].tobytes()


def _strip(title: str, tiles: list[np.ndarray], columns: int) -> np.ndarray:
    height = max(tile.shape[0] for tile in tiles)
    tiles = [cv2.copyMakeBorder(t, 0, height - t.shape[0], 0, GAP, 0, value=PAPER) for t in tiles]
    row = np.hstack(tiles)
    least = 2 * (TILE + GAP)
    head = np.full((CAPTION + 4, max(row.shape[1], least), 3), PAPER, np.uint8)
    _write(head, title, (4, CAPTION - 4), 0.55)
    return np.vstack([head, cv2.copyMakeBorder(row, 0, 0, 0, head.shape[1] - row.shape[1], 0, value=PAPER)])


def _tile(row: dict, mask_path: str | None, colour: tuple) -> np.ndarray:
    image = _read(row['img_path'], cv2.IMREAD_COLOR)
    scale = TILE / max(image.shape[1], image.shape[0] * 0.6)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    tile = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if mask_path:
        marked = np.argwhere(_read(mask_path, cv2.IMREAD_GRAYSCALE) > 0)
        spots = np.zeros(tile.shape[:2], np.uint8)
        spots[tuple((marked * scale).astype(int).clip(0, np.array(spots.shape) - 1).T)] = 1
        mask = cv2.dilate(spots, np.ones((5, 5), np.uint8))  # thin defects survive the scaling
        cv2.drawContours(tile, cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], -1, TRUTH, 1)
    tile = cv2.copyMakeBorder(tile, CAPTION, 0, 0, max(0, 64 - size[0]), cv2.BORDER_CONSTANT, value=colour)
    _write(tile, f'{row["score"]:.3f}', (4, CAPTION - 6), 0.5)
    return tile


def _read(path: str, flags: int) -> np.ndarray:
    image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if image is None:
        raise UsageError(f'{path}: cannot be read as an image')
    return image


def _write(image: np.ndarray, text: str, origin: tuple[int, int], size: float) -> None:
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)

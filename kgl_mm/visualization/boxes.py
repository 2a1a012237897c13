"""Boxes drawn on their images: those that were found, and the true ones."""

from collections.abc import Sequence

import cv2
import numpy as np

from ._tiles import PAPER, TRUTH, as_bgr, captioned, page, read, resize, strip, write
from .gallery import RIGHT, WRONG

FOUND = (60, 140, 255)
SIDE = 260


def draw_boxes(image: np.ndarray, boxes: np.ndarray, texts: Sequence[str] = (), colour: tuple = FOUND) -> np.ndarray:
    """An image (BGR) with boxes (N x 4: left, top, right, bottom in its pixels), each under its text, if it has one.

    >>> draw_boxes(np.zeros((8, 8, 3), np.uint8), np.array([[2, 2, 6, 6]]), colour=(9, 9, 9))[2, 2].tolist()
    [9, 9, 9]
    """
    picture = as_bgr(image).copy()
    for place, (left, top, right, bottom) in enumerate(np.asarray(boxes).reshape(-1, 4)):
        corners = [(round(float(left)), round(float(top))), (round(float(right)) - 1, round(float(bottom)) - 1)]
        cv2.rectangle(picture, *corners, PAPER, 3)  # a dark rim, so that the colour stands out on any ground
        cv2.rectangle(picture, *corners, colour, 1)
        if place < len(texts) and texts[place]:
            left, foot = corners[0][0] + 2, max(corners[0][1] - 3, 9)
            across = cv2.getTextSize(texts[place], cv2.FONT_HERSHEY_SIMPLEX, 0.35, 1)[0][0]
            cv2.rectangle(picture, (left - 2, foot - 9), (left + across, foot + 2), PAPER, cv2.FILLED)
            write(picture, texts[place], (left, foot), 0.35)
    return picture


def draw_box_sheet(rows: dict[str, list[dict]], legend: str = '') -> bytes:
    """Rows of images with boxes under the rows' titles, as a PNG file.

    Args:
        rows: by title, the tiles of a row: ``image`` (an array or the path of a file), ``found`` and ``truth`` (boxes),
            ``texts`` of the found ones, ``caption`` and ``colour`` of it.
        legend: written above.
    """
    strips = [strip(legend, [np.full((1, 1, 3), PAPER, np.uint8)])] if legend else []
    return page(strips + [strip(title, [_tile(**tile) for tile in tiles]) for title, tiles in rows.items() if tiles])


def draw_found(images: Sequence[dict], matched, threshold: float, classes: Sequence[str], columns: int = 6) -> bytes:
    """What a detector found: images with most boxes missed, with most wrong ones, and without an error.

    Args:
        images: each with ``img_path``, ``truth`` and ``found``, which have boxes, labels and scores.
        matched: what :func:`kgl_mm.evaluation.boxes.match` returned.
        threshold: found boxes of at least this score are drawn.
        classes: their names.
        columns: how many images a row has at most.
    """
    hits = np.array(
        [right[scores >= threshold].sum() for scores, right in zip(matched.scores, matched.right, strict=True)]
    )
    wrong = np.array([(scores >= threshold).sum() for scores in matched.scores]) - hits
    missed = matched.true - hits

    def tile(index: int) -> dict:
        truth, found = images[index]['truth'], images[index]['found']
        shown = found.scores >= threshold
        labels, scores = found.labels[shown].astype(int), found.scores[shown]
        return dict(
            image=images[index]['img_path'],
            found=found.boxes[shown],
            truth=truth.boxes,
            texts=[f'{classes[label]} {score:.2f}' for label, score in zip(labels, scores, strict=True)],
            caption=f'{missed[index]} missed, {wrong[index]} wrong',
            colour=WRONG if missed[index] or wrong[index] else RIGHT,
        )

    rows = {}
    for name, counts in (('missed boxes', missed), ('wrong boxes', wrong)):
        order = [i for i in np.argsort(-counts, kind='stable') if counts[i]]
        rows[f'{name}: {counts.sum()}, in {len(order)} images'] = [tile(i) for i in order[:columns]]
    right = [i for i in np.argsort(-hits, kind='stable') if not missed[i] and not wrong[i]]
    rows[f'all right: {len(right)} images'] = [tile(i) for i in right[:columns]]
    return draw_box_sheet(rows, f'{len(images)} images; true boxes in cyan; found ones from a score of {threshold:.2f}')


def _tile(image, found=(), truth=(), texts=(), caption='', colour=PAPER) -> np.ndarray:
    image = as_bgr(image if isinstance(image, np.ndarray) else read(image, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH))
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    image = resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    picture = draw_boxes(image, np.asarray(truth, np.float64).reshape(-1, 4) * scale, colour=TRUTH)
    return captioned(draw_boxes(picture, np.asarray(found, np.float64).reshape(-1, 4) * scale, texts), caption, colour)

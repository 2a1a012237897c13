"""From maps to boxes: what stands out of the maps of a data set, as pseudo-labels for a detector. NumPy and OpenCV."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from kgl_mm.errors import UsageError

MARGIN = 0.1
MOST = 10
IOU = 0.8


def threshold_of(peaks: Iterable[float], margin: float = MARGIN) -> float:
    """Mean over a data set of the largest value of each map, minus a margin.

    >>> round(threshold_of([0.9, 0.5], margin=0.2), 6)
    0.5
    """
    peaks = [float(peak) for peak in peaks]
    if not peaks:
        raise UsageError('there is no map to take boxes from')
    mean = float(np.mean(peaks))
    if margin >= mean:
        raise UsageError(
            f'a margin of {margin:g} leaves nothing of the mean of the largest values, {mean:.3g}: give a smaller '
            '--margin, or a --threshold'
        )
    return mean - margin


def boxes_of(map: np.ndarray, threshold: float, most: int = MOST, iou: float = IOU) -> tuple[np.ndarray, np.ndarray]:
    """The boxes (N x 4, int: left, top, right, bottom, the last two outside) of a map, and their scores, best first.

    A region is what an outer contour of ``map > threshold`` encloses, holes included, with at least
    max((H // 100) * (W // 100), 10) pixels; its score is the largest value inside its box. Of the ``most`` best ones,
    those stay that :func:`nms` leaves.

    >>> map = np.zeros((40, 60), np.float32)
    >>> map[10:15, 20:30] = 0.5
    >>> map[12, 22] = 0.75
    >>> [found.tolist() for found in boxes_of(map, 0.25)]
    [[[20, 10, 30, 15]], [0.75]]
    """
    height, width = map.shape
    least = max((height // 100) * (width // 100), 10)
    binary = (map > threshold).astype(np.uint8)
    boxes = []
    for contour in cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
        left, top, across, down = cv2.boundingRect(contour)
        if across * down < least:
            continue
        # OpenCV's area is that of the polygon through the pixels' centres, which is 0 for a line of one pixel
        inside = cv2.drawContours(np.zeros((down, across), np.uint8), [contour - (left, top)], 0, 1, cv2.FILLED)
        if np.count_nonzero(inside) >= least:
            boxes.append((left, top, left + across, top + down))
    boxes = np.array(sorted(boxes), np.int64).reshape(-1, 4)
    scores = np.array([float(map[top:bottom, left:right].max()) for left, top, right, bottom in boxes], np.float64)
    best = np.argsort(-scores, kind='stable')[:most]
    boxes, scores = boxes[best], scores[best]
    kept = nms(boxes, scores, iou)
    return boxes[kept], scores[kept]


def nms(boxes: np.ndarray, scores: np.ndarray, iou: float = IOU) -> list[int]:
    """Which boxes stay, best first: each in turn takes away all that overlap with it by more than ``iou``.

    >>> nms(np.array([[0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]]), np.array([0.5, 0.9, 0.1]))
    [1, 2]
    """
    boxes, kept = np.asarray(boxes, np.float64).reshape(-1, 4), []
    order = np.argsort(-np.asarray(scores), kind='stable')
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[overlaps(boxes[best], boxes[order]) <= iou]
    return kept


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with each of others."""
    shared = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None).prod(1)
    return shared / np.maximum((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared, 1e-12)


def to_coco(images: Sequence[dict], category: str = 'anomaly', **info) -> dict:
    """A COCO record of images (``file_name``, ``height``, ``width``, ``boxes``, ``scores``), all of one class."""
    annotations = []
    for number, image in enumerate(images, start=1):
        for (left, top, right, bottom), score in zip(image['boxes'].tolist(), image['scores'].tolist(), strict=True):
            size = right - left, bottom - top
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=1,
                    bbox=[left, top, *size],
                    area=size[0] * size[1],
                    iscrowd=0,
                    score=round(score, 6),
                )
            )
    return dict(
        info=info,
        categories=[dict(id=1, name=category)],
        images=[
            dict(id=number, **{key: image[key] for key in ('file_name', 'height', 'width')})
            for number, image in enumerate(images, start=1)
        ],
        annotations=annotations,
    )

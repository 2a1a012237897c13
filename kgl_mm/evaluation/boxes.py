"""How well boxes were found, by pycocotools: functions on arrays."""

import contextlib
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kgl_mm.errors import UsageError


class Boxes(NamedTuple):
    """The boxes of an image (N x 4: left, top, right, bottom), their labels, and of found ones their scores."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


class Found(NamedTuple):
    """What :func:`match` returns.

    Args:
        precision: (10, K): average precision by IoU (0.5 to 0.95) and class; nan for a class without true boxes.
        scores: of each image, of the found boxes that count, best first within a class.
        right: of each image, which of them are matched at IoU 0.5.
        true: of each image, how many true boxes it has.
    """

    precision: np.ndarray
    scores: list[np.ndarray]
    right: list[np.ndarray]
    true: np.ndarray


def require_coco() -> None:
    try:
        import pycocotools  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("BoxMetric needs pycocotools: pip install 'kgl_mm[boxes]'") from None


def match(truth: Sequence[Boxes], found: Sequence[Boxes], classes: int, most: int = 100) -> Found:
    """Match found boxes with true ones, as COCO does: by class, the best score first, ``most`` of an image and class.

    >>> box = np.array([[0.0, 0, 10, 10]])
    >>> found = match([Boxes(box, np.array([0]))], [Boxes(box, np.array([0]), np.array([0.9]))], 1)
    >>> found.precision[0].round(6).tolist()
    [1.0]
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it reports each step
        sets = []
        for boxes in (truth, found):
            coco = COCO()
            coco.dataset = dict(
                images=[dict(id=number) for number in range(len(truth))],
                categories=[dict(id=label) for label in range(classes)],
                annotations=_annotations(boxes),
            )
            coco.createIndex()
            sets.append(coco)
        evaluation = COCOeval(*sets, 'bbox')
        evaluation.params.maxDets = [most]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, np.inf]], ['all']
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, :, 0, 0]
    scores, right = ([[np.zeros(0)] for _ in truth] for _ in range(2))
    for one in filter(None, evaluation.evalImgs):
        scores[one['image_id']].append(np.array(one['dtScores']))
        right[one['image_id']].append(one['dtMatches'][0] > 0)
    return Found(
        np.where(precision < 0, np.nan, precision).mean(1),
        [np.concatenate(parts) for parts in scores],
        [np.concatenate(parts) > 0 for parts in right],
        np.array([len(boxes.boxes) for boxes in truth]),
    )


def best_threshold(found: Found) -> float:
    """The score from which on the found boxes, taken together, have the best F1 at IoU 0.5; 1 where none is right."""
    scores = np.concatenate([np.zeros(0), *found.scores])
    right = np.concatenate([np.zeros(0, bool), *found.right])
    if not right.any():
        return 1.0
    order = np.argsort(-scores, kind='stable')
    f1 = 2 * right[order].cumsum() / (np.arange(1, len(order) + 1) + found.true.sum())
    last = np.append(np.diff(scores[order]) != 0, True)  # equal scores come together
    return float(scores[order][np.where(last, f1, -1).argmax()])


def _annotations(images: Sequence[Boxes]) -> list[dict]:
    annotations = []
    for number, (boxes, labels, scores) in enumerate(images):
        for place, (left, top, right, bottom) in enumerate(np.asarray(boxes, np.float64).tolist()):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=int(labels[place]),
                    bbox=[left, top, right - left, bottom - top],
                    area=(right - left) * (bottom - top),
                    iscrowd=0,
                    score=1.0 if scores is None else float(scores[place]),
                )
            )
    return annotations

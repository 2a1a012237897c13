"""What errors cost; pure functions, which ``template/report.js`` repeats operation by operation for the browser."""

import numpy as np

from kgl_mm.errors import UsageError, check_number
from kgl_mm.evaluation.functional import at_threshold

NOTHING = float(np.nextafter(1, 2))
"""A threshold above every probability: no part is called defective."""


def cost_per_thousand(scores, labels, threshold: float, miss: float, alarm: float, share: float | None = None) -> float:
    """What the errors at a threshold cost in 1,000 parts, of which ``share`` are defective: by default as in the test.

    Args:
        scores: probabilities of a defect, shape (N,).
        labels: 0 is good, shape (N,); both classes are there.
        threshold: a score of at least this is called defective.
        miss: the price of a defective part that is let through.
        alarm: the price of a good part that is rejected.
        share: the share of defective parts where the model will work.

    >>> cost_per_thousand([0.9, 0.6, 0.2, 0.1], [1, 0, 1, 0], 0.5, miss=10, alarm=1, share=0.1)
    950.0
    """
    good, defective = _counts(labels)
    found = at_threshold(scores, labels, threshold)
    return _cost(found['FN'], found['FP'], good, defective, miss, alarm, share)


def cheapest_threshold(scores, labels, miss: float, alarm: float, share: float | None = None) -> tuple[float, float]:
    """The threshold with the lowest cost, the highest of several, and that cost.

    It lies halfway between the last score called defective and the next lower one.

    >>> cheapest_threshold([0.9, 0.6, 0.2, 0.1], [1, 0, 1, 0], miss=10, alarm=1)
    (0.15000000000000002, 250.0)
    """
    good, defective = _counts(labels)
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels) != 0
    distinct = np.unique(scores)[::-1].tolist()
    best = _halfway(1.0, distinct[0]) if distinct[0] < 1 else NOTHING
    lowest = _cost(defective, 0, good, defective, miss, alarm, share)
    hits, alarms = np.zeros(len(distinct), int), np.zeros(len(distinct), int)
    place = np.searchsorted(-np.array(distinct), -scores)
    np.add.at(hits, place[labels], 1)
    np.add.at(alarms, place[~labels], 1)
    for index, (found, wrong) in enumerate(zip(hits.cumsum().tolist(), alarms.cumsum().tolist(), strict=True)):
        cost = _cost(defective - found, wrong, good, defective, miss, alarm, share)
        if cost < lowest:
            lower = distinct[index + 1] if index + 1 < len(distinct) else distinct[index]
            best, lowest = _halfway(distinct[index], lower), cost
    return best, lowest


def _halfway(here: float, lower: float) -> float:
    middle = here / 2 + lower / 2
    return middle if middle > lower else here


def _counts(labels) -> tuple[int, int]:
    defective = int(np.count_nonzero(labels))
    good = len(labels) - defective
    if not good or not defective:
        raise UsageError('a cost needs good and defective parts, since it weighs one kind of error against the other.')
    return good, defective


def _cost(misses: int, alarms: int, good: int, defective: int, miss: float, alarm: float, share: float | None) -> float:
    check_number(0, miss=miss, alarm=alarm)
    check_number(0, 1, none='that of the test', share=share)
    if share is None:
        share = defective / (good + defective)
    return 1000 * (share * (misses / defective) * miss + (1 - share) * (alarms / good) * alarm)

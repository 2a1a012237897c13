"""From which score on a part is called defective: thresholds for a stated aim, and what their errors cost.

An aim is ``'f1'`` (the best F1), ``dict(misses=0.02)`` (at most that share of the defective parts missed, at the fewest
false alarms), or prices, ``dict(miss=100, false_alarm=1)``, for the lowest cost; ``defects=0.01`` beside them is the
share of defective parts where the model will work, by default as in the data. Both dicts can be written as strings,
``'misses=0.02'`` and ``'miss=100:false_alarm=1:defects=0.01'``.

Pure functions on arrays; scores and labels are those of ``functional``. ``kgl_mm/report/template/report.js`` repeats
the costs operation by operation for the browser.
"""

import math

import numpy as np

from kgl_mm.errors import UsageError, check_number

from .functional import at_threshold, below, best_f1, tally

NOTHING = float(np.nextafter(1, 2))
"""A threshold above every probability: no part is called defective."""
FORMS = "'f1', 'misses=SHARE' with a share from 0 to below 1, or 'miss=PRICE:false_alarm=PRICE[:defects=SHARE]'"


def read_aim(aim: str | dict) -> dict:
    """An aim as a dict of numbers, empty for the best F1; what is none is refused.

    >>> read_aim('misses=0.02'), read_aim('miss=100:false_alarm=1'), read_aim('f1')
    ({'misses': 0.02}, {'miss': 100.0, 'false_alarm': 1.0}, {})
    """
    if aim == 'f1':
        return {}
    try:
        words = dict(word.split('=') for word in aim.split(':')) if isinstance(aim, str) else dict(aim)
        found = {name: float(value) for name, value in words.items()}
    except (TypeError, ValueError):
        found = {}
    kinds = {'misses'}, {'miss', 'false_alarm'}, {'miss', 'false_alarm', 'defects'}
    sound = set(found) in kinds and all(0 <= value < math.inf for value in found.values())
    limited = found.get('misses', 0) < 1 and found.get('defects', 0) <= 1
    if not sound or not limited or found.get('miss') == found.get('false_alarm') == 0:
        raise UsageError(f'threshold_aim={aim!r}: not an aim, which is {FORMS}')
    return found


def aim_in_words(aim: str | dict) -> str:
    """What a threshold is chosen for.

    >>> aim_in_words('misses=0.02'), aim_in_words(dict(miss=100, false_alarm=1, defects=0.01))
    ('at most 2 % of defects missed', 'the lowest cost at 100 a miss and 1 a false alarm, 1 % of parts defective')
    """
    aim = read_aim(aim)
    if not aim:
        return 'the best F1'
    if 'misses' in aim:
        return f'at most {_percent(aim["misses"])} of defects missed'
    share = f', {_percent(aim["defects"])} of parts defective' if 'defects' in aim else ''
    return f'the lowest cost at {aim["miss"]:g} a miss and {aim["false_alarm"]:g} a false alarm{share}'


def origin(calibrated: bool, aim: str | None = None) -> str:
    """Where a threshold comes from, in words.

    >>> origin(True, 'the best F1'), origin(False)
    ('chosen on validation data for the best F1', 'not calibrated')
    """
    return f'chosen on validation data{f" for {aim}" if aim else ""}' if calibrated else aim or 'not calibrated'


def choose_threshold(scores, labels, aim: str | dict = 'f1') -> float:
    """The threshold that serves an aim best on these images; meant for validation data.

    It lies halfway between the last score called defective and the next lower one, so it is glued to no image.

    >>> choose_threshold([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], 'misses=0.5')
    0.55
    """
    aim = read_aim(aim)
    if not aim:
        return best_f1(scores, labels)[1]
    if 'misses' not in aim:
        return cheapest_threshold(scores, labels, **aim)[0]
    thresholds, hits, alarms = tally(scores, labels)
    hits, alarms = hits.cumsum(), alarms.cumsum()
    allowed = (hits[-1] - hits) / hits[-1] <= aim['misses']
    # of those with the fewest false alarms the one that misses least
    return below(thresholds, np.flatnonzero(allowed & (alarms == alarms[allowed].min()))[-1])


def cost_per_thousand(
    scores, labels, threshold: float, miss: float, false_alarm: float, defects: float | None = None
) -> float:
    """What the errors at a threshold cost in 1,000 parts.

    Args:
        scores: probabilities of a defect, shape (N,).
        labels: 0 is good, shape (N,); both classes are there.
        threshold: a score of at least this is called defective.
        miss: the price of a defective part that is let through.
        false_alarm: the price of a good part that is rejected.
        defects: the share of defective parts where the model will work; by default as in these data.

    >>> cost_per_thousand([0.9, 0.6, 0.2, 0.1], [1, 0, 1, 0], 0.5, miss=10, false_alarm=1, defects=0.1)
    950.0
    """
    found, defective = at_threshold(scores, labels, threshold), int(np.count_nonzero(labels))
    if not 0 < defective < len(labels):
        raise UsageError('a cost needs good and defective parts, since it weighs one kind of error against the other.')
    return float(_cost(found['FN'], found['FP'], defective, len(labels) - defective, miss, false_alarm, defects))


def cheapest_threshold(
    scores, labels, miss: float, false_alarm: float, defects: float | None = None
) -> tuple[float, float]:
    """The threshold with the lowest cost, the highest of several, and that cost; above all scores to call none.

    >>> cheapest_threshold([0.9, 0.6, 0.2, 0.1], [1, 0, 1, 0], miss=10, false_alarm=1)
    (0.15000000000000002, 250.0)
    """
    thresholds, hits, alarms = tally(scores, labels)
    hits, alarms = np.r_[0, hits.cumsum()], np.r_[0, alarms.cumsum()]
    costs = _cost(hits[-1] - hits, alarms, hits[-1], alarms[-1], miss, false_alarm, defects)
    best = int(costs.argmin())
    if best:
        return below(thresholds, best - 1), float(costs[best])
    return below(np.array([1.0, thresholds[0]]), 0) if thresholds[0] < 1 else NOTHING, float(costs[0])


def miss_rate_bound(missed: int, defective: int, level: float = 0.95) -> float:
    """The share of new defective parts that may be missed, at this certainty, where so many of these were.

    The one-sided interval of Clopper and Pearson. It holds for a threshold as well that was chosen on these very parts
    by how many of them it misses.

    >>> round(miss_rate_bound(0, 20), 3)
    0.139
    """
    if missed >= defective:
        return 1.0
    counts = np.arange(missed + 1)
    ways = np.array([math.lgamma(defective + 1) - math.lgamma(k + 1) - math.lgamma(defective - k + 1) for k in counts])
    low, high = missed / defective, 1.0
    for _ in range(50):
        rate = (low + high) / 2
        so_few = np.exp(ways + counts * math.log(rate) + (defective - counts) * math.log1p(-rate)).sum()
        low, high = (rate, high) if so_few > 1 - level else (low, rate)
    return high


def _cost(misses, alarms, defective, good, miss: float, false_alarm: float, defects: float | None):
    check_number(0, miss=miss, false_alarm=false_alarm)
    check_number(0, 1, none='that of the data', defects=defects)
    share = defective / (good + defective) if defects is None else defects
    return 1000 * (share * (misses / defective) * miss + (1 - share) * (alarms / good) * false_alarm)


def _percent(share: float) -> str:
    return f'{100 * share:.4g} %'

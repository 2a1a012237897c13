"""Image-level metrics as pure functions on arrays; numpy is all they need.

Scores, shape (N,): higher is more defective, and ``score >= threshold`` is called defective. Labels, shape (N,): 0 is
good, anything else a defect. What a split cannot answer (one class only, scores that are not finite) raises a
``UsageError``; no function returns NaN.

Nearly everything follows from one tally of the images at each distinct score, so tied scores always move together.
"""

import numpy as np

from kgl_mm.errors import UsageError

CHUNK = 1_000_000  # images drawn at once by the bootstrap: some 50 MB, whatever the size of the split


def log_odds(probabilities, positive=slice(1, None)) -> np.ndarray:
    """Log-odds ``log(sum of positive columns) - log(sum of the others)``, shape (N,), always finite.

    Near certainty it keeps the order that ``1 - p`` loses: a float32 softmax gives many defects exactly 1, and only
    the small tail in the other columns still tells them apart.

    Args:
        probabilities: Shape (N, C), rows summing to 1.
        positive: Index of the columns that count as the event; all but column 0 by default.

    >>> log_odds([[0.5, 0.5], [1e-30, 1.0], [1e-40, 1.0]]).round(1).tolist()
    [0.0, 69.1, 92.1]
    """
    inside, outside = _split(probabilities, positive)
    tiny = np.nextafter(0, 1)
    return np.log(np.maximum(inside, tiny)) - np.log(np.maximum(outside, tiny))


def event_probability(probabilities, positive=slice(1, None)) -> np.ndarray:
    """Probability of the ``positive`` columns in [0, 1], shape (N,), in the same order as ``log_odds``."""
    inside, outside = _split(probabilities, positive)
    return inside / (inside + outside)


def average_precision(scores, labels, weights=None) -> float:
    """Area under the precision-recall steps, sum of ``precision * gain in recall`` over the distinct scores.

    >>> average_precision([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0])
    0.8333333333333333
    """
    _, hits, alarms = tally(scores, labels, weights)
    return float(_average_precision(hits, alarms))


def precision_recall(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    """The curve under which :func:`average_precision` is the area, as the corners of its steps: recall, precision.

    >>> [line.round(2).tolist() for line in precision_recall([0.9, 0.8, 0.1], [1, 0, 1])]
    [[0.0, 0.5, 0.5, 0.5, 0.5, 1.0], [1.0, 1.0, 0.5, 0.5, 0.67, 0.67]]
    """
    _, hits, alarms = tally(scores, labels)
    found = hits.cumsum()
    recall, precision = found / found[-1], found / (found + alarms.cumsum())
    # each precision holds over the recall that it gains
    return np.stack([np.r_[0, recall[:-1]], recall], 1).ravel(), np.repeat(precision, 2)


def roc_curve(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    """Share of the good images that are called defective, and of the defects, from no call to all of them.

    >>> [line.tolist() for line in roc_curve([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])]
    [[0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0]]
    """
    _, hits, alarms = tally(scores, labels)
    hits, alarms = (np.r_[0, kind.cumsum()] / kind.sum() for kind in (hits, alarms))
    return alarms, hits


def auroc(scores, labels, weights=None) -> float:
    """Probability that a defect scores above a good image, ties counted half."""
    _, hits, alarms = tally(scores, labels, weights)
    return float(_auroc(hits, alarms))


def bootstrap_interval(scores, labels, level=0.95, resamples=1000, seed=0) -> dict[str, tuple[float, float]]:
    """Percentile intervals of AP and AUROC, ``{'AP': (low, high), 'AUROC': (low, high)}``, the estimates inside.

    Good and defective images are drawn separately, so that every resample keeps the class counts. Only the tally
    changes between resamples; the scores are sorted once. Where every defect scores above every good image, which no
    resample changes, the low ends are what so few images may hide.

    >>> low, high = bootstrap_interval([0.9, 0.8, 0.7, 0.2, 0.1, 0.1], [1, 1, 1, 0, 0, 0])['AUROC']
    >>> round(low, 3), high
    (0.292, 1.0)
    """
    thresholds, group, defective = _groups(scores, labels)
    # Sorted, so that the order of the images changes nothing.
    classes = np.sort(group[defective]), np.sort(group[~defective])
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(group))
    values = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        hits, alarms = (_resampled_tally(members, count, len(thresholds), rng) for members in classes)
        values.append((_average_precision(hits, alarms), _auroc(hits, alarms)))
    tails = (1 - level) / 2, (1 + level) / 2
    low, high = np.quantile(np.concatenate(values, axis=1), tails, axis=1)
    # drawing an image twice flatters AP near chance, so much that all resamples may lie above the estimate
    estimates = average_precision(scores, labels), auroc(scores, labels)
    low, high = np.minimum(low, estimates).tolist(), np.maximum(high, estimates).tolist()
    if group[defective].max() < group[~defective].min():
        low = _least_of_perfect(int(defective.sum()), int((~defective).sum()), tails[0])
    return {'AP': (low[0], high[0]), 'AUROC': (low[1], high[1])}


def _least_of_perfect(defective: int, good: int, tail: float) -> tuple[float, float]:
    """AP and AUROC if the largest share of defects that so many do not show lay below all good images.

    Or the largest such share of good images above all defects, whichever is worse: shares of which, by the bound of
    Clopper and Pearson, none of so many would be seen with the probability ``tail``.
    """
    below_all, above_all = (1 - tail ** (1 / count) for count in (defective, good))
    recall = (np.arange(1000) + 0.5) / 1000
    alarms = np.stack([(recall > 1 - below_all) * good, np.full(1000, above_all * good)])
    found = recall * defective
    return float((found / (found + alarms)).mean(1).min()), 1 - max(below_all, above_all)


def at_threshold(scores, labels, threshold: float) -> dict[str, float]:
    """Counts and rates at one threshold, for a split of one class also.

    ``FN`` and ``recall`` are there when the split holds a defect, ``FP`` when it holds a good image, ``precision``
    when it holds both; a precision is 0 where nothing is called defective.
    """
    scores, defective = _checked(scores, labels)
    called = scores >= threshold
    hits, misses, alarms = (int(np.sum(x)) for x in (called & defective, ~called & defective, called & ~defective))
    result = {'accuracy': float(np.mean(called == defective))}
    if not defective.all():
        result['FP'] = alarms
    if defective.any():
        result |= {'FN': misses, 'recall': hits / (hits + misses)}
    if 'FP' in result and 'FN' in result:
        result['precision'] = hits / max(hits + alarms, 1)
    return result


def fp_at_zero_fn(scores, labels) -> int:
    """Good images called defective at the highest threshold that misses no defect."""
    _, hits, alarms = tally(scores, labels)
    return int(alarms[: np.flatnonzero(hits)[-1] + 1].sum())


def recall_at_fpr(scores, labels, rate: float) -> float:
    """Highest share of defects found while at most ``rate`` of the good images are called defective."""
    _, hits, alarms = tally(scores, labels)
    allowed = alarms.cumsum() / alarms.sum() <= rate
    return float((hits.cumsum() * allowed).max() / hits.sum())


def best_f1(scores, labels) -> tuple[float, float]:
    """Highest F1 over all thresholds, and the highest threshold that gives it.

    On the data it is computed from, the value is an oracle: no threshold chosen elsewhere can exceed it.

    >>> best_f1([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0])
    (1.0, 0.55)
    """
    thresholds, hits, alarms = tally(scores, labels)
    f1 = 2 * hits.cumsum() / ((hits + alarms).cumsum() + hits.sum())
    best = int(f1.argmax())
    return float(f1[best]), below(thresholds, best)


def confusion_matrix(predicted, labels, num_classes: int) -> np.ndarray:
    """Number of images by true class (row) and predicted class (column), shape (C, C)."""
    cells = np.asarray(labels, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class(probabilities, labels) -> list[dict]:
    """One dict a class: support; precision, recall and F1 of the most probable class; AP of the class against the rest.

    A precision is 0 for a class that is never predicted; what the split cannot answer (recall and F1 of a class without
    images, AP of a class without images or without others) is None.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    matrix = confusion_matrix(probabilities.argmax(1), labels, probabilities.shape[1])
    rows = []
    for c, hits in enumerate(matrix.diagonal().tolist()):
        support, called = int(matrix[c].sum()), int(matrix[:, c].sum())
        row = {'support': support, 'precision': hits / max(called, 1), 'recall': None, 'F1': None, 'AP': None}
        if support:
            row |= {'recall': hits / support, 'F1': 2 * hits / (support + called)}
        if 0 < support < len(labels):
            row['AP'] = average_precision(log_odds(probabilities, [c]), labels == c)
        rows.append(row)
    return rows


def macro_average_precision(probabilities, labels) -> float:
    """Mean of the one-vs-rest AP over the classes that the split holds."""
    defined = [row['AP'] for row in per_class(probabilities, labels) if row['AP'] is not None]
    if not defined:
        raise UsageError('macro AP is undefined: the split holds images of one class only.')
    return float(np.mean(defined))


def accuracy(probabilities, labels) -> float:
    """Share of images whose most probable class is the true one."""
    return float(np.mean(np.asarray(probabilities).argmax(1) == np.asarray(labels)))


def _split(probabilities, positive):
    """Sums over the positive columns and over the others, in float64."""
    probabilities = np.asarray(probabilities, np.float64)
    outside = np.ones(probabilities.shape[1], bool)
    outside[positive] = False
    return probabilities[:, ~outside].sum(1), probabilities[:, outside].sum(1)


def _checked(scores, labels):
    """Scores in float64 and labels as booleans, or one sentence on what is wrong with them."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape or not len(scores):
        raise UsageError(f'scores {scores.shape} and labels {labels.shape} must be one-dimensional, alike, not empty.')
    if broken := int(np.sum(~np.isfinite(scores))):
        raise UsageError(f'{broken} of {len(scores)} scores are NaN or infinite, so the images cannot be ranked.')
    return scores, labels != 0


def _groups(scores, labels):
    """Distinct scores, descending (G,), the group of each image (N,), and whether it is a defect (N,)."""
    scores, defective = _checked(scores, labels)
    if defective.all() or not defective.any():
        only = 'defective' if defective.all() else 'good'
        raise UsageError(f'ranking metrics need good and defective images, but all {len(scores)} are {only}.')
    ascending, group = np.unique(-scores, return_inverse=True)
    return -ascending, group, defective


def tally(scores, labels, weights=None):
    """Distinct scores, descending, and at each the weight of the defects and of the good images; three (G,) arrays."""
    thresholds, group, defective = _groups(scores, labels)
    weights = np.ones(len(group)) if weights is None else np.asarray(weights, np.float64)
    hits, alarms = (np.bincount(group, weights * members, len(thresholds)) for members in (defective, ~defective))
    if not (np.all(weights >= 0) and 0 < hits.sum() < np.inf and 0 < alarms.sum() < np.inf):
        raise UsageError('weights must be finite, none negative, and some of each class positive.')
    return thresholds, hits, alarms


def _resampled_tally(members, rows, groups, rng):
    """Tallies (rows, groups) of one class, each from as many draws with replacement as the class has members."""
    drawn = members[rng.integers(0, len(members), (rows, len(members)))]
    drawn += groups * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)


def _average_precision(hits, alarms):
    """AP of tallies (..., G)."""
    found = hits.cumsum(-1)
    called = found + alarms.cumsum(-1)
    precision = np.divide(found, called, out=np.zeros(called.shape), where=called > 0)
    return (hits * precision).sum(-1) / found[..., -1]


def _auroc(hits, alarms):
    """AUROC of tallies (..., G)."""
    found = hits.cumsum(-1)
    return (alarms * (found - hits / 2)).sum(-1) / (found[..., -1] * alarms.sum(-1))


def below(thresholds, index):
    """Halfway from a distinct score to the next lower one; the score itself where there is none."""
    here = thresholds[index]
    if index + 1 == len(thresholds):
        return float(here)
    halfway = here / 2 + thresholds[index + 1] / 2
    return float(halfway if halfway > thresholds[index + 1] else here)

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import kgl_mm
from kgl_mm.errors import UsageError
from kgl_mm.evaluation import functional as F  # noqa: N812

# Four defects and five good ones, with a tie of both kinds at 0.7.
SCORES = [0.9, 0.8, 0.7, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1]
LABELS = [1, 0, 1, 0, 1, 0, 0, 1, 0]


def split(rng, n=None, levels=None):
    """A split of random size, balance and number of ties, with both classes."""
    n = n or int(rng.integers(2, 60))
    labels = rng.random(n) < rng.uniform(0.05, 0.95)
    labels[:2] = [True, False]
    scores = rng.normal(size=n) + labels
    levels = levels or rng.choice([1, 3, 10, 10**9])
    return np.round(scores * levels) / levels, labels.astype(int)


@st.composite
def splits(draw):
    labels = draw(st.lists(st.booleans(), min_size=1, max_size=30)) + draw(st.permutations([True, False]))
    scores = draw(st.lists(st.integers(-5, 5), min_size=len(labels), max_size=len(labels)))
    return np.array(scores, float), np.array(labels)


def test_ap_and_auroc_equal_sklearn_with_ties_and_weights():
    rng = np.random.default_rng(0)
    for i in range(1000):
        scores, labels = split(rng)
        # Integer weights with zeros, so that whole groups of ties can vanish, but one of each class stays.
        weights = rng.integers(0, 3, len(labels)) * 0.5
        weights[:2] = 1
        for w in (None, weights) if i % 4 == 0 else (None,):
            assert F.average_precision(scores, labels, w) == pytest.approx(
                sk.average_precision_score(labels, scores, sample_weight=w), abs=1e-12
            )
            assert F.auroc(scores, labels, w) == pytest.approx(
                sk.roc_auc_score(labels, scores, sample_weight=w), abs=1e-12
            )


def test_bootstrap_interval_agrees_with_brute_force():
    scores, labels = split(np.random.default_rng(3), n=80, levels=10)
    rng = np.random.default_rng(9)
    classes = np.flatnonzero(labels), np.flatnonzero(labels == 0)
    values = []
    for _ in range(1000):
        drawn = np.concatenate([rng.choice(members, len(members)) for members in classes])
        values.append(
            [sk.average_precision_score(labels[drawn], scores[drawn]), sk.roc_auc_score(labels[drawn], scores[drawn])]
        )
    expected = np.quantile(values, [0.05, 0.95], axis=0)
    interval = F.bootstrap_interval(scores, labels, level=0.9, resamples=4000)
    # The quantiles of so many resamples scatter by some 5 % of the spread.
    spread = np.std(values, axis=0)
    np.testing.assert_allclose(interval['AP'], expected[:, 0], atol=0.2 * spread[0])
    np.testing.assert_allclose(interval['AUROC'], expected[:, 1], atol=0.2 * spread[1])


def test_bootstrap_interval_covers_the_truth():
    """Normal scores one deviation apart have AUROC Phi(1 / sqrt 2); of 200 intervals at 90 % some 180 cover it."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [60, 40])
    covered = 0
    for seed in range(200):
        scores = rng.normal(size=100) + labels
        low, high = F.bootstrap_interval(scores, labels, level=0.9, resamples=300, seed=seed)['AUROC']
        covered += low <= 0.7602499 <= high
    assert 165 <= covered <= 194


def test_bootstrap_interval_depends_on_the_seed_but_not_on_the_order_or_the_chunks(monkeypatch):
    scores, labels = split(np.random.default_rng(4), n=50, levels=10)
    order = np.random.default_rng(5).permutation(50)
    assert F.bootstrap_interval(scores, labels) == F.bootstrap_interval(scores[order], labels[order])
    assert F.bootstrap_interval(scores, labels) != F.bootstrap_interval(scores, labels, seed=1)
    whole = F.bootstrap_interval(scores, labels, resamples=5000)
    monkeypatch.setattr(F, 'CHUNK', 70)
    np.testing.assert_allclose(
        list(F.bootstrap_interval(scores, labels, resamples=5000).values()), list(whole.values()), atol=0.02
    )


def test_the_interval_of_a_perfect_ranking_says_how_few_images_show_it():
    interval = F.bootstrap_interval([0.1, 0.2, 0.9], [0, 0, 1])
    by_hand = 1 - 2 * np.log(3 / 2.025)  # a precision of 1 up to a recall of 0.025, then of recall / (recall + 2)
    assert interval == {'AP': (pytest.approx(by_hand, abs=1e-4), 1.0), 'AUROC': (pytest.approx(0.025), 1.0)}
    lows = []
    for times in (1, 5, 50, 500):
        scores, labels = [*range(4 * times)], [0] * 3 * times + [1] * times
        (ap, high), (area, _) = F.bootstrap_interval(scores, labels).values()
        missed, alarmed = (1 - 0.025 ** (1 / count) for count in (times, 3 * times))
        assert high == 1
        assert area == pytest.approx(1 - max(missed, alarmed))
        lows.append(ap)
    assert lows == sorted(lows)
    assert lows[-1] > 0.95


def test_the_interval_of_a_perfect_ranking_is_that_of_rankings_that_so_few_may_hide():
    """The ranking itself, with as many of 2,000 images on the wrong side."""
    (low, _), _ = F.bootstrap_interval([*range(60)], [0] * 40 + [1] * 20).values()
    missed, alarmed = (1 - 0.025 ** (1 / count) for count in (20, 40))
    worst = []
    for below, above in ((missed, 0), (0, alarmed)):
        defects = np.where(np.arange(20_000) < below * 20_000, -1, 1.0)
        good = np.where(np.arange(40_000) < above * 40_000, 2, 0.0)
        scores = np.r_[defects, good] + 1e-6 * np.random.default_rng(0).random(60_000)
        worst.append(sk.average_precision_score(np.r_[np.ones(20_000), np.zeros(40_000)], scores))
    assert low == pytest.approx(min(worst), abs=0.002)


def test_intervals_cover_the_truth_where_few_images_often_show_no_error():
    rng = np.random.default_rng(0)

    def draw(defective, good):
        return np.r_[rng.normal(3, 1, defective), rng.normal(0, 1, good)], np.r_[np.ones(defective), np.zeros(good)]

    truth = F.average_precision(*draw(50_000, 100_000))
    covered, perfect = 0, 0
    for _ in range(200):
        scores, labels = draw(8, 16)
        low, high = F.bootstrap_interval(scores, labels, resamples=200)['AP']
        covered += low <= truth <= high
        perfect += F.average_precision(scores, labels) == 1
    assert perfect > 50
    assert covered >= 190  # 130 of them without the perfect ones


@settings(deadline=None)
@given(splits())
def test_ranges_and_invariances(case):
    scores, labels = case
    order = np.random.default_rng(0).permutation(len(labels))

    def ranking(scores, labels):
        return [
            F.average_precision(scores, labels),
            F.auroc(scores, labels),
            F.best_f1(scores, labels)[0],
            F.recall_at_fpr(scores, labels, 0.3),
            F.fp_at_zero_fn(scores, labels) / np.sum(~labels),
            *np.ravel(list(F.bootstrap_interval(scores, labels, resamples=5).values())),
        ]

    values = ranking(scores, labels)
    assert all(0 <= value <= 1 for value in values)
    assert F.auroc(-scores, labels) == pytest.approx(1 - F.auroc(scores, labels))
    np.testing.assert_allclose(ranking(np.exp(scores), labels), values)
    np.testing.assert_allclose(ranking(scores[order], labels[order]), values)


@given(splits(), st.floats(0, 0.99))
def test_thresholds_against_all_possible_ones(case, rate):
    scores, labels = case
    candidates = [F.at_threshold(scores, labels, t) for t in [*np.unique(scores), np.inf]]
    f1 = [sk.f1_score(labels, scores >= t) for t in np.unique(scores)]
    value, threshold = F.best_f1(scores, labels)
    assert value == pytest.approx(max(f1))
    assert value == pytest.approx(sk.f1_score(labels, scores >= threshold))
    assert F.fp_at_zero_fn(scores, labels) == min(c['FP'] for c in candidates if c['FN'] == 0)
    assert F.recall_at_fpr(scores, labels, rate) == pytest.approx(
        max(c['recall'] for c in candidates if c['FP'] / np.sum(~labels) <= rate)
    )


def test_toy_worked_by_hand():
    assert F.at_threshold(SCORES, LABELS, 0.7) == {'accuracy': 5 / 9, 'FP': 2, 'FN': 2, 'recall': 0.5, 'precision': 0.5}
    assert F.fp_at_zero_fn(SCORES, LABELS) == 4
    assert F.recall_at_fpr(SCORES, LABELS, 0.01) == 0.25
    assert F.recall_at_fpr(SCORES, LABELS, 0.4) == 0.75
    # Called: 5 with 3 hits -> 6 / 9; all from 0.2 up: 8 with 4 hits -> 8 / 12, no better, so the higher one is taken.
    assert F.best_f1(SCORES, LABELS) == (pytest.approx(2 / 3), pytest.approx(0.45))


def test_recall_at_fpr_is_zero_where_a_good_image_leads():
    assert F.recall_at_fpr([0.9, 0.8], [0, 1], 0.01) == 0


def test_at_threshold_without_calls_and_with_one_class():
    assert F.at_threshold([0.1, 0.2], [0, 1], 0.5) == {'accuracy': 0.5, 'FP': 0, 'FN': 1, 'recall': 0, 'precision': 0}
    assert F.at_threshold([0.1, 0.6], [0, 0], 0.5) == {'accuracy': 0.5, 'FP': 1}
    assert F.at_threshold([0.1, 0.6], [2, 1], 0.5) == {'accuracy': 0.5, 'FN': 1, 'recall': 0.5}


RANKING = [F.average_precision, F.auroc, F.bootstrap_interval, F.fp_at_zero_fn, F.best_f1]


@pytest.mark.parametrize('metric', [*RANKING, lambda s, y: F.recall_at_fpr(s, y, 0.01)])
def test_undefined_inputs_get_one_sentence(metric):
    with pytest.raises(UsageError, match='all 1 are good'):
        metric([0.3], [0])
    with pytest.raises(UsageError, match='all 2 are defective'):
        metric([0.3, 0.4], [1, 2])
    with pytest.raises(UsageError, match='2 of 3 scores are NaN or infinite'):
        metric([np.nan, 0.1, np.inf], [0, 1, 0])
    for scores, labels in (([], []), ([0.1, 0.2], [0]), ([[0.1, 0.2]], [[0, 1]])):
        with pytest.raises(UsageError, match='must be one-dimensional, alike, not empty'):
            metric(scores, labels)


@pytest.mark.parametrize('weights', [[1, -1], [1, np.nan], [0, 1], [1, 0]])
def test_bad_weights(weights):
    with pytest.raises(UsageError, match='weights must be finite'):
        F.average_precision([0.1, 0.2], [0, 1], weights)


def test_any_label_but_zero_is_a_defect_and_any_number_type_serves():
    expected = F.average_precision(SCORES, LABELS)
    assert F.average_precision(SCORES, np.array(LABELS) * 3) == expected
    assert F.average_precision(np.float32(SCORES), np.array(LABELS, bool)) == pytest.approx(expected)


def softmax(logits):
    """In float32, as a model gives it."""
    e = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float32)
    return e / e.sum(1, keepdims=True)


def test_saturated_softmax_keeps_its_order():
    margin = np.linspace(-80, 80, 161, dtype=np.float32)
    p = softmax(np.stack([-margin / 2, margin / 2], 1))
    assert len(np.unique(p[:, 1])) < 161  # the plain probability ties
    np.testing.assert_allclose(F.log_odds(p), margin, rtol=1e-4, atol=1e-4)
    assert np.all(np.diff(F.event_probability(p)) >= 0)


def test_log_odds_of_certainty_is_finite_and_ordered():
    p = np.array([[1, 0], [1, 1e-45], [0.5, 0.5], [1e-45, 1], [0, 1]], np.float32)
    odds = F.log_odds(p)
    assert np.isfinite(odds).all()
    assert np.all(np.diff(odds) > 0)
    np.testing.assert_allclose(odds, -odds[::-1])
    assert F.event_probability(p)[[0, 2, 4]].tolist() == [0, 0.5, 1]


def test_log_odds_sums_the_kinds_of_defect():
    p = [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]
    np.testing.assert_allclose(F.log_odds(p), [0, np.log(9)])
    np.testing.assert_allclose(F.log_odds(p, [1]), np.log([0.3 / 0.7, 0.6 / 0.4]))
    np.testing.assert_allclose(F.event_probability(p), [0.5, 0.9])


def test_multi_class_equals_sklearn():
    rng = np.random.default_rng(2)
    for _ in range(50):
        count = int(rng.integers(2, 7))
        labels = np.concatenate([np.arange(count), rng.integers(0, count, 60)])
        p = softmax(2 * rng.normal(size=(len(labels), count)) + 2 * np.eye(count)[labels])
        predicted = p.argmax(1)
        rows = F.per_class(p, labels)
        expected = sk.precision_recall_fscore_support(labels, predicted, zero_division=0)
        for name, values in zip(('precision', 'recall', 'F1', 'support'), expected, strict=True):
            assert [row[name] for row in rows] == pytest.approx(values.tolist())
        ap = sk.average_precision_score(np.eye(count)[labels], p, average=None)
        assert [row['AP'] for row in rows] == pytest.approx(ap.tolist())
        assert F.macro_average_precision(p, labels) == pytest.approx(ap.mean())
        assert F.accuracy(p, labels) == sk.accuracy_score(labels, predicted)
        assert F.confusion_matrix(predicted, labels, count).tolist() == sk.confusion_matrix(labels, predicted).tolist()


def test_multi_class_with_a_class_that_has_no_image():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.4, 0.5, 0.1]])
    rows = F.per_class(p, [0, 1, 0])
    assert rows[0] == {'support': 2, 'precision': 1, 'recall': 0.5, 'F1': pytest.approx(2 / 3), 'AP': 1}
    assert rows[2] == {'support': 0, 'precision': 0, 'recall': None, 'F1': None, 'AP': None}
    assert F.macro_average_precision(p, [0, 1, 0]) == 1
    with pytest.raises(UsageError, match='one class only'):
        F.macro_average_precision(p, [1, 1, 1])


def test_functional_loads_neither_torch_nor_mmengine():
    code = (
        'import sys, kgl_mm.evaluation.thresholds; '
        'print([m for m in ("torch", "mmengine", "mmpretrain", "scipy", "cv2") if m in sys.modules])'
    )
    env = os.environ | {'PYTHONPATH': str(Path(kgl_mm.__file__).parents[1])}
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_the_roc_curve_is_the_usual_one():
    scores, labels = split(np.random.default_rng(0), n=300, levels=3)
    alarms, hits, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(F.roc_curve(scores, labels), [alarms, hits])


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
        lambda x: 0 < sum(y for _, y in x) < len(x)
    )
)
def test_the_area_under_the_steps_is_the_average_precision(images):
    scores, labels = map(np.array, zip(*images, strict=True))
    recall, precision = F.precision_recall(scores, labels)
    assert np.trapezoid(precision, recall) == pytest.approx(F.average_precision(scores, labels))
    expected = sk.precision_recall_curve(labels, scores)
    corners = set(zip(recall[1::2].round(9), precision[1::2].round(9), strict=True))
    assert corners == set(zip(expected[1][:-1].round(9), expected[0][:-1].round(9), strict=True))


def test_an_interval_holds_its_estimate_where_resamples_flatter():
    random, labels = np.random.default_rng(0), np.arange(60) < 4
    for _ in range(40):
        scores = random.random(60)
        found = F.bootstrap_interval(scores, labels, resamples=200)
        for name, of in dict(AP=F.average_precision, AUROC=F.auroc).items():
            assert found[name][0] <= of(scores, labels) <= found[name][1]

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from kgl_mm.errors import UsageError
from kgl_mm.evaluation.functional import at_threshold, best_f1
from kgl_mm.evaluation.thresholds import (
    NOTHING,
    aim_in_words,
    cheapest_threshold,
    choose_threshold,
    cost_per_thousand,
    miss_rate_bound,
    read_aim,
)

# Four defects and five good ones, with a tie of both kinds at 0.7.
SCORES = [0.9, 0.8, 0.7, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1]
LABELS = [1, 0, 1, 0, 1, 0, 0, 1, 0]

parts = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=0, max_size=20)
prices = st.floats(0, 1e6)


def split(images):
    """Scores and labels with both classes."""
    return map(np.array, zip(*images, (0.3, True), (0.25, False), strict=True))


@given(parts, st.floats(0, 0.99))
def test_no_threshold_with_so_few_misses_rejects_fewer_or_misses_less(images, rate):
    scores, labels = split(images)
    threshold = choose_threshold(scores, labels, dict(misses=rate))
    candidates = [at_threshold(scores, labels, t) for t in (*scores, NOTHING)]
    allowed = [(c['FP'], c['FN']) for c in candidates if c['FN'] / labels.sum() <= rate]
    chosen = at_threshold(scores, labels, threshold)
    assert (chosen['FP'], chosen['FN']) == min(allowed)
    assert 0 <= threshold <= 1
    assert threshold == choose_threshold(scores, labels, f'misses={rate!r}')


@given(parts, prices, prices, st.none() | st.floats(0, 1))
def test_no_threshold_is_cheaper(images, miss, alarm, share):
    scores, labels = split(images)
    threshold, cost = cheapest_threshold(scores, labels, miss, alarm, share)
    assert cost_per_thousand(scores, labels, threshold, miss, alarm, share) == cost
    assert cost <= min(cost_per_thousand(scores, labels, other, miss, alarm, share) for other in (*scores, NOTHING))
    if miss or alarm:
        aim = dict(miss=miss, false_alarm=alarm, **({} if share is None else dict(defects=share)))
        assert choose_threshold(scores, labels, aim) == threshold
        assert choose_threshold(scores, labels, ':'.join(f'{k}={v!r}' for k, v in aim.items())) == threshold


def test_toy_worked_by_hand():
    assert choose_threshold(SCORES, LABELS) == best_f1(SCORES, LABELS)[1] == pytest.approx(0.45)
    assert choose_threshold(SCORES, LABELS, dict(misses=0.25)) == pytest.approx(0.45)
    assert choose_threshold(SCORES, LABELS, dict(misses=0)) == pytest.approx(0.15)
    assert choose_threshold(SCORES, LABELS, dict(misses=0.8)) == pytest.approx(0.85)
    # the same errors cost by what they cost
    assert choose_threshold(SCORES, LABELS, dict(miss=100, false_alarm=1)) == pytest.approx(0.15)
    assert choose_threshold(SCORES, LABELS, dict(miss=1, false_alarm=100)) == pytest.approx(0.85)
    # and by how many defective parts there will be
    assert choose_threshold(SCORES, LABELS, 'miss=100:false_alarm=1:defects=0.0001') == pytest.approx(0.85)


@pytest.mark.parametrize('aim', ['f1', 'misses=0', 'misses=0.5', 'miss=10:false_alarm=1', 'miss=1:false_alarm=99'])
def test_classes_that_are_apart_are_parted_in_the_middle(aim):
    assert choose_threshold([0.9, 0.7, 0.6, 0.2, 0.1], [1, 1, 1, 0, 0], aim) == pytest.approx(0.4)


def test_a_threshold_has_room_on_both_sides_and_stays_exact_between_neighbouring_floats():
    assert choose_threshold([0.4, 0.4], [0, 1]) == 0.4
    floats = [0.3, np.nextafter(0.3, 1), np.nextafter(np.nextafter(0.3, 1), 1)]
    for pair in (floats[:2], floats[1:]):  # halfway is no float, and rounds up in one pair, down in the other
        for aim in ('f1', 'misses=0', 'miss=1:false_alarm=1'):
            assert choose_threshold(pair, [0, 1], aim) == pair[1]
    assert choose_threshold([1.6e308, 1.7e308], [0, 1]) == pytest.approx(1.65e308)


def test_a_rate_is_met_exactly():
    """29 of 100 is 0.29, though 0.29 * 100 is less than 29 in floating point."""
    scores = np.arange(200.0)
    labels = scores % 2 == 1  # so that each defect more costs a good part
    assert choose_threshold(scores, labels, dict(misses=0.29)) == 58.5


def test_prices_may_say_that_nothing_is_worth_rejecting():
    scores, labels = [0.2, 0.4, 0.6, 1.0], [0, 1, 0, 0]
    assert cheapest_threshold(scores, labels, miss=0, false_alarm=1) == (NOTHING, 0)
    assert cheapest_threshold([0.2, 0.8], [1, 0], miss=1, false_alarm=9) == (0.9, 500)
    threshold, cost = cheapest_threshold(scores, labels, miss=1, false_alarm=0)
    assert (threshold, cost) == (pytest.approx(0.3), 0)


def test_the_cost_is_the_expected_one():
    # 1 of 2 defects missed, 1 of 4 good parts rejected; 2 % of the parts are defective
    scores, labels = [0.9, 0.1, 0.8, 0.2, 0.2, 0.2], [1, 1, 0, 0, 0, 0]
    assert at_threshold(scores, labels, 0.5)['FN'] == at_threshold(scores, labels, 0.5)['FP'] == 1
    cost = cost_per_thousand(scores, labels, 0.5, miss=100, false_alarm=3, defects=0.02)
    assert cost == pytest.approx(10 * 100 + 245 * 3)


@pytest.mark.parametrize('wrong', [dict(miss=-1), dict(false_alarm=-1), dict(defects=1.5)])
def test_prices_are_checked(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        cheapest_threshold([0.1, 0.9], [0, 1], **{'miss': 1, 'false_alarm': 1, **wrong})


def test_one_class_has_no_cost():
    with pytest.raises(UsageError, match='good and defective'):
        cost_per_thousand([0.1, 0.9], [1, 1], 0.5, miss=1, false_alarm=1)


@pytest.mark.parametrize(
    'aim',
    [
        *(
            'F2',
            '',
            'misses',
            'misses=',
            'misses=x',
            'misses=nan',
            'misses=1',
            'misses=-0.1',
            'misses<=0.02',
            'miss=0.02',
        ),
        *('miss=inf:false_alarm=1', 'miss=0:false_alarm=0', 'miss=1:false_alarm=1:defects=2', 'misses=0.1:miss=1'),
        *('miss=0.02', 'miss=0', {}, {'miss': 1}, {'misses': 0.1, 'fpr': 0.1}, {'misses': None}, None, 3, [], ['f1']),
    ],
)
def test_what_is_no_aim_is_refused_with_the_forms(aim):
    with pytest.raises(UsageError, match="not an aim, which is 'f1', 'misses=SHARE'"):
        read_aim(aim)


def test_aims_in_words():
    assert aim_in_words('f1') == 'the best F1'
    assert aim_in_words(dict(misses=0.005)) == 'at most 0.5 % of defects missed'
    assert aim_in_words('miss=2.5:false_alarm=1') == 'the lowest cost at 2.5 a miss and 1 a false alarm'


def test_the_bound_is_that_of_clopper_and_pearson():
    for defective in (1, 7, 60, 2000):
        for missed in {0, 1, defective // 2, defective - 1}:
            expected = beta.ppf(0.95, missed + 1, defective - missed) if missed < defective else 1
            assert miss_rate_bound(missed, defective) == pytest.approx(expected, abs=1e-9)
    assert miss_rate_bound(3, 3) == 1


def test_the_bound_holds_for_the_threshold_that_was_chosen_on_the_same_parts():
    random = np.random.default_rng(0)
    held, runs = 0, 2000
    for _ in range(runs):
        scores = random.random(40)
        threshold = np.sort(scores)[2]  # two of the forty are missed
        held += threshold <= miss_rate_bound(2, 40)  # its true miss rate, since scores are uniform
    assert held / runs == pytest.approx(0.95, abs=0.015)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgl_mm.errors import UsageError
from kgl_mm.evaluation.functional import at_threshold
from kgl_mm.report.cost import NOTHING, cheapest_threshold, cost_per_thousand

parts = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=1, max_size=20)
prices = st.floats(0, 1e6)


@given(parts, prices, prices, st.none() | st.floats(0, 1))
def test_no_threshold_is_cheaper(parts, miss, alarm, share):
    scores, labels = zip(*parts, (0.3, True), (0.3, False), strict=False)
    threshold, cost = cheapest_threshold(scores, labels, miss, alarm, share)
    assert cost_per_thousand(scores, labels, threshold, miss, alarm, share) == cost
    others = [cost_per_thousand(scores, labels, other, miss, alarm, share) for other in (*scores, NOTHING)]
    assert cost <= min(others)


def test_the_cost_is_the_expected_one():
    # 1 of 2 defects missed, 1 of 4 good parts rejected; 2 % of the parts are defective
    scores, labels = [0.9, 0.1, 0.8, 0.2, 0.2, 0.2], [1, 1, 0, 0, 0, 0]
    assert at_threshold(scores, labels, 0.5)['FN'] == at_threshold(scores, labels, 0.5)['FP'] == 1
    assert cost_per_thousand(scores, labels, 0.5, miss=100, alarm=3, share=0.02) == pytest.approx(10 * 100 + 245 * 3)


def test_a_price_of_nothing_calls_all_or_none():
    scores, labels = np.array([0.2, 0.4, 0.6, 1.0]), [0, 1, 0, 0]
    threshold, cost = cheapest_threshold(scores, labels, miss=0, alarm=1)
    assert (threshold, cost) == (NOTHING, 0)
    threshold, cost = cheapest_threshold(scores, labels, miss=1, alarm=0)
    assert cost == 0
    assert 0.2 < threshold < 0.4


@pytest.mark.parametrize('wrong', [dict(miss=-1), dict(alarm=-1), dict(share=1.5)])
def test_prices_are_checked(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        cheapest_threshold([0.1, 0.9], [0, 1], **{'miss': 1, 'alarm': 1, **wrong})


def test_one_class_has_no_cost():
    with pytest.raises(UsageError, match='good and defective'):
        cost_per_thousand([0.1, 0.9], [1, 1], 0.5, miss=1, alarm=1)

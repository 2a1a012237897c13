import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kgl_mm.evaluation.intervals import paired_bootstrap, t_interval

numbers = st.lists(st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=2, max_size=60)


@given(numbers)
def test_t_interval_is_scipys(values):
    found = t_interval(values)
    spread = stats.sem(values)
    if spread < 1e-9:
        assert found == pytest.approx((np.mean(values),) * 2, abs=1e-6)
        return
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), spread)
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize('interval', [t_interval, paired_bootstrap])
def test_one_value_tells_nothing_of_the_spread(interval):
    assert interval([0.5]) == (-np.inf, np.inf)


def test_bootstrap_is_scipys():
    values = np.random.default_rng(1).normal(0.02, 0.05, 15)
    expected = stats.bootstrap((values,), np.mean, method='percentile', n_resamples=10_000, random_state=3)
    assert paired_bootstrap(values) == pytest.approx(tuple(expected.confidence_interval), abs=2e-3)


def test_bootstrap_holds_the_mean_in_nineteen_of_twenty_experiments():
    random = np.random.default_rng(0)
    held = [low <= 0 <= high for low, high in (paired_bootstrap(random.normal(size=40), 500) for _ in range(300))]
    assert 0.89 < np.mean(held) < 0.98

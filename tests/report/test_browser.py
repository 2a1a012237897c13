"""The page in a real browser; skipped where there is none (apt-get install chromium)."""

import numpy as np
import pytest

from kgl_mm.evaluation.functional import at_threshold
from kgl_mm.evaluation.thresholds import NOTHING, cheapest_threshold, cost_per_thousand
from kgl_mm.report import write_report


@pytest.fixture
def opened(new_page, write_run):
    """A function that opens the report of some scores."""

    def opened(stages, **kwargs):
        page = new_page('file:', 'data:', **kwargs)
        page.goto(write_report(write_run(stages)).as_uri())
        return page

    return opened


def scores_of(number, seed=0, ties=False):
    random = np.random.default_rng(seed)
    labels = (random.random(number) < 0.2).astype(int)
    scores = 1 / (1 + np.exp(-random.normal(np.where(labels, 2.0, -2.0), 2.5)))
    if ties:
        scores = scores.round(1)
    return scores.tolist(), labels.tolist()


@pytest.mark.parametrize('ties', [False, True])
def test_counts_and_costs_are_those_of_python(opened, ties):
    scores, labels = scores_of(1000, ties=ties)
    page = opened({'stage1': (scores, labels)})
    for threshold in (0, 0.1, 0.5, 0.9, 1, NOTHING, *scores[:20]):
        found = page.evaluate('t => report.counts(report.state.stage, t)', threshold)
        expected = at_threshold(scores, labels, threshold)
        assert (found['FP'], found['FN']) == (expected['FP'], expected['FN'])
        for miss, alarm, share in ((10, 1, None), (0.3, 7.7, 0.013), (0, 0, 1)):
            arguments = [threshold, miss, alarm, share]
            found = page.evaluate('a => report.cost(report.state.stage, ...a)', arguments)
            assert found == cost_per_thousand(scores, labels, *arguments)
    for miss, alarm, share in ((10, 1, None), (1000, 0.1, 0.001), (0, 1, None), (1, 0, None), (1, 1, 0.5)):
        found = page.evaluate('a => report.cheapest(report.state.stage, ...a)', [miss, alarm, share])
        assert tuple(found) == cheapest_threshold(scores, labels, miss, alarm, share)


def test_the_keyboard_moves_the_threshold(opened):
    scores, labels = scores_of(200)
    page = opened({'stage1': (scores, labels)})
    wrong = at_threshold(scores, labels, 0.5)
    assert page.locator('#fp').inner_text() == f'{wrong["FP"]} of {labels.count(0)}'
    assert page.locator('#alarms li figure').count() == min(8, wrong['FP'])
    page.locator('#slider').focus()
    for _ in range(3):
        page.keyboard.press('ArrowRight')
    threshold = page.evaluate('report.state.threshold')
    assert threshold > 0.5
    wrong = at_threshold(scores, labels, threshold)
    assert page.locator('#fn').inner_text() == f'{wrong["FN"]} of {labels.count(1)}'
    page.keyboard.press('End')
    assert page.locator('#fn').inner_text() == f'{labels.count(1)} of {labels.count(1)}'
    assert 'None at this threshold' in page.locator('#alarms').inner_text()
    assert 'Nothing is called defective' in page.locator('#origin').inner_text()
    page.keyboard.press('Home')
    assert page.locator('#fp').inner_text() == f'{labels.count(0)} of {labels.count(0)}'
    page.locator('#recorded').press('Enter')
    assert page.evaluate('report.state.threshold') == 0.5


def test_prices_give_the_cheapest_threshold(opened):
    scores, labels = scores_of(300)
    page = opened({'stage1': (scores, labels)})
    page.locator('#price-miss').fill('250')
    page.locator('#price-alarm').fill('4')
    page.locator('#share').fill('2')
    page.locator('#use-cheapest').click()
    threshold, cost = cheapest_threshold(scores, labels, 250, 4, 0.02)
    assert page.evaluate('report.state.threshold') == threshold
    assert f'1,000 parts cost {cost:,.1f}:' in page.locator('#cost').inner_text()
    assert float(page.locator('#exact').input_value()) == threshold
    page.locator('#price-miss').fill('-1')
    assert 'Give prices of 0 or more' in page.locator('#cost').inner_text()
    assert page.locator('#use-cheapest').is_disabled()


def test_a_stage_can_be_chosen_and_its_own_scores_count(opened):
    one, other = scores_of(100), scores_of(100, seed=1)
    page = opened({'stage1': one, 'stage2': (other[0], one[1])})
    assert page.evaluate('report.state.stage.name') == 'stage2'
    page.locator('#stage').select_option('stage1')
    wrong = at_threshold(*one, 0.5)
    assert page.locator('#fn').inner_text() == f'{wrong["FN"]} of {one[1].count(1)}'


def test_one_class_shows_no_costs(opened):
    page = opened({'stage1': ([0.9, 0.5, 0.1], [0, 0, 0])})
    assert page.locator('#fp').inner_text() == '2 of 3'
    assert page.locator('#fn').inner_text() == '-'
    assert not page.locator('#costs').is_visible()


@pytest.mark.parametrize('width', [320, 1280])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_any_width_and_can_be_read(opened, width, scheme):
    page = opened({'stage1': scores_of(60)}, viewport=dict(width=width, height=800), color_scheme=scheme)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    ink, paper = (page.evaluate(f'getComputedStyle(document.body).{name}') for name in ('color', 'backgroundColor'))
    light = [sum(map(int, colour[4:-1].split(', '))) for colour in (ink, paper)]
    assert abs(light[0] - light[1]) > 450

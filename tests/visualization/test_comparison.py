import cv2
import numpy as np
import pytest

from kgl_mm.evaluation.functional import average_precision, precision_recall
from kgl_mm.visualization import draw_comparison
from kgl_mm.visualization._tiles import CAPTION, PAPER, captioned
from kgl_mm.visualization.comparison import AFTER, BEFORE, _curves


def drawn(image, mask=None, count=40):
    random = np.random.default_rng(0)
    labels = np.arange(count) % 4 == 0
    scores = [random.random(count), labels * 0.9]
    curves = [(*precision_recall(s, labels), average_precision(s, labels)) for s in scores]
    maps = [np.zeros(image.shape[:2]), np.eye(*image.shape[:2])]
    data = draw_comparison(image, maps, mask, scores, labels, 4, curves)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize('shape', [(64, 128, 3), (1408, 512), (10, 10, 3), (500, 2000, 3)])
def test_six_parts_of_any_image_fit_on_a_page(shape):
    image = np.full(shape, 120, np.uint8)
    page = drawn(image, mask=np.eye(*shape[:2], dtype=np.uint8))
    assert 300 < page.shape[0] < 900
    assert 600 < page.shape[1] < 2200
    for colour in (BEFORE, AFTER):  # captions of both maps, and both curves
        assert (page == colour).all(2).sum() > 1000


@pytest.mark.parametrize(('score', 'is_low'), [(0.1, True), (0.9, False)])
def test_the_legend_is_where_no_curve_is(score, is_low):
    recall = np.linspace(0, 1, 5)
    canvas = _curves([(recall, np.full(5, score), score)] * 2, ('before', 'after'), (420, 300))
    written = (canvas == 255).all(2)[:, 60:].any(1)  # beside the numbers of the scale
    assert written[:100].any() == is_low
    assert written[200:].any() != is_low


def test_a_narrow_image_keeps_its_place_under_a_wide_caption():
    tile = captioned(np.full((50, 10, 3), 99, np.uint8), 'wider than the image', (10, 200, 10))
    assert (tile[CAPTION:, :10] == 99).all()
    assert (tile[CAPTION:, 10:] == PAPER).all()
    assert (tile[0] == (10, 200, 10)).all()


def test_the_defect_is_outlined_where_it_is_known():
    image = np.full((64, 96, 3), 120, np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[20:30, 40:60] = 1
    assert (drawn(image, mask) != drawn(image)).any()


def test_curves_go_across_by_recall_and_up_by_precision():
    recall = np.array([0, 0.5])
    canvas = _curves([(recall, np.ones(2), 0.4), (recall, np.zeros(2), 0.4)], ('a', 'b'), (420, 300))
    rows, _ = np.nonzero((canvas == BEFORE).all(2) & (np.arange(420) > 300))
    assert not len(rows)  # half of the width
    assert (canvas[:15] == BEFORE).all(2).any()
    assert not (canvas[:15] == AFTER).all(2).any()


def test_what_was_before_stands_left_with_the_score_of_the_image_that_is_shown(monkeypatch):
    image, said = np.full((300, 300, 3), 120, np.uint8), []
    monkeypatch.setattr(
        'kgl_mm.visualization.comparison.captioned', lambda tile, text, colour: said.append((text, tile)) or tile
    )
    curve = np.array([0, 1]), np.ones(2), 1.0
    maps, scores = [np.zeros((3, 3)), np.ones((3, 3))], [np.array([0.1, 0.25]), np.array([0.1, 0.75])]
    draw_comparison(image, maps, None, scores, np.array([0, 1]), 1, [curve, curve], ('first', 'then'))
    tiles = dict(said)
    assert (tiles['first: score 0.250'] == 120).all()
    assert (tiles['then: score 0.750'] != 120).any()

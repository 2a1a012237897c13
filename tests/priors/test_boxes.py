import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou
from torchvision.ops import nms as reference

from kgl_mm.errors import UsageError
from kgl_mm.priors.boxes import boxes_of, nms, overlaps, threshold_of, to_coco

CORNER = st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 20)] * 2)


def painted(shape, *regions):
    """A map of zeros with (left, top, right, bottom, value) painted in."""
    map = np.zeros(shape, np.float32)
    for left, top, right, bottom, value in regions:
        map[top:bottom, left:right] = value
    return map


@settings(deadline=None)
@given(st.lists(CORNER, max_size=12), st.randoms(use_true_random=False), st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]))
def test_nms_is_that_of_torchvision(corners, random, iou):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in corners], np.float64).reshape(-1, 4)
    scores = np.array(random.sample(range(100), len(boxes))) / 100
    shared = torch.tensor(boxes)
    between = box_iou(shared, shared)
    assume(((between - iou).abs() > 1e-6).all() or iou == 0)
    assert nms(boxes, scores, iou) == reference(shared, torch.tensor(scores), iou).tolist()
    for box, expected in zip(boxes, between, strict=True):
        np.testing.assert_allclose(overlaps(box, boxes), expected, atol=1e-12)


def test_an_overlap_of_just_the_limit_stays():
    assert nms(np.array([[0, 0, 10, 10], [0, 0, 10, 8]]), np.array([0.9, 0.8]), 0.8) == [0, 1]
    assert nms(np.array([[0, 0, 10, 10], [0, 0, 10, 9]]), np.array([0.9, 0.8]), 0.8) == [0]


def test_the_threshold_is_the_mean_of_the_peaks_minus_the_margin():
    assert threshold_of([0.4, 0.8, 0.6], 0.25) == pytest.approx(0.35)
    with pytest.raises(UsageError, match=r'a margin of 0.6 leaves nothing of the mean of the largest values, 0.6'):
        threshold_of([0.6, 0.6], 0.6)
    with pytest.raises(UsageError, match='no map'):
        threshold_of([])


def test_boxes_of_regions_with_the_best_score_first():
    map = painted((50, 80), (5, 6, 20, 16, 0.5), (40, 30, 60, 40, 0.7))
    map[35, 50] = 0.9
    boxes, scores = boxes_of(map, 0.4)
    assert boxes.tolist() == [[40, 30, 60, 40], [5, 6, 20, 16]]
    assert scores.tolist() == [np.float32(0.9), 0.5]
    assert boxes_of(map, 0.5)[0].tolist() == [[40, 30, 60, 40]]  # a value of the threshold is not above it
    assert [found.shape for found in boxes_of(map, 0.95)] == [(0, 4), (0,)]


@pytest.mark.parametrize(('shape', 'least'), [((50, 80), 10), ((199, 1999), 19), ((400, 300), 12)])
def test_small_regions_are_left_out(shape, least):
    """A line of one pixel has an area too: the number of its pixels."""
    kept = painted(shape, (3, 9, 3 + least, 10, 1))
    assert boxes_of(kept, 0.5)[0].tolist() == [[3, 9, 3 + least, 10]]
    assert not len(boxes_of(painted(shape, (3, 9, 2 + least, 10, 1)), 0.5)[0])


def test_what_is_inside_a_ring_belongs_to_it():
    map = painted((60, 60), (5, 5, 45, 45, 0.6), (10, 10, 40, 40, 0), (20, 20, 26, 26, 0.8))
    boxes, scores = boxes_of(map, 0.5)
    assert boxes.tolist() == [[5, 5, 45, 45]]
    assert scores[0] == np.float32(0.8)
    thin = painted((60, 60), (5, 5, 9, 9, 0.6), (6, 6, 8, 8, 0))  # 12 pixels and a hole of 4
    assert len(boxes_of(thin, 0.5)[0]) == 1


def test_corners_that_touch_are_one_region():
    assert boxes_of(painted((60, 60), (5, 5, 10, 10, 1), (10, 10, 15, 15, 1)), 0.5)[0].tolist() == [[5, 5, 15, 15]]


def test_the_best_are_chosen_before_overlaps_are():
    """An L and what lies in its arm have nearly the same box, and the same score, that of what is inside."""
    map = painted((60, 60), (5, 5, 8, 35, 0.6), (5, 32, 35, 35, 0.6), (9, 5, 35, 31, 0.9), (50, 50, 56, 56, 0.7))
    first, second = [5, 5, 35, 35], [9, 5, 35, 31]
    assert boxes_of(map, 0.5, iou=1.0)[0].tolist() == [first, second, [50, 50, 56, 56]]
    assert boxes_of(map, 0.5, iou=0.7)[0].tolist() == [first, [50, 50, 56, 56]]
    assert boxes_of(map, 0.5, most=2, iou=0.7)[0].tolist() == [first]


def test_as_coco():
    boxes, scores = np.array([[1, 2, 4, 8], [0, 0, 2, 2]]), np.array([0.75, 0.5])
    images = [
        dict(file_name='a.png', height=10, width=20, boxes=np.zeros((0, 4), int), scores=np.zeros(0)),
        dict(file_name='b.png', height=30, width=40, boxes=boxes, scores=scores),
    ]
    record = to_coco(images, threshold=0.5)
    assert record['info'] == dict(threshold=0.5)
    assert record['categories'] == [dict(id=1, name='anomaly')]
    assert record['images'] == [
        dict(id=1, file_name='a.png', height=10, width=20),
        dict(id=2, file_name='b.png', height=30, width=40),
    ]
    assert [one['bbox'] for one in record['annotations']] == [[1, 2, 3, 6], [0, 0, 2, 2]]
    assert [(one['id'], one['image_id'], one['area']) for one in record['annotations']] == [(1, 2, 18), (2, 2, 4)]

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr
from sklearn import metrics as sk

from kgl_mm.errors import UsageError
from kgl_mm.priors.quality import (
    EMPTY,
    area_holding,
    energy_inside,
    iou,
    pointing_game,
    precision,
    quality,
    recall,
    summary,
    trust,
    warnings_of,
)


def maps(*shape, top=255):
    """Priors in steps of 1/255, so that no rounding decides a tie or a property."""
    return arrays(np.uint8, shape, elements=st.integers(0, top)).map(lambda array: array / 255)


def masks(*shape):
    return arrays(np.uint8, shape, elements=st.integers(0, 1))


def test_the_share_of_the_maximum_that_lies_in_the_mask():
    prior = np.zeros((5, 7))
    prior[1, 1] = prior[1, 2] = prior[4, 6] = 0.5
    mask = np.zeros((5, 7), int)
    mask[1, 2:4] = 255
    assert pointing_game(prior, mask) == pytest.approx(1 / 3)
    assert pointing_game(prior, mask, tolerance=1) == pytest.approx(2 / 3)
    assert pointing_game(prior, mask, tolerance=4.2) == pytest.approx(2 / 3)  # (4, 6) is sqrt(9 + 9) away
    assert pointing_game(prior, mask, tolerance=4.3) == 1
    assert pointing_game(prior, np.zeros((5, 7)), tolerance=100) == 0


@given(maps(5, 7, top=3), masks(5, 7), st.integers(0, 4))
def test_tolerance_reaches_as_far_as_a_disc(prior, mask, tolerance):
    y, x = np.mgrid[-tolerance : tolerance + 1, -tolerance : tolerance + 1]
    wider = cv2.dilate(mask, (x**2 + y**2 <= tolerance**2).astype(np.uint8))
    assert pointing_game(prior, mask, tolerance) == pytest.approx(pointing_game(prior, wider))


@given(masks(4, 6), st.floats(0, 1e6))
def test_a_constant_map_points_as_well_as_chance(mask, level):
    assert pointing_game(np.full((4, 6), level), mask) == pytest.approx(mask.mean())


@given(maps(5, 7, top=3), masks(5, 7), st.sampled_from([2**-20, 0.5, 3, 1e6]))
def test_neither_flips_nor_scale_matter_and_all_is_a_share(prior, mask, scale):
    label = prior > 0
    found = quality(prior, mask, label)
    assert all(0 <= value <= 1 for value in found.values())
    assert quality(prior[::-1, ::-1], mask[::-1, ::-1], label[::-1, ::-1]) == pytest.approx(found)
    assert quality(prior * scale, mask, label) == pytest.approx(found)


@given(maps(5, 7), masks(5, 7))
def test_energy_inside_and_outside_is_all(prior, mask):
    assert energy_inside(prior, mask) + energy_inside(prior, 1 - mask) == pytest.approx(float(prior.any()))


@given(arrays(np.int64, (4, 5), elements=st.integers(0, 9)), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_no_fewer_pixels_hold_that_share(prior, share):
    """Whole numbers, so that sums are exact; the most that some pixels can hold is the sum of the highest."""
    highest = sorted(prior.ravel().tolist(), reverse=True)
    enough = [count for count in range(1, 21) if sum(highest[:count]) >= share * prior.sum()]
    assert area_holding(prior, share) == (min(enough) / 20 if prior.any() else 0)


@given(masks(5, 7), masks(5, 7))
def test_areas_equal_sklearn(label, mask):
    for ours, theirs in [(iou, sk.jaccard_score), (recall, sk.recall_score), (precision, sk.precision_score)]:
        expected = theirs(mask.ravel(), label.ravel(), zero_division=0)
        assert ours(label * 255, mask) == pytest.approx(expected)


@pytest.mark.parametrize('prior', [np.full((2, 3), np.nan), np.full((2, 3), -1), np.zeros((3, 2)), np.zeros((0, 3))])
def test_no_prior_of_this_mask(prior):
    for function in (pointing_game, energy_inside):
        with pytest.raises(UsageError):
            function(prior, np.ones((2, 3)) if prior.size else np.ones((0, 3)))


def test_areas_of_unlike_masks():
    with pytest.raises(UsageError, match=r'\(2, 3\) and \(3,\) differ'):
        iou(np.ones((2, 3)), np.ones(3))


@given(maps(3, 2, 4, 5))
def test_trust_is_the_mean_correlation(views):
    expected = np.zeros(2)
    for i in range(2):
        for view in views[1:]:
            pair = views[0, i].ravel(), view[i].ravel()
            if np.ptp(pair[0]) and np.ptp(pair[1]):
                expected[i] += pearsonr(*pair).statistic / 2
    np.testing.assert_allclose(trust(views), expected, atol=1e-12)


@given(maps(3, 2, 4, 5), arrays(np.float64, (3, 2, 1, 1), elements=st.floats(1e-6, 1e6)))
def test_trust_is_blind_to_scale_and_to_a_common_flip(views, scales):
    np.testing.assert_allclose(trust(views * scales), trust(views), atol=1e-9)
    np.testing.assert_allclose(trust(views[..., ::-1]), trust(views), atol=1e-12)
    assert (abs(trust(views)) <= 1).all()


def test_trust_of_a_constant_map_is_0_in_spite_of_rounding():
    views = np.random.default_rng(0).random((2, 1, 30, 30), np.float32)
    views[0] = 0.1
    assert trust(views).tolist() == [0]


def test_trust_tells_a_map_that_flips_with_its_image_from_one_that_does_not():
    image = np.random.default_rng(0).random((1, 8, 9))
    assert trust([image, image, image])[0] == pytest.approx(1)
    assert abs(trust([image, image[..., ::-1]])[0]) < 0.5


@pytest.mark.parametrize('views', [np.ones((1, 2, 3, 4)), np.ones((2, 3, 4)), np.full((2, 1, 2, 2), np.inf)])
def test_trust_needs_two_views(views):
    with pytest.raises(UsageError, match='at least 2 flips'):
        trust(views)


def record(key='a', peak=0.9, constant=False, label=1, **more):
    return dict(key=key, peak=peak, constant=constant, label=label, **more)


OFF = dict(pointing=0.0, energy=0.01, iou=0.0, recall=0.0, precision=0.0)
ON = dict(pointing=1.0, energy=0.05, iou=0.5, recall=0.8, precision=0.6)


@pytest.mark.parametrize(
    ('bad', 'said'),
    [
        (dict(peak=EMPTY / 2), 'is empty'),
        (dict(peak=0, constant=True, quality=OFF), 'is empty'),
        (dict(constant=True, quality=OFF), 'is constant'),
        (dict(quality=OFF), 'lies outside the mask'),
    ],
)
def test_one_warning_a_fault_and_only_where_many_share_it(bad, said):
    good = [record(quality=ON)] * 8
    (warning,) = warnings_of([*good, record('x/1', **bad), record('x/2', **bad)])
    assert f'2 of 10 defective images, such as x/1, {said}; ' in warning
    assert '\n' not in warning
    assert warnings_of([*good, record(**bad)]) == []
    assert warnings_of([record(**{**bad, 'label': 0})] * 9) == []


def test_nothing_to_warn_of():
    assert warnings_of([]) == []
    assert warnings_of([{'key': 'a', 'peak': 0, 'constant': True, 'label': 0}]) == []
    assert warnings_of([{'key': 'a', 'peak': 1, 'edited': True}]) == []


def test_the_summary_is_one_line_of_what_was_measured():
    records = [
        record(quality=ON, trust=0.5),
        record(quality=OFF, trust=0.9),
        record(label=0, peak=0.0, constant=True),
        record(),
    ]
    assert summary(records) == (
        '4 maps, 25% empty; pointing 0.50, energy 0.03, iou 0.25, recall 0.40 on 2 with a mask; trust 0.70'
    )
    assert summary([]) == '0 maps, 0% empty'


def test_what_a_person_painted_is_no_fault_of_the_source():
    empty = dict(peak=0.0, constant=True, label=1)
    assert warnings_of([dict(empty, key='a', edited=True), dict(empty, key='b', edited=True)]) == []

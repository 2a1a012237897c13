import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kgl_mm.errors import UsageError
from kgl_mm.priors import binarize, otsu_threshold

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
MAPS = st.one_of(
    hnp.arrays(np.float32, SHAPES, elements=st.floats(0, 100, width=32)),
    hnp.arrays(np.float64, SHAPES, elements=st.sampled_from([0, 0.1, 0.5, 1e-5, 3])),
    hnp.arrays(np.uint8, SHAPES),
)


def scaled(map):
    """OpenCV's view of a map."""
    return np.rint(map / np.float64(map.max()) * 255).astype(np.uint8)


def spread(gray, level):
    """Variance between the classes that a level makes, straight from the definition."""
    low, high = gray[gray <= level].astype(float), gray[gray > level].astype(float)
    if not low.size or not high.size:
        return 0.0
    return low.size * high.size / gray.size**2 * (low.mean() - high.mean()) ** 2


@settings(deadline=None)
@given(MAPS)
def test_the_mask_is_opencvs_and_none_separates_better(map):
    mask = binarize(map)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, map > otsu_threshold(map))
    if map.max() == 0 or np.ptp(scaled(map)) == 0:
        assert not mask.any()
        return
    gray = scaled(map)
    np.testing.assert_array_equal(mask, cv2.threshold(gray, 0, 1, cv2.THRESH_OTSU)[1])
    best = max(spread(gray, level) for level in range(255))
    assert spread(gray, gray[mask == 0].max()) == pytest.approx(best, rel=1e-9)


def test_two_regions_are_told_apart():
    rng = np.random.default_rng(0)
    map = rng.normal(1, 0.05, (60, 60)).clip(0)
    map[20:30, 20:30] += 3
    mask = binarize(map)
    assert mask.sum() == 100
    assert mask[20:30, 20:30].all()


@pytest.mark.parametrize('value', [0, 1, 0.3, 1e-30])
def test_a_constant_map_has_an_empty_mask(value):
    assert not binarize(np.full((5, 4), value), dilation=3, max_area=0.5).any()


def test_dilation_grows_by_a_disc():
    map = np.zeros((21, 21))
    map[10, 10] = 1
    rows, columns = np.mgrid[-10:11, -10:11]
    mask = binarize(map, dilation=6)
    distance = np.hypot(rows, columns)
    assert mask[distance <= 5].all()
    assert not mask[distance > 6.5].any()


@settings(deadline=None)
@given(MAPS, st.integers(0, 2), st.floats(0.001, 1))
def test_the_area_is_kept_by_the_lowest_threshold_that_does(map, dilation, max_area):
    mask = binarize(map, dilation, max_area)
    limit = max_area * map.size
    assert mask.sum() <= limit
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * dilation + 1, 2 * dilation + 1))
    candidates = [t for t in np.unique(map) if t >= otsu_threshold(map)]
    masks = [cv2.dilate((map > t).astype(np.uint8), kernel) for t in candidates]
    np.testing.assert_array_equal(mask, next(m for m in masks if m.sum() <= limit))


def test_ties_go_together():
    map = np.float32([[0, 0, 1, 1, 1, 2]])
    assert binarize(map, max_area=0.5).tolist() == [[0, 0, 0, 0, 0, 1]]
    assert binarize(map, max_area=0.1).tolist() == [[0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize('dilation', [-1, 1.5, None, 'a'])
def test_wrong_dilation(dilation):
    with pytest.raises(UsageError, match='not a whole number of 0 or more'):
        binarize(np.eye(3), dilation)


@pytest.mark.parametrize('max_area', [0, -1, 1.01, np.nan])
def test_wrong_area(max_area):
    with pytest.raises(UsageError, match='not a number above 0, up to 1, nor None'):
        binarize(np.eye(3), max_area=max_area)


@pytest.mark.parametrize('map', [np.zeros(3), [[np.nan]], [[-1.0]]])
def test_what_is_no_map(map):
    for function in (binarize, otsu_threshold):
        with pytest.raises(UsageError, match='prior'):
            function(map)

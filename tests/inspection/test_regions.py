import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kgl_mm.inspection import find_regions

HEATS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(0, 1, width=32, allow_nan=False)
)
SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(HEATS, SIZES)
def test_boxes_lie_in_the_image_and_hold_their_polygons(heat, size):
    for region in find_regions(heat, size):
        left, top, right, bottom = region.box
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert all(left <= x < right and top <= y < bottom for x, y in region.polygon)
        assert 0 < region.area <= size[0] * size[1] * (1 + 1e-6)


@given(HEATS)
def test_regions_are_the_connected_parts_above_the_cut_at_the_size_of_the_map(heat):
    size = heat.shape[1], heat.shape[0]
    regions = find_regions(heat, size)
    drawn = np.zeros(heat.shape, np.uint8)
    for region in regions:
        cv2.fillPoly(drawn, [np.array(region.polygon)], 1)
    above = heat >= 0.5 * heat.max() if heat.max() > 0 else np.zeros(heat.shape, bool)
    assert drawn[above].all()  # holes are filled, nothing is lost
    assert sum(region.area for region in regions) == above.sum()
    assert [region.peak for region in regions] == sorted((region.peak for region in regions), reverse=True)
    if regions:
        assert regions[0].peak == heat.max()


@given(HEATS, st.integers(2, 9), st.integers(2, 9))
def test_a_larger_image_has_the_same_regions_larger(heat, across, down):
    small = find_regions(heat, heat.shape[::-1])
    large = find_regions(heat, (heat.shape[1] * across, heat.shape[0] * down))
    factors = np.array([across, down, across, down])
    assert [region.box for region in large] == [tuple((factors * region.box).tolist()) for region in small]


def test_an_empty_map_has_no_region():
    assert find_regions(np.zeros((4, 4)), (40, 40)) == []


def test_a_pixel_at_the_cut_belongs_to_its_region_and_the_larger_of_equals_comes_first():
    heat = np.array([[1.0, 0.5, 0.0, 1.0, 0.0]], np.float32)
    assert [(region.box, region.area) for region in find_regions(heat, (5, 1))] == [
        ((0, 0, 2, 1), 2.0),
        ((3, 0, 4, 1), 1.0),
    ]

import mmcv.transforms as mmcv
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.registry import TRANSFORMS

from kgl_mm.datasets.transforms import Resize

side = st.integers(1, 40)


def by_hand(image, size):
    """In float64, a pixel at a time along each axis."""

    def weights(old, new):
        matrix = np.zeros((new, old))
        for place in range(new):
            centre = min(max((place + 0.5) * old / new - 0.5, 0), old - 1)
            low = int(centre)
            matrix[place, low] += 1 - (centre - low)
            matrix[place, min(low + 1, old - 1)] += centre - low
        return matrix

    across, down = weights(image.shape[1], size[0]), weights(image.shape[0], size[1])
    return np.einsum('ih,hwc,jw->ijc', down, image.astype(float), across)


@given(st.integers(0, 99), side, side, side, side, st.sampled_from([1, 3, 4]))
def test_values_by_hand(seed, height, width, new_width, new_height, channels):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    expected = by_hand(image, (new_width, new_height))
    exact = Resize((new_width, new_height))(dict(img=image.astype(np.float32)))['img']
    assert exact.shape == expected.shape
    assert np.abs(exact - expected).max() < 1e-3
    moved = Resize((new_width, new_height))(dict(img=image))
    assert moved['img'].dtype == np.uint8
    assert np.abs(moved['img'] - expected).max() < 0.501
    assert moved['img_shape'] == (new_height, new_width)


@pytest.mark.parametrize(
    'settings', [dict(scale=(30, 20)), dict(scale=(30, 20), keep_ratio=True), dict(scale_factor=0.5)]
)
def test_all_but_the_image_is_as_in_mmcv(settings):
    image = np.random.default_rng(0).integers(0, 256, (33, 41, 3), np.uint8)
    mask, boxes = (image[..., 0] > 200).astype(np.uint8) * 2, np.array([[3.0, 4, 20, 30]])
    ours, theirs = (
        kind(**settings)(dict(img=image, gt_seg_map=mask, gt_bboxes=boxes)) for kind in (Resize, mmcv.Resize)
    )
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert np.allclose(ours[key], value, atol=1 if key == 'img' else 0), key
    assert ours['img'].shape == theirs['img'].shape


@given(st.integers(0, 99), side, side, side, side)
def test_a_mask_marks_what_the_marked_pixels_reach_into(seed, height, width, new_width, new_height):
    mask = (np.random.default_rng(seed).random((height, width)) > 0.8).astype(np.uint8)
    image = np.zeros((height, width, 3), np.uint8)
    found = Resize((new_width, new_height))(dict(img=image, gt_seg_map=mask))['gt_seg_map']
    if new_width > width or new_height > height:
        assert np.array_equal(
            found, mmcv.Resize((new_width, new_height))(dict(img=image, gt_seg_map=mask))['gt_seg_map']
        )
        return
    expected = np.zeros_like(found)
    for row, column in np.argwhere(mask):  # in whole numbers: which new pixels overlap this one
        rows = slice(row * new_height // height, -(-(row + 1) * new_height // height))
        columns = slice(column * new_width // width, -(-(column + 1) * new_width // width))
        expected[rows, columns] = 1
    assert np.array_equal(found, expected)
    assert np.array_equal(
        Resize((new_width, new_height))(dict(gt_seg_map=mask, img_shape=(height, width)))['gt_seg_map'], found
    )


def test_a_grey_image_stays_one_and_the_registry_knows_it():
    transform = TRANSFORMS.build(dict(type='kgl_mm.Resize', scale=(4, 2)))
    assert isinstance(transform, Resize)
    assert transform(dict(img=np.zeros((5, 5), np.uint8)))['img'].shape == (2, 4)


def test_halves_round_up():
    assert Resize((3, 1))(dict(img=np.array([[0, 1]], np.uint8)))['img'].tolist() == [[0, 1, 1]]
    assert Resize((3, 1))(dict(img=np.array([[2, 3]], np.uint8)))['img'].tolist() == [[2, 3, 3]]

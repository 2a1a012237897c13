import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgl_mm.errors import UsageError
from kgl_mm.visualization import overlay
from kgl_mm.visualization._tiles import TRUTH, as_bgr

GRAY = np.full((20, 30), 128, np.uint8)


@pytest.mark.parametrize('channels', [None, 1, 3, 4])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int32', 'float16', 'float32', 'float64', 'bool'])
@pytest.mark.parametrize('size', [(1, 1), (3, 5), (20, 30), (90, 70)])
def test_any_image_and_any_size_of_prior(channels, dtype, size):
    image = np.arange(600, dtype='float32').reshape(20, 30)
    image = (image / 600 * 255 if dtype == 'uint8' else image > 300 if dtype == 'bool' else image).astype(dtype)
    if channels:
        image = np.repeat(image[..., None], channels, 2)
    picture = overlay(image, np.zeros(size), np.zeros((20, 30)))
    assert picture.shape == (20, 30, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture[..., 0], as_bgr(image)[..., 0], atol=1)  # no evidence, no colour
    assert picture[0, 0].max() <= 1
    assert picture[-1, -1].min() >= 253


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_value_has_the_same_colour_whatever_else_is_in_the_map(value, other):
    prior = np.full((20, 30), value)
    prior[:, 15:] = other
    assert (overlay(GRAY, prior)[:, :15] == overlay(GRAY, np.full((20, 30), value))[0, 0]).all()


@given(st.floats(0.1, 1e3))
def test_colours_belong_to_the_share_of_the_top(top):
    ramp = np.linspace(0, 1, 30)[None]
    np.testing.assert_allclose(overlay(GRAY, ramp * top, top=top).astype(int), overlay(GRAY, ramp), atol=2)
    assert (overlay(GRAY, [[1.0]], top=1) == overlay(GRAY, [[7.0]], top=1)).all()


def test_opacity_grows_with_the_prior():
    image = np.full((1, 60), 60, np.uint8)
    image[:, ::2] = 200
    contrast = np.ptp(overlay(image, np.repeat(np.linspace(0, 1, 30), 2)[None])[0, :, 0].reshape(30, 2), axis=1)
    assert (np.diff(contrast.astype(int)) <= 0).all()
    assert contrast[0] == 140
    assert contrast[-1] == pytest.approx(140 * 0.4, abs=1)


@pytest.mark.parametrize('ground', [0, 90, 255])
@pytest.mark.parametrize('heat', [0.0, 0.5, 1.0])
def test_the_mask_is_outlined_and_its_inside_stays_in_sight(ground, heat):
    image, mask = np.full((60, 60), ground, np.uint8), np.zeros((60, 60), np.uint8)
    mask[30, 10:40] = 1
    bare = overlay(image, [[heat]])
    picture = overlay(image, [[heat]], mask)
    edge = (picture == TRUTH).all(2)
    assert 60 < edge.sum() < 100
    assert not edge[mask > 0].any()
    assert (picture[mask > 0] == bare[mask > 0]).all()
    luma = [0.114, 0.587, 0.299]
    assert max(abs((picture[edge] - bare[edge].astype(float)) @ luma).min(), np.ptp(picture @ luma)) > 60


def test_a_mask_of_one_pixel_is_outlined_in_a_small_picture():
    mask = np.zeros((1250, 500), bool)
    mask[777, 333] = True
    assert (overlay(GRAY, [[0.0]], mask) == TRUTH).all(2).any()


@pytest.mark.parametrize(
    ('image', 'prior', 'top'),
    [
        (GRAY, np.full((2, 2), np.nan), 1),
        (GRAY, np.zeros((2, 2, 3)), 1),
        (GRAY, np.zeros((2, 2)), 0),
        (np.zeros((2, 3, 2), np.uint8), np.zeros((2, 2)), 1),
        (np.zeros((0, 3), np.uint8), np.zeros((2, 2)), 1),
    ],
)
def test_what_cannot_be_drawn(image, prior, top):
    with pytest.raises(UsageError, match='give'):
        overlay(image, prior, top=top)


def test_the_opacity_is_a_straight_line():
    image = np.full((1, 60), 60, np.uint8)
    image[:, ::2] = 200
    ramp = np.linspace(0, 1, 30)
    contrast = np.ptp(overlay(image, np.repeat(ramp, 2)[None])[0, :, 0].reshape(30, 2), axis=1)
    np.testing.assert_allclose(contrast, 140 * (1 - 0.6 * ramp), atol=1.5)

import cv2
import numpy as np
import pytest

from kgl_mm.errors import UsageError
from kgl_mm.visualization import draw_contact_sheet
from kgl_mm.visualization._tiles import TRUTH

HOTTEST = (0.6 * np.array([0, 0, 255]) + 0.4 * 128).round()  # red over the gray of the images here


def tile(height=64, width=32, level=0.0):
    return dict(image=np.full((height, width), 128, np.uint8), prior=np.full((4, 4), level))


def decode(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def hot(page):
    return int((page == HOTTEST).all(2).sum())


@pytest.mark.parametrize(('height', 'width'), [(1250, 500), (500, 1250), (64, 32), (32, 64), (1, 1), (500, 20)])
def test_both_pictures_of_any_shape_are_of_a_size_to_look_at(height, width):
    page = decode(draw_contact_sheet({'first': [tile(height, width)]}))
    drawn = (page == 128).all(2)
    drawn[:30] = False  # the colour bar
    across, along = sorted([np.ptp(np.flatnonzero(drawn.any(axis))) + 1 for axis in (0, 1)])
    assert along <= 2 * 334
    assert along >= 266
    assert across >= 20
    expected = 2 * (334 / max(height, width)) ** 2 * height * width if max(height, width) > 1 else 2 * 200**2
    assert drawn.sum() == pytest.approx(expected, rel=0.05)


def test_the_largest_value_of_the_sheet_is_the_hottest_unless_told():
    rows = {'first': [tile(level=0.25)], 'strongest': [tile(level=0.5)]}
    first = {'first': rows['first']}
    one_tile = hot(decode(draw_contact_sheet(first)))
    assert one_tile > 100 * 266
    assert hot(decode(draw_contact_sheet(rows))) == pytest.approx(one_tile, rel=0.01)
    assert hot(decode(draw_contact_sheet(rows, top=0.25))) == pytest.approx(2 * one_tile, rel=0.01)
    assert hot(decode(draw_contact_sheet(rows, top=1))) < 1000  # the end of the colour bar


def test_maps_that_are_all_empty():
    assert decode(draw_contact_sheet({'first': [tile()]})) is not None


def test_files_masks_captions_and_empty_rows(tmp_path):
    path = str(tmp_path / 'image.png')
    cv2.imwrite(path, np.random.default_rng(0).integers(1000, 3000, (640, 480), np.uint16))
    mask = np.zeros((640, 480), np.uint8)
    mask[320, 240] = 1
    row = dict(image=path, prior=np.zeros((10, 10)), mask=mask)
    page = decode(draw_contact_sheet({'first': [row], 'weakest': []}))
    assert 8 <= (page == TRUTH).all(2).sum() < 40
    assert page[60:, :150].max() > 200  # 12 bits in 16 are not black
    captioned = decode(draw_contact_sheet({'first': [dict(row, caption='x' * 100)]}))
    assert captioned.shape[1] > page.shape[1]


@pytest.mark.parametrize('rows', [{}, {'first': []}])
def test_nothing_to_draw(rows):
    with pytest.raises(UsageError, match='at least one prior'):
        draw_contact_sheet(rows)


def test_a_prior_that_is_not_finite_is_named():
    with pytest.raises(UsageError, match='a prior'):
        draw_contact_sheet({'first': [tile(), dict(tile(), prior=np.array([[0, np.nan]]))]})

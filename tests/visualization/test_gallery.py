import cv2
import numpy as np
import pytest

from kgl_mm.errors import UsageError
from kgl_mm.visualization.gallery import TRUTH, draw_gallery


@pytest.fixture
def images(tmp_path):
    random = np.random.default_rng(0)
    shapes = [(64, 32), (40, 200), (500, 20), (1, 1)]
    paths = [str(tmp_path / f'{i}.png') for i in range(len(shapes))]
    for path, shape in zip(paths, shapes, strict=True):
        cv2.imwrite(path, random.integers(0, 256, shape, np.uint8))
    return paths


def decode(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize('label', [0, 1])
@pytest.mark.parametrize('score', [0.0, 0.49, 0.5, 1.0])
def test_any_shape_of_image_and_any_outcome(images, label, score):
    page = decode(draw_gallery([dict(img_path=path, label=label, score=score) for path in images], {}))
    assert page.std() > 10


def test_the_true_defect_is_outlined_even_where_it_is_one_pixel(tmp_path):
    image, mask = str(tmp_path / 'image.png'), str(tmp_path / 'mask.bmp')
    cv2.imwrite(image, np.full((1200, 500), 128, np.uint8))
    marks = np.zeros((1200, 500), np.uint8)
    marks[600, 250] = 255
    cv2.imwrite(mask, marks)
    row = dict(img_path=image, label=1, score=0.9)
    outlined = (decode(draw_gallery([row], {image: mask})) == TRUTH).all(2).sum()
    assert 4 <= outlined < 200
    assert not (decode(draw_gallery([row], {image: None})) == TRUTH).all(2).any()


def test_masks_of_16_bits_are_outlined_whatever_their_numbers(tmp_path):
    image, mask = str(tmp_path / 'image.png'), str(tmp_path / 'mask.png')
    cv2.imwrite(image, np.full((60, 80), 128, np.uint8))
    cv2.imwrite(mask, np.pad(np.full((20, 20), 3, np.uint16), 20))
    assert (decode(draw_gallery([dict(img_path=image, label=1, score=0.9)], {image: mask})) == TRUTH).all(2).any()


def test_many_images_take_no_more_room_than_few(images):
    rows = [dict(img_path=images[0], label=i % 2, score=i / 1000) for i in range(1000)]
    assert decode(draw_gallery(rows, {})).shape[1] < 1500


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / 'x.png').write_text('no image')
    with pytest.raises(UsageError, match=r'x\.png'):
        draw_gallery([dict(img_path=str(tmp_path / 'x.png'), label=0, score=0.1)], {})


def test_the_most_telling_images_come_first_and_a_score_at_the_threshold_is_defective(tmp_path):
    """Each image has a gray of its own, by which it is found on the page."""
    rows, places = [], {}
    for i, (label, score) in enumerate(
        [(1, 0.7), (1, 0.9), (1, 0.3), (1, 0.1), (0, 0.7), (0, 0.9), (0, 0.3), (0, 0.1), (1, 0.5)]
    ):
        path = str(tmp_path / f'{i}.png')
        cv2.imwrite(path, np.full((64, 64), 101 + 10 * i, np.uint8))
        rows.append(dict(img_path=path, label=label, score=score))
    page = decode(draw_gallery(rows, {}, threshold=0.5))
    for i in range(len(rows)):
        there = np.argwhere(cv2.erode((page == 101 + 10 * i).all(2).astype(np.uint8), np.ones((9, 9))) > 0)
        places[i] = there[:, 0].min(), there[:, 1].min()
    assert sorted(places, key=places.get) == [1, 0, 8, 3, 2, 5, 4, 7, 6]

import cv2
import numpy as np
import pytest

from kgl_mm.evaluation.boxes import Boxes, match
from kgl_mm.visualization import boxes as module
from kgl_mm.visualization import draw_box_sheet, draw_boxes, draw_found

COLOUR = (9, 200, 77)


def test_the_last_pixels_of_a_box_are_inside():
    image = np.full((20, 30), 100, np.uint8)
    picture = draw_boxes(image, np.array([[4, 5, 24.4, 15]]), colour=COLOUR)
    rows, columns = np.nonzero((picture == COLOUR).all(2))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (4, 5, 24, 15)
    assert (picture[8:12, 10:20] == 100).all()
    assert (image == 100).all()
    assert (draw_boxes(image, np.zeros((0, 4))) == 100).all()


def test_texts_stand_above_their_boxes_or_inside_at_the_upper_edge():
    image = np.full((60, 90, 3), 100, np.uint8)
    changed = (draw_boxes(image, [[20, 30, 60, 50]], ['dent 0.9']) != draw_boxes(image, [[20, 30, 60, 50]])).any(2)
    assert changed[:30].any()
    assert not changed[32:].any()
    changed = (draw_boxes(image, [[20, 0, 60, 50]], ['dent 0.9']) != draw_boxes(image, [[20, 0, 60, 50]])).any(2)
    assert changed[1:12].any()


def test_a_sheet_has_a_row_for_each_title_with_tiles():
    tile = dict(image=np.full((50, 100), 90, np.uint8), found=[[10, 10, 40, 40]], truth=[[50, 10, 90, 40]])
    one, two = (
        cv2.imdecode(np.frombuffer(draw_box_sheet(rows), np.uint8), cv2.IMREAD_COLOR)
        for rows in ({'a': [tile], 'none': []}, {'a': [tile], 'b': [tile]})
    )
    assert abs(two.shape[0] - 2 * one.shape[0]) < 10
    assert (one == module.FOUND).all(2).any()
    assert (one == module.TRUTH).all(2).any()


def test_images_are_sorted_by_what_is_wrong_with_them(tmp_path, monkeypatch):
    path = str(tmp_path / 'image.png')
    cv2.imwrite(path, np.full((100, 100), 90, np.uint8))
    box, other = [10.0, 10, 40, 40], [60.0, 60, 90, 90]
    truth = [
        Boxes(np.array(boxes).reshape(-1, 4), np.zeros(len(boxes), int)) for boxes in ([box, other], [box], [box], [])
    ]
    found = [
        Boxes(np.array(boxes).reshape(-1, 5)[:, :4], np.zeros(len(boxes), int), np.array([one[4] for one in boxes]))
        for boxes in ([[*other, 0.1]], [[*box, 0.9], [*other, 0.8]], [[*box, 0.7]], [[*box, 0.2]])
    ]
    images = [dict(img_path=path, truth=a, found=b) for a, b in zip(truth, found, strict=True)]
    rows = {}
    monkeypatch.setattr(module, 'draw_box_sheet', lambda given, legend: rows.update(given) or b'')
    draw_found(images, match(truth, found, 1), 0.5, ['dent'])
    assert {title: [tile['caption'] for tile in tiles] for title, tiles in rows.items()} == {
        'missed boxes: 2, in 1 images': ['2 missed, 0 wrong'],
        'wrong boxes: 1, in 1 images': ['0 missed, 1 wrong'],
        'all right: 2 images': ['0 missed, 0 wrong'] * 2,
    }
    assert rows['wrong boxes: 1, in 1 images'][0]['texts'] == ['dent 0.90', 'dent 0.80']
    assert rows['all right: 2 images'][0]['texts'] == ['dent 0.70']


@pytest.mark.parametrize('threshold', [0.05, 2.0])
def test_it_draws_whatever_was_found(tmp_path, threshold):
    path = str(tmp_path / 'image.png')
    cv2.imwrite(path, np.full((40, 30), 90, np.uint8))
    truth, found = Boxes(np.zeros((0, 4)), np.zeros(0)), Boxes(np.array([[1.0, 2, 9, 9]]), np.zeros(1), np.array([0.1]))
    images = [dict(img_path=path, truth=truth, found=found)]
    png = draw_found(images, match([truth], [found], 1), threshold, ['dent'])
    assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) is not None

import cv2
import numpy as np
import pytest

from kgl_mm.descriptions import Description, load_descriptions
from kgl_mm.descriptions.sheet import draw_descriptions
from kgl_mm.errors import UsageError


def test_a_row_each_and_a_column_each_seed():
    images = [np.full((40, 60), 100, np.uint8), np.full((50, 50, 3), 100, np.uint8)]
    sheets = {}
    for columns in (2, 4):
        for number in (1, 3):
            png = draw_descriptions(load_descriptions('metal')[:number], images, columns)
            sheets[columns, number] = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert sheets[4, 3].shape[0] > 2 * sheets[4, 1].shape[0]
    assert sheets[4, 3].shape[1] > sheets[2, 3].shape[1]
    assert draw_descriptions(load_descriptions('metal')[:1], images, 2) == draw_descriptions(
        load_descriptions('metal')[:1], images, 2
    )


def test_what_cannot_be_drawn():
    record = Description('plate', 'crack')
    for records, images, columns in [([], [np.zeros((9, 9), np.uint8)], 1), ([record], [], 1), ([record], [0], 0)]:
        with pytest.raises(UsageError):
            draw_descriptions(records, images, columns)

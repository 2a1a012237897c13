import numpy as np

from kgl_mm.visualization.verdict import MARK, draw_verdict


def test_a_box_ends_inside_of_its_last_pixels():
    drawn = draw_verdict(np.zeros((40, 60, 3), np.uint8), np.zeros((2, 2)), [[(12, 12)]], [(10, 10, 30, 20)], '', True)[
        -40:
    ]
    rows, columns = np.nonzero((drawn == MARK).all(2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (10, 10, 29, 19)

import logging

import cv2
import numpy as np
import pytest


@pytest.fixture
def picture():
    """Writes an image that no other one equals; a marked mask with ``mark``."""
    written = iter(range(1, 10**6))

    def write(path, size=(12, 8), mark=None):
        height, width = size
        if mark is None:
            pixels = np.random.default_rng(next(written)).integers(0, 256, (height, width, 3), np.uint8)
        else:
            pixels = np.zeros((height, width), np.uint8)
            pixels[2:4, 1:5] = 255 * mark
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded, data = cv2.imencode(path.suffix, pixels)
        assert encoded
        path.write_bytes(data.tobytes())
        return path

    return write


@pytest.fixture
def kolektor(tmp_path, picture):
    """A data set in the layout of KolektorSDD: 50 units of two parts, of which the second is defective."""
    root = tmp_path / 'KolektorSDD'
    for unit in range(1, 51):
        for part in range(2):
            picture(root / f'kos{unit:02d}' / f'Part{part}.jpg')
            picture(root / f'kos{unit:02d}' / f'Part{part}_label.bmp', mark=part)
    return root


@pytest.fixture
def warnings_of():
    """The warnings that a call logs, whichever logger of mmengine is the current one."""

    def listen(call):
        with pytest.MonkeyPatch.context() as patch:
            said = []
            patch.setattr(logging.Logger, 'handle', lambda self, record: said.append(record))
            call()
        return [record.getMessage() for record in said if record.levelno >= logging.WARNING]

    return listen


@pytest.fixture
def infos():
    """All that a data set knows of its images."""
    return lambda dataset: [dataset.get_data_info(i) for i in range(len(dataset))]

"""Which part of an image a pipeline shows, so that a map of what is in sight can be laid over the whole image."""

import copy
from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import Compose

from kgl_mm.datasets.transforms import LoadPrior
from kgl_mm.datasets.transforms.moving import let_priors_move


class Sight:
    """Where the pixels that a network sees lie in an image, of a pipeline that crops or pads and never turns.

    It is found by sending the coordinates of an image of that size through the pipeline, as priors are.

    Args:
        transforms: of the test, behind the one that loads the image and before the one that packs it.
    """

    def __init__(self, transforms: Sequence) -> None:
        steps = [LoadPrior(), *copy.deepcopy(list(transforms))]
        let_priors_move(steps)
        self.moved = Compose(steps[1:])
        self._last = None

    def place(self, heat: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
        """A map of what is in sight as one of the whole image (width, height), with 0 where nobody looked.

        None for an image of which next to nothing is in sight.
        """
        if self._last is None or self._last[0] != size:
            self._last = size, self._lines(size)
        if self._last[1] is None:
            return None
        (across, left), (down, top) = self._last[1]
        # a pixel of the new map is as large as one that the network sees
        width, height = (max(1, round(1 / abs(step))) for step in (across, down))
        matrix = np.array([[across * width, 0, left * width - 0.5], [0, down * height, top * height - 0.5]])
        return cv2.warpAffine(np.ascontiguousarray(heat), matrix, (width, height))

    def _lines(self, size: tuple[int, int]) -> list[np.ndarray] | None:
        """Slope and start of the place (0 to 1) over the number of a column, and of a row."""
        width, height = size
        columns, rows = np.meshgrid(_places(width), _places(height))
        seen = self.moved(
            dict(
                img=np.zeros((height, width, 3), np.uint8),
                img_path='',
                img_shape=(height, width),
                ori_shape=(height, width),
                prior=columns,
                prior_mask=rows,
                gt_seg_map=np.ones((height, width), np.uint8),
            )
        )
        inside = cv2.erode(seen['gt_seg_map'], np.ones((3, 3), np.uint8), borderValue=0) > 0  # edges are blended
        lines = []
        for axis, key in ((0, 'prior'), (1, 'prior_mask')):
            numbers = np.flatnonzero(inside.any(axis))
            if len(numbers) < 2:
                return None
            values = [np.median(np.take(seen[key], i, 1 - axis)[np.take(inside, i, 1 - axis)]) for i in numbers]
            lines.append(np.polyfit(numbers, values, 1))
        return lines


def _places(number: int) -> np.ndarray:
    """The middles of so many pixels, as shares of their sum."""
    return (np.arange(number, dtype=np.float32) + 0.5) / number

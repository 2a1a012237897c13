"""The one resize of tests, inspectors and exported models."""

import cv2
import mmcv
import numpy as np
from mmcv.transforms import Resize as MMResize

from kgl_mm.registry import TRANSFORMS

HALF_UP = 0.000411
"""Exact values often lie halfway between two gray levels, where a last bit, which machines do not share, would decide;
this much more, which is no fraction that sizes of images make, and all round up."""


@TRANSFORMS.register_module()
class Resize(MMResize):
    """mmcv's ``Resize`` with exact weights: bilinear between the centres of pixels, no antialiasing.

    Of 8-bit images OpenCV rounds the weights themselves, to 11 bits, which nothing else does; this one computes in
    float32, as an exported graph does, so that a network sees the same image there. The result is rounded to the type
    of the image, halves up. A mask of 0 and 1 that shrinks marks each pixel that the marked ones reach into, since the
    nearest ones alone would break a crack to pieces. Keys, boxes, and maps of several kinds: as in mmcv.

    Args:
        scale: width and height.
        scale_factor, keep_ratio: as in mmcv. An exported model needs ``scale`` alone.

    >>> image = np.array([[0, 3], [0, 0]], np.uint8)
    >>> Resize((4, 2))(dict(img=image))['img'].tolist()
    [[0, 1, 2, 3], [0, 0, 0, 0]]
    """

    def __init__(
        self,
        scale: int | tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        keep_ratio: bool = False,
    ) -> None:
        super().__init__(scale, scale_factor, keep_ratio)

    def _resize_img(self, results: dict) -> None:
        image, size = results.get('img'), results['scale']
        if image is None:
            return
        if self.keep_ratio:
            size = mmcv.rescale_size(image.shape[1::-1], size)
        moved = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        moved = moved.reshape(*moved.shape[:2], *image.shape[2:])  # OpenCV drops a single channel
        results['img'] = moved if image.dtype.kind == 'f' else np.rint(moved + HALF_UP).astype(image.dtype)
        results['img_shape'] = moved.shape[:2]
        results['scale_factor'] = (size[0] / image.shape[1], size[1] / image.shape[0])
        results['keep_ratio'] = self.keep_ratio

    def _resize_seg(self, results: dict) -> None:
        mask = results.get('gt_seg_map')
        super()._resize_seg(results)
        if mask is not None and mask.max(initial=0) <= 1:
            height, width = results['gt_seg_map'].shape[:2]
            if height <= mask.shape[0] and width <= mask.shape[1]:
                share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
                results['gt_seg_map'] = (share > 0).astype(mask.dtype)

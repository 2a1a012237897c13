"""A prior drawn over its image."""

import cv2
import numpy as np

from kgl_mm.errors import UsageError

from ._tiles import TRUTH, as_bgr, outline, resize


def overlay(
    image: np.ndarray, prior: np.ndarray, mask: np.ndarray | None = None, top: float = 1.0, alpha: float = 0.6
) -> np.ndarray:
    """Heat colours over the gray image, uint8 of shape H x W x 3 (BGR).

    A value of the prior has the same colour and opacity in every picture of the same ``top``, whatever else its map
    holds; where the prior is 0, the gray image is untouched.

    Args:
        image: H x W, with 1, 3 (BGR) or 4 channels if any; what is not uint8 is stretched to its own range.
        prior: of any size; it is resized to the image.
        mask: the true defect, where it is known; its edge is drawn in cyan.
        top: the value that is drawn hottest, as is everything above.
        alpha: the opacity at ``top``; it falls linearly to 0.

    >>> overlay(np.full((1, 2), 100, np.uint8), np.array([[0.0, 1.0]]))[0].tolist()
    [[100, 100, 100], [40, 40, 193]]
    """
    prior = np.asarray(prior, np.float32)
    if prior.ndim != 2 or not np.isfinite(prior).all():
        raise UsageError(f'a prior of shape {prior.shape} cannot be drawn; give H x W finite numbers.')
    if not top > 0:
        raise UsageError(f'top is {top}; give the positive value that is to be drawn hottest.')
    gray = cv2.cvtColor(as_bgr(image), cv2.COLOR_BGR2GRAY)[..., None]
    heat = (resize(prior, gray.shape[1::-1]) / top).clip(0, 1)
    colours = cv2.applyColorMap(255 - (heat * 255).round().astype(np.uint8), cv2.COLORMAP_AUTUMN)
    picture = (gray + alpha * heat[..., None] * (colours.astype(np.float32) - gray)).round().astype(np.uint8)
    if mask is not None:
        outline(picture, mask, TRUTH)
    return picture

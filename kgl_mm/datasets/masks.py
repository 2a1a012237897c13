"""Masks and labels as files say them."""

import functools
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from kgl_mm.errors import UsageError

from .checks import file_faults, some


def read_mask(path: str | Path) -> np.ndarray:
    """A mask as H x W of 0 and 1, whatever its depth and channels."""
    mask = decode(path)
    if mask is None:
        raise UsageError(f'{path}: cannot be read as an image')
    if mask.ndim == 3:
        mask = mask.max(axis=2)
    return (mask > 0).astype(np.uint8)


@functools.cache  # each split of a data set asks for all
def _is_marked(mask: Path, size: int, mtime: int) -> int:
    return int(read_mask(mask).any())


def read_labels(pairs: Iterable[tuple[Path, Path]]) -> list[int]:
    """1 where the mask of an (image, mask) pair is marked; all that are missing or broken are named at once."""
    labels, faults = [], []
    for image, mask in pairs:
        try:
            status = mask.stat()
            labels.append(_is_marked(mask, status.st_size, status.st_mtime_ns))
        except (UsageError, OSError) as error:
            faults += file_faults([(image, mask)]) or [str(error)]
    if faults:
        raise UsageError(some(faults))
    return labels


def decode(path: str | Path) -> np.ndarray | None:
    """The pixels of an image file; None where it is none."""
    try:
        # turned upright as images are, and without an alpha channel, which says nothing
        return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except (OSError, cv2.error):
        return None

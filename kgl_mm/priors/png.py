"""A map as a gray PNG file that describes itself; numpy and OpenCV are all it needs.

The description is a JSON dict in a tEXt chunk, keyword ``kgl_mm``. Its ``pixels`` is the hash of the compressed pixels,
so that a file whose pixels somebody changed is told from one that is as it was written.
"""

import hashlib
import json
import operator
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from kgl_mm.errors import UsageError

SIGNATURE = b'\x89PNG\r\n\x1a\n'
PREFIX = b'kgl_mm\0'
LEVELS = 64  # shades below which a map in [0, 1] is stretched to its peak
HEADER_END = len(SIGNATURE) + 25


def as_map(map) -> np.ndarray:
    """The map as an array, or one sentence on what is wrong with it."""
    map = np.asarray(map)
    if map.ndim != 2 or not map.size or map.dtype.kind not in 'fiub':
        raise UsageError(f'a prior is a 2-D array of numbers, not {map.dtype} of shape {map.shape}.')
    if not (map.min() >= 0 and map.max() <= np.finfo(np.float32).max):
        raise UsageError('a prior must be finite (in float32) and nowhere negative: mend the method that made it.')
    return map


def as_size(size) -> list[int]:
    """Height and width as they stand in JSON, or one sentence."""
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise UsageError(f'a size is (height, width), two positive integers, not {size!r}.')
    return [height, width]


def resize(map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map at (height, width): averaged where it shrinks, interpolated where it grows."""
    height, width = as_size(size)
    if map.shape == (height, width):
        return map
    interpolation = cv2.INTER_AREA if height * width < map.size else cv2.INTER_LINEAR
    # OpenCV's rounding goes beyond: a map in [0, 1] would leave it, one that is white all over would not be.
    return np.clip(cv2.resize(map, (width, height), interpolation=interpolation), map.min(), map.max())


def quantize(map: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    """The map in whole numbers of 8 or 16 bits, and the value ``white`` that the largest of them stands for.

    White is 1 where the peak is at most 1 and still gets at least 64 shades, or where the map is all zero; otherwise it
    is the peak. So maps in [0, 1] look alike to the eye across images, and neither large nor tiny ones lose their
    shape.

    >>> [quantize(np.array([[peak]]), 16)[1] for peak in (0.0, 0.5, 1.0, 3.0, 1e-6)]
    [1.0, 1.0, 1.0, 3.0, 1e-06]
    """
    peak, top = float(map.max()), 2**bits - 1
    white = 1.0 if peak == 0 or (peak <= 1 and peak * top >= LEVELS) else peak
    return np.rint(np.multiply(map, top / white, dtype=np.float64)).astype(f'uint{bits}'), white


def encode(pixels: np.ndarray, description: dict) -> tuple[bytes, dict]:
    """The file, and the description as it stands in it, with ``pixels``."""
    png = cv2.imencode('.png', pixels)[1].tobytes()
    description = description | {'pixels': _parse(png)[1]}
    text = b'tEXt' + PREFIX + json.dumps(description, allow_nan=False).encode()
    chunk = struct.pack('>I', len(text) - 4) + text + struct.pack('>I', zlib.crc32(text))
    return png[:HEADER_END] + chunk + png[HEADER_END:], description


def describe(png: bytes) -> dict | None:
    """The description, None where there is none or it is not that of the pixels; ValueError for a damaged file."""
    description, pixels = _parse(png)
    return description if description.get('pixels') == pixels else None


def decode(png: bytes) -> np.ndarray:
    """The pixels of any PNG, 8 or 16 bits deep: the maximum over colours, without alpha; ValueError for a damaged one.

    OpenCV makes up what is missing from a damaged file, so the checksums are to be tested first, by ``describe``.
    """
    try:
        image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error as error:
        raise ValueError('it cannot be decoded') from error
    if image is None:
        raise ValueError('it cannot be decoded')
    return image if image.ndim == 2 else image.max(2)


def _parse(png: bytes) -> tuple[dict, str]:
    """The description, empty where there is none, and the hash of the compressed pixels."""
    description, pixels = {}, hashlib.sha256()
    for kind, data in _chunks(png):
        if kind == b'IDAT':
            pixels.update(data)
        elif kind == b'tEXt' and bytes(data[: len(PREFIX)]) == PREFIX:
            description = _load(bytes(data[len(PREFIX) :]))
    return description, pixels.hexdigest()


def _load(text: bytes) -> dict:
    try:
        description = json.loads(text)
        whole = {'size', 'white', 'scale', 'peak'} <= description.keys()
    except (ValueError, AttributeError):
        return {}
    return description if whole else {}


def _chunks(png: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and data of each chunk up to the end of the image; ValueError where the file is cut or a checksum wrong."""
    view, position = memoryview(png), len(SIGNATURE)
    if png[:position] != SIGNATURE:
        raise ValueError('it is no PNG file')
    kind = b''
    while kind != b'IEND':
        if position + 12 > len(png):
            raise ValueError('it is cut')
        (length,) = struct.unpack_from('>I', png, position)
        end = position + 12 + length
        if end > len(png):
            raise ValueError('it is cut')
        body = view[position + 4 : end - 4]
        if zlib.crc32(body) != struct.unpack_from('>I', png, end - 4)[0]:
            raise ValueError('a checksum is wrong')
        kind, position = bytes(body[:4]), end
        yield kind, body[4:]

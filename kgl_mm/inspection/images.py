"""What is to be inspected: from paths, folders and arrays to pixels, one image at a time."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kgl_mm.errors import UsageError
from kgl_mm.image_files import MOST_PIXELS, find_images, image_size

MOST_BYTES = 2**30
MOST_PER_BYTE = 10_000
"""What has more pixels, more bytes, or more pixels for a byte is refused before it is read, since a header that lies
could fill the memory. The packing of PNG and TIFF makes 8,256 pixels of a byte at most."""


@dataclass(frozen=True)
class Source:
    """An image that is not read yet: ``given`` is a path or an array; ``name`` tells it from the others."""

    given: Path | np.ndarray
    name: str

    @property
    def path(self) -> Path | None:
        return self.given if isinstance(self.given, Path) else None

    def read(self) -> np.ndarray:
        """Its pixels, BGR, uint8 of shape H x W x 3; what cannot be read is a usage error that names it."""
        try:
            return read_file(self.given) if self.path else to_bgr(self.given)
        except UsageError as error:
            raise UsageError(f'{self.name}: {str(error).removeprefix(f"{self.given}: ")}') from None

    def content(self) -> bytes:
        """The file, or an array as the PNG file that would hold it."""
        if self.path:
            return self.given.read_bytes()
        return cv2.imencode('.png', self.given)[1].tobytes()


def sources(images: Any) -> Iterator[Source]:
    """One for each image of a path, a folder with what is below it, an array, or any iterable of these, lazily."""
    for number, (given, root) in enumerate(_each(images)):
        if isinstance(given, Source):
            yield given
        elif isinstance(given, np.ndarray):
            yield Source(given, f'image {number}')
        else:
            yield Source(given, given.relative_to(root).as_posix() if root else str(given))


def _each(images: Any) -> Iterator[tuple[Path | np.ndarray | Source, Path | None]]:
    """What is given, and the folder that it was found in."""
    if isinstance(images, np.ndarray | Source):
        yield images, None
    elif isinstance(images, str | Path):
        path = Path(images)
        if not path.is_dir():
            yield path, None
            return
        found = find_images(path)
        if not found:
            raise UsageError(f'{path}: no images in it')
        yield from ((Path(name), path) for name in found)
    elif isinstance(images, Iterable) and not isinstance(images, bytes | dict):
        known = images if isinstance(images, list | tuple) else ()
        folders = [Path(image) for image in known if isinstance(image, str | Path) and Path(image).is_dir()]
        for image in images:
            for found, root in _each(image):
                yield found, root and _named_from(folders, root)
    else:
        raise UsageError(f'{type(images).__name__} is no image: give a path, a folder, an array or several of these')


def _named_from(folders: list[Path], root: Path) -> Path | None:
    """From where an image of one of several folders is named, so that names tell images apart."""
    if len(folders) < 2:
        return root
    if len({folder.resolve().name for folder in folders}) == len(folders):
        return root.parent
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # some of them from here, and some from the root
        return None


def read_file(path: str | Path) -> np.ndarray:
    """The pixels of a file as any training reads them: BGR, 8 bits, upright, without alpha."""
    path = Path(path)
    if not path.exists():
        raise UsageError(f'{path}: no such file')
    if not path.is_file():  # reading a pipe or a device could wait for ever
        raise UsageError(f'{path}: not a file')
    length = path.stat().st_size
    if not length:
        raise UsageError(f'{path}: the file is empty')
    if length > MOST_BYTES:
        raise UsageError(f'{path}: larger than {MOST_BYTES // 2**30} GiB')
    width, height = image_size(path)
    if width * height > MOST_PIXELS:
        raise UsageError(f'{path}: {width} x {height} pixels, more than {MOST_PIXELS // 10**6} million')
    if width * height > MOST_PER_BYTE * length:
        raise UsageError(f'{path}: {width} x {height} pixels in {length} bytes, which cannot be')
    try:
        content = path.read_bytes()
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if _chunks_fit(content) else None
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise UsageError(f'{path}: cannot be read as an image')
    return image


def _chunks_fit(content: bytes) -> bool:
    """Whether no chunk of a PNG file says that it is longer than the file, since OpenCV makes room for it first."""
    if not content.startswith(b'\x89PNG'):
        return True
    place, kind = 8, b''
    while kind != b'IEND' and place < len(content):
        kind = content[place + 4 : place + 8]
        place += 12 + int.from_bytes(content[place : place + 4])
    return place <= len(content)


def to_bgr(image: np.ndarray) -> np.ndarray:
    """An array as a file of it would be read: H x W, with 1, 3 (BGR) or 4 (BGRA) channels if any, of 8 or 16 bits.

    >>> to_bgr(np.array([[256, 65535]], np.uint16)).tolist()
    [[[1, 1, 1], [255, 255, 255]]]
    """
    if image.dtype not in (np.uint8, np.uint16):
        raise UsageError(f'an array of {image.dtype}: give uint8 or uint16, as files have it')
    if image.ndim not in (2, 3) or not image.size or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise UsageError(f'an array of shape {image.shape}: give H x W with 1, 3 (BGR) or 4 (BGRA) channels')
    if image.shape[0] * image.shape[1] > MOST_PIXELS:
        raise UsageError(f'an array of shape {image.shape}: more than {MOST_PIXELS // 10**6} million pixels')
    image = np.atleast_3d(image)[..., :3]
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    return np.array(np.broadcast_to(image, (*image.shape[:2], 3)), order='C')

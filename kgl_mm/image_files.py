"""Image files: which there are in a folder, and what their headers say, without decoding them."""

import os
import struct
from io import FileIO
from pathlib import Path

from kgl_mm.errors import UsageError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
HIDDEN = ('.', '@eaDir', '__MACOSX')
"""How names begin that notebooks, network disks and archives add."""
_JPEG, _JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
_PNG, _PNG_END = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR', b'IEND\xaeB`\x82'
_BMP_INFO = b'(\0\0\0'
MOST_PIXELS = 2**28
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height as they are after decoding; a file that is no image, or ends too early, is a usage error."""
    try:
        with FileIO(path) as file:  # unbuffered, since most files need two small reads
            head = file.read(4096)
            length = file.seek(0, 2)
            file.seek(max(0, length - len(_PNG_END)))
            tail = file.read()
            return _usual_size(head, tail, length) or _any_size(file, tail)
    except FileNotFoundError:
        raise UsageError(f'{path}: no such file') from None
    except EOFError:
        raise UsageError(f'{path}: the file is truncated') from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f'{path}: not a readable image file ({type(error).__name__})') from None


def _usual_size(head: bytes, tail: bytes, length: int) -> tuple[int, int] | None:
    """The size of an ordinary PNG, BMP or JPEG file, five times as fast as Pillow; None where there is more to it."""
    if head.startswith(_PNG) and tail == _PNG_END and b'eXIf' not in head:
        return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    if head.startswith(b'BM') and head[14:18] == _BMP_INFO and int.from_bytes(head[2:6], 'little') <= length:
        width, height = struct.unpack('<ii', head[18:26])
        return (width, abs(height)) if width > 0 != height else None  # a negative height counts rows from the top
    if head.startswith(_JPEG) and tail.endswith(_JPEG_END) and b'Exif\0' not in head:
        start = 2
        while head[start : start + 1] == b'\xff' and start + 9 <= len(head):
            marker = head[start + 1]
            if 0xC0 <= marker <= 0xC3:
                return int.from_bytes(head[start + 7 : start + 9]), int.from_bytes(head[start + 5 : start + 7])
            start += 2 + int.from_bytes(head[start + 2 : start + 4])
    return None


def _any_size(file: FileIO, tail: bytes) -> tuple[int, int]:
    try:
        from PIL import Image  # where only an exported model runs, it need not be there
    except ModuleNotFoundError:
        return _decoded_size(file)
    file.seek(0)
    most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # which is lower than what a line camera takes
    try:
        opened = Image.open(file)
    finally:
        Image.MAX_IMAGE_PIXELS = most
    with opened as image:
        if image.size[0] * image.size[1] > MOST_PIXELS:
            raise ValueError
        # Only a decoder can tell a cut file from one with a camera's own data behind it, or with a wrong length in it.
        looks_cut = dict(JPEG=not tail.endswith(_JPEG_END), BMP=_bmp_length(file) > file.seek(0, 2))
        if looks_cut.get(image.format) and not _decodes(image):
            raise EOFError
        if image.format == 'PNG' and tail != _PNG_END:
            file.seek(0)
            if _PNG_END not in file.read():
                raise EOFError
        width, height = image.size
        # OpenCV turns a photograph upright when it decodes it; of a TIFF file, Pillow gives that size itself.
        turned = image.format != 'TIFF' and image.getexif().get(_ORIENTATION) in _TURNED
        return (height, width) if turned else (width, height)


def _decoded_size(file: FileIO) -> tuple[int, int]:
    """By OpenCV, which fills what is missing of a cut photograph with gray, so that its end is looked for first."""
    import cv2
    import numpy as np

    file.seek(0)
    content = file.read()
    if content.startswith(_JPEG):
        place = 2
        while content[place : place + 1] == b'\xff' and content[place + 1 : place + 2] != b'\xda':
            place += 2 + int.from_bytes(content[place + 2 : place + 4])
        if _JPEG_END not in content[place:]:  # a thumbnail, which has an end of its own, comes before
            raise EOFError
    if content.startswith(_PNG[:4]) and _PNG_END not in content:
        raise EOFError
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError
    return image.shape[1::-1]


def _bmp_length(file: FileIO) -> int:
    file.seek(2)
    return int.from_bytes(file.read(4), 'little')


def _decodes(image) -> bool:
    try:
        image.load()
    except OSError:
        return False
    return True


def find_images(folder: Path) -> list[str]:
    """All image files in a folder and those below it, in order; hidden ones are not the user's."""
    return [
        f'{Path(place).as_posix()}/{name}'
        for place, _, names in sorted(os.walk(folder))
        if not any(part.startswith(HIDDEN) for part in Path(place).relative_to(folder).parts)
        for name in sorted(names)
        if name.lower().endswith(SUFFIXES) and not name.startswith(HIDDEN)
    ]

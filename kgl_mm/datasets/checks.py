"""What can be wrong with a set of images, found before training: by headers and sizes, hashing only at the end."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image

from kgl_mm.errors import UsageError

_ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height from the header; a file that is no image, or ends too early, is a :class:`UsageError`."""
    try:
        with Path(path).open('rb') as file, Image.open(file) as image:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            end = _ENDS.get(image.format)
            if end and end not in file.read():
                raise UsageError(f'{path}: truncated {image.format} file')
            return image.size
    except FileNotFoundError:
        raise UsageError(f'{path}: no such file') from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f'{path}: not a readable image file ({type(error).__name__})') from None


def file_faults(pairs: Iterable[tuple[str, str | None]]) -> list[str]:
    """One sentence for each image or mask that cannot be right, of (image, mask or None) pairs."""
    faults = []
    for image, mask in pairs:
        try:
            size = image_size(image)
            if mask and (mask_size := image_size(mask)) != size:
                shapes = '{}x{} and {}x{}'.format(*mask_size, *size)
                faults.append(f'{mask}: mask and image differ in size ({shapes} pixels)')
        except UsageError as error:
            faults.append(str(error))
    return faults


def twins(paths: Sequence[str], splits: Sequence[str]) -> list[list[str]]:
    """Groups of byte-identical files that stand in more than one split."""
    groups = [list(zip(paths, splits, strict=True))]
    for feature in (_size, _middle, _digest):
        groups = [finer for group in groups for finer in _divide(group, feature)]
    return [sorted(path for path, _ in group) for group in groups]


def _divide(group: list[tuple[str, str]], feature: Callable) -> list[list[tuple[str, str]]]:
    """Parts of a group that agree in a feature and still span several splits."""
    parts = defaultdict(list)
    for path, split in group:
        parts[feature(Path(path))].append((path, split))
    return [part for part in parts.values() if len({split for _, split in part}) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with path.open('rb') as file:
        file.seek(path.stat().st_size // 2)
        return hashlib.blake2b(file.read(4096), digest_size=16).digest()


def _digest(path: Path) -> bytes:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').digest()


def some(things: Sequence[str], most: int = 5) -> str:
    """The first few, and how many more.

    >>> some(['a', 'b', 'c'], most=2)
    'a; b; and 1 more'
    """
    more = [f'and {len(things) - most} more'] if len(things) > most else []
    return '; '.join([*things[:most], *more])

"""What can be wrong with a set of images, found before training: by headers and sizes, hashing only at the end."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from io import FileIO
from pathlib import Path

from kgl_mm.errors import UsageError
from kgl_mm.files import hash_of
from kgl_mm.image_files import image_size


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


def refuse(dataset: object, faults: Sequence[str]) -> None:
    """A usage error of one line where there are any."""
    if faults:
        number = f'{len(faults)} faults: ' if len(faults) > 1 else ''
        raise UsageError(f'{type(dataset).__name__}: {number}{some(faults)}')


def twins(paths: Sequence[str], splits: Sequence[str]) -> list[list[str]]:
    """Groups of byte-identical files that stand in more than one split."""
    groups = [list(zip(paths, splits, strict=True))]
    for feature in (_size, _middle, hash_of):
        groups = [finer for group in groups for finer in _divide(group, feature)]
    return [sorted(path for path, _ in group) for group in groups]


def _divide(group: list[tuple[str, str]], feature: Callable) -> list[list[tuple[str, str]]]:
    """Parts of a group that agree in a feature and still span several splits."""
    parts = defaultdict(list)
    for path, split in group:
        parts[feature(path)].append((path, split))
    return [part for part in parts.values() if len({split for _, split in part}) > 1]


def _size(path: str) -> int:
    return Path(path).stat().st_size


def _middle(path: str) -> int:
    with FileIO(path) as file:
        file.seek(file.seek(0, 2) // 2)
        return hash(file.read(4096))


def some(things: Sequence[str], most: int = 5) -> str:
    """The first few, and how many more.

    >>> some(['a', 'b', 'c'], most=2)
    'a; b; and 1 more'
    """
    more = [f'and {len(things) - most} more'] if len(things) > most else []
    return '; '.join([*things[:most], *more])

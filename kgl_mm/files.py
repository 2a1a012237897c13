"""Writes that a kill cannot leave half done, one process at a time in a folder, and the hash of a file."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write to a temporary file, sync, rename: at any moment ``path`` holds the old bytes or the new ones."""
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # the file that was meant
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """One process at a time in a folder, after the others."""
    place = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems lock no folder
            fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def hash_of(path: str | Path) -> str:
    """The sha256 of a file, in hex digits."""
    with Path(path).open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def write_json(path: str | Path, data: dict) -> None:
    write_atomically(path, (json.dumps(data, indent=2, sort_keys=True) + '\n').encode())


def read_json(path: str | Path) -> dict:
    """An absent file is an empty record."""
    path = Path(path)
    return json.loads(path.read_text()) if path.exists() else {}

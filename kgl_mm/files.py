"""Writes that a kill cannot leave half done, one process at a time in a folder, and the hash of a file."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kgl_mm.errors import UsageError

LOCK = '.lock'


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


@contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """One process in a folder, and no other meanwhile: a second one is told.

    It ends with this very process, where that of :func:`locked` lasts as long as any data worker that was forked.
    """
    path = Path(folder, LOCK)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+') as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)
            print(os.getpid(), file=lock, flush=True)
        except (BlockingIOError, PermissionError):  # this is what some systems say instead
            lock.seek(0)
            who = f'process {lock.read().strip() or "unknown"}'
            raise UsageError(
                f'{folder}: {who} is at work in it; wait for its end, end it, or give another --work-dir'
            ) from None
        except OSError:  # some network file systems lock nothing
            pass
        yield


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

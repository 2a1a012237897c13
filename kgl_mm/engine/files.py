"""Writes that a kill cannot leave half done."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write to a temporary file, sync, rename: at any moment ``path`` holds the old bytes or the new ones."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with temporary.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_json(path: str | Path, data: dict) -> None:
    write_atomically(path, (json.dumps(data, indent=2, sort_keys=True) + '\n').encode())


def read_json(path: str | Path) -> dict:
    """An absent file is an empty record."""
    path = Path(path)
    return json.loads(path.read_text()) if path.exists() else {}


@register_backend('kgl_atomic')
class AtomicBackend(LocalBackend):
    """mmengine's local backend with atomic writes, and removals that can wait until what replaces them is written."""

    def __init__(self) -> None:
        self._held: list[str] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomically(filepath, bytes(obj))

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        write_atomically(filepath, obj.encode(encoding))

    def remove(self, filepath: str | Path) -> None:
        if self._held is None:
            super().remove(filepath)
        else:
            self._held.append(filepath)

    @contextmanager
    def removals_last(self) -> Iterator[None]:
        """Hold back all removals inside the block until it has ended well; nested blocks end with the outermost."""
        if self._held is not None:
            yield
            return
        self._held = []
        try:
            yield
            held = self._held
        finally:
            self._held = None
        for path in held:
            if Path(path).exists():
                super().remove(path)

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from kgl_mm.files import write_atomically


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

"""The files of a store: where they are, and how they are read, replaced and listed. Nothing leaves the root."""

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from mmengine.fileio import LocalBackend, get_file_backend

from kgl_mm.errors import UsageError, first_line
from kgl_mm.files import locked

LAYER = re.compile(r'(?!journal$)[A-Za-z0-9_-]{1,200}')
REFUSED = re.compile(r'(?:^|/)\.{0,2}(?:/|$)|[\\\0-\x1f\x7f-\x9f\ud800-\udfff]')
NAME_BYTES = 255 - len('..png.4194304.tmp')  # of a file name, less what a temporary file adds to a key's
DEBRIS = re.compile(r'\..+\.(png|jsonl?)\.\d+\.tmp')


def check(key: str, layer: str) -> None:
    """Refuse what is no name of a map, in one sentence."""
    if not isinstance(layer, str) or not LAYER.fullmatch(layer):
        raise UsageError(f"layer {layer!r}: give a name of letters, digits, _ and -, other than 'journal'.")
    if not isinstance(key, str) or REFUSED.search(key):
        raise UsageError(
            f"key {key!r}: give a relative path in UTF-8, parts joined by '/', "
            "without '.', '..', empty parts, backslashes and control characters."
        )
    if max(len(part.encode()) for part in key.split('/')) > NAME_BYTES:
        raise UsageError(f'key {key!r}: a part is longer than the {NAME_BYTES} bytes that fit a file name.')


class Folder:
    """A local folder, or one that any other file backend of mmengine can read."""

    def __init__(self, root: str | Path, backend_args: dict | None = None) -> None:
        self.backend = get_file_backend(root, backend_args=backend_args)
        self.local = isinstance(self.backend, LocalBackend)
        self.root = str(Path(root).expanduser()) if self.local else str(root).rstrip('/')
        self._inside = set()  # folders that are known to lie in the root

    def path(self, key: str, layer: str, within: str = '') -> str:
        """Where the map of a key is or would be; ``within`` is a folder of the store in which layers are kept too."""
        check(key, layer)
        if not self.local:
            return f'{self.root}/{within}{layer}/{quote(key) if self.root.startswith("http") else key}.png'
        path = f'{self.root}/{within}{layer}/{key}.png'
        parent = path.rpartition('/')[0]
        if parent not in self._inside:
            try:
                inside = Path(parent).resolve().is_relative_to(Path(self.root).resolve())
            except (OSError, RuntimeError) as error:
                raise UsageError(f'{parent}: it cannot be a folder ({reason(error)}).') from error
            if not inside:
                raise UsageError(f'{parent}: the folder is a link that leads out of the store: remove it.')
            self._inside.add(parent)
        return path

    def get(self, path: str) -> bytes | None:
        """The bytes of a file, None where there is none."""
        try:
            return bytes(self.backend.get(path))
        except (OSError, LookupError) as error:
            absent = FileNotFoundError, NotADirectoryError, LookupError
            if isinstance(error, absent) or getattr(error, 'code', None) == 404:
                return None
            raise UsageError(f'{path}: it cannot be read ({reason(error)}).') from error

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of a file, none where there is none; a local one is never in memory as a whole."""
        file = None
        with suppress(OSError):  # of which ``get`` knows what to say
            file = Path(path).open('rb') if self.local else None  # noqa: SIM115
        with file or io.BytesIO(self.get(path) or b'') as lines:
            yield from lines

    def names(self, name: str) -> list[str]:
        """Names of the JSON Lines files in a folder, none where the backend cannot list."""
        try:
            path = self.backend.join_path(self.root, name)
            return sorted(self.backend.list_dir_or_file(path, list_dir=False, suffix='.jsonl'))
        except (AttributeError, NotImplementedError, OSError):
            return []

    def stamp(self, path: str) -> list[int] | None:
        """Size and time of a local file, by which a change is seen without reading it; None where there is none."""
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns] if stat.S_ISREG(status.st_mode) else None

    def replace(self, path: str, data: bytes) -> None:
        """At any moment there is the old file or the new one; not synced, as that takes longer than all the rest."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
        try:
            temporary.write_bytes(data)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def files(self, remove_debris: bool = False) -> Iterator[tuple[str, str]]:
        """Key and layer of all maps that are there; temporary files of killed writers may be removed on the way."""
        for entry in list(os.scandir(self.root)) if remove_debris else ():
            if DEBRIS.fullmatch(entry.name):
                Path(entry.path).unlink(missing_ok=True)
        for layer in sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)):
            top = f'{self.root}/{layer}'
            for folder, _, names in os.walk(top) if LAYER.fullmatch(layer) else ():
                for name in names:
                    path = f'{folder}/{name}'
                    if name.endswith('.png'):
                        key = path[len(top) + 1 : -len('.png')]
                        with suppress(UsageError):  # no key leads to this file
                            check(key, layer)
                            yield key, layer
                    elif remove_debris and DEBRIS.fullmatch(name):
                        Path(path).unlink(missing_ok=True)

    @contextmanager
    def writing(self, path: str | None = None) -> Iterator[None]:
        """Say in one sentence why something cannot be written."""
        if not self.local:
            raise UsageError(f'{self.root}: maps are written to local folders only: write there and copy the folder.')
        try:
            yield
        except OSError as error:
            raise UsageError(f'{path or self.root}: it cannot be written ({reason(error)}).') from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time, after the others; makes the folder where there is none."""
        Path(self.root).mkdir(parents=True, exist_ok=True)
        with locked(self.root):
            yield


def reason(error: BaseException) -> str:
    return getattr(error, 'strerror', None) or first_line(error)

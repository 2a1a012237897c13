"""What the maps of a store are, without opening them: one JSON line a map."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from kgl_mm.files import write_atomically

from .folder import Folder, check


class Index:
    """Manifest and journals as one dict, layer -> key -> line; a line is parsed when it is asked for.

    Each process appends to a journal of its own, also after a fork. Where a key has several lines, that of the journal
    begun last holds. A line that is cut or garbage is passed over.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._journal = (0, '')  # of which process, and which file
        self._lines = None

    @property
    def lines(self) -> dict[str, dict[str, bytes]]:
        if self._lines is None:
            lines = {}
            for name in ('manifest.jsonl', *self.journals()):
                for line in self._folder.lines(f'{self._folder.root}/{name}'):
                    with suppress(ValueError, TypeError, KeyError, RecursionError):
                        entry = json.loads(line)
                        key, layer, (_, _) = entry['key'], entry['layer'], entry['size']
                        check(key, layer)
                        lines.setdefault(layer, {})[key] = line.strip()
            self._lines = lines
        return self._lines

    def get(self, key: str, layer: str) -> dict:
        """The entry, empty where there is none."""
        return json.loads(self.lines.get(layer, {}).get(key, b'{}'))

    def append(self, entry: dict) -> None:
        """One line at the end of the journal, written at once."""
        line = json.dumps(entry).encode()
        if self._journal[0] != os.getpid():
            name = f'{time.time_ns()}-{os.getpid()}-{uuid4().hex[:8]}.jsonl'
            self._journal = os.getpid(), f'{self._folder.root}/journal/{name}'
        Path(self._folder.root, 'journal').mkdir(exist_ok=True)
        # Opened each time: a descriptor that is kept would be shared, and closed, by copies of this object.
        file = os.open(self._journal[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            # The first line feed ends a line that a full disk has cut.
            os.write(file, b'\n' + line + b'\n')
        finally:
            os.close(file)
        if self._lines is not None:
            self._lines.setdefault(entry['layer'], {})[entry['key']] = line

    def journals(self) -> list[str]:
        return [f'journal/{name}' for name in self._folder.names('journal')]

    def reload(self) -> None:
        self._lines = None

    def replace(self, lines: dict[str, dict[str, bytes]], journals: list[str]) -> None:
        """Make these the manifest, in place of the old one and these journals."""
        ordered = (lines[layer][key] + b'\n' for layer in sorted(lines) for key in sorted(lines[layer]))
        write_atomically(Path(self._folder.root, 'manifest.jsonl'), b''.join(ordered))
        for name in journals:
            Path(self._folder.root, name).unlink(missing_ok=True)
        self._lines = lines

"""A folder of maps, one per image, that a person can look at and paint over.

    ROOT/store.json       version of the format; by layer: bits, fraction, and the source, that is, what wrote it
    ROOT/LAYER/KEY.png    the maps; KEY mirrors the tree of the images: 'kos01/Part5.jpg' is LAYER/kos01/Part5.jpg.png
    ROOT/manifest.jsonl   one line a map, sorted by layer and key
    ROOT/journal/         one file a writer, lines as in the manifest, until ``compact`` folds them into it
    ROOT/.before/         of maps that were painted over by ``paint``, the map that was there, as LAYER/KEY.png

A map and its description are one file, replaced by one rename. Manifest and journals are only an index of these files.
"""

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kgl_mm.errors import UsageError
from kgl_mm.files import write_json

from . import png
from .folder import Folder, check
from .index import Index

VERSION = 1
THREADS = 4  # hashing and reading release the interpreter
RESERVED = {'key', 'layer', 'size', 'white', 'scale', 'peak', 'pixels', 'digest', 'stamp', 'edited', 'mask'}
BEFORE = '.before/'
STILL_TRUE = ('image', 'label', 'source_trust')  # of an image whose map a person painted


class Report(NamedTuple):
    """What ``PriorStore.verify`` found: the number of sound maps, and LAYER/KEY of the others."""

    ok: int
    edited: list[str]
    damaged: list[str]
    missing: list[str]

    def __str__(self) -> str:
        kinds = {'edited by hand': self.edited, 'damaged': self.damaged, 'missing': self.missing}
        troubles = [f'{len(x)} {kind} ({x[0]}{", ..." if len(x) > 1 else ""})' for kind, x in kinds.items() if x]
        return ', '.join([f'{self.ok} as written', *troubles])


class PriorStore:
    """Reads and writes the maps of one store.

    A kill at any moment leaves the old map or the new one. Nothing is synced for each map: what a loss of power broke
    is found by ``verify``. Any number of processes may write at once, each its own keys, also after a fork.

    A PNG that a person put there or painted over is read as value / largest value of its type, at the size of the image
    where the index knows it. Its entry says ``edited``.

    Args:
        root: The folder, or where any file backend of mmengine finds it. Without a backend that can list a folder, the
            manifest alone is the index, so ``compact`` comes before the upload. Only local folders can be written.
        backend_args: As mmengine knows them.
    """

    def __init__(self, root: str | Path, backend_args: dict | None = None) -> None:
        self._folder = Folder(root, backend_args)
        self._index = Index(self._folder)
        self._layers = self._load_layers()
        self.root = self._folder.root

    def begin(self, layer: str, source: dict, bits: int = 16, fraction: float = 1.0) -> None:
        """Create the layer, and the store where there is none, or make sure that the layer is this very one.

        Args:
            layer: Its name, of letters, digits, ``_`` and ``-``.
            source: What the maps are made from and by: any JSON dict.
            bits: 8 or 16 bits a pixel.
            fraction: Maps are kept at this share of the image's height and width.
        """
        check('any', layer)
        if bits not in (8, 16) or not 0 < fraction <= 1:
            raise UsageError(f'layer {layer}: bits are 8 or 16, a fraction is in (0, 1], not {bits} and {fraction}.')
        record = {'bits': bits, 'fraction': fraction, 'source': _plain(source, f'the source of {layer}')}
        with self._folder.writing(), self._folder.lock():
            layers = self._load_layers()
            there = layers.setdefault(layer, record)
            if there != record:
                raise UsageError(
                    f'{self.root}: layer {layer} is stale: {_changes(there, record)}; '
                    'give another --out or remove the folder.'
                )
            if there is record:
                write_json(Path(self.root, 'store.json'), {'version': VERSION, 'layers': layers})
        self._layers = layers

    def layers(self) -> list[str]:
        return sorted(self._layers)

    def source(self, layer: str = 'evidence') -> dict:
        """What wrote the layer; empty for a folder of maps that a person added."""
        self._known(layer)
        return self._layers.get(layer, {}).get('source', {})

    def write(self, key: str, map, layer: str = 'evidence', image_size: tuple[int, int] | None = None, **facts) -> None:
        """Keep a map, 2-D, finite, nowhere negative, in place of the one that may be there.

        Args:
            key: Path of the image within the data set.
            map: Any size; it is kept at the layer's fraction of the image's size.
            layer: Begun without a source where it is new.
            image_size: Height and width, by default those of the map.
            facts: What else to say of the map (``image``, the hash of the image; ``quality``): JSON values.
        """
        path = self._folder.path(key, layer)
        if taken := RESERVED & facts.keys():
            raise UsageError(
                f'{layer}/{key}: the store itself sets {", ".join(sorted(taken))}: name the fact otherwise.'
            )
        facts = _plain(facts, f'the facts of {layer}/{key}')
        map = png.as_map(map).astype(np.float32)
        peak = float(map.max())
        with self._folder.writing(path):
            if layer not in self._layers:
                self._layers = self._load_layers()  # another process may have begun it
            if layer not in self._layers:
                self.begin(layer, {})
            bits, fraction = self._layers[layer]['bits'], self._layers[layer]['fraction']
            size = png.as_size(map.shape if image_size is None else image_size)
            map = png.resize(map, [max(1, round(fraction * n)) for n in size])
            pixels, white = png.quantize(map, bits)
            entry = {
                'key': key,
                'layer': layer,
                'size': size,
                'white': white,
                'scale': white / (2**bits - 1),
                'peak': peak,
            }
            data, entry = png.encode(pixels, entry | facts)
            self._put(path, data, entry)

    def paint(self, key: str, mask, layer: str = 'evidence') -> None:
        """Put a mask that a person painted in place of a map: it is ``edited``, and counts as a real mask.

        The map that the first mask replaces is kept, for :meth:`revert`.

        Args:
            key: Of a map that is there.
            mask: H x W, of any size; everything but 0 is inside. It is kept as it is.
            layer: Of the map.
        """
        path, before = self._folder.path(key, layer), self._folder.path(key, layer, BEFORE)
        pixels = (png.as_map(mask) > 0) * np.uint8(255)
        with self._folder.writing(path):
            old = self._file(key, layer)
            was = self._describe(key, layer, old)
            if not was.get('edited') or self._folder.stamp(before) is None:
                self._folder.replace(before, old)
            if 'trust' in was:
                was['source_trust'] = was['trust']
            entry = {'key': key, 'layer': layer, 'size': was['size'], 'white': 1.0, 'scale': 1 / 255}
            entry |= {'peak': float(pixels.any()), 'edited': True, 'mask': True}
            data, entry = png.encode(pixels, entry | {name: was[name] for name in STILL_TRUE if name in was})
            self._put(path, data, entry)

    def revert(self, key: str, layer: str = 'evidence') -> None:
        """Put back the map that ``paint`` has replaced."""
        path, before = self._folder.path(key, layer), self._folder.path(key, layer, BEFORE)
        with self._folder.writing(path):
            data = self._folder.get(before)
            if data is None:
                raise UsageError(f'{self.root}: no map was kept of {layer}/{key}, so there is nothing to go back to.')
            self._put(path, data, self._describe(key, layer, data))
            Path(before).unlink()

    def can_revert(self, key: str, layer: str = 'evidence') -> bool:
        return self._folder.stamp(self._folder.path(key, layer, BEFORE)) is not None

    def _put(self, path: str, data: bytes, entry: dict) -> None:
        self._folder.replace(path, data)
        self._index.append(entry | {'digest': _digest(data), 'stamp': self._folder.stamp(path)})

    def read(self, key: str, layer: str = 'evidence', size: tuple[int, int] | None = None) -> np.ndarray:
        """The map in float32 at the size of the image, or at any (height, width)."""
        return self._map(key, layer, self._file(key, layer), size)

    def _map(self, key: str, layer: str, data: bytes, size: tuple[int, int] | None) -> np.ndarray:
        entry = self._describe(key, layer, data)
        map = np.multiply(png.decode(data), entry['scale'], dtype=np.float64).astype(np.float32)
        return png.resize(map, entry['size'] if size is None else size)

    def read_before(self, key: str, layer: str = 'evidence', size: tuple[int, int] | None = None) -> np.ndarray | None:
        """The map that ``paint`` has replaced, as ``read`` gives it; None where there is none."""
        data = self._folder.get(self._folder.path(key, layer, BEFORE))
        return None if data is None else self._map(key, layer, data, size)

    def entry(self, key: str, layer: str = 'evidence') -> dict:
        """What is known of a map: from the index, or from the file where that is newer or the index lacks it."""
        return self._current(key, layer) or self._describe(key, layer, self._file(key, layer))

    def is_edited(self, key: str, layer: str = 'evidence') -> bool:
        """Whether a person made the map or painted over it."""
        return self.entry(key, layer).get('edited', False)

    def is_mask(self, key: str, layer: str = 'evidence') -> bool:
        """Whether a person painted the map where a source had written one: then it is as good as a real mask.

        In a layer that nothing but people wrote, maps may be anything, such as anomaly scores as PNG files.
        """
        entry = self.entry(key, layer)
        return bool(entry.get('edited') and (entry.get('mask') or self.source(layer)))

    def keys(self, layer: str = 'evidence') -> list[str]:
        """Those of the index, sorted."""
        self._known(layer)
        return sorted(self._index.lines.get(layer, ()))

    def __contains__(self, key: str | tuple[str, str]) -> bool:
        """Whether there is a map of this key, or of this (key, layer)."""
        key, layer = key if isinstance(key, tuple) else (key, 'evidence')
        path = self._folder.path(key, layer)
        return self._folder.stamp(path) is not None if self._folder.local else bool(self._index.get(key, layer))

    def __len__(self) -> int:
        """Number of maps in the index, all layers together."""
        return sum(map(len, self._index.lines.values()))

    def __bool__(self) -> bool:
        return True

    def verify(self, layer: str | None = None) -> Report:
        """Look at every file that is there or should be; in all layers by default."""
        self._known(layer)
        lines = self._index.lines
        places = [(key, name) for name in lines for key in lines[name]]
        if self._folder.local:
            places += [(key, name) for key, name in self._folder.files() if key not in lines.get(name, ())]
        places = sorted((key, name) for key, name in places if layer in (None, name))
        found = {'ok': 0, 'edited': [], 'damaged': [], 'missing': []}
        for (key, name), condition in zip(places, _each(self._condition, places), strict=True):
            found[condition] += 1 if condition == 'ok' else [f'{name}/{key}']
        return Report(**found)

    def compact(self) -> None:
        """Fold the journals into the manifest, adopt files that the index lacks, remove debris of killed writers.

        Only while nobody else writes: the temporary file of a writer at work would be removed as well.
        """
        self._reindex(lambda lines: {layer: dict(lines[layer]) for layer in lines}, self._current)

    def rebuild(self) -> None:
        """Make the manifest again from the files alone, as slowly as ``verify``; only while nobody else writes.

        The old index still says how large the image of an edited map is, as far as it can be read.
        """
        self._reindex(lambda lines: {}, lambda key, layer: None)

    def _reindex(self, kept: Callable, current: Callable) -> None:
        self._known()
        with self._folder.writing():
            journals = self._index.journals()
            self._index.reload()
            old = self._index.lines
            lines = kept(old)
            places = [place for place in self._folder.files(remove_debris=True) if not current(*place)]
            for (key, layer), line in zip(places, _each(self._line, places), strict=True):
                # The old line of a file that is damaged stays, so that it is not forgotten.
                if line := line or old.get(layer, {}).get(key):
                    lines.setdefault(layer, {})[key] = line
            self._index.replace(lines, journals)

    def _load_layers(self) -> dict:
        """By name; empty where there is no store."""
        data = self._folder.get(f'{self._folder.root}/store.json')
        try:
            header = json.loads(data or '{"version": 0, "layers": {}}')
            version, layers = int(header['version']), dict(header['layers'])
            _ = [(layer['bits'], layer['fraction'], layer['source']) for layer in layers.values()]
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f'{self._folder.root}/store.json is damaged: remove it and begin the layers again.'
            ) from error
        if version > VERSION:
            raise UsageError(
                f'{self._folder.root}: the store has format {version}, newer than {VERSION}: update kgl_mm to read it.'
            )
        return layers

    def _known(self, layer: str | None = None) -> None:
        self._layers = self._layers or self._load_layers()
        if not self._layers:
            raise UsageError(f'{self.root}: there is no store of priors, as store.json is missing: write one first.')
        if layer is not None and layer not in self._layers and layer not in self._index.lines:
            raise UsageError(f'{self.root}: there is no layer {layer!r}, only {", ".join(self.layers())}.')

    def _file(self, key: str, layer: str) -> bytes:
        data = self._folder.get(self._folder.path(key, layer))
        if data is None:
            self._known(layer)
            keys = self._index.lines.get(layer, {})
            if key in keys:
                raise UsageError(f'{self._folder.path(key, layer)} is missing: write it again, or rebuild the index.')
            near = difflib.get_close_matches(key, keys, 1) if len(keys) <= 5000 else ()
            raise UsageError(
                f'{self.root}: none of the {len(keys)} maps of {layer} is {key!r}: '
                + (f'did you mean {near[0]!r}?' if near else 'write it first.')
            )
        return data

    def _current(self, key: str, layer: str) -> dict | None:
        """The entry in the index, unless the file was written since."""
        entry = self._index.get(key, layer)
        path = self._folder.path(key, layer)
        if self._folder.local and entry.get('stamp') != self._folder.stamp(path):
            return None
        return entry

    def _describe(self, key: str, layer: str, data: bytes) -> dict:
        """The entry by the file itself; for a file that is not ours, by what it looks like."""
        try:
            entry = png.describe(data)
            if entry is None:
                pixels = png.decode(data)
                top = int(np.iinfo(pixels.dtype).max)
                size = self._index.get(key, layer).get('size', list(pixels.shape))
                entry = {'size': size, 'white': 1.0, 'scale': 1 / top, 'peak': int(pixels.max()) / top, 'edited': True}
        except ValueError as error:
            path = self._folder.path(key, layer)
            raise UsageError(f'{path} is damaged, {error}: remove it, or write it again.') from error
        # A copy under another name is the map of that name.
        return {'key': key, 'layer': layer} | entry | {'key': key, 'layer': layer, 'digest': _digest(data)}

    def _line(self, place: tuple[str, str]) -> bytes | None:
        """The line of a file, None where it is damaged."""
        try:
            stamp = self._folder.stamp(self._folder.path(*place))
            return json.dumps(self._describe(*place, self._file(*place)) | {'stamp': stamp}).encode()
        except UsageError:
            return None

    def _condition(self, place: tuple[str, str]) -> str:
        entry = self._index.get(*place)
        try:
            data = self._folder.get(self._folder.path(*place))
            if data is None:
                return 'missing'
            if entry.get('digest') != _digest(data):
                entry = self._describe(*place, data)
        except UsageError:
            return 'damaged'
        return 'edited' if entry.get('edited') else 'ok'


def _each(function: Callable, items: list) -> Iterator:
    """Results in order, by a few threads."""
    with ThreadPool(THREADS) as pool:
        yield from pool.imap(function, items, chunksize=64)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _plain(value: dict, name: str) -> dict:
    """The dict as JSON gives it back."""
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f'{name} are not JSON ({error}): use text, finite numbers, lists and dicts.') from error


def _changes(was: dict, now: dict) -> str:
    """What differs between two layers; fields of the source go by their own names."""
    was, now = ({'bits': x['bits'], 'fraction': x['fraction']} | dict(_flat(x['source'])) for x in (was, now))
    names = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
    return ', '.join(f'{name} was {_short(was.get(name))}, is {_short(now.get(name))}' for name in names)


def _short(value: object) -> str:
    text = 'absent' if value is None else str(value)
    return text if len(text) <= 40 else f'{text[:12]}...{text[-25:]}'


def _flat(source: dict, prefix: str = '') -> Iterator[tuple[str, object]]:
    for name, value in source.items():
        if isinstance(value, dict):
            yield from _flat(value, f'{prefix}{name}.')
        else:
            yield prefix + name, value

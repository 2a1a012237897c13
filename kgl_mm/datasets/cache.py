"""Keeps what the deterministic beginning of a pipeline makes of an image, in memory or in a folder."""

import ast
import copy
import hashlib
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import cv2
import mmcv
import numpy as np
import PIL
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from rich.progress import track

import kgl_mm
from kgl_mm.errors import UsageError

# Normalize is left out: it is cheap, and its floats would take four times the room.
DETERMINISTIC = {'LoadImageFromFile', 'LoadMask', 'Resize', 'ResizeEdge', 'CenterCrop', 'Pad'}
PACKAGES = {'mmcv', 'mmpretrain', 'kgl_mm'}
INPUTS = ('img_path', 'mask_path', 'gt_label')
"""All that the deterministic transforms see of a sample, so that nothing outside the key can shape a result."""
ANNOTATIONS = {'img', 'gt_seg_map', 'gt_bboxes', 'gt_keypoints'}
VERSIONS = [module.__version__ for module in (kgl_mm, mmcv, cv2, PIL, np)]


class PipelineCache:
    """Runs the leading deterministic transforms of a pipeline, or returns what they gave the last time.

    The key is a hash of path, size and modification time of image and mask, the label, the settings of the transforms
    and the versions of what they use. Only what the transforms add or change is kept; all else comes from the sample.
    A sample that brings pixels or annotations of its own, which the transforms would move, is never cached.

    Args:
        transforms: Those of a built pipeline; ``prefix`` are the leading deterministic ones, ``rest`` the others.
        where: ``'memory'`` (of this process and those forked from it later) or a folder, which any number of
            processes and runs can share.
    """

    def __init__(self, transforms: list, where: str) -> None:
        cut = next((i for i, transform in enumerate(transforms) if not _is_deterministic(transform)), len(transforms))
        self.prefix, self.rest = transforms[:cut], transforms[cut:]
        self.where = where
        self._store = _Memory() if where == 'memory' else _Folder(where)
        settings = [(type(t).__module__, type(t).__qualname__, sorted(vars(t).items())) for t in self.prefix]
        self._settings = repr((VERSIONS, settings))
        if self.rest and not self.prefix:
            print_log(
                f'Nothing is cached: the pipeline begins with {type(self.rest[0]).__name__}, which is none of '
                f'{", ".join(sorted(DETERMINISTIC))}.',
                logger='current',
                level=logging.WARNING,
            )

    def __call__(self, data_info: dict) -> dict | None:
        """The results after ``prefix``, whose arrays are the caller's own to write in."""
        key = self._key(data_info)
        if key is None:
            return self._run(data_info)
        added = self._store.get(key)
        if added is None:
            inputs = {name: data_info[name] for name in INPUTS if name in data_info}
            results = self._run(dict(inputs))
            if results is None:
                return None
            added = {name: value for name, value in results.items() if name not in inputs or value is not inputs[name]}
            self._store.put(key, added)
        return data_info | added

    def fill(self, data_infos: Sequence[dict]) -> None:
        """Compute all that is not there yet: in the main process before workers fork, they share the memory."""
        if len(data_infos) > 200 and is_main_process():
            data_infos = track(data_infos, 'reading images')
        for data_info in data_infos:
            self(data_info)

    def _run(self, results: dict) -> dict | None:
        for transform in self.prefix:
            results = transform(results)
            if results is None:  # a loader may give up on an image
                return None
        return results

    def _key(self, data_info: dict) -> str | None:
        if not self.prefix or ANNOTATIONS & data_info.keys():
            return None
        try:
            files = [_identity(data_info['img_path']), _identity(data_info.get('mask_path'))]
        except (KeyError, OSError):  # no local file, or none at all: the loader knows what to do or say
            return None
        return hashlib.sha256(repr((self._settings, files, data_info.get('gt_label'))).encode()).hexdigest()


class _Memory:
    def __init__(self) -> None:
        self._entries = {}

    def get(self, key: str) -> dict | None:
        return copy.deepcopy(self._entries.get(key))

    def put(self, key: str, values: dict) -> None:
        self._entries[key] = copy.deepcopy(values)


class _Folder:
    """One ``KEY.npz`` per entry: the arrays, and before them the other values as a Python literal; no pickle."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser()
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            probe = self._path / f'.{uuid4().hex}.tmp'
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f'{path}: cannot write the cache there ({error.strerror}); name another folder.'
            ) from error

    def get(self, key: str) -> dict | None:
        try:
            with np.load(self._path / f'{key}.npz', allow_pickle=False) as entry:
                names, literals = ast.literal_eval(entry['arr_0'].item())
                return literals | {name: entry[f'arr_{i}'] for i, name in enumerate(names, 1)}
        except Exception:  # damage has many faces, and whatever it is, the entry is made anew
            return None

    def put(self, key: str, values: dict) -> None:
        arrays = {name: value for name, value in values.items() if type(value) is np.ndarray}
        literals = {name: value for name, value in values.items() if name not in arrays}
        if not _is_literal(literals) or any(array.dtype.hasobject for array in arrays.values()):
            return
        temporary = self._path / f'.{uuid4().hex}.tmp'
        try:
            with temporary.open('wb') as file:
                np.savez(file, repr((list(arrays), literals)), *arrays.values())
            temporary.replace(self._path / f'{key}.npz')
        except OSError as error:
            warnings.warn(f'{self._path}: some images are not cached ({error.strerror})', stacklevel=2)
        finally:
            temporary.unlink(missing_ok=True)


def _is_deterministic(transform: object) -> bool:
    kind = type(transform)
    return kind.__name__ in DETERMINISTIC and kind.__module__.split('.')[0] in PACKAGES


def _identity(path: str | None) -> tuple[str, int, int] | None:
    if path is None:
        return None
    path = Path(path).absolute()
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _is_literal(value: object) -> bool:
    """Whether ``ast.literal_eval(repr(value))`` gives back the same value of the same types."""
    if type(value) in (tuple, list):
        return all(map(_is_literal, value))
    if type(value) is dict:
        return all(map(_is_literal, (*value, *value.values())))
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str, bytes)

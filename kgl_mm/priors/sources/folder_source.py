import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePath

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset

from kgl_mm.datasets.masks import read_mask
from kgl_mm.errors import UsageError, check_choice, check_number
from kgl_mm.files import hash_of
from kgl_mm.priors import png
from kgl_mm.registry import PRIOR_SOURCES

from .base import PriorSource, good_indices, quantile_of_good

SUFFIXES = ('.png', '.tif', '.tiff', '.npy')


@PRIOR_SOURCES.register_module()
class FolderSource(PriorSource):
    """Maps that were made elsewhere, or the real masks of the data set as the ceiling of what a prior can be.

    The map of ``some/where/kos01/Part5.jpg`` is ``FOLDER/kos01/Part5.png`` or ``FOLDER/kos01/Part5.jpg.png``, or the
    same with a shorter or longer end of the path, of which the longest counts. Maps of 8 or 16 bits are divided by the
    largest value of their type, so to [0, 1]. All others, not negative, may have any scale: q being the ``quantile`` of
    the maxima of good images, a value v becomes v / (v + q).

    Args:
        folder: of PNG, TIFF or NPY files, one an image.
        masks: take the masks of the data set instead, empty for good images.
        ending: of the names of the files, such as ``'_mask'``.
        missing: ``'error'``, or ``'empty'``: an image without a map has an empty one.
        quantile: see above; None takes floats as they are, which must then lie in [0, 1].
    """

    can_flip = False

    def __init__(
        self,
        folder: str | Path | None = None,
        masks: bool = False,
        ending: str = '',
        missing: str = 'error',
        quantile: float | None = 0.99,
    ) -> None:
        check_choice(('error', 'empty'), missing=missing)
        check_choice((True, False), masks=masks)
        check_number(0, 1, above=True, none='floats as they are', quantile=quantile)
        if not isinstance(folder, str | Path | None):
            raise UsageError(f'FolderSource(folder={folder!r}): no path; write ./{folder}')
        if (folder is None) != masks:
            raise UsageError(f'FolderSource(folder={folder!r}, masks={masks}): give either a folder or masks=True')
        self.folder, self.is_of_masks, self.ending = folder, masks, ending
        self.missing, self.quantile = missing, quantile
        self.files = {} if masks else _files(Path(folder).expanduser(), ending)
        self.scale = None

    @staticmethod
    def needs_model(_settings: dict) -> bool:
        return False

    def settings(self) -> dict:
        return dict(
            super().settings(), masks=self.is_of_masks, ending=self.ending, missing=self.missing,
            quantile=self.quantile, scale=self.scale,
        )  # fmt: skip

    def weights(self) -> str | None:
        """Of all files: another content is another source."""
        if self.is_of_masks:
            return None
        lines = sorted(f'{key} {hash_of(path)}' for key, path in self.files.items())
        return hashlib.sha256('\n'.join(lines).encode()).hexdigest()

    @property
    def learns(self) -> bool:
        return not self.is_of_masks and self.quantile is not None

    def taken_from(self, dataset: BaseDataset) -> str | None:
        self._look_at_all(dataset)
        if not self.is_of_masks:
            return None
        masks = (dataset.get_data_info(index).get('mask_path') for index in range(len(dataset)))
        known = '\n'.join(hash_of(mask) if mask and Path(mask).is_file() else '' for mask in masks)
        return hashlib.sha256(known.encode()).hexdigest()

    def fit(self, dataset: BaseDataset) -> None:
        paths = [self.find(dataset.get_data_info(index)['img_path']) for index in good_indices(dataset)]
        maps = (_read(path) for path in paths if path)
        peaks = [float(found.max()) for found in maps if found.dtype.kind == 'f']
        others = (path for path in self.files.values() if path.suffix.lower() != '.png')
        if peaks or any(_read(path).dtype.kind == 'f' for path in others):
            self.scale = quantile_of_good(peaks, self.quantile, f'{self.folder}')

    def check(self, dataset: BaseDataset) -> None:
        if self.learns:
            self.fit(dataset)
        self._look_at_all(dataset)

    def _look_at_all(self, dataset: BaseDataset) -> None:
        """What is missing, or cannot be read, shows before the first map is written."""
        self._refuse_shared(dataset)
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            self._mask(info) if self.is_of_masks else self._map(info['img_path'])

    def _refuse_shared(self, dataset: BaseDataset) -> None:
        owners = {}
        for index in range(len(dataset)):
            path = dataset.get_data_info(index)['img_path']
            file = self.find(path)
            if file and owners.setdefault(file, path) != path:
                raise UsageError(
                    f'FolderSource: {owners[file]} and {path} would both get the map {file}; '
                    'put maps into folders like those of the images'
                )

    def maps(self, images: torch.Tensor, samples: Sequence = ()) -> torch.Tensor:
        if len(samples) != len(images):
            raise UsageError('FolderSource: maps are found by the paths of images; pass their data samples too')
        result = images.new_zeros(len(images), *images.shape[2:])
        for into, sample in zip(result, samples, strict=True):
            height, width = (sample.get('img_shape') or into.shape)[:2]
            found = self._mask(sample) if self.is_of_masks else self._map(sample.img_path)
            if found is not None:
                into[:height, :width] = torch.from_numpy(png.resize(found.astype(np.float32), (height, width)))
        return result

    def find(self, img_path: str) -> Path | None:
        """The file of an image."""
        parts = PurePath(img_path).parts
        for start in range(len(parts)):
            key = '/'.join(parts[start:])
            for name in (key, key.removesuffix(PurePath(key).suffix)):
                if name in self.files:
                    return self.files[name]
        return None

    def _map(self, img_path: str) -> np.ndarray | None:
        path = self.find(img_path)
        if path is None:
            if self.missing == 'empty':
                return None
            raise UsageError(
                f'{self.folder}: none of its {len(self.files)} maps is that of {img_path}; '
                "add it, or set missing='empty'"
            )
        found = _read(path)
        if found.dtype.kind == 'u':
            return found.astype(np.float32) / np.iinfo(found.dtype).max
        if self.scale is not None:
            return found / (found + self.scale)
        if found.max() > 1:
            raise UsageError(f'{path}: goes up to {found.max():.3g}; with quantile=None maps must lie in [0, 1]')
        return found

    def _mask(self, sample) -> np.ndarray | None:
        if 'mask' in sample:
            return sample.mask[0].cpu().numpy() != 0
        if path := sample.get('mask_path'):
            return read_mask(path)
        if self.missing == 'error' and bool(torch.as_tensor(sample.get('gt_label', 1)).any()):
            raise UsageError(f"{sample.get('img_path')}: has no mask; add it, or set missing='empty'")
        return None


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """The maps of a folder by the paths of their images, with or without the suffix of these."""
    if not folder.is_dir():
        raise UsageError(f'FolderSource: {folder}: no such folder')
    found = {}
    for path in sorted(folder.rglob('*')):
        inside = path.relative_to(folder)
        stem = inside.as_posix().removesuffix(path.suffix)
        if path.suffix.lower() not in SUFFIXES or not stem.endswith(ending) or path.name.startswith('.'):
            continue
        key = stem.removesuffix(ending) if ending else stem
        if key in found:
            raise UsageError(f'FolderSource: {path} and {found[key]} are maps of the same image: remove one')
        found[key] = path
    if not found:
        raise UsageError(f'FolderSource: {folder}: holds no maps ({", ".join(f"*{ending}{x}" for x in SUFFIXES)})')
    return found


def _read(path: Path) -> np.ndarray:
    """A map (H, W) of uint8, uint16 or float32, finite and not negative."""
    try:
        if path.suffix.lower() == '.npy':
            found = np.load(path, allow_pickle=False)
        else:
            found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError, EOFError, MemoryError, cv2.error):
        found = None
    if isinstance(found, np.ndarray) and found.dtype == bool:
        found = found.astype(np.uint8) * np.uint8(255)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in 'uif':
        raise UsageError(f'{path}: cannot be read as a map')
    if found.ndim == 3:  # a map of one channel, or a picture whose brightest colour counts
        found = found[0] if found.shape[0] == 1 else found[..., :3].max(2) if found.shape[2] in (1, 3, 4) else found
    if found.dtype.kind not in 'u' or found.dtype.itemsize > 2:
        found = found.astype(np.float32)
    if found.ndim != 2 or not found.size or not np.isfinite(found).all() or found.min() < 0:
        raise UsageError(f'{path}: a map must have two dimensions and be finite, nowhere below 0')
    return found

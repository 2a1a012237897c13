"""Images as small JPEGs inside the page, and what a model sees in some of them."""

import base64
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from kgl_mm.datasets.binding import bind_priors
from kgl_mm.datasets.masks import decode, read_mask
from kgl_mm.engine.checkpoint_io import use_safe_loading
from kgl_mm.engine.hooks.prior_generation_hook import build_method
from kgl_mm.engine.loading import hook_settings, load_dataset, load_model
from kgl_mm.errors import UsageError, first_line
from kgl_mm.saliency.base import resize
from kgl_mm.visualization import overlay

from .data import Run, Stage

SMALL, LARGE = 96, 260
"""Pixels of the longer side: of thumbnails, and of images shown with their maps."""


def embed(image: np.ndarray, side: int) -> str:
    """An image, BGR or gray, as a data URI of at most ``side`` pixels."""
    data = cv2.imencode('.jpg', _within(image, side), [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return 'data:image/jpeg;base64,' + base64.b64encode(data.tobytes()).decode()


def shrunk(image: np.ndarray, side: int = LARGE) -> np.ndarray:
    """As uint8, no larger than it will be shown, so that drawing costs little."""
    if image.dtype != np.uint8:  # 12 bits in 16 would look black
        low, high = float(image.min()), float(image.max())
        image = ((image.astype(np.float32) - low) / ((high - low) or 1) * 255).astype(np.uint8)
    return _within(image, side)


def _within(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image


def thumbnail(path: str) -> str | None:
    """None where the file is no longer there, or no image."""
    image = decode(path)
    return None if image is None else embed(shrunk(image, SMALL), SMALL)


def mask_picture(path: str | None, side: int = LARGE) -> str | None:
    """A mask in black and white, where there is one."""
    if not path or not Path(path).is_file():
        return None
    shown = _within(read_mask(path) * np.uint8(255), side)
    return embed((shown > 0).astype(np.uint8) * 255, side)  # a thin defect stays in sight


class Splits:
    """The images of the splits, as the data sets of a run's configs list them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._found: dict[tuple[str, str], object] = {}

    def dataset(self, stage: Stage, split: str):
        """The data set of a split, or the reason, in words, why there is none."""
        key = stage.name, split
        if key not in self._found:
            config = stage.tested if split == 'test' else stage.config
            self._found[key] = self._load(config, split) if config else 'its config was not kept'
        return self._found[key]

    def infos(self, stage: Stage, split: str) -> dict[str, dict]:
        """What is known of each image by its path; empty where the data are not there."""
        dataset = self.dataset(stage, split)
        if isinstance(dataset, str):
            return {}
        return {info['img_path']: info for info in map(dataset.get_data_info, range(len(dataset)))}

    @staticmethod
    def _load(config: Config, split: str):
        if not config.get(f'{split}_dataloader'):
            return 'there is none'
        try:
            with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmengine')):
                found = load_dataset(config, split)
                if not all('img_path' in found.get_data_info(index) for index in range(min(1, len(found)))):
                    return 'its images are not files'
                return found
        except Exception as error:  # the data may have moved, or be anybody's data set
            return first_line(error)


def look(stage: Stage, splits: Splits, paths: list[str]) -> tuple[dict[str, dict[str, np.ndarray]], str | None]:
    """What the model of a stage sees in some test images: ``heat`` and, where it has such a branch, ``seg``, by path.

    The second value says in words why maps are missing, where they are.
    """
    dataset = splits.dataset(stage, 'test')
    if isinstance(dataset, str):
        return {}, f'The test images could not be read again: {dataset}.'
    if stage.checkpoint is None:
        return {}, 'The checkpoint is no longer there.'
    index = {dataset.get_data_info(i)['img_path']: i for i in range(len(dataset))}
    found, reason = {}, None
    try:
        with DefaultScope.overwrite_default_scope(stage.tested.get('default_scope', 'mmengine')):
            for loader in bind_priors(dataset):  # emptied as in the training
                loader.muted = stage.trust == 0
            use_safe_loading()
            model = load_model(stage.tested, stage.checkpoint).eval()
            methods = _methods(stage, model)
            for path in paths:
                if path in index:
                    found[path], said = _see(model, methods, dataset[index[path]])
                    reason = reason or said
    except Exception as error:  # a report without maps is still a report
        reason = f'The model could not be asked: {type(error).__name__}, {first_line(error)}.'
    return found, reason


def _methods(stage: Stage, model: torch.nn.Module) -> dict[str, Callable]:
    head = getattr(model, 'head', None)
    # one pass an image; by evidence, so that a good part stays faint and all maps are on one scale
    plain = dict(normalize='evidence', flips=[])
    settings = {**hook_settings(stage.config or stage.tested).view, **plain}
    if 'SegmentationMap' in settings['type']:  # which writes the priors of a next round, and is shown beside
        settings = dict(type='kgl_mm.LayerCAM', **plain)
    methods = dict(heat=settings)
    if hasattr(head, 'segment'):
        methods['seg'] = dict(type='kgl_mm.SegmentationMap', normalize=None, flips=[])
    return {name: _built(name, settings, model) for name, settings in methods.items()}


def _built(name: str, settings: dict, model: torch.nn.Module) -> Callable:
    head = getattr(model, 'head', None)
    if getattr(head, 'channel', None) != 'given':
        method = build_method(settings, model)
        return lambda batch: method(batch['inputs'])[0].float().cpu().numpy()

    def segment(batch: dict) -> np.ndarray:
        if name == 'heat':  # methods that make maps show a model images alone
            raise UsageError('a model that needs a prior of each image is shown by its segmentation alone')
        with torch.no_grad():
            feats = model.extract_feat(batch['inputs'])
            seg = head.segment(feats, head.prior_of(feats, batch['data_samples']))
        return resize(seg[:, 0].sigmoid(), batch['inputs'].shape[2:])[0].float().cpu().numpy()

    return segment


def _see(model: torch.nn.Module, methods: dict[str, Callable], data: dict) -> tuple[dict, str | None]:
    batch = model.data_preprocessor(pseudo_collate([data]), training=False)
    height, width = (data['data_samples'].get('img_shape') or batch['inputs'].shape[2:])[:2]
    found, reason = {}, None
    for name, method in methods.items():
        try:
            found[name] = method(batch)[:height, :width]  # without what the preprocessor added
        except Exception as error:
            reason = f'A map is missing: {first_line(error)}.'
    return found, reason


def views_of(path: str, maps: dict[str, np.ndarray]) -> dict[str, str | None]:
    """The image and its maps over it, as data URIs; all maps are on one scale, from 0 to 1."""
    image = decode(path)
    if image is None:
        return dict(image=None)
    image = shrunk(image)
    over = {name: embed(overlay(image, np.clip(found, 0, 1)), LARGE) for name, found in maps.items()}
    return dict(image=embed(image, LARGE)) | over

"""The network of an inspector: a model of the mm packages, as it was trained."""

import logging
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from kgl_mm.engine.checkpoint_io import load_from_file, use_safe_loading
from kgl_mm.engine.config import innermost
from kgl_mm.engine.hooks.prior_generation_hook import test_pipeline
from kgl_mm.engine.loading import load_model
from kgl_mm.engine.work_dir import find_run
from kgl_mm.errors import UsageError, first_line
from kgl_mm.inspection import Judge, Source, Threshold
from kgl_mm.models import TorchvisionDetector
from kgl_mm.saliency import AnomalyMap, LayerCAM, SaliencyMethod, SegmentationMap, evidence

from .sight import Sight

LOADER = 'LoadImageFromFile'
KNOWLEDGE = ('LoadMask', 'LoadPrior', 'BinarizePrior')
"""Transforms that read what a new image has not."""
PARTIAL = ('Crop', 'Pad')
"""Parts of the names of transforms that do not show the image whole and alone."""


class TorchNetwork:
    """What an inspector asks of a network: :meth:`prepare` an image, :meth:`run` a batch, and how to :attr:`judge`."""

    def __init__(self, target: Any, checkpoint: str | Path | None, device: str | None) -> None:
        use_safe_loading()
        self.config, self.checkpoint = find_run(target, checkpoint)
        self.device = _device(device)
        saved = load_from_file(str(self.checkpoint), map_location='cpu')
        with DefaultScope.overwrite_default_scope(self.config.get('default_scope', 'mmengine')):
            self.model = load_model(self.config, self.checkpoint, saved, self.device).eval()
            if isinstance(self.model, TorchvisionDetector):
                raise UsageError(
                    f'{self.checkpoint}: a detector of boxes gives no verdict of good or defective; '
                    'tools/test.py draws what it finds'
                )
            self.judge = _judge(self.config, saved, self.model)
            self.loader, self.pipeline = _pipeline(self.config)
        if getattr(getattr(self.model, 'head', None), 'channel', None) == 'given':
            raise UsageError(
                f"{self.checkpoint}: channel='given' needs a prior of each image, which new images have not"
            )
        self.sight = None
        self.method = self._method()
        self._has_warned = self.method is None

    def prepare(self, source: Source, image: np.ndarray) -> dict:
        """An image as the model's preprocessor takes it, by the pipeline of the test."""
        try:
            packed = self.pipeline(self._loaded(source, image))
        except Exception as error:  # whatever a loader or transform of anybody makes of an odd image
            raise UsageError(f'{source.name}: {type(error).__name__} in its pipeline ({first_line(error)})') from error
        if packed is None:
            raise UsageError(f'{source.name}: the pipeline of the test leaves it out')
        return packed

    def _loaded(self, source: Source, image: np.ndarray) -> dict:
        """An image as the test loads it, which in its own way it may do from the file."""
        if settings := {key: value for key, value in self.loader.items() if key in ('color_type', 'imdecode_backend')}:
            flag, backend = settings.get('color_type', 'color'), settings.get('imdecode_backend', 'cv2')
            image = mmcv.imfrombytes(source.content(), flag=flag, backend=backend)
        if self.loader.get('to_float32'):
            image = image.astype(np.float32)
        shape = image.shape[:2]
        return dict(img=image, img_path=source.name, img_shape=shape, ori_shape=shape, sample_idx=0)

    @staticmethod
    def shape(seen: dict) -> tuple[int, ...]:
        return tuple(seen['inputs'].shape)

    def run(self, batch: list[dict], sizes: list[tuple[int, int]]) -> list[tuple[tuple[float, ...], np.ndarray | None]]:
        """Probabilities and map of each image; the images have these sizes, and are seen at a single one."""
        height, width = self.shape(batch[0])[-2:]
        data = self.model.data_preprocessor(pseudo_collate(batch), training=False)
        try:
            samples, maps = self._predict(data['inputs'], data['data_samples'])
        except RuntimeError as error:  # too small for its strides, or too large for the memory
            size = f'{width} x {height}'
            raise UsageError(f'the network cannot take images of {size} pixels ({first_line(error)})') from error
        if maps is None:
            return [(self._probabilities(sample), None) for sample in samples]
        maps = maps[:, :height, :width].float().cpu().numpy()  # without what the preprocessor added
        if self.sight:
            maps = [self.sight.place(heat, size) for heat, size in zip(maps, sizes, strict=True)]
        return [(self._probabilities(sample), heat) for sample, heat in zip(samples, maps, strict=True)]

    def _predict(self, images: torch.Tensor, samples: list) -> tuple[list, torch.Tensor | None]:
        found = []  # the logits of the pass that makes the maps, so that there is only one
        if self.method is not None:
            try:
                maps = self.method.explain(images, target=lambda logits: self._target(logits, found)).maps
                with torch.no_grad():
                    return self.model.head._get_predictions(found[0], samples), maps
            except UsageError as error:
                if not self._has_warned:  # images of another size may have maps
                    _warn(error)
                self._has_warned = True
        with torch.no_grad():
            return self.model.predict(images, samples), None

    def _target(self, logits: torch.Tensor, found: list) -> torch.Tensor:
        found.append(logits.detach())
        return evidence(logits, 'defect' if self.judge.has_good else 'predicted')

    def _probabilities(self, sample) -> tuple[float, ...]:
        values = torch.as_tensor(sample.pred_score).detach().flatten().cpu().double().numpy()
        if not ((values >= 0) & (values <= 1 + 1e-6)).all():
            raise UsageError(f'{self.checkpoint}: gives no probabilities; the training may have diverged')
        if len(values) == 1:
            values = np.array([1 - values[0], values[0]]).clip(0, 1)
        return tuple(values.tolist())

    def _method(self) -> SaliencyMethod | None:
        head = getattr(self.model, 'head', None)
        names = ' '.join(str(step['type']) for step in test_pipeline(self.config))
        try:
            if not hasattr(head, '_get_predictions'):
                raise UsageError(f'{type(head).__name__} gives no logits')
            if 'Random' in names:
                raise UsageError('the pipeline of its test moves images at random')
            if any(part in names for part in PARTIAL):
                moves = [step for step in self.pipeline.transforms if not type(step).__name__.startswith('Pack')]
                self.sight = Sight(moves)
        except UsageError as error:
            _warn(error)
            return None
        if hasattr(head, 'segment'):
            return SegmentationMap(self.model, normalize=None)
        if hasattr(head, 'calibrated'):
            return AnomalyMap(self.model)
        return LayerCAM(self.model, normalize='evidence' if self.judge.has_good else 'max')


def _warn(error: UsageError) -> None:
    print_log(f'Warning: no heat maps ({error}).', logger='current', level=logging.WARNING)


def _device(device: str | None) -> torch.device:
    try:
        chosen = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f'device={device!r}: not there ({first_line(error)})') from error
    return chosen


def _judge(cfg: Config, saved: dict, model: nn.Module) -> Judge:
    """The classes that the training had, what its test calls good, and the threshold in the checkpoint."""
    outputs = getattr(getattr(model, 'head', None), 'num_classes', None)
    classes = ((saved.get('meta') or {}).get('dataset_meta') or {}).get('classes')
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not classes and loader:
        classes = getattr(DATASETS.get(innermost(loader.dataset).type), 'METAINFO', {}).get('classes')
    if not classes or (outputs or 0) not in (0, 1, len(classes)):
        classes = None
    metrics = cfg.get('test_evaluator') or []
    metrics = [metrics] if isinstance(metrics, dict) else metrics
    good = next((metric.get('good') for metric in metrics if metric.get('good')), 'good')
    stored = ((saved.get('message_hub') or {}).get('runtime_info') or {}).get('threshold') or {}
    return Judge(
        tuple(map(str, classes or range(outputs or 2))),
        not classes or classes[0] == good,
        Threshold(stored.get('value', 0.5), bool(stored.get('calibrated')), stored.get('aim')),
    )


def _pipeline(cfg: Config) -> tuple[dict, Compose]:
    """How the test loads an image, and what it does with one that is loaded."""
    steps = [(str(step['type']).rpartition('.')[2], step) for step in test_pipeline(cfg)]
    loaders = [number for number, (name, _) in enumerate(steps) if name == LOADER]
    if not loaders:
        raise UsageError(f'{cfg.filename}: the pipeline of its test has no {LOADER}')
    number = loaders[0]
    return dict(steps[number][1]), Compose([step for name, step in steps[number + 1 :] if name not in KNOWLEDGE])

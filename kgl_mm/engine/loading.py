"""The parts of a config for looking at images without a Runner: a data set, a model, a method."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, MODELS

from kgl_mm.engine.checkpoint_io import load_from_file
from kgl_mm.engine.config import innermost
from kgl_mm.engine.hooks.prior_generation_hook import PriorGenerationHook, test_pipeline
from kgl_mm.engine.stages import READER, writer
from kgl_mm.errors import UsageError, first_line
from kgl_mm.priors.generation import as_tested


def hook_settings(cfg: Config) -> PriorGenerationHook:
    """The ``PriorGenerationHook`` that a config has, or one by default: with the source that its model names."""
    settings = {key: value for key, value in (writer(cfg) or {}).items() if key not in ('type', 'priority')}
    kind = cfg.model.get('type')
    if source := getattr(MODELS.get(kind) if isinstance(kind, str) else kind, 'SOURCE', None):
        settings.setdefault('method', dict(type=source))
    return PriorGenerationHook(**settings)


def load_dataset(cfg: Config, split: str, pipeline: list | None = None) -> BaseDataset:
    """The images of a split, as the test looks at them."""
    loader = cfg.get(f'{split}_dataloader') or (split == 'val' and cfg.get('train_dataloader'))
    settings = dict(innermost(loader.dataset)) if loader else {}
    if not loader or (split == 'val' and not cfg.get('val_dataloader') and 'split' not in settings):
        raise UsageError(f'{cfg.filename}: has no {split}_dataloader')
    if split == 'val' and not cfg.get('val_dataloader'):
        settings['split'] = split
    if 'cache' in settings:
        settings['cache'] = None
    settings['pipeline'] = pipeline or _pipeline(cfg)
    try:
        return as_tested(DATASETS.build(settings), settings['pipeline'])
    except (KeyError, TypeError, FileNotFoundError) as error:
        raise UsageError(f'{cfg.filename}: {first_line(error)}') from error


def _pipeline(cfg: Config) -> list:
    """That of the test; a training without one sees whole images up to where it loads their priors."""
    steps = list(innermost(cfg.train_dataloader.dataset).get('pipeline', [])) if cfg.get('train_dataloader') else []
    names = [step.get('type') for step in steps]
    if READER in names and not cfg.get('test_dataloader') and not cfg.get('val_dataloader'):
        return [*steps[: names.index(READER)], dict(type='kgl_mm.PackDefect')]
    return test_pipeline(cfg)


def load_preprocessor(cfg: Config) -> torch.nn.Module:
    """A model of which there is nothing but what prepares its images, for what looks at them without it."""
    settings = dict(cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {})
    model = torch.nn.Module()
    # itself, since a preprocessor must be told where it is
    preprocessor = MODELS.build(dict(type='ClsDataPreprocessor') | settings)
    model.data_preprocessor = preprocessor.to('cuda' if torch.cuda.is_available() else 'cpu')
    return model


def load_model(
    cfg: Config, checkpoint: Path, saved: dict | None = None, device: torch.device | None = None
) -> torch.nn.Module:
    """The model of a config with the weights of a checkpoint, by default on a GPU where there is one.

    ``saved`` is what the checkpoint holds, where it was read before.
    """
    settings = dict(cfg.model)
    if cfg.get('data_preprocessor'):
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(settings)
    saved = saved or load_from_file(str(checkpoint), map_location='cpu')
    try:
        model.load_state_dict(saved.get('state_dict', saved))
    except (RuntimeError, AttributeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise UsageError(f'{checkpoint}: not a checkpoint of this model ({reason})') from error
    return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu'))

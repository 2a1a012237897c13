"""From a config file and the words of a command line to a resolved, valid Runner config."""

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmengine.config.utils
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS

import kgl_mm
from kgl_mm.errors import UsageError, first_line

# lets `_base_ = ['kgl_mm::_base_/...']` in anybody's config find the configs that travel in the package
mmengine.config.utils.MODULE2PACKAGE.setdefault('kgl_mm', 'kgl_mm')

# what says where and on what a run is made, not what is computed
_RUN_ONLY = (
    'work_dir',
    'launcher',
    'resume',
    'experiment_name',
    'model_wrapper_cfg',
    'env_cfg',
    'log_level',
    'stages',
    'variants',
)
# what PretrainedInit of mmengine takes
_PRETRAINED = {'type', 'checkpoint', 'prefix', 'map_location', '_scope_'}


def find_config(path: str | Path) -> Path:
    """A config by its path, or by its path inside this project from any directory; the suffix may be left out."""
    package = Path(kgl_mm.__file__).parent
    for folder in (Path(), package.parent, package / '.mim', package.parent / 'configs', package / '.mim' / 'configs'):
        for found in (folder / path, folder / f'{path}.py'):
            if found.is_file():
                return found
    raise UsageError(f'{path}: no such config, file or directory here, nor a config of kgl_mm')


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Read a config and lay ``options`` (dotted keys) over it."""
    path = find_config(path)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a Python file, so anything can go wrong in it
        raise UsageError(f'{path}: not a valid config ({type(error).__name__}: {first_line(error)})') from error
    # what was inherited by `kgl_mm::` is built as in our own configs, which name this scope where they mean it
    for part in _dicts(cfg._cfg_dict):
        if part.get('_scope_') == 'kgl_mm':
            del part['_scope_']
    if options:
        try:
            cfg.merge_from_dict(options)
        except (KeyError, TypeError, IndexError, AssertionError) as error:
            raise UsageError(f'--cfg-options {" ".join(options)}: {first_line(error)}') from error
    keep_weights_of_files_alone(cfg)
    if 'model' not in cfg:
        raise UsageError(f'{path}: not the config of a training, since it has no model')
    return cfg


def keep_weights_of_files_alone(cfg: Config) -> None:
    """Weights of a file, laid over random ones, keep nothing of how those were drawn."""
    for part in _dicts(cfg._cfg_dict):
        if part.get('type') == 'Pretrained':
            for key in part.keys() - _PRETRAINED:
                del part[key]


def _dicts(value: Any) -> Iterator[dict]:
    """All dicts in it, each before those inside."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _dicts(part)


def set_data(cfg: Config, **settings: Any) -> None:
    """Give the data sets of all splits the same settings, and a validation part where one is asked for.

    ``set_data(cfg, fold=1, val_fraction=0.2)`` sets both on every data set; with a validation part there is then a
    validation loop, made of the test loop's parts, whose metric chooses the threshold, by default for the best F1.
    ``scale=(640, 480)``, width and height, or one number for both, is what every stage resizes images to.
    """
    if 'scale' in settings:
        _set_scale(cfg, settings.pop('scale'))
    for split in ('train', 'val', 'test'):
        if loader := cfg.get(f'{split}_dataloader'):
            innermost(loader.dataset).update(settings)
    if settings.get('val_fraction') and not cfg.get('val_dataloader'):
        if not cfg.get('test_dataloader'):
            raise UsageError(
                f'val_fraction={settings["val_fraction"]}: this config has no test whose parts it could take'
            )
        asked = cfg.get('val_evaluator') or {}  # --cfg-options val_evaluator.threshold_aim=...
        cfg.val_dataloader = copy.deepcopy(cfg.test_dataloader)
        innermost(cfg.val_dataloader.dataset).split = 'val'
        cfg.val_evaluator = copy.deepcopy(cfg.test_evaluator)
        cfg.val_cfg = dict()
        for metric in [cfg.val_evaluator] if isinstance(cfg.val_evaluator, dict) else cfg.val_evaluator:
            if metric['type'] == 'kgl_mm.DefectMetric':
                metric.update(dict(threshold_aim='f1') | asked)
    if settings.get('labels') == 'kind':
        _fit_outputs(cfg)


def _set_scale(cfg: Config, scale: int | Sequence[int]) -> None:
    sides = tuple(scale) if isinstance(scale, list | tuple) else (scale, scale)
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise UsageError(f'scale={scale!r}: not WIDTH,HEIGHT in pixels, nor one number for both')
    used = [part for key, part in cfg._cfg_dict.items() if key.endswith('_dataloader') or key in ('stages', 'variants')]
    steps = [part for part in _dicts(used) if str(part.get('type')).rpartition('.')[2] == 'Resize']
    there = {str(step.get('scale')) for step in steps}
    if len(there) != 1:
        sizes = f'images of several sizes, {" and ".join(sorted(there))}: set each' if there else 'no Resize'
        raise UsageError(f'scale={scale}: this config has {sizes}')
    for step in steps:
        step['scale'] = sides


def _fit_outputs(cfg: Config) -> None:
    """As many outputs, in every stage, as there are folders of images."""
    settings = dict(innermost(cfg.train_dataloader.dataset), pipeline=[], cache=None)
    try:
        dataset = DATASETS.build(settings)
    except TypeError as error:
        what = 'has no kinds' if "'labels'" in str(error) else 'cannot be built'
        raise UsageError(f'labels=kind: {settings["type"]} {what} ({first_line(error)})') from error
    number = len(dataset.metainfo['classes'])
    for part in (cfg, *(cfg.get('stages') or {}).values()):
        head = (part.get('model') or {}).get('head') or {}
        if 'num_classes' in head:
            head['num_classes'] = number


def without_validation(cfg: Config) -> None:
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None


def innermost(dataset: ConfigDict) -> ConfigDict:
    """The data set inside its wrappers."""
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def config_hash(cfg: Config) -> str:
    """Twelve hex digits that two configs share if and only if they compute the same thing."""
    facts = {key: value for key, value in cfg.to_dict().items() if key not in _RUN_ONLY}
    facts.get('default_hooks', {}).pop('record', None)
    for key, loader in facts.items():
        if key.endswith('_dataloader') and loader:
            loader = dict(loader, dataset=_without(loader['dataset'], 'cache', 'data_root'))
            facts[key] = _without(loader, 'num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without(settings: dict, *keys: str) -> dict:
    return {key: value for key, value in settings.items() if key not in keys}

"""What a run consists of: the config of each stage, and the priors that pass from one to the next.

A config is a valid Runner config, that of its last stage. ``stages = dict(NAME=delta, ...)`` beside it names all of
them, in order; each is the config with its delta laid over. A config without ``stages`` has one, ``stage1``. Two more
fields add stages to those:

``rounds = N``
    Behind the last stage, NAME_round2 and so on: the same again, with the segmentation of the one before as priors.
``crossfit = K``
    Before the last stage, K times the first one, each trained without one part of the images, whose priors it writes.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from kgl_mm.engine.config import innermost, keep_weights_of_files_alone
from kgl_mm.errors import UsageError, first_line
from kgl_mm.files import read_json

WRITER = 'kgl_mm.PriorGenerationHook'
READER = 'kgl_mm.LoadPrior'
ALONE = '_unguided'
MAX_AREA = 0.1
"""Share of an image that a later round may mark, unless ``BinarizePrior`` has its own limit: each one marks more."""


def stages_of(cfg: Config) -> dict[str, Config]:
    """The config of each stage by its name, in order."""
    deltas = cfg.get('stages') or dict(stage1={})
    if not isinstance(deltas, dict) or not all(isinstance(delta, dict | None) for delta in deltas.values()):
        raise UsageError('stages: write them as dict(stage1=dict(...), stage2=dict(...)), each a delta on the config')
    configs = {}
    for name, delta in deltas.items():
        merged = copy.deepcopy(cfg)
        for field in ('stages', 'rounds', 'crossfit', 'unguided'):
            merged.pop(field, None)
        merged.merge_from_dict(copy.deepcopy(dict(delta or {})))
        _forget_deletions(merged)
        keep_weights_of_files_alone(merged)
        configs[name] = merged
        _refuse_one_layer_twice(name, merged)
    configs = _with_parts(configs, cfg.get('crossfit', 0))
    if cfg.get('unguided'):
        last = list(configs)[-1]
        guided = configs.pop(last)
        configs |= {f'{last}{ALONE}': _without_guidance(last, guided), last: guided}
    configs = _with_rounds(configs, cfg.get('rounds', 1))
    for name, config in configs.items():
        _check_given(name, config)
    return configs


def overruled(cfg: Config, options: dict) -> dict[str, str]:
    """Those of the dotted ``options`` that do not reach a stage which sets that field itself, as options that do.

    >>> cfg = Config(dict(stages=dict(first=dict(train_cfg=dict(max_epochs=9)), second={})))
    >>> overruled(cfg, {'train_cfg.max_epochs': 3, 'load_from': 'x'})
    {'train_cfg.max_epochs': 'stages.first.train_cfg.max_epochs=9'}
    >>> overruled(Config(dict(stages=dict(first=dict(load_from=None)))), {'load_from': 'x'})
    {'load_from': 'stages.first.load_from=None'}
    """
    stages = cfg.get('stages')
    found = {}
    for name, delta in stages.items() if isinstance(stages, dict) else ():
        for key, value in options.items():
            own = _field(delta, key)
            if own not in (..., value) and not isinstance(own, dict):
                found[key] = f'stages.{name}.{key}={own}'
    return found


def _field(settings: Any, key: str) -> Any:
    """What is there under a dotted key, numbers being places in a list; an ellipsis where nothing is."""
    for part in key.split('.'):
        if isinstance(settings, list | tuple) and part.isdigit():
            settings = settings[int(part)] if int(part) < len(settings) else ...
        else:
            settings = settings.get(part, ...) if isinstance(settings, dict) else ...
    return settings


def _forget_deletions(cfg: dict) -> None:
    """Where there is nothing to delete, mmengine leaves ``_delete_`` behind."""
    cfg.pop('_delete_', None)
    for value in cfg.values():
        if isinstance(value, dict):
            _forget_deletions(value)


def readers(cfg: Config, split: str = 'train') -> list[dict]:
    """The ``LoadPrior`` steps of a split that have no store of their own: those of training get an earlier stage's."""
    return [step for step in _pipeline(cfg, split) if step.get('type') == READER and not step.get('store')]


def stores_read(cfg: Config) -> list[str]:
    """The stores that the ``LoadPrior`` steps of a training were given."""
    stores = [step.get('store') or [] for step in _pipeline(cfg, 'train') if step.get('type') == READER]
    return [str(path) for store in stores for path in ([store] if isinstance(store, str) else store)]


def is_part(cfg: Config) -> bool:
    """Whether it is one of the parts of a cross-fitted run, which has not seen the images that it writes maps of."""
    loader = cfg.get('train_dataloader')
    return bool(loader and innermost(loader.dataset).get('leave_out'))


def candidates_of(cfg: Config) -> list[str]:
    """The names of those stages of which validation data choose one."""
    rounds = rounds_of(cfg)
    return [f'{rounds[0]}{ALONE}', *rounds] if cfg.get('unguided') else rounds


def rounds_of(cfg: Config) -> list[str]:
    """The names of the last stage and of the rounds that repeat it."""
    last = list(cfg.get('stages') or dict(stage1={}))[-1]
    return [last, *(f'{last}_round{number}' for number in range(2, cfg.get('rounds', 1) + 1))]


def writers(cfg: Config) -> list[dict]:
    """The hooks of a config that write priors, each a layer of the same store."""
    return _hooks(cfg, WRITER)


def _hooks(cfg: Config, kind: str) -> list[dict]:
    return [hook for hook in _all_hooks(cfg) if hook.get('type') == kind]


def _all_hooks(cfg: Config) -> list[dict]:
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    return [hook for hook in hooks if isinstance(hook, dict)]


def writer(cfg: Config) -> dict | None:
    """The first of them, where there is any."""
    return next(iter(writers(cfg)), None)


def warnings_of(cfg: Config) -> list[str]:
    """What a config that inherits another one may have lost or left behind without meaning to."""
    found = []
    model = cfg.get('model') or {}
    guided = (model.get('head') or {}).get('type') == 'kgl_mm.KnowledgeInjectionHead'
    needed = dict(
        GuidanceHook=guided and any(step.get('type') == READER for step in _pipeline(cfg, 'train')),
        CalibrationHook='TeacherStudentDetector' in str(model.get('type')),
    )
    hooks = [str(hook.get('type')) for hook in _all_hooks(cfg)]
    for name in (name for name, is_needed in needed.items() if is_needed):
        if not any(name in hook for hook in hooks):
            found.append(f'there is no kgl_mm.{name}: in a list of your own, custom_hooks=[*_base_.custom_hooks, ...]')
    sizes = [
        [
            _size(step['scale'])
            for step in _pipeline(cfg, split)
            if str(step.get('type')).endswith('Resize') and step.get('scale')
        ]
        for split in ('train', 'test')
    ]
    if all(len(scales) == 1 for scales in sizes) and sizes[0] != sizes[1]:
        (seen,), (tested,) = sizes
        found.append(f'images are {seen} in training and {tested} in the test; a stage may have a pipeline of its own')
    return found


def _size(scale: int | Sequence[int]) -> tuple[int, ...]:
    return (scale, scale) if isinstance(scale, int) else tuple(scale)


def stores_for(name: str, stages: dict[str, Config], root: Path) -> list[Path]:
    """Where the priors are that a stage reads: those of cross-fitted parts, else of the last stage that writes some."""
    before = list(stages)[: list(stages).index(name)]
    writing = [stage for stage in before if writer(stages[stage])]
    chosen = writing[-1:]
    if chosen and is_part(stages[chosen[0]]):
        chosen = [stage for stage in writing if is_part(stages[stage])]
    for stage in chosen:
        layers = [hook.get('layer', 'evidence') for hook in writers(stages[stage])]
        if wrong := {step.get('layer', 'evidence') for step in readers(stages[name])} - set(layers):
            there = ' and '.join(map(repr, layers))
            raise UsageError(f'layer={min(wrong)!r}: LoadPrior of {name} reads what {stage} writes, which is {there}')
    return [root / stage / writer(stages[stage]).get('out', 'priors') for stage in chosen]


def latest_checkpoint(stage_dir: Path) -> Path | None:
    """The newest whole checkpoint of a stage: what the pointer names, else the highest epoch there is."""
    pointer = stage_dir / 'last_checkpoint'
    named = stage_dir / Path(pointer.read_text().strip()).name if pointer.exists() else None
    if named and named.is_file():
        return named
    found = [path for path in stage_dir.glob('epoch_*.pth') if path.stem[6:].isdigit()]
    return max(found, key=lambda path: int(path.stem[6:]), default=None)


def best_checkpoint(runner: Runner) -> Path | None:
    """The best one that a training keeps (by the first of several metrics), wherever its directory is now."""
    known = runner.message_hub.runtime_info
    best = next((path for key, path in known.items() if key.startswith('best_ckpt') and path), None)
    for path in (Path(runner.work_dir, Path(best).name), Path(best)) if best else ():
        if path.is_file():
            return path
    return None


def finished(root: Path) -> dict[str, Path]:
    """The checkpoint that was tested, of each stage of a run that is done."""
    stages = read_json(root / 'state.json').get('stages', {})
    paths = {name: root / done['checkpoint'] for name, done in stages.items() if done.get('done')}
    return {name: path for name, path in paths.items() if path.is_file()}


def stage_checkpoint(stage_dir: Path) -> Path | None:
    """Of a stage's directory the checkpoint that was tested, else the newest."""
    newest = latest_checkpoint(stage_dir)
    return newest and finished(stage_dir.absolute().parent).get(stage_dir.absolute().name, newest)


def find_checkpoint(cfg: Config, checkpoint: str | Path) -> tuple[Path, str, Config]:
    """A checkpoint, or that of a stage's directory, with the name and the config of its stage."""
    path = Path(checkpoint)
    if path.is_dir():
        if done := finished(path):
            raise UsageError(f'{path}: the work directory of a run; name a stage of it, such as {path / [*done][-1]}')
        path = stage_checkpoint(path) or path / 'epoch_*.pth'
    if not path.is_file():
        raise UsageError(f'{path}: no such checkpoint')
    stages = stages_of(cfg)
    name = path.resolve().parent.name
    name = name if name in stages else list(stages)[-1]
    return path, name, stages[name]


def refuse_empty_parts(stages: dict[str, Config]) -> None:
    """Say it before any training where there are more cross-fitted parts than the images can fill."""
    part = next((cfg for cfg in stages.values() if is_part(cfg)), None)
    if part:
        settings = dict(innermost(part.train_dataloader.dataset), pipeline=[], lazy_init=True)
        try:
            with DefaultScope.overwrite_default_scope(part.get('default_scope', 'mmengine')):
                DATASETS.build(settings).load_data_list()  # which looks at all of them
        except (KeyError, TypeError) as error:
            raise UsageError(f'crossfit: {settings["type"]} cannot leave a part out ({first_line(error)})') from error


def _refuse_one_layer_twice(name: str, cfg: Config) -> None:
    written = [(hook.get('out', 'priors'), hook.get('layer', 'evidence')) for hook in writers(cfg)]
    if twice := {place for place in written if written.count(place) > 1}:
        out, layer = min(twice)
        raise UsageError(f'{name}: several PriorGenerationHooks write {layer!r} into {out}; give each its own layer')


def _check_given(name: str, cfg: Config) -> None:
    """A head with ``channel='given'`` needs a prior wherever it looks at an image."""
    if ((cfg.get('model') or {}).get('head') or {}).get('channel') != 'given':
        return
    if writer(cfg):
        raise UsageError(
            f"channel='given': {name} cannot write priors for another round, since it needs one itself; set rounds=1"
        )
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader') and not any(step.get('type') == READER for step in _pipeline(cfg, split)):
            raise UsageError(
                f"channel='given': {name} needs the priors of the {split} images too: write them "
                f"(tools/generate_priors.py --split {split} --out DIR) and put dict(type='{READER}', store=DIR) into "
                f'{split}_dataloader.dataset.pipeline of {name}'
            )


def _pipeline(cfg: Config, split: str) -> list:
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        return []
    parts = innermost(loader.dataset)
    if 'datasets' in parts:  # several as one
        parts = parts.datasets.values() if isinstance(parts.datasets, dict) else parts.datasets
        return [step for part in parts for step in innermost(part).get('pipeline', [])]
    return parts.get('pipeline', [])


def _with_parts(configs: dict[str, Config], parts: int) -> dict[str, Config]:
    if not parts:
        return configs
    names = list(configs)
    test = configs[names[0]].get('test_dataloader')
    if not isinstance(parts, int) or parts is True or parts < 2:
        raise UsageError(f'crossfit={parts}: not a whole number of 2 or more, nor 0 for none')
    if len(names) < 2 or not writer(configs[names[0]]) or not test:
        raise UsageError(f'crossfit={parts}: it takes a first stage that is tested and writes priors for another')
    result = {name: configs[name] for name in names[:-1]}
    for part in range(parts):
        config = copy.deepcopy(configs[names[0]])
        innermost(config.train_dataloader.dataset).leave_out = (part, parts)
        for hook in (*writers(config), *_hooks(config, 'kgl_mm.CalibrationHook')):
            hook.setdefault('pipeline', innermost(config.test_dataloader.dataset).pipeline)
        for split in ('val', 'test'):
            for field in ('dataloader', 'evaluator', 'cfg'):
                config[f'{split}_{field}'] = None
        result[f'{names[0]}_part{part + 1}'] = config
    return {**result, names[-1]: configs[names[-1]]}


def _with_rounds(configs: dict[str, Config], rounds: int) -> dict[str, Config]:
    if not isinstance(rounds, int) or rounds is True or rounds < 1:
        raise UsageError(f'rounds={rounds}: not a whole number of 1 or more')
    if rounds == 1:
        return configs
    first, last = next(iter(configs)), list(configs)[-1]
    if not readers(configs[last]) or not writer(configs[first]):
        raise UsageError(
            f'rounds={rounds}: the last stage must read priors (kgl_mm.LoadPrior) that an earlier one writes'
        )
    settings = writer(configs[first])
    again = copy.deepcopy(configs[last])
    for step in innermost(again.train_dataloader.dataset).pipeline:
        if step.get('type') == 'kgl_mm.BinarizePrior' and step.get('max_area') is None:
            step.max_area = MAX_AREA
    writes = {**settings, 'method': dict(type='kgl_mm.SegmentationMap')}
    names = [last, *(f'{last}_round{number}' for number in range(2, rounds + 1))]
    for name in names:
        configs[name] = copy.deepcopy(configs[last] if name == last else again)
    for name in names[:-1]:
        configs[name].custom_hooks = [*(configs[name].get('custom_hooks') or []), copy.deepcopy(writes)]
    return configs


def _without_guidance(name: str, cfg: Config) -> Config:
    """A stage with everything that a guided one has, but for what it would learn from priors."""
    head = cfg.model.get('head') or {}
    guided = any(step.get('type') == READER for step in _pipeline(cfg, 'train'))
    if not guided or head.get('type') != 'kgl_mm.KnowledgeInjectionHead':
        raise UsageError(f'unguided=True: {name} has no KnowledgeInjectionHead that priors guide')
    cfg = copy.deepcopy(cfg)
    loss = dict(head.get('loss') or dict(type='kgl_mm.KnowledgeGuidedLoss'), seg_weight=0)
    cfg.model.head.update(loss=loss, channel='none')
    return cfg

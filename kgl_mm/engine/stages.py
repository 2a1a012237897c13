"""A run of one or more stages, one Runner each, in one work directory, that goes on where it was stopped.

A config is a valid Runner config, that of its last stage. ``stages = [dict(name=..., cfg=delta), ...]`` beside it
names all of them; each is the config with its delta laid over. A config without ``stages`` has one, ``stage1``.

::

    WORK_DIR/state.json      what is done, and the fingerprint of the config
    WORK_DIR/metrics.json    {stage: {split: {...}}}
    WORK_DIR/STAGE/          checkpoints, logs, scores and pictures of a stage
"""

import copy
import logging
import os
import time
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process, master_only
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from kgl_mm.engine.checkpoint_io import use_safe_loading
from kgl_mm.engine.config import config_hash
from kgl_mm.errors import UsageError, first_line
from kgl_mm.files import read_json, write_json


def stages_of(cfg: Config) -> dict[str, Config]:
    """The config of each stage by its name, in order."""
    configs = {}
    for stage in cfg.get('stages') or [dict(name='stage1', cfg={})]:
        merged = copy.deepcopy(cfg)
        merged.pop('stages', None)
        merged.merge_from_dict(dict(stage['cfg']))
        configs[stage['name']] = merged
    return configs


def run_stages(cfg: Config, resume: bool = False) -> dict:
    """Train and test every stage in ``cfg.work_dir``; returns what ``metrics.json`` then holds."""
    use_safe_loading()
    root = Path(cfg.work_dir)
    state = _begin(cfg, root, resume)
    for name, stage in stages_of(cfg).items():
        if state['stages'].get(name, {}).get('done'):
            print_log(f'{name} is done already.', logger='current')
            continue
        checkpoint = _run_stage(root, name, stage, resume)
        state['stages'][name] = dict(done=True, checkpoint=os.path.relpath(checkpoint, root))
        _write_state(root, state)
        barrier()
    return read_json(root / 'metrics.json')


def latest_checkpoint(stage_dir: Path) -> Path | None:
    """The newest whole checkpoint of a stage: what the pointer names, else the highest epoch there is."""
    pointer = stage_dir / 'last_checkpoint'
    named = stage_dir / Path(pointer.read_text().strip()).name if pointer.exists() else None
    if named and named.is_file():
        return named
    found = [path for path in stage_dir.glob('epoch_*.pth') if path.stem[6:].isdigit()]
    return max(found, key=lambda path: int(path.stem[6:]), default=None)


def find_checkpoint(cfg: Config, checkpoint: str | Path) -> tuple[Path, str, Config]:
    """A checkpoint, or the newest one of a stage's directory, with the name and the config of its stage."""
    path = Path(checkpoint)
    if path.is_dir():
        path = latest_checkpoint(path) or path / 'epoch_*.pth'
    if not path.is_file():
        raise UsageError(f'{path}: no such checkpoint')
    stages = stages_of(cfg)
    name = path.resolve().parent.name
    name = name if name in stages else list(stages)[-1]
    return path, name, stages[name]


def record_in(cfg: Config, name: str, root: Path) -> None:
    """Have the metrics of a stage written into ``root``, under the hash of its config as it is now."""
    record = dict(type='kgl_mm.RecordHook', stage=name, file=str(root / 'metrics.json'), config=config_hash(cfg))
    cfg.merge_from_dict({'default_hooks.record': record})


def build_runner(cfg: Config) -> Runner:
    """Build the runner with all its parts, so that what is wrong shows before the first step."""
    try:
        runner = Runner.from_cfg(cfg)
        for part in ('train', 'val', 'test'):
            if cfg.get(f'{part}_dataloader'):
                getattr(runner, f'{part}_loop')
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, FileNotFoundError) as error:
        raise UsageError(f'{cfg.filename or "config"}: {first_line(error)}') from error
    _compare_classes(runner)
    return runner


def _compare_classes(runner: Runner) -> None:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    outputs = getattr(getattr(model, 'head', None), 'num_classes', None)
    for part in ('train', 'val', 'test'):
        if not runner.cfg.get(f'{part}_dataloader'):
            continue
        dataset = getattr(runner, f'{part}_dataloader').dataset
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        if classes and outputs and len(classes) != outputs:
            raise UsageError(
                f'the {part} data set has {len(classes)} classes ({", ".join(classes)}), the head {outputs}: '
                f'--cfg-options model.head.num_classes={len(classes)}'
            )


def _begin(cfg: Config, root: Path, resume: bool) -> dict:
    fingerprint = config_hash(cfg)
    state = read_json(root / 'state.json')
    if state and resume:
        if state['config'] != fingerprint:
            print_log(
                f'The config differs from the one that {root} was begun with ({fingerprint}, then {state["config"]}): '
                'stages that are done stay as they are.',
                logger='current',
                level=logging.WARNING,
            )
        return state
    barrier()  # every process has looked before the first one changes what is there
    state = dict(config=fingerprint, stages={})
    if not resume:
        _put_aside(root)
    _write_state(root, state)
    barrier()
    return state


@master_only
def _put_aside(root: Path) -> None:
    """Move what an earlier run left, so that nothing of it is lost or taken for this one's."""
    left = [path for path in root.glob('*') if not path.name.startswith('previous-')]
    if left:
        previous = root / time.strftime('previous-%Y%m%d-%H%M%S')
        previous.mkdir()
        for path in left:
            path.rename(previous / path.name)
        print_log(f'What was in {root} is now in {previous}.', logger='current')


@master_only
def _write_state(root: Path, state: dict) -> None:
    write_json(root / 'state.json', state)


def _run_stage(root: Path, name: str, cfg: Config, resume: bool) -> Path:
    folder = root / name
    cfg.work_dir = str(folder)
    cfg.experiment_name = f'{name}-{time.time_ns()}'
    record_in(cfg, name, root)
    checkpoint = latest_checkpoint(folder) if resume else None
    if checkpoint:
        cfg.resume, cfg.load_from = True, str(checkpoint)
    runner = build_runner(cfg)
    runner.train()
    barrier()
    best = runner.message_hub.runtime_info.get('best_ckpt')
    tested = folder / Path(best).name if best else latest_checkpoint(folder)
    if tested is None:
        raise UsageError(f'{folder}: no checkpoint was written; let default_hooks.checkpoint save the last epoch')
    runner.load_checkpoint(str(tested))
    if cfg.get('test_dataloader'):
        runner.test()
    if is_main_process():
        runner.visualizer.close()
    return tested

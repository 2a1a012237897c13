"""A run of one or more stages, one Runner each, in one work directory, that goes on where it was stopped.

::

    WORK_DIR/state.json      which stages are done, and the fingerprint of the config of each
    WORK_DIR/metrics.json    {stage: {split: {...}}}
    WORK_DIR/STAGE/          checkpoints, logs, scores, pictures and priors of a stage
"""

import itertools
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import barrier, is_main_process, master_only
from mmengine.hooks import LoggerHook
from mmengine.logging import print_log
from mmengine.registry import DATASETS, HOOKS, MODELS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model
from torch import nn
from torch.utils.data import Dataset

from kgl_mm.datasets.binding import binarizers
from kgl_mm.engine.checkpoint_io import use_safe_loading
from kgl_mm.engine.config import config_hash, innermost
from kgl_mm.engine.hooks.guidance_hook import refuse_what_moves_batches
from kgl_mm.engine.stages import (
    READER,
    best_checkpoint,
    candidates_of,
    latest_checkpoint,
    readers,
    refuse_empty_parts,
    rounds_of,
    stages_of,
    stores_for,
    warnings_of,
)
from kgl_mm.errors import UsageError, first_line
from kgl_mm.files import LOCK, alone_in, read_json, write_json
from kgl_mm.models.heads import KnowledgeInjectionHead
from kgl_mm.priors import PriorStore


def run_stages(cfg: Config, resume: bool = False, only: str | None = None, priors: str | Path | None = None) -> dict:
    """Train and test the stages in ``cfg.work_dir``; returns what ``metrics.json`` then holds.

    Args:
        cfg: see :mod:`kgl_mm.engine.stages`.
        resume: go on where the run was stopped, in or between stages.
        only: a stage, by name or by number from 1; what it needs of an earlier one must be there.
        priors: a store to read instead of that of an earlier stage; then only the stages that read it are run.
    """
    use_safe_loading()
    root = Path(cfg.work_dir)
    stages = stages_of(cfg)
    chosen = _chosen(cfg, stages, only, priors)
    if cfg.get('unguided') and len({*chosen} & {*candidates_of(cfg)}) > 1 and not cfg.get('val_dataloader'):
        raise UsageError(
            'unguided=True: validation data choose, and there are none: --data-options val_fraction=0.2, or '
            '--cfg-options unguided=False'
        )
    fingerprints = {}
    for name in chosen:
        stores = _stores(name, stages, chosen, root, priors)
        fingerprints[name] = config_hash(stages[name])  # before it is told where the priors are, which says nothing
        record_in(stages[name], name, root, fingerprints[name])
        for step in readers(stages[name]):
            step.store = stores if len(stores) > 1 else stores[0]
    for name in chosen:  # what is wrong with a later one shows before the first one is trained
        rehearse(stages[name])
        for sentence in warnings_of(stages[name]):
            print_log(f'Warning: {name}: {sentence}.', logger='current', level=logging.WARNING)
    refuse_empty_parts({name: stages[name] for name in chosen})
    with alone_in(root) if is_main_process() else nullcontext():
        state = _begin(list(stages), fingerprints, root, resume, priors)
        _run(cfg, {name: stages[name] for name in chosen}, state, root, resume, only)
    return read_json(root / 'metrics.json')


def _run(cfg: Config, stages: dict[str, Config], state: dict, root: Path, resume: bool, only: str | None) -> None:
    rounds = Rounds(root)
    for name, stage in stages.items():
        if not rounds.goes_on and name in rounds_of(cfg):
            print_log(f'{name} is left out: a round before it was no better on validation data.', logger='current')
            continue
        if _is_done(root, state['stages'][name]):
            print_log(f'{name} is done already.', logger='current')
        else:
            state['stages'][name] |= _run_stage(root, name, stage, resume)
            state['stages'][name]['done'] = True
            _write_state(root, state)
            barrier()
        if name in candidates_of(cfg):
            rounds.add(name)
    done = [name for name in candidates_of(cfg) if _is_done(root, state['stages'].get(name, {}))]
    if len(done) > 1:
        state['best'] = _best_of(root, done)
        _write_state(root, state)


def _is_done(root: Path, stage: dict) -> bool:
    """Whether a stage was finished, and what it left was not moved away by a run that was killed before it began."""
    return stage.get('done', False) and (root / stage['checkpoint']).is_file()


class Rounds:
    """Which of the last stages is best on validation data, and whether another round is worth it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.goes_on = True
        self.best = None
        self._score = None

    def add(self, name: str) -> None:
        """Without validation data the last one is as good as any."""
        found = read_json(self.root / 'metrics.json').get(name, {}).get('val', {})
        score = found.get('AP', found.get('macro_AP'))
        if self._score is None or score is None or score > self._score:
            self.best, self._score = name, score
        else:
            self.goes_on = False


def _best_of(root: Path, names: list[str]) -> str:
    """Of the last stages, whenever they were run, the one that validation data prefer."""
    rounds = Rounds(root)
    for name in names:
        rounds.add(name)
    return rounds.best


def _chosen(cfg: Config, stages: dict[str, Config], only: str | None, priors: str | Path | None) -> list[str]:
    names = list(cfg.get('stages') or stages)  # numbers count what the config itself names
    if only is not None:
        name = names[int(only) - 1] if only.isdigit() and 0 < int(only) <= len(names) else only
        if name not in stages:
            raise UsageError(f'--stage {only}: the stages of this config are {", ".join(stages)}')
        return [name]
    if priors is None:
        return list(stages)
    reading = [name for name in stages if readers(stages[name])]
    if not reading:
        raise UsageError(f'--priors {priors}: no stage of this config reads priors (kgl_mm.LoadPrior)')
    return reading


def _stores(name: str, stages: dict, chosen: list[str], root: Path, priors: str | Path | None) -> list[str]:
    """The stores that a stage reads, which are there or will be."""
    if not readers(stages[name]):
        if priors and chosen == [name]:
            raise UsageError(f'--priors {priors}: {name} reads no priors')
        return []
    if priors and '_round' not in name:
        store = PriorStore(priors)
        if not store.layers():
            raise UsageError(f'--priors {priors}: there is no store of priors, which has a store.json')
        stages[name].priors = {layer: store.source(layer) for layer in store.layers()}
        return [str(priors)]
    places = stores_for(name, stages, root)
    if not places:
        raise UsageError(f'{name} reads priors, and no stage before it writes any: pass --priors PATH')
    for place in places:
        if place.parent.name not in chosen and not PriorStore(place).layers():
            raise UsageError(
                f'{name} reads the priors of {place.parent.name}, and there are none in {place}: run that stage first, '
                'or pass --priors PATH'
            )
    return [str(place) for place in places]


def record_in(cfg: Config, name: str, root: Path, fingerprint: str | None = None) -> None:
    """Have the metrics of a stage written into ``root``, under a hash: by default of its config as it is now."""
    fingerprint = fingerprint or config_hash(cfg)
    record = dict(type='kgl_mm.RecordHook', stage=name, file=str(root / 'metrics.json'), config=fingerprint)
    cfg.merge_from_dict({'default_hooks.record': record})


def build_runner(cfg: Config) -> Runner:
    """Build the runner with all its parts, so that what is wrong shows before the first step."""
    with _naming_the_config(cfg):
        runner = Runner.from_cfg(cfg)
        for part in ('train', 'val', 'test'):
            if cfg.get(f'{part}_dataloader'):
                getattr(runner, f'{part}_loop')
    for part in ('train', 'val', 'test'):
        if cfg.get(f'{part}_dataloader'):
            _compare_classes(get_ori_model(runner.model), getattr(runner, f'{part}_dataloader').dataset, part)
    return runner


@contextmanager
def _naming_the_config(cfg: Config) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, FileNotFoundError, RuntimeError) as error:
        raise UsageError(f'{cfg.filename or "config"}: {first_line(error)}') from error


def _compare_classes(model: nn.Module, dataset: Dataset, part: str) -> None:
    outputs = getattr(getattr(model, 'head', None), 'num_classes', None)
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    found = getattr(model, 'num_classes', None)  # of a detector of boxes
    if classes and found and len(classes) != found:
        raise UsageError(
            f'the {part} data set has {len(classes)} classes ({", ".join(classes)}), the detector {found}: '
            f'--cfg-options model.num_classes={len(classes)}'
        )
    if classes and len(classes) != 2 and hasattr(getattr(model, 'head', None), 'calibrate'):
        raise UsageError(
            f'the {part} data set has {len(classes)} classes ({", ".join(classes)}), and a detector of good parts '
            'tells good from defective: leave labels=kind out'
        )
    if classes and outputs and len(classes) != outputs:
        raise UsageError(
            f'the {part} data set has {len(classes)} classes ({", ".join(classes)}), the head {outputs}: '
            f'--cfg-options model.head.num_classes={len(classes)}, and of stage 1 '
            f'stages.stage1.model.head.num_classes={len(classes)} where the config has several'
        )


def rehearse(cfg: Config) -> None:
    """Build what a stage is made of, as far as it needs no priors, so that what is wrong shows before any training."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')), _naming_the_config(cfg):
        settings = dict(cfg.model)
        if cfg.get('data_preprocessor'):
            settings.setdefault('data_preprocessor', cfg.data_preprocessor)
        model = MODELS.build(settings)
        for hook in cfg.get('custom_hooks') or []:
            if isinstance(hook, dict):
                HOOKS.build({key: value for key, value in hook.items() if key != 'priority'})
        if not any(step.get('type') == READER for step in innermost(cfg.train_dataloader.dataset).get('pipeline', [])):
            return
        refuse_what_moves_batches(model)
        _compare_channels(model)
        for split in ('val', 'test'):
            if readers(cfg, split):
                raise UsageError(
                    f'LoadPrior in the {split} pipeline: write the maps of these images (tools/generate_priors.py '
                    f'--split {split} --out DIR) and set its store'
                )
        settings = dict(innermost(cfg.train_dataloader.dataset))
        kind = DATASETS.get(settings['type'])
        if kind is None or issubclass(kind, BaseDataset):  # of what is not there, building says so
            dataset = DATASETS.build(dict(settings, lazy_init=True))
            for target in binarizers(dataset):
                target.bind(dataset.load_data_list(), getattr(dataset, 'seed', 0))
            _compare_classes(model, dataset, 'train')


def draw_parts(cfg: Config) -> None:
    """Have a data set of this package look at its images: of a folder that was never seen, it draws the parts."""
    settings = dict(innermost(cfg.train_dataloader.dataset), lazy_init=True)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')), _naming_the_config(cfg):
        if str(settings['type']).startswith('kgl_mm.'):
            DATASETS.build(settings).load_data_list()


def _compare_channels(model: nn.Module) -> None:
    """Whether the head fits the backbone, where it can be tried."""
    if not isinstance(head := getattr(model, 'head', None), KnowledgeInjectionHead):
        return
    try:
        with torch.no_grad():
            feats = model.eval().extract_feat(torch.zeros(1, 3, 64, 64))
    except Exception:  # not every backbone takes images of any size
        return
    head.pre_logits(feats)


def _begin(names: list[str], fingerprints: dict[str, str], root: Path, resume: bool, priors: str | Path | None) -> dict:
    """What was done already; where nothing is resumed, what a stage to be run left is put aside with what followed.

    The state comes first, so that what a kill leaves half moved is known to be old.
    """
    old = read_json(root / 'state.json')
    state = dict(stages={**old.get('stages', {})})
    given = str(Path(priors).resolve()) if priors else None
    if resume:
        _compare(state, fingerprints, root, given)
        left = [root / name for name in names if name not in state['stages']]
    else:
        first = names.index(next(iter(fingerprints)))
        left = [root / name for name in names[first:]] if first else _all_in(root)
        if given and any(Path(given).is_relative_to(path.resolve()) for path in left):
            raise UsageError(f'--priors {priors}: this run would replace it; give another --work-dir')
        state['stages'] = {name: done for name, done in state['stages'].items() if name in names[:first]}
    barrier()  # every process has looked before the first one changes what is there
    if is_main_process():
        write_json(root / 'state.json', state)
        put_aside(root, left, old)
        metrics = read_json(root / 'metrics.json')
        if metrics.keys() - state['stages']:
            write_json(root / 'metrics.json', {name: metrics[name] for name in metrics if name in state['stages']})
    for name, fingerprint in fingerprints.items():
        state['stages'].setdefault(name, dict(config=fingerprint, priors=given))
    barrier()
    _write_state(root, state)
    barrier()
    return state


def _compare(state: dict, fingerprints: dict[str, str], root: Path, priors: str | None) -> None:
    """Whether the stages that go on are those that were begun."""
    for name, fingerprint in fingerprints.items():
        begun = state['stages'].get(name, dict(config=fingerprint, priors=priors))
        if begun.get('priors') != priors and not _is_done(root, begun):
            was, now = (f'--priors {path}' if path else 'no --priors' for path in (begun.get('priors'), priors))
            raise UsageError(
                f'--resume: {name} was begun with {was} and cannot go on with {now}: give the same, or begin it anew '
                f'with --stage {name}'
            )
        if begun['config'] != fingerprint:
            print_log(
                f'The config of {name} differs from the one that it was begun with in {root}: '
                'what is done stays as it is.',
                logger='current',
                level=logging.WARNING,
            )


def put_aside(root: Path, paths: list[Path], state: dict) -> None:
    """Move what an earlier run left, so that nothing of it is lost or taken for this one's; by the main process."""
    left = [path for path in paths if path.exists()]
    if not left:
        return
    name = time.strftime('previous-%Y%m%d-%H%M%S')
    numbered = (root / f'{name}-{number}' for number in itertools.count(2))
    previous = next(path for path in (root / name, *itertools.islice(numbered, 99)) if not path.exists())
    previous.mkdir()
    write_json(previous / 'state.json', state)
    for path in left:
        to = previous / path.relative_to(root)
        to.parent.mkdir(exist_ok=True)
        path.rename(to)
    print_log(f'What was in {", ".join(map(str, left))} is now in {previous}.', logger='current')


def _all_in(root: Path) -> list[Path]:
    return [path for path in root.glob('*') if not path.name.startswith(('previous-', 'state.json', LOCK))]


@master_only
def _write_state(root: Path, state: dict) -> None:
    write_json(root / 'state.json', state)


def _validate(runner: Runner) -> None:
    """Without a point in the curves, which are those of the training."""
    hooks = runner._hooks
    runner._hooks = [hook for hook in hooks if not isinstance(hook, LoggerHook)]
    try:
        runner.val()
    finally:
        runner._hooks = hooks


def _run_stage(root: Path, name: str, cfg: Config, resume: bool) -> dict:
    folder = root / name
    cfg.work_dir = str(folder)
    cfg.experiment_name = f'{name}-{time.time_ns()}'
    checkpoint = latest_checkpoint(folder) if resume else None
    if checkpoint:
        cfg.resume, cfg.load_from = True, str(checkpoint)
    runner = build_runner(cfg)
    runner.train()
    barrier()
    best = best_checkpoint(runner)
    tested = best or latest_checkpoint(folder)
    if tested is None:
        raise UsageError(f'{folder}: no checkpoint was written; let default_hooks.checkpoint save the last epoch')
    runner._resume = False  # else a hook that averages weights takes these for those that it averages
    runner.load_checkpoint(str(tested))
    if best and cfg.get('val_dataloader'):
        _validate(runner)  # so that what is written of validation is of this one, not of the last epoch
    if cfg.get('test_dataloader'):
        runner.test()
    if is_main_process():
        runner.visualizer.close()
    done = dict(checkpoint=os.path.relpath(tested, root))
    trust = runner.message_hub.runtime_info.get('trust')  # how far its priors were trusted
    return done if trust is None else dict(done, trust=trust)

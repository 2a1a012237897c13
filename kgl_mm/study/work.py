"""Doing one task of a study in a process of its own: what it leaves is all that the study reads."""

import os
import platform
import subprocess
import sys
import time
import traceback
from pathlib import Path

from kgl_mm.engine.hooks.record_hook import versions
from kgl_mm.engine.run import run_stages
from kgl_mm.engine.stages import latest_checkpoint
from kgl_mm.errors import UsageError, first_line
from kgl_mm.files import locked, read_json, write_json

from .plan import Task


def perform(task: Task, runs: Path, device: str | None, alone: bool) -> None:
    """Run the stages of a task in ``runs/KEY``, or go on with them; on failure the process exits with status 1.

    Each has one thread on the CPU, so that results do not depend on how many run side by side. ``alone``: nothing does,
    so that the data may have workers of their own where that changes no result. The seconds are those of all attempts;
    one that was killed lasted until its last word in the log.
    """
    folder = runs / task.key
    folder.mkdir(parents=True, exist_ok=True)
    # a run that outlived a killed study ends before another one goes on with it
    with (folder / 'log.txt').open('a', buffering=1) as log, locked(folder):
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        begun = time.perf_counter()
        state = read_json(folder / 'state.json').get('stages', {})
        if all(state.get(name, {}).get('done') for name in task.stages) and _ended_well(folder):
            sys.exit(0)  # where and when it was done stays as it is
        seconds = _seconds_before(folder)
        write_json(folder / 'run.json', dict(seconds=seconds, begun=time.time()))
        try:
            _prepare(device)
            _link(task, runs)
            cfg = task.cfg
            cfg.work_dir = str(folder)
            if not alone or not _workers_change_nothing(cfg):
                _without_workers(cfg)
            for name in task.stages:
                run_stages(cfg, resume=True, only=name)
            outcome = dict(error='')
        except Exception as error:
            traceback.print_exc()
            outcome = dict(error=_sentence(error))
        seconds += time.perf_counter() - begun
        write_json(folder / 'run.json', dict(outcome, seconds=round(seconds, 1), **circumstances()))
        _drop_checkpoints(task, folder)
    sys.exit(1 if outcome['error'] else 0)


def _ended_well(folder: Path) -> bool:
    return read_json(folder / 'run.json').get('error') == ''


def _seconds_before(folder: Path) -> float:
    run = read_json(folder / 'run.json')
    killed = (folder / 'log.txt').stat().st_mtime - run['begun'] if 'begun' in run else 0
    return round(run.get('seconds', 0) + max(0, killed), 1)


def _sentence(error: Exception) -> str:
    text = first_line(error)
    return text if isinstance(error, UsageError) else f'{type(error).__name__}: {text}'


def _prepare(device: str | None) -> None:
    import cv2
    import torch

    if device is not None:
        os.environ['CUDA_VISIBLE_DEVICES'] = device
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _workers_change_nothing(cfg) -> bool:
    """Whether each sample draws from its own state of chance, in whichever process."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    has_own_chance = any(hook and hook['type'] == 'kgl_mm.RandomnessHook' for hook in hooks)
    return has_own_chance and cfg.train_cfg.get('by_epoch', True)


def _without_workers(cfg) -> None:
    """Where processes are busy as it is."""
    for split in ('train', 'val', 'test'):
        if loader := cfg.get(f'{split}_dataloader'):
            loader.update(num_workers=0, persistent_workers=False)
            loader.pop('prefetch_factor', None)


def _link(task: Task, runs: Path) -> None:
    """Have the stages that other tasks ran, as if this one had run them."""
    folder = runs / task.key
    state, metrics = read_json(folder / 'state.json'), read_json(folder / 'metrics.json')
    for name, key in task.linked.items():
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(Path('..', key, name), target_is_directory=True)
        state.setdefault('stages', {})[name] = read_json(runs / key / 'state.json')['stages'][name]
        if found := read_json(runs / key / 'metrics.json').get(name):
            metrics[name] = found
    write_json(folder / 'state.json', state)
    write_json(folder / 'metrics.json', metrics)


def _drop_checkpoints(task: Task, folder: Path) -> None:
    """Of a stage that is done, those before the one that was tested: they were for going on alone."""
    for name, stage in read_json(folder / 'state.json').get('stages', {}).items():
        if name in task.stages and stage.get('done'):
            kept = {(folder / stage['checkpoint']).resolve(), latest_checkpoint(folder / name).resolve()}
            for path in (folder / name).glob('epoch_*.pth'):
                if path.resolve() not in kept:
                    path.unlink()


def circumstances() -> dict:
    """Where and with what a result was made."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ''
    peak = torch.cuda.max_memory_allocated() / 2**20 if gpu else 0
    machine = gpu or f'{_processor()}, {os.cpu_count()} cores'
    return dict(machine=machine, commit=_commit(), peak_mib=round(peak), versions=versions())


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the checkout, with a + where files differ from it; outside of one what KGL_MM_COMMIT says."""
    git = ['git', '-C', str(Path(__file__).parents[2])]
    try:
        head = subprocess.run([*git, 'rev-parse', '--short=10', 'HEAD'], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, 'status', '--porcelain', '--untracked-files=no'], capture_output=True, text=True, check=True
        )
        return head.stdout.strip() + ('+' if changed.stdout.strip() else '')
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get('KGL_MM_COMMIT', '')

"""Detectors of NEU-DET from scratch and from pretrainings without boxes: a CSV file of runs and a table of means.

scratch    random weights
classify   a backbone that has learned the six kinds of the training images
agbp       the same images, labels and steps, and maps (LayerCAM of that classifier, so no label more)
agdp       that backbone, frozen, under a neck and head that have learned boxes around what stands out of these maps

Each is then tuned on the boxes of 50, 200 and all training images, equally many steps, and tested once, at the end.
Killed at any moment, the same command goes on where it was.

Examples:
    python tools/benchmarks/detection.py --jobs 2
    python tools/benchmarks/detection.py --size full --jobs 8
    python tools/benchmarks/detection.py --images 50 --ways scratch agdp --steps 700
"""

import argparse
import csv
import fcntl
import io
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import numpy as np

from kgl_mm.apis import cli
from kgl_mm.errors import UsageError
from kgl_mm.evaluation.intervals import t_interval
from kgl_mm.files import read_json, write_atomically, write_json

ROOT = Path(__file__).resolve().parents[2]
WAYS = ('scratch', 'classify', 'agbp', 'agdp')
PRETRAIN, BOXES, DETECT = (
    'agssp/agbp_resnet50_neu.py',
    'agssp/agdp_fcos_resnet50.py',
    'agssp/detect_fcos_resnet50_neu.py',
)
FOUND = ('mAP_50', 'mAP')
BATCH = 8
HELD_BACK = 0.1  # of the images with pseudo-boxes, to see whether such boxes are found elsewhere


class Size(NamedTuple):
    """``width`` is that of the backbone's last output, ``channels`` that of the pyramid, ``side`` that of images."""

    depth: int
    width: int
    channels: int
    side: int
    steps: int


SIZES = dict(reduced=Size(18, 512, 128, 128, 1416), full=Size(50, 2048, 256, 320, 8850))


class Task(NamedTuple):
    """One command, whose results are in the folder of its name; ``facts`` are the fields of its row."""

    name: str
    needs: tuple[str, ...]
    words: list[str]
    facts: dict


class Plan:
    """The tasks of a benchmark; ``total`` is the number of training images."""

    def __init__(self, args: argparse.Namespace, total: int) -> None:
        self.root, self.data, self.seeds, self.total = args.work_dir.resolve(), args.data.resolve(), args.seeds, total
        self.size, self.options = SIZES[args.size], args.cfg_options
        self.steps = args.steps or self.size.steps
        self.pretrain_steps = args.pretrain_steps or self.steps
        self.ways, self.images = args.ways, [total if number == 'all' else int(number) for number in args.images]
        if wrong := [number for number in self.images if not 0 < number <= total]:
            raise UsageError(f'--images {wrong[0]}: the training part has {total}')

    def tasks(self) -> list[Task]:
        """All of them, each after those that it needs."""
        pretrain = {seed: self._pretrain(seed) for seed in self.seeds}
        boxes = {seed: self._boxes(seed) for seed in self.seeds}
        agdp = {seed: self._agdp(seed) for seed in self.seeds}
        tuned = [self._tune(way, n, seed) for n in self.images for seed in self.seeds for way in self.ways]
        return [*pretrain.values(), *boxes.values(), *agdp.values(), *tuned]

    def _pretrain(self, seed: int) -> Task:
        epochs = epochs_of(self.pretrain_steps, self.total)
        fields = {'model.head.in_channels': self.size.width} | self._images(PRETRAIN, epochs)
        fields |= {'stages.agbp.train_dataloader.dataset.pipeline.1.scale': self._scale()}
        return Task(f'pretrain-{seed}', (), self._train(PRETRAIN, f'pretrain-{seed}', seed, fields, {}), {})

    def _boxes(self, seed: int) -> Task:
        store, out = self.root / f'pretrain-{seed}/classify/priors', self.root / f'boxes-{seed}'
        words = ['tools/boxes_from_priors.py', str(store), '--config', f'configs/{PRETRAIN}', '--data', str(self.data)]
        words += ['--out', str(out / 'boxes.json'), '--sheet', str(out / 'boxes.png')]
        return Task(f'boxes-{seed}', (f'pretrain-{seed}',), words, {})

    def _agdp(self, seed: int) -> Task:
        epochs = epochs_of(self.pretrain_steps, math.ceil(self.total * (1 - HELD_BACK)))
        fields = {'model.channels': self.size.channels} | self._images(BOXES, epochs) | self._backbone('agbp', seed)
        data = dict(ann_file=self.root / f'boxes-{seed}/boxes.json', test_fraction=HELD_BACK)
        words = self._train(BOXES, f'agdp-{seed}', seed, fields, data)
        return Task(f'agdp-{seed}', (f'pretrain-{seed}', f'boxes-{seed}'), words, dict(epochs=epochs))

    def _tune(self, way: str, number: int, seed: int) -> Task:
        epochs, name = epochs_of(self.steps, number), f'{way}-{number}-{seed}'
        fields = {'model.channels': self.size.channels} | self._images(DETECT, epochs)
        needs = dict(scratch=(), agdp=(f'agdp-{seed}',)).get(way, (f'pretrain-{seed}',))
        if way == 'agdp':
            last = epochs_of(self.pretrain_steps, math.ceil(self.total * (1 - HELD_BACK)))
            fields |= {'load_from': self.root / f'agdp-{seed}/stage1/epoch_{last}.pth'}
        elif way != 'scratch':
            fields |= self._backbone(way, seed)
        data = dict(seed=seed) if number == self.total else dict(seed=seed, num_images=number)
        words = self._train(DETECT, name, seed, fields, data)
        steps = epochs * math.ceil(number / BATCH)
        return Task(name, needs, words, dict(way=way, images=number, seed=seed, steps=steps, epochs=epochs))

    def _train(self, config: str, name: str, seed: int, fields: dict, data: dict) -> list[str]:
        words = ['tools/train.py', f'configs/{config}', '--data', str(self.data), '--seed', str(seed), '--resume']
        words += ['--work-dir', str(self.root / name)]
        words += ['--data-options', *(f'{key}={value}' for key, value in data.items())] if data else []
        return [*words, '--cfg-options', *(f'{key}={value}' for key, value in fields.items()), *self.options]

    def _images(self, config: str, epochs: int) -> dict:
        """What all trainings share; they are many side by side, so that none has workers of its own."""
        fields = {'model.backbone.depth': self.size.depth, 'train_cfg.max_epochs': epochs}
        fields |= {'optim_wrapper.type': 'kgl_mm.Bf16OptimWrapper'}
        fields |= {'default_hooks.checkpoint.interval': math.ceil(epochs / 4)}
        for split in ('train', 'test'):
            fields |= {f'{split}_dataloader.dataset.pipeline.1.scale': self._scale()}
            fields |= {f'{split}_dataloader.num_workers': 0, f'{split}_dataloader.persistent_workers': False}
        return fields | {'train_dataloader.batch_size': BATCH, 'default_hooks.checkpoint.max_keep_ckpts': 1}

    def _scale(self) -> str:
        return f'({self.size.side},{self.size.side})'

    def _backbone(self, stage: str, seed: int) -> dict:
        weights = dict(type='Pretrained', checkpoint=self.root / f'pretrain-{seed}/{stage}/backbone.pth')
        return {f'model.backbone.init_cfg.{key}': value for key, value in dict(weights, prefix='backbone.').items()}

    def settings(self) -> dict:
        """What results in one folder have in common."""
        return dict(self.size._asdict(), steps=self.steps, pretrain_steps=self.pretrain_steps, options=self.options)


def epochs_of(steps: int, images: int) -> int:
    """The whole number of epochs that comes nearest to so many steps.

    >>> epochs_of(1416, 50), epochs_of(1416, 200), epochs_of(1416, 1416)
    (202, 57, 8)
    """
    return max(1, round(steps / math.ceil(images / BATCH)))


def count_images(data: Path) -> int:
    from mmengine.registry import DATASETS

    from kgl_mm.engine.config import load_config

    dataset = load_config(ROOT / 'configs' / DETECT).train_dataloader.dataset
    return len(DATASETS.build(dict(dataset, data_root=str(data), pipeline=[])))


def left_of(tasks: list[Task], root: Path) -> list[Task]:
    """Those that have no result yet, and what they need."""
    wanted = {task.name for task in tasks if task.facts.get('way') and not read_json(root / task.name / 'done.json')}
    for task in reversed(tasks):
        if task.name in wanted:
            wanted |= {name for name in task.needs if not read_json(root / name / 'done.json')}
    return [task for task in tasks if task.name in wanted]


def run(tasks: list[Task], root: Path, jobs: int) -> dict[str, str]:
    """Run them side by side; returns what went wrong, by the name of the task."""
    waiting, running, failed, total = list(tasks), {}, {}, len(tasks)
    try:
        while waiting or running:
            for task in list(waiting):
                if lost := [name for name in task.needs if name in failed]:
                    waiting.remove(task)
                    failed[task.name] = f'{lost[0]} failed'
                    continue
                ready = len(running) < jobs and not any(_is_in(name, waiting, running) for name in task.needs)
                if ready and (process := _start(task, root)):
                    waiting.remove(task)
                    running[task.name] = (task, process, time.perf_counter())
            time.sleep(0.2)
            for task, process, begun in list(running.values()):
                if process.poll() is not None:
                    del running[task.name]
                    if error := _end(task, root, process.returncode, time.perf_counter() - begun):
                        failed[task.name] = error
                    number = total - len(waiting) - len(running)
                    print(f'{number}/{total} {task.name}: {error or "done"}', flush=True)
    finally:
        for _, process, _ in running.values():
            process.terminate()
            process.wait()
    return failed


def _is_in(name: str, waiting: list[Task], running: dict) -> bool:
    return name in running or any(task.name == name for task in waiting)


def _start(task: Task, root: Path) -> subprocess.Popen | None:
    """The process of a task; None while one that outlived a killed benchmark is still at it."""
    folder = root / task.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'task.lock').open('w') as lock, (folder / 'log.txt').open('a') as log:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which the process keeps as long as it lives
        except BlockingIOError:
            return None
        print(f'\n$ python {shlex.join(task.words)}', file=log, flush=True)
        words = [sys.executable, str(ROOT / task.words[0]), *task.words[1:]]
        return subprocess.Popen(words, stdout=log, stderr=log, pass_fds=[lock.fileno()])


def _end(task: Task, root: Path, status: int, seconds: float) -> str:
    """Keep the result of a task, or say what went wrong."""
    folder = root / task.name
    if status:
        lines = [line for line in (folder / 'log.txt').read_text().splitlines() if line.strip()]
        return f'status {status}, {lines[-1][:300]} ({folder}/log.txt)'
    from kgl_mm.study.work import circumstances

    here = circumstances()
    done = task.facts | dict(seconds=round(seconds, 1), commit=here['commit'], machine=here['machine'])
    if task.facts.get('way'):
        found = read_json(folder / 'metrics.json')['stage1']['test']
        done |= {name: found[name] for name in FOUND}
    write_json(folder / 'done.json', done)
    if task.facts.get('way'):
        for path in folder.glob('stage1/*.pth'):  # nobody goes on from them
            path.unlink()
    return ''


def rows_of(root: Path) -> list[dict]:
    """A row for each finished run."""
    rows = [read_json(path) for path in root.glob('*/done.json')]
    rows = [row for row in rows if row.get('way')]
    return sorted(rows, key=lambda row: (row['images'], WAYS.index(row['way']), row['seed']))


def write_rows(rows: list[dict], path: Path) -> None:
    names = ['way', 'images', 'seed', 'steps', 'epochs', *FOUND, 'seconds', 'commit', 'machine']
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def table(rows: list[dict]) -> str:
    """Means over seeds in percent with 95 % intervals, and differences of runs with the same images and seed."""
    values = defaultdict(dict)
    for row in rows:
        values[row['images'], row['way']][row['seed']] = [100 * row[name] for name in FOUND]
    lines = ['| images | way | seeds | mAP@.5 | mAP@.5:.95 |', '|---|---|---|---|---|']
    for (images, way), found in values.items():
        lines.append(f'| {images} | {way} | {len(found)} | {_means(list(found.values()))} |')
    lines += ['', '| images | ahead | pairs | mAP@.5 | mAP@.5:.95 |', '|---|---|---|---|---|']
    for images in sorted({images for images, _ in values}):
        for first, second in (('scratch', 'classify'), ('scratch', 'agbp'), ('scratch', 'agdp'), ('classify', 'agdp'),
                              ('classify', 'agbp'), ('agbp', 'agdp')):  # fmt: skip
            a, b = values.get((images, first), {}), values.get((images, second), {})
            if both := sorted(a.keys() & b.keys()):
                differences = [np.subtract(b[seed], a[seed]) for seed in both]
                lines.append(f'| {images} | {second} of {first} | {len(both)} | {_means(differences, "+")} |')
    return '\n'.join(lines)


def _means(found: list, sign: str = '') -> str:
    cells = []
    for values in np.transpose(found):
        low, high = t_interval(values)
        interval = f' ({low:{sign}.1f} to {high:{sign}.1f})' if len(values) > 1 else ''
        cells.append(f'{np.mean(values):{sign}.1f}{interval}')
    return ' | '.join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=list(SIZES), default='reduced', help='ResNet-18 at 128 pixels, or ResNet-50')
    parser.add_argument(
        '--seeds', nargs='+', type=int, default=[0, 1, 2], help='of training and of the choice of images'
    )
    parser.add_argument('--images', nargs='+', default=['50', '200', 'all'], help='with boxes')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=WAYS)
    parser.add_argument('--steps', type=int, help='of tuning (default: 1416, at full size 8850), in whole epochs')
    parser.add_argument('--pretrain-steps', type=int, help='of each pretraining (default: as many)')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for every training')
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='runs side by side (default: one a core)')
    parser.add_argument('--data', type=Path, help='NEU-DET (default: where KGL_DATA_ROOT says, else data/NEU-DET)')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/detection_SIZE')
    args = parser.parse_args()
    args.data = args.data or Path(os.environ.get('KGL_DATA_ROOT') or 'data', 'NEU-DET')
    args.work_dir = args.work_dir or Path('work_dirs', f'detection_{args.size}')
    if wrong := [number for number in args.images if number != 'all' and not number.isdigit()]:
        raise UsageError(f'--images {wrong[0]}: give numbers, or all')
    if args.jobs < 1 or (args.steps or 1) < 1 or (args.pretrain_steps or 1) < 1:
        raise UsageError('--jobs, --steps and --pretrain-steps take one or more')
    plan = Plan(args, count_images(args.data))
    known = read_json(plan.root / 'settings.json')
    if known and known != plan.settings():
        raise UsageError(f'{args.work_dir}: its runs have other settings ({known}), so give another --work-dir')
    write_json(plan.root / 'settings.json', plan.settings())
    if args.jobs > 1:
        os.environ.setdefault('OMP_NUM_THREADS', '1')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    left = left_of(plan.tasks(), plan.root)
    try:
        failed = run(left, plan.root, args.jobs)
    finally:
        rows = rows_of(plan.root)
        write_rows(rows, plan.root / 'results.csv')
        print(f'\n{table(rows)}\n\nin {args.work_dir}: results.csv, and a folder for each run')
    if failed:
        raise UsageError(f'{len(failed)} runs failed, first {next(iter(failed))}: {next(iter(failed.values()))}')


if __name__ == '__main__':
    cli.run(main)

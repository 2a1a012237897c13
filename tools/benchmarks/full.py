"""Fill the tables of docs/benchmarks.md at full size, in the order of their weight; then say what is missing.

Killed at any moment, it goes on where it was. A part is a study of tools/cross_validate.py, several runs of which share
a GPU, or what another tool finds, kept in NAME.txt. Stages that are the same in several parts are run once.

Examples:
    timeout 590 make benchmark-full                                (again and again, until nothing is missing)
    python tools/benchmarks/full.py --list
    python tools/benchmarks/full.py --reduced --only avg six-kinds
"""

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

from cross_validate import arguments, study_of
from rich import box
from rich.console import Console
from rich.table import Table

from kgl_mm.apis import cli
from kgl_mm.errors import UsageError
from kgl_mm.files import write_atomically
from kgl_mm.study.study import Study
from kgl_mm.study.table import read_table

FIVE, THREE = '--seeds 0 1 2 3 4', '--seeds 0 1 2'
CLEAN, OFFICIAL = '--data-options cache=memory', '--data-options cache=memory protocol=official'
FEW = f'{CLEAN} val_fraction=0.3'
PAPER, RECIPE, MAX_AVG = (f'studies/{name}.py' for name in ('ksdd_full', 'ksdd_full_recipe', 'ksdd_full_max_avg'))
METHOD = 'stages.stage1.custom_hooks.0.method.type=kgl_mm.'
PRIORS = 'train_dataloader.dataset.pipeline.4.num_priors='
FIVE_AND_ALL, OURS = 'variant=priors5_stopped,guided_stopped', 'variant=priors5_open,guided'
CONTROLS = 'variant=plain,head,head_open,guided,masks_open'


@dataclass(frozen=True)
class Part:
    """A study; ``table`` is its number among the tables, ``data`` the folder in ``KGL_DATA_ROOT`` that it needs."""

    table: int
    name: str
    data: str
    words: str

    def missing(self, root: Path) -> str:
        """Why it cannot be measured now, or ''."""
        here = Path(os.environ.get('KGL_DATA_ROOT') or 'data', self.data).is_dir()
        return '' if here or not self.data else f'not measured: no {self.data} here'

    def command(self, root: Path) -> str:
        config, *rest = self._words(root)
        return shlex.join(['python', 'tools/cross_validate.py', f'configs/{config}', *rest])

    def run(self, root: Path, jobs: int | None) -> None:
        runs = root / self.name / 'runs'
        if not runs.exists():
            (root / 'runs').mkdir(parents=True, exist_ok=True)
            runs.parent.mkdir(exist_ok=True)
            runs.symlink_to('../runs')
        study = self.study(root)
        study.run(jobs)
        study.report()

    def state(self, root: Path) -> tuple[int, int]:
        """How many runs are left, and how many of them failed."""
        study = self.study(root)
        return len(study.tasks()), sum(row['status'] != 'done' for row in study.table.rows.values())

    def study(self, root: Path) -> Study:
        return study_of(arguments().parse_args(self._words(root)))

    def _words(self, root: Path) -> list[str]:
        return [*shlex.split(self.words), '--work-dir', str(root / self.name), '--resume']


@dataclass(frozen=True)
class Look(Part):
    """What a tool of this folder finds, of the study ``of`` another part where one is named.

    {study} among its words is that study's folder, {run} that of its first guided run.
    """

    tool: str
    of: str = ''

    def missing(self, root: Path) -> str:
        done = not self.of or _guided_run(root / self.of)
        return super().missing(root) or ('' if done else f'not measured: no guided run of {self.of} yet')

    def command(self, root: Path) -> str:
        return shlex.join(['python', f'tools/benchmarks/{self.tool}', *self._words(root)])

    def run(self, root: Path, jobs: int | None) -> None:
        if any(self.state(root)):
            command = [sys.executable, str(Path(__file__).with_name(self.tool)), *self._words(root)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            print(done.stdout, end='')
            (root / f'{self.name}.failed').unlink(missing_ok=True)
            suffix = 'failed' if done.returncode else 'txt'
            write_atomically(root / f'{self.name}.{suffix}', done.stdout.encode())

    def state(self, root: Path) -> tuple[int, int]:
        text, study = root / f'{self.name}.txt', root / self.of / 'results.csv'
        there = text.exists() and not (self.of and study.stat().st_mtime > text.stat().st_mtime)
        return int(not there), int((root / f'{self.name}.failed').exists())

    def _words(self, root: Path) -> list[str]:
        places = dict(study=root / self.of, run=_guided_run(root / self.of) or '{run}')
        return [word.format(**places) for word in shlex.split(self.words)]


def _guided_run(study: Path) -> Path | None:
    wanted = dict(variant='guided', stage='stage2', status='done')
    rows = read_table(study / 'results.csv')
    return next((study / 'runs' / row['run'] for row in rows if wanted.items() <= row.items()), None)


def _sweep(methods: str, priors: str) -> str:
    return f'--set variant=guided_stopped {METHOD}{methods} {PRIORS}{priors}'


def _looks(*configs: str) -> list[Look]:
    """Maps before and after guidance; what guidance, saliency and inference cost."""
    shown = '{study} --where variant=plain,head_open,guided,masks_open'
    return [
        *(Look(5, f'maps-{name}', 'KolektorSDD', shown, 'study_maps.py', name) for name in ('avg', 'max-avg')),
        Look(7, 'guidance', '', f'--configs {" ".join(configs)}', 'overhead.py'),
        Look(7, 'saliency', '', '', 'saliency.py'),
        Look(7, 'inference', 'KolektorSDD', '{run}', 'inference.py', 'avg'),
    ]


FULL = [
    Part(1, 'paper-clean', 'KolektorSDD', f'{PAPER} {FIVE} {CLEAN} --set {FIVE_AND_ALL}'),
    Part(1, 'paper-official', 'KolektorSDD', f'{PAPER} {FIVE} {OFFICIAL} --set {FIVE_AND_ALL}'),
    Part(1, 'recipe-clean', 'KolektorSDD', f'{RECIPE} {FIVE} {CLEAN} --set {OURS}'),
    Part(1, 'recipe-official', 'KolektorSDD', f'{RECIPE} {FIVE} {OFFICIAL} --set {OURS}'),
    Part(
        1,
        'paper-sweep',
        'KolektorSDD',
        f'{PAPER} {THREE} {CLEAN} {_sweep("LayerCAM,kgl_mm.FullGrad,kgl_mm.GradCAM", "0,5,10,15,20,None")}',
    ),
    Part(2, 'avg', 'KolektorSDD', f'{RECIPE} {THREE} {CLEAN} --set {CONTROLS}'),
    Part(2, 'max-avg', 'KolektorSDD', f'{MAX_AVG} {THREE} {CLEAN} --set {CONTROLS}'),
    Part(2, 'avg-few', 'KolektorSDD', f'{RECIPE} {THREE} {FEW} --set {CONTROLS} data.num_positives=5,10'),
    Part(2, 'max-avg-few', 'KolektorSDD', f'{MAX_AVG} {THREE} {FEW} --set {CONTROLS} data.num_positives=5,10'),
    *(
        Part(3, name, 'KolektorSDD', f'studies/full_{name}.py {THREE} {CLEAN} --set variant=plain,guided')
        for name in ('resnet18', 'resnet50', 'densenet121', 'repvgg')
    ),
    Part(
        4,
        'six-kinds',
        'NEU-DET',
        f'studies/neu.py {FIVE} --set variant=plain,head,head_open,guided data.num_positives=30,60,120,300',
    ),
    Part(6, 'ksdd2', 'KolektorSDD2', f'kgl_vgg16_ksdd2.py {THREE}'),
    Part(6, 'mvtec', 'MVTecAD', f'kgl_vgg16_mvtec.py {THREE}'),
    *_looks('kgl_vgg16_ksdd2', 'kgl_resnet50_ksdd2', 'kgl_slim_vgg_ksdd'),
]

AVG, BOTH = 'studies/ksdd_avg.py', 'studies/ksdd_max_avg.py'
FEW_SMALL = '--data-options val_fraction=0.3'
REDUCED = [
    Part(1, 'sweep', 'KolektorSDD', f'{AVG} {THREE} {_sweep("LayerCAM,kgl_mm.GradCAM", "0,5,15,None")}'),
    Part(2, 'avg', 'KolektorSDD', f'{AVG} {THREE} {FEW_SMALL} --set {CONTROLS} data.num_positives=5,10,None'),
    Part(2, 'max-avg', 'KolektorSDD', f'{BOTH} {THREE} {FEW_SMALL} --set {CONTROLS} data.num_positives=5,10,None'),
    *(
        Part(3, name, 'KolektorSDD', f'studies/small_{name}.py {THREE} --set variant=plain,guided')
        for name in ('resnet18', 'densenet121')
    ),
    Part(
        4,
        'six-kinds',
        'NEU-DET',
        f'studies/neu.py {THREE} --set variant=plain,head,head_open,guided data.num_positives=30,120',
    ),
    *_looks('kgl_slim_vgg_ksdd'),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--reduced', action='store_true', help='small networks and images, for two cores')
    parser.add_argument('--only', nargs='+', default=[], metavar='PART', help='these parts')
    parser.add_argument('--list', action='store_true', help='say what is missing, run nothing')
    parser.add_argument('--jobs', type=int, help='runs side by side (default: one a core, four a GPU)')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/benchmark_full, or _reduced')
    args = parser.parse_args()
    parts = REDUCED if args.reduced else FULL
    if unknown := set(args.only) - {part.name for part in parts}:
        raise UsageError(f'--only {min(unknown)}: the parts are {", ".join(part.name for part in parts)}')
    root = args.work_dir or Path('work_dirs', 'benchmark_reduced' if args.reduced else 'benchmark_full')
    chosen = [part for part in parts if not args.only or part.name in args.only]
    stopped = []
    try:
        for part in chosen if not args.list else ():
            if not part.missing(root):
                print(f'\ntable {part.table}, {part.name}: {part.command(root)}', flush=True)
                try:
                    part.run(root, args.jobs)
                except UsageError as error:  # an incomplete data set stops its own parts alone
                    stopped.append(f'{part.name}: {error}')
                    print(stopped[-1])
    finally:
        Console(width=160).print(overview(chosen, root))
    if stopped:
        raise UsageError('; '.join(stopped))


def overview(parts: list[Part], root: Path) -> Table:
    """A line for each part: how many of its runs are left, or why none can be made."""
    table = Table('table', 'part', 'runs left', 'failed', 'command', box=box.SIMPLE)
    for part in parts:
        missing = part.missing(root)
        try:
            left = (missing, '') if missing else map(str, part.state(root))
        except UsageError as error:
            left = f'not measured: {error}', ''
        table.add_row(str(part.table), part.name, *left, part.command(root))
    return table


if __name__ == '__main__':
    cli.run(main)

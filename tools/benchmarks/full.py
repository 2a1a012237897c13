"""Fill the tables of docs/benchmarks.md at full size, in the order of their weight; then say what is missing.

Killed at any moment, it goes on where it was. Each part is the study of tools/cross_validate.py whose command is shown;
several runs share a GPU.

Examples:
    timeout 590 make benchmark-full                                (again and again, until nothing is missing)
    python tools/benchmarks/full.py --list
    python tools/benchmarks/full.py --reduced --only avg six-kinds
"""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

from cross_validate import arguments, study_of
from rich import box
from rich.console import Console
from rich.table import Table

from kgl_mm.apis import cli
from kgl_mm.errors import UsageError

FIVE, THREE = '--seeds 0 1 2 3 4', '--seeds 0 1 2'
CLEAN, OFFICIAL = '--data-options cache=memory', '--data-options cache=memory protocol=official'
FEW = f'{CLEAN} val_fraction=0.3'
PAPER, RECIPE, MAX_AVG = (f'studies/{name}.py' for name in ('ksdd_full', 'ksdd_full_recipe', 'ksdd_full_max_avg'))
METHOD = 'stages.stage1.custom_hooks.0.method.type=kgl_mm.'
PRIORS = 'train_dataloader.dataset.pipeline.4.num_priors='
FIVE_AND_ALL, OURS = 'variant=priors5_stopped,guided_stopped', 'variant=priors5_open,guided'
CONTROLS = 'variant=plain,head,head_open,guided,masks_open'


class Part(NamedTuple):
    """``table`` is its number among the tables, ``data`` the folder in ``KGL_DATA_ROOT`` that it needs."""

    table: int
    name: str
    data: str
    words: str


def _sweep(methods: str, priors: str) -> str:
    return f'--set variant=guided_stopped {METHOD}{methods} {PRIORS}{priors}'


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
]

AVG, BOTH = 'studies/ksdd_avg.py', 'studies/ksdd_max_avg.py'
FEW_SMALL = '--data-options val_fraction=0.3'
REDUCED = [
    Part(1, 'sweep', 'KolektorSDD', f'{AVG} {THREE} {_sweep("LayerCAM,kgl_mm.GradCAM", "0,5,15,None")}'),
    Part(2, 'avg', 'KolektorSDD', f'{AVG} {THREE} {FEW_SMALL} --set {CONTROLS} data.num_positives=5,10,None'),
    Part(2, 'max-avg', 'KolektorSDD', f'{BOTH} {THREE} {FEW_SMALL} --set {CONTROLS} data.num_positives=5,10,None'),
    Part(
        4,
        'six-kinds',
        'NEU-DET',
        f'studies/neu.py {THREE} --set variant=plain,head,head_open,guided data.num_positives=30,120',
    ),
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
    try:
        for part in chosen if not args.list else ():
            if _is_here(part):
                print(f'\ntable {part.table}, {part.name}: {_command(part, root)}', flush=True)
                study = _study(part, root)
                study.run(args.jobs)
                study.report()
    finally:
        Console(width=160).print(overview(chosen, root))


def _is_here(part: Part) -> bool:
    return Path(os.environ.get('KGL_DATA_ROOT') or 'data', part.data).is_dir()


def _words(part: Part, root: Path) -> list[str]:
    return [*shlex.split(part.words), '--work-dir', str(root / part.name), '--resume']


def _command(part: Part, root: Path) -> str:
    config, *rest = _words(part, root)
    return shlex.join(['python', 'tools/cross_validate.py', f'configs/{config}', *rest])


def _study(part: Part, root: Path):
    return study_of(arguments().parse_args(_words(part, root)))


def overview(parts: list[Part], root: Path) -> Table:
    """A line for each part: how many of its runs are left, or why none can be made."""
    table = Table('table', 'part', 'runs left', 'failed', 'command', box=box.SIMPLE)
    for part in parts:
        left, failed = f'not measured: no {part.data} here', ''
        if _is_here(part):
            study = _study(part, root)
            left = str(len(study.tasks()))
            failed = str(sum(row['status'] != 'done' for row in study.table.rows.values()))
        table.add_row(str(part.table), part.name, left, failed, _command(part, root))
    return table


if __name__ == '__main__':
    cli.run(main)

"""Train a config over folds, seeds and varied fields, and say what comes out with its intervals.

Examples:
    python tools/cross_validate.py configs/kgl_slim_vgg_ksdd.py --seeds 0 1 2
    python tools/cross_validate.py CONFIG --set model.head.channel=none,self --compare channel=none channel=self
    python tools/cross_validate.py CONFIG --set data.num_positives=5,10,20      (a learning curve)
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# runs are forked off, and a process that has asked CUDA itself which GPUs there are cannot hand them on
os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli
from kgl_mm.errors import UsageError

if TYPE_CHECKING:
    from kgl_mm.study.study import Study


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument('--folds', nargs='+', type=int, help='default: all that the data set has')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='of training and of the choice of images')
    parser.add_argument(
        '--set',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=V1,V2',
        help='fields and their values; data.KEY is a setting of all data sets, variant=NAME,... those of the config',
    )
    parser.add_argument('--jobs', type=int, help='runs side by side (default: one a core, four a GPU)')
    parser.add_argument('--resume', action='store_true', help='go on with the results that are there, or add to them')
    parser.add_argument('--keep-stale', action='store_true', help='count results of older code, do not run them again')
    parser.add_argument('--amp', action='store_true', help='mixed precision; bfloat16 on the CPU')
    parser.add_argument(
        '--compare',
        nargs=2,
        action='append',
        default=[],
        metavar=('A', 'B'),
        help='by how much B is ahead of A, paired',
    )
    return parser


def _only(device: str | None) -> str | None:
    """Leave the runs one GPU, or all; CUDA itself must not be asked here, since they are forked off."""
    kind, _, index = (device or 'cpu').partition(':')
    if kind != 'cuda' or (index and not index.isdigit()):
        return device
    from kgl_mm.study.pool import visible_gpus

    gpus = visible_gpus()
    if int(index or 0) >= len(gpus):
        raise UsageError(f'--device {device}: there are {len(gpus)} CUDA devices here; use --device cpu')
    if index:
        os.environ['CUDA_VISIBLE_DEVICES'] = gpus[int(index)]
    return None


def study_of(args: argparse.Namespace) -> 'Study':
    if args.seed is not None:
        raise UsageError('--seed: a study has several, --seeds 0 1 2')
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f'--jobs {args.jobs}: it takes one or more')
    args.device = _only(args.device)
    args.work_dir = args.work_dir or str(Path('work_dirs', f'{Path(args.config).stem}_study'))
    cfg = cli.configure(args)

    from kgl_mm.apis.train import use_amp
    from kgl_mm.study.study import Study

    if args.amp:
        use_amp(cfg)
    return Study(cfg, args.folds, args.seeds, cli.value_lists('--set', args.set), args.resume, args.keep_stale)


def main() -> None:
    args = arguments().parse_args()
    study = study_of(args)
    study.check(args.compare)
    try:
        study.run(args.jobs)
    except KeyboardInterrupt:
        if study.table.rows:
            print(study.report())
        raise KeyboardInterrupt(f'the same command with --resume goes on; results so far: {study.table.path}') from None
    print(study.report(args.compare))
    print(f'in {study.root}: results.csv, summary.csv, summary.md, summary.png')


if __name__ == '__main__':
    cli.run(main)

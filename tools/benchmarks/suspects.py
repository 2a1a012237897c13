"""Flip five labels of KolektorSDD's training part, train cross-fitted, and look where the report lists them."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import numpy as np

from kgl_mm.apis import cli
from kgl_mm.apis.train import train
from kgl_mm.datasets import KolektorSDD, Sample
from kgl_mm.engine.config import load_config, set_data
from kgl_mm.errors import UsageError
from kgl_mm.registry import DATASETS
from kgl_mm.report.data import read_run
from kgl_mm.report.doubts import doubts
from kgl_mm.report.knowledge import evidence_of


@DATASETS.register_module()
class MislabelledKolektorSDD(KolektorSDD):
    """Of the training images ``hidden`` defective ones are called good, and ``invented`` good ones defective."""

    def __init__(self, hidden: int = 2, invented: int = 3, flip_seed: int = 0, **kwargs) -> None:
        self.numbers, self.flip_seed = {1: hidden, 0: invented}, flip_seed
        super().__init__(**kwargs)

    def find_samples(self) -> list[Sample]:
        self.flipped, random = set(), np.random.default_rng(self.flip_seed)
        samples = super().find_samples()
        for label, number in self.numbers.items():
            paths = [s.img_path for s in samples if s.split == 'train' and s.label == label]
            self.flipped |= set(random.choice(paths, number, replace=False).tolist())
        return [replace(s, label=1 - s.label) if s.img_path in self.flipped else s for s in samples]


SMALL = {  # stage 1 is what matters here
    'model.backbone.convs': (1, 1, 1, 1),
    'stages.stage1.model.neck.mode': 'max_avg',
    'stages.stage1.model.head.in_channels': 128,
}
SCALES = [f'{part}_dataloader.dataset.pipeline.2.scale' for part in ('train', 'test', 'stages.stage1.train')]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='each flips other labels and trains anew')
    parser.add_argument('--crossfit', type=int, default=5)
    parser.add_argument('--epochs', type=int, default=40, help='of stage 1')
    parser.add_argument('--size', nargs=2, type=int, default=[96, 264], help='width and height that networks see')
    parser.add_argument('--work-dir', default='work_dirs/suspects')
    args = parser.parse_args()
    if not os.environ.get('KGL_DATA_ROOT'):
        raise UsageError('set KGL_DATA_ROOT to the folder that holds KolektorSDD')
    for seed in args.seeds:
        options = dict.fromkeys(SCALES, tuple(args.size)) | {'randomness.seed': seed, 'train_cfg.max_epochs': 1}
        cfg = load_config('kgl_slim_vgg_ksdd.py', SMALL | options)
        cfg.stages.stage1.train_cfg = dict(max_epochs=args.epochs)
        name = f'{args.size[0]}x{args.size[1]}_{args.epochs}epochs_{args.crossfit}parts_seed{seed}'
        cfg.crossfit, cfg.work_dir = args.crossfit, str(Path(args.work_dir, name))
        set_data(cfg, type='kgl_mm.MislabelledKolektorSDD', flip_seed=seed)
        train(cfg, resume=True)
        found = doubts(evidence_of(read_run(cfg.work_dir))[0])
        dataset = DATASETS.build(dict(type='kgl_mm.MislabelledKolektorSDD', flip_seed=seed, protocol='clean'))
        flipped = {Path(path).relative_to(dataset.data_root).as_posix() for path in dataset.flipped}
        print(f'\nseed {seed}: the flipped labels among the {len(found)} in the order of the report')
        for place, doubt in enumerate(found, start=1):
            if doubt.key in flipped:
                print(f'{place:5} {doubt.key}, called {"defective" if doubt.label else "good"}: {doubt.against:+.2f}')


if __name__ == '__main__':
    cli.run(main)

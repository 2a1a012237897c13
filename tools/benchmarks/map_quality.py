"""Compare saliency methods by how well their maps find real defects, after a short training: CSV rows and a table.

Stage 1 is trained where the work directory has none yet. Maps are those of the training part, as priors are; quality
is that of its defective images (of NEU-DET: of every sixth image) against their masks (its boxes), the pseudo-label
by Otsu.
"""

import argparse
import os
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import cv2
import numpy as np
from boxes_as_maps import mask_of
from mmengine.registry import DefaultScope

from kgl_mm.apis import cli
from kgl_mm.apis.train import train
from kgl_mm.datasets import Boxed, NEUDet, Sample, VocBoxes
from kgl_mm.engine.config import load_config, set_data
from kgl_mm.engine.hooks.prior_generation_hook import build_method
from kgl_mm.engine.loading import load_dataset, load_model
from kgl_mm.engine.stages import latest_checkpoint
from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore
from kgl_mm.priors.generation import generate
from kgl_mm.registry import DATASETS
from kgl_mm.study.summary import write_summary

METHODS = {
    'Grad-CAM': dict(type='GradCAM'),
    'Grad-CAM, 3 layers': dict(type='GradCAM', layers=3),
    'Grad-CAM++': dict(type='GradCAMPlusPlus'),
    'LayerCAM, last layer': dict(type='LayerCAM', layers=1),
    'LayerCAM, 2 layers': dict(type='LayerCAM', layers=2),
    'LayerCAM, 3 layers': dict(type='LayerCAM'),
    'LayerCAM, 3 layers, mean': dict(type='LayerCAM', fuse='mean'),
    'FullGrad, none': dict(type='FullGrad', scale='none'),
    'FullGrad, by layer': dict(type='FullGrad', scale='layer'),
    'FullGrad, by channel': dict(type='FullGrad', scale='channel'),
    'LayerCAM x FullGrad': dict(type='SaliencyProduct'),
    'Grad-CAM, flips': dict(type='GradCAM', flips=['h', 'v', 'hv']),
    'LayerCAM, 3 layers, flips': dict(type='LayerCAM', flips=['h', 'v', 'hv']),
    'LayerCAM, 3 layers, mean, flips': dict(type='LayerCAM', fuse='mean', flips=['h', 'v', 'hv']),
    'FullGrad, by layer, flips': dict(type='FullGrad', scale='layer', flips=['h', 'v', 'hv']),
    'LayerCAM x FullGrad, flips': dict(type='SaliencyProduct', flips=['h', 'v', 'hv']),
}
TARGETS = dict(ksdd='defect', neu='predicted')
LAST_LAYERS = [f'backbone.stages.{stage}' for stage in range(4)]
COLUMNS = ('pointing', 'energy', 'iou', 'recall', 'precision')


@DATASETS.register_module()
class NEUDetBoxes(NEUDet):
    """Its boxes as masks."""

    def find_samples(self) -> list[Sample]:
        boxes = {image.img_path: image for image in VocBoxes(self.data_root, lazy_init=True).find_boxes()}
        return [replace(sample, mask_path=self._draw(boxes[sample.img_path])) for sample in super().find_samples()]

    def _draw(self, image: Boxed) -> str:
        mask = Path('work_dirs/neu_masks', f'{Path(image.img_path).stem}.png')
        if not mask.exists():
            mask.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(mask), mask_of(image))
        return str(mask)


def config(data: str, pooling: str, fold: int, seed: int):
    options = {'randomness.seed': seed, 'model.neck.mode': pooling, 'default_hooks.logger.interval': 1000}
    options['model.head.in_channels'] = 128 if pooling == 'max_avg' else 64
    cfg = load_config('slim_vgg_ksdd.py', options)
    if data == 'ksdd':
        set_data(cfg, fold=fold)
        return cfg
    for part in ('train', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        loading = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.LoadMask')]
        flips = [dict(type='RandomFlip', prob=0.5, direction=way) for way in ('horizontal', 'vertical')]
        pipeline = [*loading, *(flips if part == 'train' else []), dict(type='kgl_mm.PackDefect')]
        dataset = dict(type='kgl_mm.NEUDetBoxes', split=part, pipeline=pipeline, cache='memory')
        sampler = dict(type='DefaultSampler', shuffle=part == 'train')
        cfg[f'{part}_dataloader'] = dict(batch_size=16, num_workers=0, dataset=dataset, sampler=sampler)
    cfg.merge_from_dict({'model.head.num_classes': 6, 'train_cfg.max_epochs': 6})
    return cfg


def scores_of(entries: list[dict]) -> dict[str, float]:
    """Means over the images that were measured, and how well trust ranks them."""
    measured = [entry for entry in entries if 'quality' in entry]
    columns = {name: np.array([entry['quality'][name] for entry in measured]) for name in COLUMNS}
    columns['trust'] = np.array([entry['trust'] for entry in measured])
    ranks = {f'trust ~ {name}': rank_correlation(columns['trust'], columns[name]) for name in ('iou', 'energy')}
    return {name: float(values.mean()) for name, values in columns.items()} | ranks


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: that of the ranks."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', choices=['ksdd', 'neu'], default='ksdd')
    parser.add_argument('--pooling', nargs='+', choices=['avg', 'max_avg', 'max'], default=['avg', 'max_avg'])
    parser.add_argument('--folds', nargs='+', type=int, default=[0])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
    parser.add_argument('--work-dir', default='work_dirs/map_quality')
    args = parser.parse_args()
    if not os.environ.get('KGL_DATA_ROOT'):
        raise UsageError('set KGL_DATA_ROOT to the folder that holds KolektorSDD and NEU-DET')
    lines = []
    for pooling, fold, seed in product(args.pooling, args.folds if args.data == 'ksdd' else [0], args.seeds):
        cfg = config(args.data, pooling, fold, seed)
        root = Path(args.work_dir, f'{args.data}_{pooling}_fold{fold}_seed{seed}')
        cfg.work_dir = str(root)
        test = train(cfg, resume=True)['stage1']['test']
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = load_model(cfg, latest_checkpoint(root / 'stage1'))
            dataset = load_dataset(cfg, 'train')
        labels = [dataset.get_data_info(index)['gt_label'] for index in range(len(dataset))]
        looked_at = np.flatnonzero(labels) if args.data == 'ksdd' else np.arange(0, len(labels), 6)
        dataset = dataset.get_subset(looked_at.tolist())
        for name in args.methods:
            method = {'flips': [], **METHODS[name], 'target': TARGETS[args.data]}
            if isinstance(method.get('layers'), int):
                method['layers'] = LAST_LAYERS[-method['layers'] :]
            store = PriorStore(root / name.replace(', ', '-').replace(' ', '_'))
            found = scores_of(generate(build_method(method, model), dataset, store, batch_size=8))
            row = dict(data=args.data, pooling=pooling, fold=fold, seed=seed, method=name)
            lines.append(row | dict(AP=test['AP' if args.data == 'ksdd' else 'macro_AP']) | found)
            write_summary(lines, Path(args.work_dir, f'{args.data}.csv'))
    columns = list(lines[0])[5:]
    print(f'| data | pooling | method | runs | {" | ".join(columns)} |\n|{"---|" * (len(columns) + 4)}')
    for pooling, name in product(args.pooling, args.methods):
        runs = [line for line in lines if (line['pooling'], line['method']) == (pooling, name)]
        means = ' | '.join(f'{np.mean([run[column] for run in runs]):.2f}' for column in columns)
        print(f'| {args.data} | {pooling} | {name} | {len(runs)} | {means} |')


if __name__ == '__main__':
    cli.run(main)

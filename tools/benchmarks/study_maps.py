"""What the networks of a study see, beside the masks of defective test images: a CSV file and a table of means.

Stage 1 shows its maps by several methods, a later stage its segmentation and, by the same methods, its saliency; a
detector of good parts shows its own. Beside them stand the layers of the store that a stage wrote, which are of the
training images. IoU is that of the pseudo-label (Otsu); the area is the share of an image that holds 90 % of a map's
energy.

Example:
    python tools/benchmarks/study_maps.py work_dirs/study --where variant=guided,masks_open seed=0,1
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import numpy as np
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from rich.progress import track
from torch.utils.data import DataLoader

from kgl_mm.apis import cli
from kgl_mm.engine.hooks.prior_generation_hook import build_method
from kgl_mm.engine.loading import load_dataset, load_model
from kgl_mm.engine.work_dir import find_run
from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore, binarize
from kgl_mm.priors.quality import area_holding, quality
from kgl_mm.study.report import choose
from kgl_mm.study.summary import write_summary
from kgl_mm.study.table import read_table, varied_in

METHODS = {
    'LayerCAM': dict(type='LayerCAM'),
    'LayerCAM, mean': dict(type='LayerCAM', fuse='mean'),
    'Grad-CAM': dict(type='GradCAM'),
    'FullGrad': dict(type='FullGrad'),
    'product': dict(type='SaliencyProduct'),
}
FOUND = ('pointing', 'energy', 'iou', 'recall', 'precision', 'area')


def measure(run: Path, most: int | None) -> dict[str, dict[str, float]]:
    """Of each map of a stage the means over defective images: of the test, and of the training where it wrote maps."""
    cfg, checkpoint = find_run(run)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = load_model(cfg, checkpoint).eval()
        dataset = load_dataset(cfg, 'test')
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        chosen = [i for i, info in enumerate(infos) if info['gt_label'] and info['mask_path']]
        if not chosen:
            raise UsageError(f'{run}: there are no masks of defective test images')
        methods = {name: dict(settings, flips=[]) for name, settings in METHODS.items()}
        if hasattr(model, 'teacher'):
            methods = dict(differences=dict(type='AnomalyMap', flips=[]))
        elif hasattr(model.head, 'segment'):
            methods = {'segmentation': dict(type='SegmentationMap')} | methods
        methods = {name: build_method(settings, model) for name, settings in methods.items()}
    scores = defaultdict(list)
    loader = DataLoader(dataset.get_subset(chosen[:most]), batch_size=16, collate_fn=pseudo_collate)
    for batch in loader:
        data = model.data_preprocessor(batch, training=False)
        for name, method in methods.items():
            maps = method(data['inputs']).float().cpu().numpy()
            for prior, sample in zip(maps, data['data_samples'], strict=True):
                found = quality(prior, sample.mask[0].cpu().numpy(), binarize(prior))
                scores[name].append(found | dict(area=area_holding(prior)))
    if (run / 'priors').exists():
        store = PriorStore(run / 'priors')
        for layer in store.layers():
            for key in store.keys(layer):
                if found := store.entry(key, layer).get('quality'):
                    scores[f'priors, {layer}'].append(found | dict(area=area_holding(store.read(key, layer))))
    return {name: {key: float(np.mean([row[key] for row in rows])) for key in FOUND} for name, rows in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', type=Path, help='the work directory of tools/cross_validate.py')
    parser.add_argument('--where', nargs='+', default=[], metavar='FIELD=V1,V2', help='only rows like these')
    parser.add_argument('--most', type=int, help='look at so many defective images of each (default: all)')
    args = parser.parse_args()
    rows = [row for row in read_table(args.study / 'results.csv') if row['status'] == 'done']
    if not rows:
        raise UsageError(f'{args.study}: no study with results')
    names = varied_in(rows[0])
    runs = defaultdict(list)
    for row in choose(rows, cli.value_lists('--where', args.where)):
        runs[row['run'], row['stage']].append(row)
    lines, means = [], defaultdict(list)
    for (run, stage), shared in track(runs.items(), 'runs'):
        row = shared[0]
        settings = {name: row[name] if len({other[name] for other in shared}) == 1 else '' for name in names}
        for name, found in measure(args.study / 'runs' / run / stage, args.most).items():
            lines.append(settings | dict(seed=row['seed'], fold=row['fold'], stage=stage, map=name) | found)
            means[(*settings.values(), stage, name)].append(list(found.values()))
    write_summary(lines, args.study / 'maps.csv')
    print(f'| {" | ".join((*names, "stage", "map", "runs", *FOUND))} |\n|{"---|" * (len(names) + 3 + len(FOUND))}')
    for group, found in means.items():
        numbers = ' | '.join(f'{value:.2f}' for value in np.mean(found, axis=0))
        print(f'| {" | ".join(group)} | {len(found)} | {numbers} |')


if __name__ == '__main__':
    cli.run(main)

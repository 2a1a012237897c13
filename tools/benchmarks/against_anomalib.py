"""A model of this project beside PatchCore, STFPM and reverse distillation of anomalib: same images, size and weights.

The model is that of a run's last stage, a guided classifier or a detector of good parts. Those of anomalib learn from
the good training images alone, with the same augmentation. Their backbone is the frozen teacher of the detector, or
what the classifier's first stage has learned; a student starts from random weights. PatchCore chooses what it keeps
from 50,000 patches, drawn at random where there are more. Reverse distillation needs a ResNet-18, -34 or -50, and
sides that 32 divides. Give several runs, such as the folds and seeds of a study, for means and paired differences.

anomalib is no dependency: without it on the PYTHONPATH this says so.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import numpy as np
import torch
from _race import race, ratio
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader, Subset

from kgl_mm.apis import DefectInspector, cli
from kgl_mm.engine.loading import load_dataset
from kgl_mm.errors import UsageError
from kgl_mm.evaluation.functional import auroc, average_precision
from kgl_mm.evaluation.intervals import paired_bootstrap
from kgl_mm.evaluation.pixels import PixelTally
from kgl_mm.saliency import AnomalyMap, SegmentationMap
from kgl_mm.study.summary import write_summary

OURS = 'kgl_mm'


def layers_of(backbone: nn.Module, number: int) -> list[str]:
    """The last of the stages that a detector looks at, of a ResNet or a VGG of this project.

    Of a classifier, which looks at one: a ResNet's layer1 to layer3, as anomalib has it, or a VGG's last three.
    """
    children = dict(backbone.named_children())
    is_vgg = 'stages' in children
    names = [f'stages.{index}' for index in range(len(children['stages']))] if is_vgg else [*children]
    names = [name for name in names if name.startswith(('stages', 'layer'))]
    if not names:
        raise UsageError(f'{type(backbone).__name__}: neither a ResNet nor a VGG of this project')
    out = [names[index] for index in sorted(backbone.out_indices)]
    return (out if len(out) > 1 else names[-3:] if is_vgg else names[:3])[-number:]


def patch_core(backbone: nn.Module, batches: Callable, patches: int) -> nn.Module:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers_of(backbone, 2), copy.deepcopy(backbone)).train()
    for images in batches():
        model(images)
    found = torch.cat(model.embedding_store)
    model.embedding_store = [found[torch.randperm(len(found))[:50_000]]]
    model.subsample_embedding(min(1, patches / len(model.embedding_store[0])))
    return model.eval()


def stfpm(teacher: nn.Module, student: nn.Module, batches: Callable, epochs: int, rate: float) -> nn.Module:
    from anomalib.models.components import TimmFeatureExtractor
    from anomalib.models.image.stfpm.loss import STFPMLoss
    from anomalib.models.image.stfpm.torch_model import STFPMModel

    model = STFPMModel(layers_of(teacher, 3), copy.deepcopy(teacher))
    model.student_model = TimmFeatureExtractor(student, layers_of(student, 3), requires_grad=True)
    optimizer = torch.optim.SGD(model.student_model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-3)
    of_32 = STFPMLoss()  # a sum over images; the learning rate is for the 32 that anomalib gives it at once
    return fitted(model, lambda t, s: of_32(t, s) * 32 / len(next(iter(t.values()))), optimizer, batches, epochs)


def reverse_distillation(teacher: nn.Module, batches: Callable, epochs: int) -> nn.Module:
    from anomalib.models.components import TimmFeatureExtractor
    from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode
    from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss
    from anomalib.models.image.reverse_distillation.torch_model import ReverseDistillationModel

    size, layers = next(iter(batches())).shape[2:], layers_of(teacher, 3)
    name = f'resnet{teacher.depth}'
    model = ReverseDistillationModel(name, tuple(size), layers, AnomalyMapGenerationMode.ADD, pre_trained=False)
    model.encoder = TimmFeatureExtractor(copy.deepcopy(teacher), layers)
    learning = [*model.decoder.parameters(), *model.bottleneck.parameters()]
    optimizer = torch.optim.Adam(learning, lr=0.005, betas=(0.5, 0.99))
    return fitted(model, ReverseDistillationLoss(), optimizer, batches, epochs)


def fitted(model: nn.Module, loss: Callable, optimizer, batches: Callable, epochs: int) -> nn.Module:
    model.train()
    for _ in track(range(epochs), type(model).__name__, transient=True):
        for images in batches():
            optimizer.zero_grad()
            loss(*model(images)).backward()
            optimizer.step()
    return model.eval()


def compare(work_dir: Path, args) -> dict[str, dict[str, float]]:
    """The metrics, seconds of training and milliseconds an image of each model of a run."""
    torch.manual_seed(0)
    stages = [path for path in (work_dir / 'stage2', work_dir / 'stage1', work_dir) if path.exists()]
    ours, first = (DefectInspector(stage, device='cpu').network for stage in (stages[0], (stages[:-1] or stages)[-1]))
    backbone = getattr(first.model, 'teacher', None) or first.model.backbone
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        student = MODELS.build(backbone_config(first.config.model))
        train, test = DATASETS.build(first.config.train_dataloader.dataset), load_dataset(ours.config, args.split)
        seen = load_dataset(first.config, 'train')  # without augmentation

    def given(found: list) -> dict:
        return first.model.data_preprocessor(found, training=False)

    good = [index for index in range(len(train)) if train.get_data_info(index)['gt_label'] == 0]

    def batches(dataset=train) -> Iterator[torch.Tensor]:
        order = DataLoader(Subset(dataset, good), 8, shuffle=True, collate_fn=pseudo_collate)
        return (given(batch)['inputs'] for batch in order)

    tested = [given(batch) for batch in DataLoader(test, 8, collate_fn=pseudo_collate)]
    labels = np.array([int(sample.gt_label) != 0 for batch in tested for sample in batch['data_samples']])
    method = (AnomalyMap if hasattr(ours.model, 'teacher') else SegmentationMap)(ours.model, normalize=None, flips=[])
    epochs = args.epochs or first.config.train_cfg.max_epochs
    makers = {
        'PatchCore': lambda: patch_core(backbone, lambda: batches(seen), args.patches),
        'STFPM': lambda: stfpm(backbone, student, batches, epochs, args.rate),
    }
    fits = all(size % 32 == 0 for size in tested[0]['inputs'].shape[2:])
    if getattr(backbone, 'depth', None) in (18, 34, 50) and fits:
        makers['reverse distillation'] = lambda: reverse_distillation(backbone, batches, epochs)

    def ours_of(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = method.explain(images)
        return found.evidence, found.maps

    runs, rows = {OURS: ours_of}, {OURS: {}}
    for name, make in makers.items():
        start = time.perf_counter()
        model = make()
        rows[name] = dict(train_seconds=time.perf_counter() - start)
        runs[name] = torch.no_grad()(lambda images, model=model: scores_and_maps(model, images))
        peaks = torch.cat([runs[name](images)[1].amax((1, 2)) for images in batches(seen)])
        runs[name] = scaled(runs[name], peaks.quantile(0.99))
    one = tested[0]['inputs'][:1]
    times = race({name: lambda run=run: run(one) for name, run in runs.items()}, args.rounds)
    for name, run in runs.items():
        tally, scores = PixelTally(), []
        for batch in tested:
            found, maps = run(batch['inputs'])
            scores.append(found.flatten().double())
            for map, sample in zip(maps, batch['data_samples'], strict=True):
                if 'mask' in sample:
                    tally.add(map.clamp(0, 1), sample.mask[0])
        values = torch.cat(scores).numpy()
        rows[name] |= dict(AUROC=auroc(values, labels), AP=average_precision(values, labels), **tally.metrics())
        rows[name] |= dict(ms=1000 * statistics.median(times[name]), times=ratio(times[name], times[OURS]))
    return rows


def scores_and_maps(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = model(images)
    return found.pred_score, found.anomaly_map.reshape(len(images), *images.shape[2:])


def scaled(run: Callable, peak: torch.Tensor) -> Callable:
    """With maps in [0, 1], 1/2 at the peak that good images reach, as this project's detectors have them."""

    def scaled(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores, maps = run(images)
        return scores, maps / (maps + peak)

    return scaled


def backbone_config(model: dict) -> dict:
    """Of a classifier, or of the student of a detector, without weights learned elsewhere."""
    found = dict(model.get('student') or model.get('teacher') or model['backbone'])
    found.pop('init_cfg', None)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='of runs')
    parser.add_argument('--patches', type=int, default=2000, help='that PatchCore keeps')
    parser.add_argument('--epochs', type=int, help='of what has a student (default: those of our first stage)')
    parser.add_argument('--rate', type=float, default=0.4, help='of learning, of STFPM (default: that of anomalib)')
    parser.add_argument('--split', choices=('val', 'test'), default='test', help='val to choose a rate by')
    parser.add_argument('--rounds', type=int, default=10, help='of timing')
    parser.add_argument('--out', type=Path, help='a CSV file of all rows')
    args = parser.parse_args()
    try:
        import anomalib
    except ImportError as error:
        raise UsageError(f'anomalib is not there ({error}): pip install anomalib') from None
    found = {}
    for work_dir in args.work_dirs:
        found[str(work_dir)] = compare(work_dir, args)
        show(found, anomalib.__version__, f'{args.split} part, learning rate {args.rate:g} of STFPM')
    if args.out:
        table = [
            dict(run=run, model=name, split=args.split, rate=args.rate, **row)
            for run, rows in found.items()
            for name, row in rows.items()
        ]
        write_summary(table, args.out)


def show(found: dict, version: str, shared: str) -> None:
    print(f'anomalib {version}, {len(found)} runs, {torch.get_num_threads()} threads, {shared}')
    for name in next(iter(found.values())):
        rows = [models[name] for models in found.values()]
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        shares = [f'{key} {100 * means[key]:.1f}' for key in means if key.split('_')[-1] in ('AUROC', 'AP', 'AUPRO')]
        text = f'  {name:<21} {", ".join(shares)}, {means["ms"]:.1f} ms, {means["times"]:.2f} times {OURS}'
        if name != OURS:
            text += f', trained in {means["train_seconds"]:.0f} s'
            ahead = [100 * (models[OURS]['AUROC'] - models[name]['AUROC']) for models in found.values()]
            low, high = paired_bootstrap(ahead) if len(ahead) > 1 else ahead * 2
            text += f'; {OURS} ahead in AUROC by {np.mean(ahead):+.1f} ({low:+.1f} to {high:+.1f})'
        print(text)


if __name__ == '__main__':
    cli.run(main)

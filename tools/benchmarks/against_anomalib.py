"""A guided model beside PatchCore and STFPM of anomalib: the same images, size, machine and backbone weights.

anomalib is no dependency: without it on the PYTHONPATH this says so. Its models learn from the good training images
alone; their backbone is the first stage's, and so is STFPM's teacher, whose student starts from random weights.
"""

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import numpy as np
import torch
from _race import race, ratio
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from rich.progress import track
from torch import nn

from kgl_mm.apis import DefectInspector
from kgl_mm.apis.generate import load_dataset
from kgl_mm.errors import UsageError
from kgl_mm.evaluation.functional import auroc, average_precision
from kgl_mm.saliency import SegmentationMap


def layers_of(backbone: nn.Module, number: int) -> list[str]:
    """The names of the last stages, of a ResNet or a VGG of this project."""
    children = dict(backbone.named_children())
    names = [name for name in children if name.startswith('layer')]
    return (names or [f'stages.{index}' for index in range(len(children['stages']))])[-number:]


def patch_core(backbone: nn.Module, good: list[torch.Tensor], patches: int) -> nn.Module:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers_of(backbone, 2), copy.deepcopy(backbone)).to(good[0].device).train()
    for images in track(good, 'PatchCore', transient=True):
        model(images)
    model.subsample_embedding(patches / sum(map(len, model.embedding_store)))
    return model.eval()


def stfpm(teacher: nn.Module, student: nn.Module, good: list[torch.Tensor], epochs: int) -> nn.Module:
    from anomalib.models.components import TimmFeatureExtractor
    from anomalib.models.image.stfpm.loss import STFPMLoss
    from anomalib.models.image.stfpm.torch_model import STFPMModel

    model = STFPMModel(layers_of(teacher, 3), copy.deepcopy(teacher))
    model.student_model = TimmFeatureExtractor(student, layers_of(student, 3), requires_grad=True)
    model.to(good[0].device).train()
    optimizer = torch.optim.SGD(model.student_model.parameters(), lr=0.4, momentum=0.9, weight_decay=1e-3)
    loss = STFPMLoss()
    for _ in track(range(epochs), 'STFPM', transient=True):
        for images in good:
            optimizer.zero_grad()
            loss(*model(images)).backward()
            optimizer.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', help='of a run of both stages')
    parser.add_argument('--patches', type=int, default=2000, help='that PatchCore keeps')
    parser.add_argument('--epochs', type=int, default=40, help='of STFPM')
    parser.add_argument('--rounds', type=int, default=10)
    args = parser.parse_args()
    try:
        import anomalib
    except ImportError as error:
        raise UsageError(f'anomalib is not there ({error}): pip install anomalib') from None

    torch.manual_seed(0)
    guided = DefectInspector(Path(args.work_dir, 'stage2'), device='cpu').network
    first = DefectInspector(Path(args.work_dir, 'stage1'), device='cpu').network
    backbone = first.model.backbone
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        student = MODELS.build(first.config.model.backbone)
        student.init_weights()
        train, test = (load_dataset(first.config, split) for split in ('train', 'test'))

    def batches(dataset, indices) -> list[torch.Tensor]:
        found = [dataset[index] for index in indices]
        groups = [found[start : start + 8] for start in range(0, len(found), 8)]
        return [first.model.data_preprocessor(pseudo_collate(group), training=False)['inputs'] for group in groups]

    labels = np.array([int(test.get_data_info(index)['gt_label'] != 0) for index in range(len(test))])
    good = [index for index in range(len(train)) if train.get_data_info(index)['gt_label'] == 0]
    good, images = batches(train, good), batches(test, range(len(test)))
    kept = SegmentationMap(guided.model, normalize=None)
    models, seconds = {'guided': lambda batch: kept.explain(batch).evidence}, {}
    for name, make in dict(
        PatchCore=lambda: patch_core(backbone, good, args.patches),
        STFPM=lambda: stfpm(backbone, student, good, args.epochs),
    ).items():
        start = time.perf_counter()
        model = make()
        seconds[name] = time.perf_counter() - start
        models[name] = torch.no_grad()(lambda batch, model=model: model(batch).pred_score)
    times = race({name: lambda run=run: run(images[0][:1]) for name, run in models.items()}, args.rounds)
    print(f'anomalib {anomalib.__version__}, {len(train)} training and {len(test)} test images of', end=' ')
    print(f'{images[0].shape[3]} x {images[0].shape[2]}, cpu, {torch.get_num_threads()} threads')
    for name, run in models.items():
        scores = torch.cat([run(batch).flatten() for batch in images]).double().numpy()
        more = ratio(times[name], times['guided'])
        trained = f', trained in {seconds[name]:.0f} s' if name in seconds else ''
        ap, area = 100 * average_precision(scores, labels), 100 * auroc(scores, labels)
        ms = 1000 * statistics.median(times[name])
        print(f'  {name:<10} AP {ap:5.1f}, AUROC {area:5.1f}, {ms:6.1f} ms, {more:.2f} times guided{trained}')


if __name__ == '__main__':
    try:
        main()
    except UsageError as error:
        sys.exit(f'error: {error}')

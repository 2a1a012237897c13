"""What guidance costs against the plain classifier: a training step, inference, and the loading of priors.

All rows of a network share batch and machine, and take turns; a ratio is the median over the rounds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import cv2
import numpy as np
import torch
from _race import race, ratio
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader

from kgl_mm.apis import cli
from kgl_mm.datasets import DefectFolder
from kgl_mm.engine.config import innermost, load_config
from kgl_mm.engine.stages import stages_of
from kgl_mm.priors import PriorStore

CONFIGS = dict(kgl_vgg16_ksdd2=(224, 640), kgl_resnet50_ksdd2=(224, 640), kgl_slim_vgg_ksdd=(192, 528))
CHANNELS = ('none', 'dropout', 'self')


def build(cfg: Config, device: str, **head) -> torch.nn.Module:
    torch.manual_seed(0)
    settings = Config(cfg.model.to_dict())
    settings.head.update(head)
    settings.data_preprocessor = cfg.data_preprocessor
    return MODELS.build(settings).to(device)


def step(model: torch.nn.Module, batch: dict) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def run():
        data = model.data_preprocessor(dict(batch), training=True)
        sum(model(**data, mode='loss').values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def inference(model: torch.nn.Module, batch: dict) -> Callable[[], None]:
    images = model.data_preprocessor(dict(batch), training=False)['inputs']

    def run():
        with torch.inference_mode():
            model.eval()(images, mode='predict')

    return run


def batch_of(size: tuple[int, int], number: int) -> dict:
    samples = []
    for index in range(number):
        prior = torch.rand(1, *size)
        samples.append(DataSample(prior=prior, prior_mask=(prior > 0.9).float()).set_gt_label(index % 2))
    return dict(inputs=list(torch.randint(0, 256, (number, 3, *size), dtype=torch.uint8)), data_samples=samples)


def report(title: str, seconds: dict[str, list[float]], bound: float) -> None:
    first, *others = seconds
    print(f'  {title:<14} {first:<18} {statistics.median(seconds[first]) * 1000:8.1f} ms')
    for name in others:
        times = ratio(seconds[name], seconds[first])
        median = statistics.median(seconds[name]) * 1000
        print(f'  {title:<14} {name:<18} {median:8.1f} ms, {times:.3f} times the plain one ({bound} allowed)')


def waiting(cfg: Config, model: torch.nn.Module, size: tuple[int, int], batches: int) -> tuple[float, float]:
    """The seconds that training waits for a batch, images and priors read from files by two workers, and of a step."""
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        store = PriorStore(Path(folder, 'priors'))
        keys = [f'{"defect" if index % 2 else "good"}/{index}.png' for index in range(4 * batches)]
        for key in keys:
            Path(folder, 'data', key).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(Path(folder, 'data', key)), random.integers(90, 160, (*size, 3), np.uint8))
            store.write(key, random.random((size[0] // 2, size[1] // 2)), image_size=size)
        store.compact()
        split = Path(folder, 'split.csv')
        split.write_text('path,split\n' + ''.join(f'{key},train\n' for key in keys))
        steps = [dict(step) for step in innermost(cfg.train_dataloader.dataset).pipeline]
        for one in steps:
            if one['type'] == 'kgl_mm.LoadPrior':
                one['store'] = str(store.root)
        dataset = DATASETS.build(
            dict(type=DefectFolder, data_root=str(Path(folder, 'data')), split_file=str(split), pipeline=steps)
        )
        loader = DataLoader(
            dataset,
            batch_size=4,
            num_workers=2,
            collate_fn=lambda samples: {k: [s[k] for s in samples] for k in samples[0]},
        )
        waits, steps = [], []
        iterator, end = iter(loader), time.perf_counter()
        for batch in iterator:
            begin = time.perf_counter()
            step(model, batch)()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            waits.append(begin - end)
            end = time.perf_counter()
            steps.append(end - begin)
    return statistics.median(waits[2:]), statistics.median(steps[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--configs', nargs='+', default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    for name in args.configs:
        size = CONFIGS[name]
        stages = stages_of(load_config(f'{name}.py'))
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            models = {'plain': build(stages['stage1'], args.device)}
            models |= {f'channel {c}': build(stages['stage2'], args.device, channel=c) for c in CHANNELS}
            batch = batch_of(size, args.batch_size)
            where = args.device if args.device != 'cpu' else f'cpu, {torch.get_num_threads()} threads'
            print(f'{name}, {args.batch_size} images of {size[0]} x {size[1]}, {where}')
            report('training step', race({n: step(m, batch) for n, m in models.items()}, args.rounds), 1.10)
            report('inference', race({n: inference(m, batch) for n, m in models.items()}, args.rounds), 1.05)
            wait, whole = waiting(stages['stage2'], models['channel dropout'].train(), size, args.rounds + 3)
            share = wait / (wait + whole)
            print(f'  training waits {1000 * wait:.2f} ms for a batch with priors, {share:.1%} of its time')


if __name__ == '__main__':
    cli.run(main)

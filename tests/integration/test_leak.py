"""That no label reaches the test through a prior, and that bad priors do no harm: by real trainings of both stages.

Everything is small: images of 32 x 32 pixels, a network of three convolutions, average pooling, which learns slowly. A
test that always passes proves nothing, so each one has its opposite beside it: a leak that is planted is found, and
bad priors that are insisted on do change the result.
"""

import logging
import random
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.visualization import Visualizer

from kgl_mm.apis.evaluate import evaluate
from kgl_mm.apis.generate import generate_priors
from kgl_mm.datasets import DefectFolder
from kgl_mm.engine.run import run_stages
from kgl_mm.evaluation.functional import average_precision
from kgl_mm.priors import PriorStore
from kgl_mm.registry import DATASETS, TRANSFORMS

REPOSITORY = Path(__file__).parents[2]
SEED = 0
TRAIN, TEST = 40, 150  # images of each label
STEPS = 2 * TRAIN // 8  # of an epoch


class ScaledPrior(BaseTransform):
    """Makes the channel four times as strong, so that a network turns to it first."""

    def transform(self, results):
        results['prior'] = 4 * results['prior']
        return results


class MixedLabels(DefectFolder):
    """Calls every second training image of either kind defective: what is learned of it is nothing about defects."""

    def find_samples(self):
        samples = super().find_samples()
        return [
            replace(sample, label=place % 2) if sample.split == 'train' else sample
            for label in (0, 1)
            for place, sample in enumerate(sample for sample in samples if sample.label == label)
        ]


@pytest.fixture(scope='module', autouse=True)
def _alone(tmp_path_factory):
    """What runs leave in the process is put back, as ``run_here`` does it, and the random states with it."""
    states, threads = (random.getstate(), np.random.get_state(), torch.get_rng_state()), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp('here'))
        patch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
        patch.setattr(CheckpointLoader, '_schemes', OrderedDict(CheckpointLoader._schemes))
        patch.setattr(logging, 'raiseExceptions', False)
        for kept in (DefaultScope, MessageHub, MMLogger, Visualizer):
            patch.setattr(kept, '_instance_dict', OrderedDict(kept._instance_dict))
        patch.setitem(DATASETS._module_dict, 'MixedLabels', MixedLabels)
        patch.setitem(TRANSFORMS._module_dict, 'ScaledPrior', ScaledPrior)
        for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):  # to make configs pretty takes half the time
            patch.setattr(f'{module}.FormatCode', lambda text, **_: (text, True), raising=False)
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def draw(root, brighter):
    """Noise of deviation 40; in a defective image a square of 8 x 8 pixels is a little brighter, or nothing is."""
    pixels = np.random.default_rng(SEED)
    for split, count in dict(train=TRAIN, test=TEST, val=0).items():
        for label in ('good', 'defect'):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                image = pixels.normal(128, 40, (32, 32))
                row, column = pixels.integers(2, 22, 2)
                image[row : row + 8, column : column + 8] += brighter * (label == 'defect')
                cv2.imwrite(str(folder / f'{number:03d}.png'), image.clip(0, 255).astype(np.uint8))
    return root


def config(data_root, epochs=(6, 20), channel='dropout', given=None, insist=True, seg_weight=5.0, **stage1):
    """Both stages; ``given`` are the maps that the channel has in the test, ``stage1`` are settings of that stage."""
    stage1 = dict(pooling='avg', lr=0.02, data='kgl_mm.DefectFolder') | stage1
    load, pack = [dict(type='LoadImageFromFile')], [dict(type='kgl_mm.PackDefect')]
    flips = [dict(type='RandomFlip', prob=0.5)]
    scaled = [dict(type='kgl_mm.ScaledPrior')] if channel == 'given' else []

    def priors(**store):
        return [dict(type='kgl_mm.LoadPrior', photometric=['ScaledPrior'], **store), dict(type='kgl_mm.BinarizePrior')]

    # a channel in the test passes all that it passes in the training, where the label is known
    seen = [*priors(store=str(given)), *scaled] if given else []
    data = dict(type='kgl_mm.DefectFolder', data_root=str(data_root))
    cfg = Config.fromfile(REPOSITORY / 'configs/_base_/default_runtime.py')
    cfg.merge_from_dict(
        dict(
            randomness=dict(seed=SEED),
            data_preprocessor=dict(mean=[128.0] * 3, std=[40.0] * 3, to_rgb=True),
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='kgl_mm.SlimVGG', channels=(8, 16, 16), convs=(1, 1, 1)),
                head=dict(
                    type='kgl_mm.KnowledgeInjectionHead',
                    num_classes=2,
                    in_channels=16,
                    hidden=(16,),
                    branch=(16,),
                    pooling='avg',
                    seg_pooling='avg',
                    channel=channel,
                    loss=dict(type='kgl_mm.KnowledgeGuidedLoss', seg_weight=seg_weight),
                ),
            ),
            train_dataloader=dict(
                batch_size=8,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
                dataset=dict(**data, split='train', pipeline=[*load, *priors(), *flips, *scaled, *pack]),
            ),
            test_dataloader=dict(
                batch_size=50,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(**data, split='test', pipeline=[*load, *seen, *pack]),
            ),
            test_evaluator=dict(type='kgl_mm.DefectMetric'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.02, momentum=0.9)),
            param_scheduler=[dict(type='CosineAnnealingLR', T_max=epochs[1], by_epoch=True)],
            train_cfg=dict(by_epoch=True, max_epochs=epochs[1]),
            test_cfg=dict(),
            default_hooks=dict(checkpoint=dict(interval=1000)),  # the last epoch is saved in any case
            custom_hooks=[dict(type='kgl_mm.GuidanceHook', insist=insist)],
            stages=dict(
                stage1=dict(
                    model=dict(
                        neck=dict(type='kgl_mm.GlobalPooling', mode=stage1['pooling']),
                        head=dict(
                            _delete_=True,
                            type='LinearClsHead',
                            num_classes=2,
                            in_channels=32 if stage1['pooling'] == 'max_avg' else 16,
                            topk=(1,),
                        ),
                    ),
                    train_dataloader=dict(dataset=dict(type=stage1['data'], pipeline=[*load, *flips, *pack])),
                    test_dataloader=dict(dataset=dict(pipeline=[*load, *pack])),
                    optim_wrapper=dict(optimizer=dict(lr=stage1['lr'])),
                    param_scheduler=None,
                    train_cfg=dict(max_epochs=epochs[0]),
                    custom_hooks=[dict(type='kgl_mm.PriorGenerationHook', batch_size=40)],
                ),
                stage2=dict(),
            ),
        )
    )
    return cfg


def run(work_dir, cfg, **kwargs):
    """Run stages of a config; what came out of the last one."""
    cfg.work_dir = str(work_dir)
    stage, found = list(run_stages(cfg, **kwargs).items())[-1]
    hub, folder = MessageHub.get_current_instance(), Path(work_dir, stage)
    losses = {name: hub.get_scalar(name).mean(STEPS) for name in hub.log_scalars if name.startswith('train/loss')}
    return SimpleNamespace(
        AP=found['test']['AP'],
        scores=(folder / 'test_scores.csv').read_text(),
        loss=losses.get('train/loss_cls', losses['train/loss']),  # mean of the last epoch
        guidance=losses.get('train/loss_seg'),
        trust=hub.runtime_info.get('trust'),
        said=next(folder.glob('*/*.log')).read_text(),
        folder=folder,
    )


def first_stage(root, data_root, **settings):
    """Stage 1 alone, with the maps of the training images, by its hook, and of the test images, by the tool."""
    found = run(root / 'run', config(data_root, **settings), only='stage1')
    cfg = config(data_root, **settings)
    cfg.work_dir = str(root / 'run')
    found.train = found.folder / 'priors'
    found.test = root / 'of_test'
    generate_priors(cfg, found.folder, found.test, split='test')
    return found


def planted(store, out):
    """The store again, but the maps of good images are empty."""
    old, new = PriorStore(store), PriorStore(out)
    for key in old.keys():
        new.write(key, old.read(key) * ('/good/' not in key))
    return out


def deviations(AP):  # noqa: N803
    """How far an AP lies from chance, in standard deviations of guesses: labels that were drawn lie about the images.

    Of 150 + 150 images guesses have 0.50 +- 0.03, so that 4 deviations are 0.12.
    """
    labels, draws = np.repeat([0, 1], TEST), np.random.default_rng(0)
    guesses = [average_precision(draws.random(2 * TEST), labels) for _ in range(2000)]
    return (AP - np.mean(guesses)) / np.std(guesses)


@pytest.fixture(scope='module')
def noise(tmp_path_factory):
    """Noise, whose labels mean nothing, and a stage 1 that knows those of its training images by heart."""
    root = tmp_path_factory.mktemp('noise')
    images = draw(root / 'images', brighter=0)
    stage1 = first_stage(root, images, epochs=(20, 1), pooling='max_avg')
    store = PriorStore(stage1.train)
    evidence = [store.entry(key)['evidence'] for key in store.keys()]
    known = average_precision(evidence, ['/defect/' in key for key in store.keys()])
    return SimpleNamespace(root=root, images=images, stage1=stage1, known=known)


@pytest.fixture(scope='module')
def weak(tmp_path_factory):
    """Images of a weak signal."""
    root = tmp_path_factory.mktemp('weak')
    return SimpleNamespace(root=root, images=draw(root / 'images', brighter=20))


def test_noise(noise, tmp_path):
    print('known', noise.known, noise.stage1.AP, deviations(noise.stage1.AP))
    for channel in ('dropout', 'self'):
        r = run(tmp_path / channel, config(noise.images, epochs=(1, 10), channel=channel), priors=noise.stage1.train)
        print(channel, r.AP, deviations(r.AP), r.loss, r.guidance, r.trust)
    r = run(
        tmp_path / 'g',
        config(noise.images, epochs=(1, 10), channel='given', given=noise.stage1.test),
        priors=noise.stage1.train,
    )
    print('given', r.AP, deviations(r.AP), r.loss, r.guidance)
    tr, te = planted(noise.stage1.train, tmp_path / 'tr'), planted(noise.stage1.test, tmp_path / 'te')
    r = run(tmp_path / 'l', config(noise.images, epochs=(1, 10), channel='given', given=te), priors=tr)
    print('leak', r.AP, deviations(r.AP), r.loss, r.guidance)
    cfg = config(noise.images, epochs=(1, 10), channel='given', given=noise.stage1.test)
    cfg.work_dir = str(tmp_path / 'h')
    ap = evaluate(cfg, r.folder)['stage2']['test']['AP']
    print('leak honest', ap, deviations(ap))


def test_weak(weak, tmp_path):
    s1 = first_stage(tmp_path / 's1', weak.images)
    print('stage1', s1.AP, s1.loss)
    tr = planted(s1.train, tmp_path / 'tr')
    for name, store in (('honest', s1.train), ('leak', tr)):
        r = run(tmp_path / name, config(weak.images, channel='given', given=s1.test), priors=store)
        print(name, r.AP, r.loss)


def test_bad(weak, tmp_path):
    for name, kw in dict(
        random=dict(lr=0.0, epochs=(1, 12)), mixed=dict(epochs=(15, 12), data='kgl_mm.MixedLabels', pooling='max_avg')
    ).items():
        r = run(tmp_path / name, config(weak.images, insist=False, **kw))
        print(name, r.AP, r.loss, r.guidance, r.trust, [l for l in r.said.splitlines() if 'weak' in l])
        st = tmp_path / name / 'stage1/priors'
        i = run(tmp_path / (name + 'i'), config(weak.images, insist=True, **kw), priors=st)
        print(name, 'insist', i.AP, i.loss, i.guidance, i.trust, [l for l in i.said.splitlines() if 'weak' in l])
        old, new = PriorStore(st), PriorStore(tmp_path / (name + 'z'))
        for key in old.keys():
            new.write(key, 0 * old.read(key))
        c = run(
            tmp_path / (name + 'c'),
            config(weak.images, insist=True, seg_weight=0, **kw),
            priors=tmp_path / (name + 'z'),
        )
        print(name, 'control', c.AP, c.loss, c.guidance, c.trust, c.scores == r.scores)

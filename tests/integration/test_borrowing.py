"""Components used one at a time, in configs and runners that are somebody else's."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torchvision.models import resnet18

from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore


@pytest.fixture
def pipeline():
    return [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 64)), dict(type='mmpretrain.PackInputs')]


def dataloader(surfaces, pipeline, split):
    sampler = dict(type='kgl_mm.BalancedSampler') if split == 'train' else dict(type='DefaultSampler', shuffle=False)
    dataset = dict(type='kgl_mm.KolektorSDD', data_root=str(surfaces), fold=1, split=split, pipeline=pipeline)
    return dict(batch_size=8, num_workers=0, dataset=dataset, sampler=sampler)


def stock_config(tmp_path, surfaces, transforms, **hook):
    """A config that has nothing of kgl_mm but data set, sampler, metric and priors."""
    return Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(tmp_path),
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='ResNet', depth=18),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=2, in_channels=512, topk=(1,)),
            ),
            data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3),
            train_dataloader=dataloader(surfaces, transforms, 'train'),
            test_dataloader=dataloader(surfaces, transforms, 'test'),
            test_evaluator=dict(type='kgl_mm.DefectMetric'),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            test_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            custom_hooks=[dict(type='kgl_mm.PriorGenerationHook', flips=[], **hook)],
        )
    )


def test_in_a_stock_mmpretrain_config(tmp_path, surfaces, pipeline):
    """Run by the stock Runner."""
    runner = Runner.from_cfg(stock_config(tmp_path, surfaces, pipeline, method=dict(type='kgl_mm.GradCAM')))
    runner.train()
    store = PriorStore(tmp_path / 'priors')
    assert str(store.verify()) == f'{len(runner.train_dataloader.dataset)} as written'
    assert store.read('kos02/Part0.png').shape == (64, 32)
    metrics = runner.test()
    assert 0 <= metrics['AP'] <= 1
    assert metrics['num_images'] == 51
    assert isinstance(runner.test_evaluator, Evaluator)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=8)]), 'CenterCrop: the maps'),
        (dict(method=dict(type='RiseCAM')), 'method RiseCAM: not one of'),
    ],
)
def test_what_is_wrong_with_priors_shows_before_the_training(tmp_path, surfaces, pipeline, change, sentence):
    runner = Runner.from_cfg(stock_config(tmp_path, surfaces, pipeline, **change))
    with pytest.raises(UsageError, match=sentence):
        runner.train()
    assert runner.iter == 0


def test_the_priors_of_an_earlier_training_are_put_aside(tmp_path, surfaces, pipeline):
    for seed in (0, 1):
        cfg = stock_config(tmp_path, surfaces, pipeline, method=dict(type='kgl_mm.GradCAM'))
        cfg.randomness = dict(seed=seed)
        cfg.experiment_name = f'run{seed}'
        Runner.from_cfg(cfg).train()
    (aside,) = tmp_path.glob('priors-*')
    sources = [PriorStore(folder).source()['model'] for folder in (aside, tmp_path / 'priors')]
    assert sources[0] != sources[1]


class TorchvisionModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.net = resnet18(num_classes=2)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.net(torch.stack(inputs).float().div(255))
        if mode == 'loss':
            labels = torch.cat([sample.gt_label for sample in data_samples])
            return dict(loss=torch.nn.functional.cross_entropy(logits, labels))
        if mode == 'predict':
            return [
                dict(pred_score=score, gt_label=sample.gt_label, sample_idx=sample.sample_idx)
                for score, sample in zip(logits.softmax(1), data_samples, strict=True)
            ]
        return logits


def test_in_a_plain_mmengine_runner_with_a_torchvision_model(tmp_path, surfaces, pipeline):
    runner = Runner(
        model=TorchvisionModel(),
        work_dir=str(tmp_path),
        train_dataloader=dataloader(surfaces, pipeline, 'train'),
        test_dataloader=dataloader(surfaces, pipeline, 'test'),
        test_evaluator=dict(type='kgl_mm.DefectMetric'),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        test_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(checkpoint=dict(type='kgl_mm.SafeCheckpointHook', interval=1)),
    )
    runner.train()
    assert runner.test()['num_images'] == 51
    torch.load(tmp_path / 'epoch_1.pth', weights_only=True)


@pytest.fixture
def stranger(tmp_path, surfaces):
    """A data set of mmpretrain's own kind of data set, and a store of maps that another tool wrote for it."""
    store = PriorStore(tmp_path / 'theirs')
    for path in sorted(surfaces.glob('kos0*/*.png')):
        kind = 'defect' if cv2.imread(str(path.with_name(f'{path.stem}_label.bmp'))).any() else 'good'
        key = f'{kind}/{path.parent.name}_{path.name}'
        (tmp_path / 'pictures' / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / 'pictures' / key)
        store.write(key, np.eye(64, 32) * 40.0)  # anomaly scores, beyond 1
    store.compact()
    return tmp_path


def guided_config(stranger, **changes):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=48),
        dict(type='kgl_mm.LoadPrior', store=str(stranger / 'theirs')),
        dict(type='kgl_mm.BinarizePrior', num_priors=3),
        dict(type='RandomResizedCrop', scale=(32, 48)),
        dict(type='ColorJitter', brightness=0.3),
        dict(type='kgl_mm.PackDefect'),
    ]
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(stranger / 'work'),
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='ResNet', depth=18, out_indices=(2, 3)),
                head=dict(
                    type='kgl_mm.KnowledgeInjectionHead', num_classes=2, in_channels=512, fine_index=0,
                    fine_channels=256,
                ),
            ),
            data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3),
            train_dataloader=dict(
                batch_size=8,
                num_workers=0,
                dataset=dict(
                    type='CustomDataset', data_root=str(stranger / 'pictures'), classes=['good', 'defect'],
                    pipeline=pipeline,
                ),
                sampler=dict(type='DefaultSampler', shuffle=True),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            custom_hooks=[dict(type='kgl_mm.GuidanceHook')],
        )
    )  # fmt: skip
    cfg.merge_from_dict(changes)
    return cfg


def losses_of(runner):
    return {name for name in runner.message_hub.log_scalars if 'loss' in name}


def test_the_head_and_the_transforms_on_somebody_elses_backbone_and_data_set(stranger):
    runner = Runner.from_cfg(guided_config(stranger))
    runner.train()
    assert losses_of(runner) == {'train/loss', 'train/loss_cls', 'train/loss_seg'}
    dataset = runner.train_dataloader.dataset
    taught = [('prior_mask' in dataset[i]['data_samples'], dataset.get_gt_labels()[i]) for i in range(len(dataset))]
    assert sum(target for target, label in taught if label) <= 3
    assert all(target for target, label in taught if not label)
    assert dataset[0]['data_samples'].prior.shape == (1, 32, 48)


def test_the_consistency_loss_in_a_config_that_has_nothing_else_of_ours_but_the_transforms(stranger):
    plain = dict(
        _delete_=True,
        type='kgl_mm.ConsistentClassifier',
        backbone=dict(type='ResNet', depth=18),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=512, topk=(1,)),
        consistency=dict(type='kgl_mm.SaliencyConsistencyLoss', loss_weight=0.5),
    )
    runner = Runner.from_cfg(guided_config(stranger, model=plain))
    runner.train()
    assert losses_of(runner) == {'train/loss', 'train/loss_consistency'}


def test_both_ways_of_guidance_together(stranger):
    both = {
        'model.type': 'kgl_mm.ConsistentClassifier',
        'model.consistency': dict(type='kgl_mm.SaliencyConsistencyLoss', formula='layer_cam'),
    }
    runner = Runner.from_cfg(guided_config(stranger, **both))
    runner.train()
    assert losses_of(runner) == {'train/loss', 'train/loss_cls', 'train/loss_seg', 'train/loss_consistency'}


def test_the_guided_loss_in_a_head_of_somebody_else_without_the_hook(stranger):
    @MODELS.register_module(force=True)
    class TheirHead(BaseModule):
        def __init__(self):
            super().__init__()
            self.seg, self.fc = torch.nn.Conv2d(512, 1, 1), torch.nn.Linear(512, 2)
            self.criterion = MODELS.build(dict(type='kgl_mm.KnowledgeGuidedLoss', seg_weight=2.0))

        def loss(self, feats, data_samples):
            seg = self.seg(feats[-1])
            masks = [s.get('prior_mask', torch.zeros(1, 48, 32)) for s in data_samples]
            return self.criterion(
                self.fc(feats[-1].mean((2, 3))),
                torch.cat([s.gt_label for s in data_samples]),
                seg,
                torch.nn.functional.adaptive_max_pool2d(torch.stack(masks), seg.shape[2:]),
                torch.tensor([s.get('prior_trust', 0.0) for s in data_samples]),
            )

    cfg = guided_config(stranger, **{'model.head': dict(_delete_=True, type='TheirHead'), 'custom_hooks': []})
    cfg.train_dataloader.dataset.pipeline[3].num_priors = None
    cfg.train_dataloader.dataset.pipeline.pop(4)
    cfg.train_dataloader.dataset.pipeline.insert(4, dict(type='Resize', scale=(32, 48)))
    with pytest.raises(UsageError, match='different sizes'):
        Runner.from_cfg(cfg).train()  # nobody has told the transforms to move priors
    cfg.train_dataloader.dataset.pipeline[4] = dict(type='kgl_mm.Moved', transform=dict(type='Resize', scale=(32, 48)))
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert losses_of(runner) == {'train/loss', 'train/loss_cls', 'train/loss_seg'}

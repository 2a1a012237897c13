"""Components used one at a time, in configs and runners that are somebody else's."""

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
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
        cfg = stock_config(tmp_path, surfaces, pipeline)
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

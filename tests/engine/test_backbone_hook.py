import copy
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from kgl_mm.engine.hooks import BackboneHook
from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore
from kgl_mm.registry import MODELS

RESNET = dict(type='ResNet', depth=18, base_channels=4, stem_channels=4)


def runner(tmp_path=None, load_from=None, **settings):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(type='kgl_mm.AnomalyGuidedPretrainer', **settings))
    loader = SimpleNamespace(dataset=SimpleNamespace())
    return SimpleNamespace(
        model=model,
        train_dataloader=loader,
        train_loop=None,
        _load_from=load_from,
        work_dir=tmp_path,
        message_hub=SimpleNamespace(runtime_info={}),
    )


@pytest.mark.parametrize(
    ('settings', 'load_from', 'warned'),
    [
        (dict(backbone=dict(RESNET, frozen_stages=2)), None, True),
        (dict(backbone=dict(RESNET, frozen_stages=0)), None, True),
        (dict(backbone=RESNET), None, False),
        (dict(backbone=dict(RESNET, frozen_stages=2)), 'weights.pth', False),
        (dict(backbone=dict(RESNET, frozen_stages=2, init_cfg=dict(type='Pretrained', checkpoint='x'))), None, False),
        (dict(backbone=dict(type='kgl_mm.SlimVGG')), None, False),
    ],
)
def test_random_weights_that_are_frozen_are_warned_of(monkeypatch, settings, load_from, warned):
    said = []
    monkeypatch.setattr('kgl_mm.engine.hooks.backbone_hook.print_log', lambda text, **_: said.append(text))
    BackboneHook().before_train(runner(load_from=load_from, **settings))
    assert bool(said) == warned
    assert not said or 'stays random' in said[0]


def test_priors_of_anybodys_data_set_move_with_its_images(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    image[:2, 4:] = 255
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images/1.png'), image)
    PriorStore(tmp_path / 'maps').write('1.png', image[..., 0] / 255)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='kgl_mm.LoadPrior', store=str(tmp_path / 'maps')),
        dict(type='RandomFlip', prob=1.0, direction=['horizontal', 'vertical', 'diagonal']),
        dict(type='kgl_mm.PackDefect'),
    ]
    run = runner(backbone=dict(type='kgl_mm.SlimVGG'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        run.train_dataloader.dataset = DATASETS.build(
            dict(type='CustomDataset', data_root=str(tmp_path / 'images'), with_label=False, pipeline=pipeline)
        )
    run.train_dataloader.collate_fn = pseudo_collate
    BackboneHook().before_train(run)
    for _ in range(5):
        data = run.train_dataloader.dataset[0]
        assert torch.equal(data['data_samples'].prior[0], data['inputs'][0] / 255)


def test_a_model_without_a_backbone_is_refused():
    with pytest.raises(UsageError, match='Linear has no backbone'):
        BackboneHook().before_train(SimpleNamespace(model=nn.Linear(1, 1)))


def test_a_preprocessor_that_pads_is_refused():
    run = runner(backbone=dict(type='kgl_mm.SlimVGG'), data_preprocessor=dict(pad_size_divisor=32))
    with pytest.raises(UsageError, match='pad_size_divisor'):
        BackboneHook().before_train(run)


def test_weights_are_there_whatever_happens_to_the_picture(tmp_path):
    run = runner(tmp_path, backbone=dict(RESNET, out_indices=(2, 3)))
    BackboneHook().after_train(run)
    assert [path.name for path in tmp_path.iterdir()] == ['backbone.pth']
    weights = torch.load(tmp_path / 'backbone.pth', weights_only=True)
    expected = {f'backbone.{name}': value for name, value in run.model.backbone.state_dict().items()}
    torch.testing.assert_close(weights, expected, rtol=0, atol=0)


def test_weights_are_those_of_the_checkpoint_whatever_the_model_was_left_with(tmp_path):
    """As where a hook averages weights and puts its own back for the checkpoint alone."""
    run = runner(tmp_path, backbone=dict(type='kgl_mm.SlimVGG'))
    before = copy.deepcopy(run.model.state_dict())
    averaged = {name: value + 1 for name, value in before.items()}
    torch.save(dict(state_dict=averaged), tmp_path / 'epoch_2.pth')
    BackboneHook().after_train(run)
    weights = torch.load(tmp_path / 'backbone.pth', weights_only=True)
    torch.testing.assert_close(weights, {name: averaged[name] for name in weights}, rtol=0, atol=0)
    torch.testing.assert_close(run.model.state_dict(), before, rtol=0, atol=0)

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError
from kgl_mm.models import AnomalyGuidedPretrainer
from kgl_mm.models.losses import attention_map
from kgl_mm.registry import MODELS

SLIM = dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1), out_indices=(0, 1))
SIMMIM = dict(
    backbone=dict(
        type='SimMIMSwinTransformer',
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
        stage_cfgs=dict(block_cfgs=dict(window_size=2)),
    ),
    neck=dict(type='SimMIMLinearDecoder', in_channels=64, encoder_stride=32),
    head=dict(type='SimMIMHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3)),
)
CLASSIFIES = dict(
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=8, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
)


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def build(**settings):
    torch.manual_seed(0)
    model = MODELS.build(dict(type='kgl_mm.AnomalyGuidedPretrainer', **settings))
    model.init_weights()
    return model.train()


def batch(number=2, size=64, mask=False, **fields):
    generator = torch.Generator().manual_seed(1)
    samples = []
    for place in range(number):
        sample = DataSample(prior=torch.rand(1, size, size, generator=generator), **fields).set_gt_label(place)
        if mask:
            sample.set_mask((torch.rand(size // 4, size // 4, generator=generator) > 0.5).long())
        samples.append(sample)
    return torch.randn(number, 3, size, size, generator=generator), samples


def distance(feats, samples):
    """Of unit vectors, squared."""
    total = 0
    for stage in feats:
        for feature, sample in zip(stage, samples, strict=True):
            wanted = F.interpolate(sample.prior[None], stage.shape[2:], mode='bilinear', align_corners=False)
            a, m = attention_map(feature[None]).flatten(), wanted.flatten()
            total = total + (a / a.norm() - m / m.norm()).square().sum()
    return total / len(samples)


def test_distillation_alone_is_of_all_outputs_of_the_backbone():
    model = build(backbone=SLIM)
    inputs, samples = batch()
    losses = model(inputs, samples, mode='loss')
    assert list(losses) == ['loss_distill']
    feats = model(inputs)
    assert len(feats) == 2
    torch.testing.assert_close(losses['loss_distill'], distance(feats, samples))
    losses['loss_distill'].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_classification_of_categories_beside_it():
    model = build(backbone=SLIM, **CLASSIFIES, task_weight=0.1, distill=dict(loss_weight=2.0))
    model.head.cal_acc = True
    inputs, samples = batch(3)
    losses = model(inputs, samples, mode='loss')
    feats = model(inputs)
    torch.testing.assert_close(losses['loss_distill'], 2 * distance(feats, samples))
    logits = model.head.fc(feats[-1].mean((2, 3)))
    torch.testing.assert_close(losses['loss_task'], 0.1 * F.cross_entropy(logits, torch.arange(3)))
    assert [name for name in losses if 'loss' in name] == ['loss_distill', 'loss_task']
    assert any(name.startswith('accuracy') for name in losses)
    logged = model.parse_losses(losses)[1]
    torch.testing.assert_close(logged['loss'], losses['loss_distill'] + losses['loss_task'])


def test_simmim_compares_features_of_the_whole_image_and_reconstructs_the_masked_one():
    model = build(**SIMMIM, task_weight=0.5)
    model.backbone.eval()  # no paths are dropped
    torch.nn.init.normal_(model.backbone.norm3.weight)  # with 1 the squares of a place have the same sum everywhere
    inputs, samples = batch(mask=True)
    losses = model(inputs, samples, mode='loss')
    whole = model.backbone(inputs, None)
    torch.testing.assert_close(losses['loss_distill'], distance(whole, samples))
    reference = MODELS.build(dict(SIMMIM, type='SimMIM'))
    reference.load_state_dict({name: x for name, x in model.state_dict().items() if 'distill' not in name})
    reference.backbone.eval()
    torch.testing.assert_close(losses['loss_task'], 0.5 * reference.loss(inputs, samples)['loss'])
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    # what is masked does not reach the distillation
    for sample in samples:
        sample.set_mask(1 - sample.mask)
    again = model(inputs, samples, mode='loss')
    torch.testing.assert_close(again['loss_distill'], losses['loss_distill'], rtol=0, atol=0)
    assert again['loss_task'] != losses['loss_task']


def test_an_image_without_a_map_teaches_the_companion_alone():
    model = build(backbone=SLIM, **CLASSIFIES)
    inputs, samples = batch()
    for sample in samples:
        sample.prior.zero_()
    losses = model(inputs, samples, mode='loss')
    assert losses['loss_distill'].item() == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert any(parameter.grad.any() for parameter in model.backbone.parameters())


def test_frozen_stages_stay_as_they_are():
    backbone = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, out_indices=(2, 3), frozen_stages=2)
    model = build(backbone=backbone)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    sum(model(*batch(), mode='loss').values()).backward()
    optimizer.step()
    changed = {name.split('.')[1] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {'layer3', 'layer4'}


def test_the_preprocessor_is_that_of_classifiers():
    model = build(backbone=SLIM, data_preprocessor=dict(mean=[1, 2, 3], std=[2, 2, 2], to_rgb=True))
    data = dict(inputs=[torch.full((3, 4, 4), 5, dtype=torch.uint8)], data_samples=[DataSample()])
    assert model.data_preprocessor(data)['inputs'][0, :, 0, 0].tolist() == [2, 1.5, 1]


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(SIMMIM, backbone=SLIM), 'SimMIMSwinTransformer'),
        (dict(SIMMIM, neck=None), 'SimMIMLinearDecoder'),
        (dict(backbone=SLIM, neck=CLASSIFIES['neck']), 'neck without a head'),
        (dict(backbone=SLIM, head=dict(type='GlobalAveragePooling')), 'has no loss'),
        (dict(backbone=SLIM, task_weight=-1), 'task_weight=-1'),
        (dict(backbone=SLIM, distill=dict(loss_weight='x')), "loss_weight='x'"),
    ],
)
def test_what_does_not_fit_together_is_said(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        AnomalyGuidedPretrainer(**settings)


@pytest.mark.parametrize(
    ('settings', 'spoil', 'sentence'),
    [
        ({}, lambda sample: sample.pop('prior'), 'a.png has no prior.*kgl_mm.LoadPrior'),
        ({}, lambda sample: sample.set_field(torch.ones(1, 9, 9), 'prior'), r'prior of a.png has shape \(1, 9, 9\)'),
        (CLASSIFIES, lambda sample: sample.pop('gt_label'), 'a.png has no gt_label.*CategoryFolder'),
        (SIMMIM, lambda sample: None, 'a.png has no mask.*SimMIMMaskGenerator'),
        (dict(backbone=dict(type='ViTRaw')), lambda sample: None, 'needs feature maps.*featmap'),
    ],
)
def test_what_a_sample_lacks_is_said(settings, spoil, sentence):
    if settings.get('backbone', {}).get('type') == 'ViTRaw':
        arch = dict(embed_dims=8, num_layers=1, num_heads=1, feedforward_channels=8)
        settings = dict(backbone=dict(type='VisionTransformer', arch=arch, img_size=64, patch_size=16))
    model = build(**(dict(backbone=SLIM) | settings))
    inputs, samples = batch(metainfo=dict(img_path='a.png'))
    spoil(samples[0])
    with pytest.raises(UsageError, match=sentence):
        model(inputs, samples, mode='loss')

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from kgl_mm.errors import UsageError
from kgl_mm.models import KnowledgeInjectionHead
from kgl_mm.models.heads.knowledge_injection_head import _targets

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def head():
    def build(**kwargs):
        torch.manual_seed(0)
        return KnowledgeInjectionHead(**dict(dict(num_classes=2, in_channels=6, branch=(5,), hidden=(7,)), **kwargs))

    return build


@pytest.fixture
def feats():
    return (torch.randn(4, 6, 8, 12, generator=torch.Generator().manual_seed(1)),)


@pytest.fixture
def samples():
    """Two good images, a defective one with a target, and one without."""
    found = []
    for index, label in enumerate((0, 0, 1, 1)):
        sample = DataSample(prior=torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(index)))
        sample.set_gt_label(label)
        if index < 3:
            sample.prior_mask = torch.zeros(1, *SIZE)
            sample.prior_mask[:, 7:9, 10:12] = label
        found.append(sample)
    return found


def gradient(loss, parameters):
    return torch.autograd.grad(loss, list(parameters), allow_unused=True, retain_graph=True)


def nonzero(gradients):
    return [bool(g is not None and g.any()) for g in gradients]


@pytest.mark.parametrize('channel', ['none', 'dropout', 'self', 'given'])
@pytest.mark.parametrize('fine', [False, True])
def test_the_classification_sends_exactly_nothing_into_the_branch(head, feats, samples, channel, fine):
    extra = dict(in_index=1, fine_index=0, fine_channels=3) if fine else {}
    feats = (torch.randn(4, 3, 16, 24), *feats) if fine else feats
    model = head(channel=channel, **extra)
    features = [f.requires_grad_() for f in feats]
    losses = model.loss(tuple(features), samples)
    assert not any(nonzero(gradient(losses['loss_cls'], model.seg_branch.parameters())))
    assert all(nonzero(gradient(losses['loss_seg'], model.seg_branch.parameters())))
    assert all(nonzero(gradient(losses['loss_seg'], features)))  # guidance reaches the backbone
    losses = model.loss(tuple(features), samples)
    others = [p for name, p in model.named_parameters() if 'seg' not in name]
    assert not any(nonzero(gradient(losses['loss_seg'], others)))
    assert all(nonzero(gradient(losses['loss_cls'], others)))


def test_a_share_of_the_gradient_may_pass(head, feats, samples):
    found = []
    for share in (0.0, 0.25, 1.0):
        model = head(seg_gradient=share).eval()
        loss = model.loss(feats, samples)['loss_cls']
        found.append(gradient(loss, [model.seg_branch[-1].weight])[0])
        values = loss.item()
    assert found[0] is None
    torch.testing.assert_close(found[1], found[2] / 4)
    assert found[2].any()
    assert head().eval().loss(feats, samples)['loss_cls'].item() == values  # the gradient alone changes


def test_logits_by_hand():
    """One channel, 1x1 images: F = f, S = w f + b, logits = fc([leaky(m f f), S S])."""
    head = KnowledgeInjectionHead(num_classes=2, in_channels=1, branch=(), hidden=(1,), norm_cfg=None)
    with torch.no_grad():
        head.seg_branch[0].weight.fill_(2.0), head.seg_branch[0].bias.fill_(1.0)
        head.mlp[0].weight.copy_(torch.tensor([[1.0, 3.0]])), head.mlp[0].bias.fill_(-0.5)
        head.fc.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 5.0]])), head.fc.bias.zero_()
    feats = (torch.tensor([3.0, -1.0])[:, None, None, None],)
    seg = head.segment(feats)
    assert seg.flatten().tolist() == [7.0, -1.0]
    hidden = [4 * 3 - 0.5, 0.01 * (4 * -1 - 0.5)]
    expected = [[hidden[0], 49.0], [hidden[1], -7.0]]
    torch.testing.assert_close(head(feats), torch.tensor(expected))


def test_maximum_and_mean_are_pooled_of_features_channel_and_segmentation(head, feats):
    model = head(channel='given', hidden=(), seg_gradient=1.0).eval()
    prior = torch.rand(4, 1, 8, 12)
    joined = torch.cat([feats[0], prior], 1)
    seg = model.seg_branch(joined)
    parts = [joined.amax((2, 3)), joined.mean((2, 3)), seg.amax((2, 3)), seg.mean((2, 3))]
    torch.testing.assert_close(model(feats, prior), model.fc(torch.cat(parts, 1)))
    model = head(channel='given', hidden=(), pool_channel=False, pooling='avg', seg_pooling='max').eval()
    parts = [feats[0].mean((2, 3)), model.seg_branch(joined).amax((2, 3))]
    torch.testing.assert_close(model(feats, prior), model.fc(torch.cat(parts, 1)))
    model = head(inject=False, hidden=(), pooling='max').eval()
    torch.testing.assert_close(model(feats), model.fc(feats[0].amax((2, 3))))


def test_what_stands_for_the_channel_at_inference(head, feats, samples):
    prior = torch.rand(4, 1, 8, 12)
    dropout = head(channel='dropout').eval()
    torch.testing.assert_close(dropout(feats), dropout(feats, torch.zeros(4, 1, 8, 12)))
    own = head(channel='self').eval()
    first = own.seg_branch(torch.cat([feats[0], torch.zeros(4, 1, 8, 12)], 1)).sigmoid()
    torch.testing.assert_close(own(feats), own(feats, first))
    torch.testing.assert_close(own.segment(feats), own.segment(feats, first))
    for model in (dropout, own):
        assert not torch.equal(model(feats), model(feats, prior))
    bare = [DataSample().set_gt_label(0) for _ in range(4)]
    with_prior = torch.stack([s.pred_score for s in dropout.predict(feats, samples)])
    without = torch.stack([s.pred_score for s in dropout.predict(feats, bare)])
    assert not torch.equal(with_prior, without)  # a config that loads priors at the test has them used
    torch.testing.assert_close(without, dropout(feats).softmax(1))
    with pytest.raises(UsageError, match='LoadPrior'):
        head(channel='given').predict(feats, bare)


def test_the_channel_is_dropped_as_often_as_asked(head, feats, samples):
    for share in (0.0, 1.0):
        model = head(channel='dropout', channel_dropout=share).train()
        seen = []
        model.seg_branch.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0][:, -1]))
        model.loss(feats, samples)
        assert bool(seen[0].any()) == (share == 0)
    priors = nn.functional.adaptive_avg_pool2d(torch.stack([s.prior for s in samples]), (8, 12))
    model = head(channel='dropout', channel_dropout=0.0)
    seen = []
    model.seg_branch.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1:]))
    model.loss(feats, samples)
    torch.testing.assert_close(seen[0], priors)


def test_a_thin_target_survives_a_coarse_stride(head, feats, samples):
    model = head()
    seen = {}
    model.loss_module.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    model.loss(feats, samples)
    assert seen['seg_target'][2].sum() == 2  # rows 7 and 8 lie in two cells of stride 4, columns 10 and 11 in one
    assert seen['weights'].tolist() == [1, 1, 1, 0]
    assert not seen['seg_target'][[0, 1, 3]].any()


def test_the_trust_in_a_target_comes_with_its_image(head, feats, samples):
    samples[2].prior_trust = 0.25
    seen = {}
    model = head()
    model.loss_module.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    model.loss(feats, samples)
    assert seen['weights'].tolist() == [1, 1, 0.25, 0]


def test_what_stands_for_the_channel_at_inference_is_taught_too(head, feats, samples):
    model = head(channel='self').eval()
    seen = {}
    model.loss_module.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    model.loss(feats, samples)
    first = model.seg_branch(torch.cat([feats[0], torch.zeros(4, 1, 8, 12)], 1))
    torch.testing.assert_close(seen['seg_logits'][4:], first)
    torch.testing.assert_close(seen['seg_target'][4:], seen['seg_target'][:4])
    assert seen['weights'].tolist() == [1, 1, 1, 0] * 2


def test_every_parameter_has_a_gradient_in_every_step_also_without_guidance(head, feats, samples):
    for sample in samples:
        sample.pop('prior_mask', None)
    model = head(channel='dropout')
    model.loss_module.guidance = 0.0
    sum(model.loss(feats, samples).values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_images_that_the_preprocessor_pads_keep_their_places(head, feats, samples):
    samples[0].prior = samples[0].prior[:, :16]  # shorter: below it there is padding
    model = head(channel='given')
    seen = []
    model.seg_branch.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1]))
    model.loss(feats, samples)
    assert not seen[0][0, 4:].any()
    assert seen[0][0, :4].any()


def test_a_target_keeps_its_place_beside_a_larger_image_that_has_none(head, feats, samples):
    for sample in samples[:3]:  # of half the height: below it there is padding
        sample.prior, sample.prior_mask = sample.prior[:, :16], sample.prior_mask[:, :16]
    masks, _ = _targets(samples, feats, torch.zeros(4, 1, 8, 12))
    assert masks[2].nonzero()[:, 1:].unique(dim=0).tolist() == [[1, 2], [2, 2]]  # rows 7 and 8, at a stride of 4


def test_three_classes_and_any_backbone_with_a_neck_that_keeps_maps():
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='HRNet', arch='w18'),
        neck=dict(type='HRFuseScales', in_channels=(18, 36, 72, 144), out_channels=32),
        head=dict(type='kgl_mm.KnowledgeInjectionHead', num_classes=3, in_channels=32),
    )
    model = MODELS.build(cfg)
    samples = [DataSample(prior_mask=torch.zeros(1, 64, 64)).set_gt_label(label) for label in (0, 2)]
    images = torch.randn(2, 3, 64, 64)
    losses = model(images, samples, mode='loss')
    assert set(losses) == {'loss_cls', 'loss_seg'}
    assert model(images, mode='tensor').shape == (2, 3)
    assert model.head.segment(model.extract_feat(images)).shape[:2] == (2, 1)
    assert model(images, samples, mode='predict')[0].pred_score.shape == (3,)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(channel='always'), 'not one of none, dropout'),
        (dict(seg_gradient=2), 'seg_gradient=2: not a number from 0 to 1'),
        (dict(seg_gradient='open'), "seg_gradient='open': not a number from 0 to 1"),
        (dict(channel_dropout='x'), "channel_dropout='x': not a number from 0 to 1"),
        (dict(branch='x'), "branch='x': not a list of whole numbers"),
        (dict(branch=64), 'branch=64: not a list of whole numbers'),
        (dict(hidden=[8, 0]), r'hidden=\[8, 0\]: not a list of whole numbers'),
        (dict(pooling='typo'), "^pooling='typo': not one of avg, max, max_avg"),
        (dict(seg_pooling=['avg']), r"seg_pooling=\['avg'\]: not one of avg, max, max_avg"),
        (dict(inject='maybe'), "inject='maybe': not one of True, False"),
        (dict(norm_cfg='BN'), "norm_cfg='BN': not a dict"),
        (dict(num_classes=1), 'num_classes=1: not a whole number of 2 or more'),
        (dict(in_channels='x'), "in_channels='x': not a whole number of 1 or more"),
        (dict(in_index='x'), "in_index='x': not a whole number"),
        (dict(fine_index='x', fine_channels=3), "fine_index='x': not a whole number, nor None"),
        (dict(fine_index=0), 'one needs the other'),
        (dict(loss=dict(type='CrossEntropyLoss')), 'knows no segmentation'),
    ],
)
def test_wrong_settings_are_said(head, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        head(**settings)


def test_vectors_and_missing_priors_are_said(head, feats, samples):
    with pytest.raises(UsageError, match='neck=None'):
        head()((torch.randn(2, 6),))
    for place in (dict(in_index=3), dict(fine_index=2, fine_channels=4)):
        with pytest.raises(UsageError, match=r'set (in_channels|its out_indices)'):
            head(**place).segment(feats)
    samples[1].pop('prior')
    with pytest.raises(UsageError, match="channel='none'"):
        head(channel='dropout').loss(feats, samples)


def test_the_channel_of_each_image_is_dropped_by_itself_and_as_often_as_asked(head):
    model = head(channel='dropout', channel_dropout=0.3)
    torch.manual_seed(0)
    kept = model._dropped((torch.zeros(4000, 6, 1, 1),), torch.ones(4000, 1, 1, 1)).flatten()
    assert set(kept.tolist()) == {0, 1}
    assert kept.mean().item() == pytest.approx(0.7, abs=0.03)


def test_a_batch_of_which_one_image_has_no_prior_is_seen_without(head):
    model, feats = head(channel='dropout').eval(), (torch.randn(2, 6, 4, 4),)
    samples = [DataSample(prior=torch.rand(1, 8, 8)), DataSample()]
    scores = torch.stack([sample.pred_score for sample in model.predict(feats, samples)])
    torch.testing.assert_close(scores, model(feats).softmax(1))


def test_the_prior_of_a_test_is_brought_to_the_features_as_that_of_a_training(head):
    model, feats = head(channel='dropout'), (torch.randn(2, 6, 4, 4),)
    samples = [DataSample(prior=torch.rand(1, 8, 8)) for _ in range(2)]
    expected = nn.functional.avg_pool2d(torch.stack([sample.prior for sample in samples]), 2)
    torch.testing.assert_close(model.prior_of(feats, samples), expected)


def test_the_branch_segments_at_the_finer_stride(head):
    model = head(in_index=1, fine_index=0, fine_channels=3)
    assert model.segment((torch.randn(2, 3, 16, 24), torch.randn(2, 6, 8, 12))).shape == (2, 1, 16, 24)

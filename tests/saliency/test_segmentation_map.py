import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from kgl_mm.errors import UsageError
from kgl_mm.saliency import LayerCAM, SegmentationMap, explain


def build(**head):
    torch.manual_seed(0)
    settings = dict(
        type='ImageClassifier',
        backbone=dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1)),
        head=dict(type='kgl_mm.KnowledgeInjectionHead', num_classes=2, in_channels=8, **head),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(settings).eval()


@pytest.fixture
def guided():
    return build(channel='self')


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def test_it_is_what_the_branch_says_at_the_size_of_the_image(guided, images):
    found = SegmentationMap(guided, normalize=None).explain(images)
    with torch.no_grad():
        feats = guided.extract_feat(images)
        logits = guided.head.segment(feats)
    expected = torch.nn.functional.interpolate(logits.sigmoid(), size=(16, 24), mode='bilinear')[:, 0]
    torch.testing.assert_close(found.maps, expected)
    torch.testing.assert_close(found.evidence, guided(images).detach().diff(dim=1)[:, 0])


def test_it_takes_no_backward_pass_and_leaves_nothing_behind(guided, images, monkeypatch):
    monkeypatch.setattr(torch.autograd, 'grad', None)
    SegmentationMap(guided, flips=['h', 'hv'])(images)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in guided.modules())
    assert all(p.grad is None and p.requires_grad for p in guided.parameters())


def test_it_shares_a_pass_with_others(guided, images):
    both = explain([SegmentationMap(guided), LayerCAM(guided)], images)
    torch.testing.assert_close(both[0].maps, SegmentationMap(guided)(images))
    torch.testing.assert_close(both[1].maps, LayerCAM(guided)(images))


def test_it_speaks_also_where_nothing_is_injected(images):
    model = build(inject=False)
    assert SegmentationMap(model, amp=True)(images).shape == (3, 16, 24)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_it_speaks_in_the_precision_of_the_model(guided, images, dtype):
    exact = SegmentationMap(guided)(images)
    found = SegmentationMap(guided.to(dtype))(images.to(dtype))
    assert (found.float() - exact).abs().max() < 0.03


def test_a_model_without_a_branch_is_refused(classifier):
    with pytest.raises(UsageError, match='0 heads that segment'):
        SegmentationMap(classifier(dict(type='kgl_mm.SlimVGG'), 64))

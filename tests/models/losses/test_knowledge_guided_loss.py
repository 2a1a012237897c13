import pytest
import torch
from mmengine.registry import DefaultScope
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError
from kgl_mm.models import AnomalyMapDistillLoss, KnowledgeGuidedLoss


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return dict(
        cls_score=torch.randn(3, 2, generator=generator, dtype=torch.float64),
        labels=torch.tensor([0, 1, 1]),
        seg_logits=torch.randn(3, 1, 2, 4, generator=generator),
        seg_target=torch.rand(3, 1, 2, 4, generator=generator).round(),
        weights=torch.tensor([1.0, 1.0, 0.0]),
    )


def test_by_its_formula(batch):
    loss = KnowledgeGuidedLoss(seg_weight=2.0, pos_weight=3.0)
    loss.guidance = 0.5
    found = loss(**batch)
    s, t = batch['seg_logits'].double(), batch['seg_target'].double()
    cells = -(3 * t * s.sigmoid().log() + (1 - t) * (1 - s.sigmoid()).log())
    expected = 0.5 * 2 * (cells[0].mean() + cells[1].mean()) / 2
    assert found['loss_seg'].item() == pytest.approx(expected.item(), rel=1e-6)
    assert found['loss_cls'].item() == pytest.approx(F.cross_entropy(batch['cls_score'], batch['labels']).item())
    assert list(found) == ['loss_cls', 'loss_seg']


def test_an_image_without_a_target_sends_no_gradient_and_one_with_an_empty_target_does(batch):
    logits = batch['seg_logits'].requires_grad_()
    batch['seg_target'][1] = 0
    KnowledgeGuidedLoss()(**batch)['loss_seg'].backward()
    assert not logits.grad[2].any()
    assert logits.grad[1].min() > 0  # an empty target pushes every cell down


def test_without_any_target_the_loss_is_zero_and_still_in_the_graph(batch):
    batch['seg_logits'].requires_grad_()
    batch['weights'][:] = 0
    loss = KnowledgeGuidedLoss()(**batch)['loss_seg']
    assert loss.item() == 0
    loss.backward()
    assert not batch['seg_logits'].grad.any()


def test_the_trust_in_a_target_weights_it_and_does_not_cancel_out(batch):
    whole = KnowledgeGuidedLoss()(**batch)['loss_seg']
    batch['weights'] *= 0.25
    torch.testing.assert_close(KnowledgeGuidedLoss()(**batch)['loss_seg'], whole / 4)


def test_half_precision_is_computed_in_full(batch):
    full = KnowledgeGuidedLoss()(**batch)['loss_seg']
    batch['seg_logits'] = batch['seg_logits'].bfloat16()
    half = KnowledgeGuidedLoss()(**batch)['loss_seg']
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full.item(), rel=1e-2)


def test_any_classification_loss_will_do(batch):
    loss = KnowledgeGuidedLoss(classification=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'))
    assert torch.isfinite(loss(**batch, avg_factor=3)['loss_cls'])


@pytest.mark.parametrize(
    ('wrong', 'sentence'),
    [
        (dict(decay='sudden'), "decay='sudden': not one of linear, constant"),
        (dict(seg_weight=-1), 'seg_weight=-1: not a number of 0 or more'),
        (dict(seg_weight='x'), "seg_weight='x': not a number of 0 or more"),
        (dict(pos_weight=0), 'pos_weight=0: not a number above 0'),
        (dict(pos_weight='x'), "pos_weight='x': not a number above 0"),
    ],
)
def test_wrong_settings_are_said(wrong, sentence):
    with pytest.raises(UsageError, match=sentence):
        KnowledgeGuidedLoss(**wrong)


def test_each_taught_image_counts_alike_whichever_process_has_it(monkeypatch):
    """This process has three of them, and another one has one: two on average."""
    guided = dict(
        cls_score=torch.randn(3, 2), labels=torch.tensor([0, 1, 1]), seg_logits=torch.randn(3, 1, 2, 4),
        seg_target=torch.ones(3, 1, 2, 4), weights=torch.ones(3),
    )  # fmt: skip
    features, maps = [torch.rand(3, 4, 2, 2)], torch.rand(3, 2, 2)
    alone = KnowledgeGuidedLoss()(**guided)['loss_seg'], AnomalyMapDistillLoss()(features, maps)
    for name in ('knowledge_guided_loss', 'anomaly_map_distill_loss'):
        monkeypatch.setattr(f'kgl_mm.models.losses.{name}.all_reduce', lambda x, op: x.fill_(2))
    torch.testing.assert_close(KnowledgeGuidedLoss()(**guided)['loss_seg'], 1.5 * alone[0])
    torch.testing.assert_close(AnomalyMapDistillLoss()(features, maps), 1.5 * alone[1])

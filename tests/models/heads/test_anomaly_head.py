"""Distances, losses, scores and scales by their formulas."""

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError
from kgl_mm.models import AnomalyHead


def pair(seed=0, layers=((4, 6, 5), (8, 3, 3)), batch=3, dtype=torch.float64):
    torch.manual_seed(seed)
    return tuple([torch.randn(batch, *shape, dtype=dtype) for shape in layers] for _ in range(2))


def test_distances_by_hand():
    """At a right angle the squared distance of unit vectors is 2, in one direction 0, in opposite ones 4."""
    taught = torch.tensor([[[[1.0, 2.0, 1.0]], [[0.0, 0.0, 1.0]]]])
    learned = torch.tensor([[[[0.0, 5.0, -3.0]], [[3.0, 0.0, -3.0]]]])
    head = AnomalyHead()
    assert head.distances(([taught], [learned]))[0].flatten().tolist() == pytest.approx([2, 0, 4])
    assert head.per_image(([taught], [learned])).tolist() == pytest.approx([2])
    assert head.loss(([taught], [learned]))['loss_distillation'].item() == pytest.approx(2)
    assert head.score(([taught], [learned])).tolist() == pytest.approx([4])
    assert AnomalyHead(top=0.6).score(([taught], [learned])).tolist() == pytest.approx([3])
    head = AnomalyHead(unit=False)
    assert head.distances(([taught], [learned]))[0].flatten().tolist() == [5, 4.5, 16]
    assert head.per_image(([taught], [learned])).tolist() == pytest.approx([8.5])


def test_the_loss_of_mkd_by_its_formula():
    taught, learned = pair()
    expected = sum(
        1
        - (t * s).flatten(1).sum(1) / (t.flatten(1).norm(dim=1) * s.flatten(1).norm(dim=1))
        + 0.01 * (t - s).square().flatten(1).mean(1)
        for t, s in zip(taught, learned, strict=True)
    )
    head = AnomalyHead(loss='mkd', maps='mkd', mse_weight=0.01)
    torch.testing.assert_close(head.per_image((taught, learned)), expected)
    torch.testing.assert_close(head.score((taught, learned)), expected)


@pytest.mark.parametrize('combine', ['product', 'sum', 'max'])
def test_layers_are_combined_at_the_size_of_the_finest(combine):
    feats = pair()
    fine, coarse = AnomalyHead().distances(feats)
    coarse = F.interpolate(coarse[:, None], size=(6, 5), mode='bilinear', align_corners=False)[:, 0]
    expected = dict(product=fine * coarse, sum=fine + coarse, max=torch.maximum(fine, coarse))[combine]
    torch.testing.assert_close(AnomalyHead(combine=combine).combined(feats), expected)


@pytest.mark.parametrize('kind', [dict(), dict(loss='mkd', maps='mkd'), dict(loss='stpm', maps='mkd')])
def test_logits_and_scales(kind):
    """The probability is score / (score + q), half at the quantile of good images, and keeps all orders."""
    feats = pair(batch=50)
    head = AnomalyHead(quantile=0.9, **kind).double()
    assert not head.is_calibrated
    scores = head.score(feats)
    torch.testing.assert_close(head(feats).softmax(1)[:, 1], scores / (scores + 1))
    head.calibrate(scores.tolist(), [2.0, 4.0])
    assert head.is_calibrated
    assert head.score_scale.item() == pytest.approx(scores.quantile(0.9).item())
    assert head.map_scale.item() == pytest.approx(3.8)
    probabilities = head(feats).softmax(1)[:, 1]
    assert (probabilities >= 0.5).sum() == 5
    assert probabilities.argsort().tolist() == scores.argsort().tolist()
    torch.testing.assert_close(head.calibrated(torch.tensor([0.0, 3.8, 1e30])), torch.tensor([0.0, 0.5, 1.0]))
    assert set(head.state_dict()) == {'score_scale', 'map_scale', '_extra_state'}


def test_a_perfect_student_and_half_precision():
    taught, learned = pair(dtype=torch.float32)
    for head in (AnomalyHead(), AnomalyHead(loss='mkd', maps='mkd')):
        logits = head((taught, taught))
        assert torch.isfinite(logits).all()
        assert (logits[:, 1] < -10).all()
        half = head(([t.half() for t in taught], [s.half() for s in learned]))
        torch.testing.assert_close(half, head((taught, learned)), rtol=1e-2, atol=1e-2)
        assert torch.isfinite(head(pair(layers=((4, 1, 1),), batch=1, dtype=torch.float32))).all()
    head.calibrate([0.0], [0.0])
    assert torch.isfinite(head((taught, learned))).all()


@pytest.mark.parametrize(
    ('make', 'sentence'),
    [
        (lambda: AnomalyHead(loss='typo'), "loss='typo': not one of stpm, mkd"),
        (lambda: AnomalyHead(quantile=0), 'quantile=0: not a number above 0'),
        (lambda: AnomalyHead(unit='maybe'), "unit='maybe': not one of None, True, False"),
        (lambda: AnomalyHead(top=2), 'top=2: not a number from 0 to 1'),
        (lambda: AnomalyHead().calibrate([math.nan], [1]), 'not finite'),
        (lambda: AnomalyHead()((pair()[0], pair(layers=((4, 6, 5), (8, 3, 2)))[1])), r'must be maps C x h x w, alike'),
        (lambda: AnomalyHead()((pair()[0], pair()[1][:1])), 'alike'),
    ],
)
def test_what_is_wrong_is_said(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()

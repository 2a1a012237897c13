import pytest
import torch

from kgl_mm.errors import UsageError
from kgl_mm.saliency import evidence

LOGITS = torch.tensor([[1.0, 3.0, 2.0], [4.0, -1.0, 0.0]])


@pytest.mark.parametrize(
    ('target', 'expected'),
    [
        ('defect', [2.0, -4.0]),
        ('predicted', [3.0, 4.0]),
        (2, [2.0, 0.0]),
        (torch.tensor([0, 1]), [1.0, -1.0]),
        ([0, 1], [1.0, -1.0]),
        (lambda logits: logits.sum(1), [6.0, 3.0]),
    ],
)
def test_evidence(target, expected):
    assert evidence(LOGITS, target).tolist() == expected


def test_evidence_of_one_output_is_its_logit():
    assert evidence(torch.tensor([[0.7], [-2.0]])).tolist() == pytest.approx([0.7, -2.0])


@pytest.mark.parametrize('target', ['good', 3, -1, torch.tensor([0, 3])])
def test_an_unknown_target_is_refused(target):
    with pytest.raises(UsageError, match='target='):
        evidence(LOGITS, target)


@pytest.mark.parametrize(('logits', 'what'), [((LOGITS,), 'tuple'), (LOGITS[None], r'shape \(1, 2, 3\)')])
def test_what_is_not_logits_is_refused(logits, what):
    with pytest.raises(UsageError, match=what):
        evidence(logits)

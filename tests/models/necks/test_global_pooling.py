import pytest
import torch
from mmengine.registry import init_default_scope
from torch.nn import functional

from kgl_mm.errors import UsageError
from kgl_mm.registry import MODELS


def test_equals_torch_functions():
    maps = torch.randn(2, 3, 5, 4), torch.randn(2, 6, 2, 2)
    avgs, tops, boths = (
        MODELS.build(dict(type='kgl_mm.GlobalPooling', mode=m))(maps) for m in ('avg', 'max', 'max_avg')
    )
    for x, avg, top, both in zip(maps, avgs, tops, boths, strict=True):
        torch.testing.assert_close(avg, functional.adaptive_avg_pool2d(x, 1).flatten(1))
        torch.testing.assert_close(top, functional.adaptive_max_pool2d(x, 1).flatten(1))
        torch.testing.assert_close(both, torch.cat([top, avg], 1))


def test_unknown_mode():
    for mode in ('sum', ['avg']):
        with pytest.raises(UsageError, match=r'mode=.*: not one of avg, max, max_avg'):
            MODELS.build(dict(type='kgl_mm.GlobalPooling', mode=mode))


@pytest.mark.parametrize(('mode', 'in_channels'), [('avg', 16), ('max_avg', 32)])
def test_in_a_classifier_of_mmpretrain(mode, in_channels):
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
    from mmpretrain.structures import DataSample

    init_default_scope('mmpretrain')
    model = MMPRETRAIN_MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='kgl_mm.SlimVGG', channels=(4, 8, 16), convs=(1, 1, 1)),
            neck=dict(type='kgl_mm.GlobalPooling', mode=mode),
            head=dict(type='LinearClsHead', num_classes=2, in_channels=in_channels),
        )
    )
    model.init_weights()
    x, samples = torch.randn(2, 3, 16, 24), [DataSample().set_gt_label(label) for label in (0, 1)]
    loss = model(x, samples, mode='loss')['loss']
    loss.backward()
    assert model.backbone.stages[0][0].conv.weight.grad.abs().sum() > 0
    predictions = model(x, samples, mode='predict')
    assert all(p.pred_score.shape == (2,) for p in predictions)

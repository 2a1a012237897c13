"""When the hook is due, and what it refuses; what it finds is tested with whole commands."""

from types import SimpleNamespace

import pytest
from mmengine.hooks import EMAHook
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from kgl_mm.engine.hooks import CalibrationHook, PriorGenerationHook, SafeCheckpointHook
from kgl_mm.errors import UsageError


@pytest.mark.parametrize(
    ('interval', 'val', 'due'),
    [
        (1, None, range(10)),
        (4, None, [3, 7, 9]),
        (-1, None, [9]),
        (4, dict(val_begin=6, dynamic_intervals=[2], dynamic_milestones=[0]), [3, 5, 7, 9]),
        (-1, dict(val_begin=1, dynamic_intervals=[9, 1], dynamic_milestones=[0, 8]), [6, 7, 8, 9]),
    ],
)
def test_it_looks_where_something_is_saved_or_validated(interval, val, due):
    checkpoint = SafeCheckpointHook(interval=interval)
    found = []
    for epoch in range(10):
        loops = dict(val_loop=val and object(), train_loop=SimpleNamespace(**val or {}))
        runner = SimpleNamespace(epoch=epoch, max_epochs=10, hooks=[checkpoint], **loops)
        found += [epoch] * CalibrationHook()._is_due(runner)
    assert found == list(due)


def test_what_does_not_fit_is_refused():
    runner = SimpleNamespace(model=nn.Linear(1, 1), train_loop=object())
    with pytest.raises(UsageError, match='Linear has no head that can be calibrated'):
        CalibrationHook().before_train(runner)
    runner.model.head = SimpleNamespace(calibrate=None)
    with pytest.raises(UsageError, match=r'by_epoch=True'):
        CalibrationHook().before_train(runner)
    runner.train_loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    runner.hooks = [EMAHook()]
    with pytest.raises(UsageError, match='remove EMAHook'):
        CalibrationHook().before_train(runner)
    with pytest.raises(UsageError, match='batch_size=0'):
        CalibrationHook(batch_size=0)


@pytest.mark.parametrize(
    ('method', 'view'),
    [
        (dict(type='kgl_mm.FullGrad'), 'kgl_mm.FullGrad'),
        (dict(type='kgl_mm.TeacherStudentSource', flips=['h']), 'kgl_mm.AnomalyMap'),
        (dict(type='kgl_mm.SaliencySource', method=dict(type='kgl_mm.GradCAM')), 'kgl_mm.GradCAM'),
        (dict(type='kgl_mm.FolderSource', folder='maps'), 'kgl_mm.LayerCAM'),
    ],
)
def test_what_a_network_sees_is_shown_by_a_method_of_its_own(method, view):
    assert PriorGenerationHook(method).view['type'] == view

"""Which threshold a checkpoint has; killed and resumed it is in the integration tests."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from kgl_mm.engine.atomic_backend import AtomicBackend
from kgl_mm.engine.checkpoint_io import load_from_file
from kgl_mm.engine.hooks import SafeCheckpointHook


class Points(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(x=torch.tensor([float(index)]))


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, x, mode):
        return dict(loss=self.line(x).mean()) if mode == 'loss' else [x]


class Chooses(Hook):
    """A validation that chooses the epoch, or the iteration where these are counted, as threshold."""

    priority = 'NORMAL'

    def after_val_epoch(self, runner, metrics=None):
        metrics['chosen_threshold'] = float(runner.epoch or runner.iter)


class Metric:
    aim = 'f1'

    def process(self, *args):
        pass

    dataset_meta = None

    def evaluate(self, size):
        return dict(AP=0.5)


def loader(sampler='DefaultSampler'):
    sampler = dict(type=sampler, shuffle=False)
    return dict(batch_size=4, dataset=Points(), sampler=sampler, collate_fn=dict(type='default_collate'))


ITERATIONS = dict(by_epoch=False, max_iters=5, val_interval=2)
EPOCHS = dict(by_epoch=True, max_epochs=5, val_interval=2)


@pytest.fixture(autouse=True)
def _scope():  # a runner leaves its own behind
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.mark.parametrize(
    ('train_cfg', 'chosen'),
    [
        (ITERATIONS, {1: None, 2: 2, 3: None, 4: 4, 5: 5}),
        (EPOCHS, {1: None, 2: 2, 3: None, 4: 4, 5: 5}),
        (dict(EPOCHS, dynamic_intervals=[(4, 1)]), {1: None, 2: 2, 3: 3, 4: 4, 5: 5}),
    ],
)
def test_a_threshold_travels_with_its_own_weights(tmp_path, train_cfg, chosen):
    by_epoch = train_cfg['by_epoch']

    runner = Runner(
        model=Line(),
        work_dir=str(tmp_path),
        train_dataloader=loader('DefaultSampler' if by_epoch else 'InfiniteSampler'),
        val_dataloader=loader(),
        train_cfg=train_cfg,
        val_cfg={},
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_evaluator=[Metric()],
        default_hooks=dict(checkpoint=dict(type='kgl_mm.SafeCheckpointHook', by_epoch=by_epoch, interval=1)),
        custom_hooks=[Chooses()],
        experiment_name=tmp_path.name,
    )
    assert any(isinstance(hook, SafeCheckpointHook) for hook in runner.hooks)
    runner.train()
    found = {}
    for path in tmp_path.glob('epoch_*.pth' if by_epoch else 'iter_*.pth'):
        info = load_from_file(str(path))['message_hub']['runtime_info']
        found[int(path.stem.rpartition('_')[2])] = info.get('threshold', {}).get('value')
    assert found == chosen


class Finds:
    aim = dataset_meta = None

    def __init__(self, **found):
        self.found = found

    def process(self, *args):
        pass

    def evaluate(self, size):
        return dict(self.found)


def runner_of(tmp_path, metric=None, checkpoint=None, **kwargs):
    val = dict(val_dataloader=loader(), val_cfg={}, val_evaluator=[metric]) if metric else {}
    return Runner(
        model=Line(), work_dir=str(tmp_path), train_dataloader=loader(), train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), experiment_name=f'{tmp_path.name}{len(kwargs)}',
        default_hooks=dict(checkpoint=dict(type='kgl_mm.SafeCheckpointHook', interval=1, **(checkpoint or {}))),
        **val, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize('where', ['put', 'put_text'])
def test_a_kill_at_any_write_leaves_the_checkpoint_that_the_pointer_names(tmp_path, monkeypatch, where):
    write, times = getattr(AtomicBackend, where), []

    def dies_the_second_time(self, *args, **kwargs):
        times.append(1)
        if len(times) == 2:
            raise KeyboardInterrupt
        return write(self, *args, **kwargs)

    monkeypatch.setattr(AtomicBackend, where, dies_the_second_time)
    with pytest.raises(KeyboardInterrupt):
        runner_of(tmp_path, checkpoint=dict(max_keep_ckpts=1)).train()
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert Path((tmp_path / 'last_checkpoint').read_text()).name == 'epoch_1.pth'


def test_a_validation_that_lacks_what_is_best_ends_no_training(tmp_path):
    runner_of(tmp_path, Finds(accuracy=0.5), dict(save_best='AP', rule='greater')).train()
    assert (tmp_path / 'epoch_2.pth').is_file()


def test_the_threshold_of_weights_that_a_training_starts_from_is_not_its_own(tmp_path):
    saved = dict(
        state_dict=Line().state_dict(),
        meta={},
        message_hub=dict(runtime_info=dict(threshold=dict(value=0.9, calibrated=True))),
    )
    torch.save(saved, tmp_path / 'others.pth')
    runner_of(tmp_path, Finds(AP=0.5), load_from=str(tmp_path / 'others.pth')).train()
    assert 'threshold' not in load_from_file(str(tmp_path / 'epoch_2.pth'))['message_hub']['runtime_info']


def test_weights_without_a_threshold_have_none_whatever_was_chosen_before():
    hub = SimpleNamespace(runtime_info=dict(threshold=dict(value=0.9, calibrated=True)))
    SafeCheckpointHook(interval=1).after_load_checkpoint(SimpleNamespace(message_hub=hub), dict(message_hub={}))
    assert 'threshold' not in hub.runtime_info

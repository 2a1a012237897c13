"""Loops that count iterations; those of epochs are resumed and killed in the integration tests."""

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

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
    """A validation that chooses the iteration itself as threshold."""

    priority = 'NORMAL'

    def after_val_epoch(self, runner, metrics=None):
        metrics['chosen_threshold'] = float(runner.iter)


class Metric:
    aim = 'f1'

    def process(self, *args):
        pass

    dataset_meta = None

    def evaluate(self, size):
        return dict(AP=0.5)


def test_a_threshold_travels_with_its_own_weights_where_iterations_are_counted(tmp_path):
    def loader():
        return dict(
            batch_size=4,
            dataset=Points(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        )

    runner = Runner(
        model=Line(),
        work_dir=str(tmp_path),
        train_dataloader=dict(loader(), sampler=dict(type='InfiniteSampler', shuffle=False)),
        val_dataloader=loader(),
        train_cfg=dict(by_epoch=False, max_iters=5, val_interval=2),
        val_cfg={},
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_evaluator=[Metric()],
        default_hooks=dict(checkpoint=dict(type='kgl_mm.SafeCheckpointHook', by_epoch=False, interval=1)),
        custom_hooks=[Chooses()],
        experiment_name=tmp_path.name,
    )
    assert any(isinstance(hook, SafeCheckpointHook) for hook in runner.hooks)
    runner.train()
    chosen = {}
    for path in tmp_path.glob('iter_*.pth'):
        info = load_from_file(str(path))['message_hub']['runtime_info']
        chosen[path.stem] = info.get('threshold', {}).get('value')
    assert chosen == dict(iter_1=None, iter_2=2.0, iter_3=None, iter_4=4.0, iter_5=5.0)

"""What a step draws depends on seed, iteration and rank; what a sample draws on seed, epoch and index."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from kgl_mm.engine import RandomnessHook


def runner(loop=EpochBasedTrainLoop, seed=0, iteration=0, epoch=0):
    return SimpleNamespace(
        train_loop=object.__new__(loop),
        train_dataloader=SimpleNamespace(dataset=None),
        seed=seed,
        iter=iteration,
        epoch=epoch,
    )


def draws(**where):
    RandomnessHook().before_train_iter(runner(**where), batch_idx=0)
    return torch.rand(1).item(), float(np.random.rand())


def test_a_step_draws_the_same_whatever_was_drawn_before():
    first = draws(iteration=3)
    torch.rand(100)
    assert draws(iteration=3) == first
    assert len({first, draws(iteration=4), draws(iteration=3, seed=1)}) == 3


@pytest.mark.parametrize(('loop', 'told'), [(EpochBasedTrainLoop, [(7, 2)]), (IterBasedTrainLoop, [])])
def test_only_a_loop_with_epochs_tells_them(loop, told, monkeypatch):
    calls = []
    monkeypatch.setattr(
        'kgl_mm.engine.hooks.randomness_hook.set_epoch', lambda dataset, seed, epoch: calls.append((seed, epoch))
    )
    RandomnessHook().before_train_epoch(runner(loop, seed=7, epoch=2))
    assert calls == told


def test_a_step_seeds_all_generators_and_each_process_its_own(monkeypatch):
    def drawn_by(rank):
        monkeypatch.setattr('kgl_mm.engine.hooks.randomness_hook.get_rank', lambda: rank)
        RandomnessHook().before_train_iter(runner(), batch_idx=0)
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    first, other = drawn_by(0), drawn_by(1)
    assert drawn_by(0) == first
    assert all(one != two for one, two in zip(first, other, strict=True))

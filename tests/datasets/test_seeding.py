import copy
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from torch.utils.data import DataLoader, Dataset, Subset

from kgl_mm.datasets import DefectDataset, Sample
from kgl_mm.datasets.samplers import BalancedSampler
from kgl_mm.datasets.seeding import Drawn, seeded, set_epoch


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def state():
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


class Draws(DefectDataset):
    """Six samples that are what a transform draws for them."""

    def find_samples(self):
        return [Sample(str(i), i % 2, None, str(i), 'train') for i in range(6)]

    def _check(self, chosen, samples):
        pass


@pytest.fixture
def draws(tmp_path):
    return Draws(str(tmp_path), pipeline=[lambda info: draw()])


def epochs(dataset, number=3, **kwargs):
    loader = DataLoader(dataset, batch_size=2, collate_fn=list, **kwargs)
    rounds = []
    for epoch in range(number):
        set_epoch(dataset, 7, epoch)
        rounds.append([drawn for batch in loader for drawn in batch])
    return rounds


def test_workers_change_nothing(draws):
    expected = epochs(draws)
    assert len({drawn for rounds in expected for drawn in rounds}) == 18
    assert epochs(draws, num_workers=2) == expected
    assert epochs(draws, num_workers=2, persistent_workers=True) == expected


def test_a_subset_has_words_of_its_own(draws):
    """They are in memory that living workers share, as those of the data set it was taken from."""
    subset = draws.get_subset(4)
    expected = [rounds[:4] for rounds in epochs(draws)]
    set_epoch(draws, 1, 1)
    assert epochs(subset, num_workers=2, persistent_workers=True) == expected


def test_seed_epoch_and_index_all_count():
    seen = set()
    for words in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**40, 0, 0)]:
        with seeded(*words):
            seen.add(draw())
    assert len(seen) == 5


@pytest.mark.parametrize('workers', [0, 2])
def test_what_comes_twice_in_an_epoch_is_augmented_twice(draws, workers):
    """A long epoch draws as the short ones that it is made of."""

    def drawn(epoch, **kwargs):
        sampler = BalancedSampler(draws, seed=0, **kwargs)
        sampler.set_epoch(epoch)
        set_epoch(draws, 7, epoch)
        return [
            one
            for batch in DataLoader(draws, 2, sampler=sampler, collate_fn=list, num_workers=workers)
            for one in batch
        ]

    short = [drawn(epoch) for epoch in range(4)]
    assert len({one for epoch in short for one in epoch}) == 24
    assert [drawn(epoch, at_least=12) for epoch in range(2)] == [short[0] + short[1], short[2] + short[3]]


@pytest.mark.parametrize('wrap', [lambda data: RepeatDataset(data, 2), lambda data: ConcatDataset([data, data])])
def test_a_wrapper_that_counts_lets_repeats_be_augmented_anew(draws, wrap):
    set_epoch(draws, 7, 0)
    wrapped = wrap(draws)
    turns = [wrapped[Drawn(9, turn)] for turn in range(3)]
    assert len({one for drawn in turns for one in drawn}) == 9
    assert turns == [draws[Drawn(3, turn)] for turn in range(3)]


def test_global_states_are_untouched(draws):
    before = state()
    set_epoch(draws, 0, 0)
    first = [draws[i] for i in range(6)]
    assert state() == before
    draw()
    assert [draws[i] for i in range(6)] == first


def test_global_states_come_back_after_an_error(draws):
    def fails(info):
        raise RuntimeError(draw())

    draws.pipeline.transforms = [fails]
    set_epoch(draws, 0, 0)
    before = state()
    with pytest.raises((RuntimeError, ValueError)):
        draws[0]
    assert state() == before


def test_without_an_epoch_samples_draw_from_the_global_state(draws):
    before = state()
    first = [draws[0] for _ in range(3)]
    random.setstate(before[0])
    assert [random.random() for _ in range(3)] == [python for python, _, _ in first]
    assert len({part for drawn in first for part in drawn}) == 9


class Foreign(Dataset):
    """Somebody else's, whose method has the name but not the arguments."""

    def set_epoch(self, epoch):
        raise AssertionError

    def __len__(self):
        return 1


def test_every_wrapper_passes_it_on(draws):
    set_epoch(draws, 3, 5)
    expected = [draws[i] for i in range(6)]
    for wrap in (
        lambda data: RepeatDataset(data, times=2),
        lambda data: Subset(data, range(6)),
        lambda data: ClassBalancedDataset(data, oversample_thr=1e-3),
        lambda data: ConcatDataset([draws, data]),
        lambda data: Subset(ConcatDataset([data]), range(2)),
        lambda data: torch.utils.data.ConcatDataset([Foreign(), data]),
    ):
        data = copy.deepcopy(draws)
        set_epoch(data, 0, 0)
        assert [data[i] for i in range(6)] != expected
        wrapped = wrap(data)
        set_epoch(wrapped, 3, 5)
        assert [data[i] for i in range(6)] == expected


def test_an_index_from_the_end_is_the_same_sample(draws):
    set_epoch(draws, 3, 5)
    assert draws[-1] == draws[5]

"""Randomness of a sample as a function of where it is drawn, whatever process draws it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def random_states() -> tuple:
    """Of all that transforms draw from: ``random``, numpy, torch on the CPU."""
    return random.getstate(), np.random.get_state(), torch.default_generator.get_state()


def set_random_states(states: tuple) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.default_generator.set_state(states[2])


@contextmanager
def seeded(*words: int) -> Iterator[None]:
    """Seed what transforms draw from by ``words``, and put it back afterwards."""
    states = random_states()
    python, numpy, pytorch = np.random.SeedSequence(words).generate_state(3)
    random.seed(int(python))
    np.random.seed(numpy)
    torch.default_generator.manual_seed(int(pytorch))
    try:
        yield
    finally:
        set_random_states(states)


class Drawn(int):
    """An index that knows the pass over the images it was drawn in, which may be one of several of an epoch.

    It still does where a wrapper counts from another image on, or in rounds (``ConcatDataset``, ``RepeatDataset``); one
    that looks indices up in a table (``Subset``, ``ClassBalancedDataset``) forgets it, and repeats are augmented alike.
    """

    turn: int | None

    def __new__(cls, index: int, turn: int | None = None) -> 'Drawn':
        drawn = super().__new__(cls, index)
        drawn.turn = turn
        return drawn

    def __sub__(self, other: int) -> 'Drawn':
        return Drawn(int(self) - other, self.turn)

    def __mod__(self, other: int) -> 'Drawn':
        return Drawn(int(self) % other, self.turn)


class SampleSeed:
    """Seed and epoch in shared memory, so that workers that live through many epochs see the present one.

    Until it is set, samples draw from the global state as in any other data set.
    """

    def __init__(self) -> None:
        self._words = torch.full((2,), -1, dtype=torch.int64).share_memory_()

    def set(self, seed: int, epoch: int) -> None:
        self._words[0], self._words[1] = seed, epoch

    def __deepcopy__(self, memo: dict) -> 'SampleSeed':
        # a copied tensor would be out of shared memory
        copied = SampleSeed()
        copied._words.copy_(self._words)
        return copied

    @contextmanager
    def of(self, index: int) -> Iterator[None]:
        """Seed by seed, epoch and index; by the pass of the index in place of the epoch, where it knows it."""
        seed, epoch = self._words.tolist()
        if seed < 0:
            yield
            return
        with seeded(seed, getattr(index, 'turn', epoch), index):
            yield


def set_epoch(dataset: object, seed: int, epoch: int) -> None:
    """Tell seed and epoch to every data set of ours inside wrappers; others may mean something else by the name."""
    if isinstance(getattr(dataset, 'sample_seed', None), SampleSeed):
        dataset.set_epoch(seed, epoch)
    for inner in [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', [])]:
        if inner is not None:
            set_epoch(inner, seed, epoch)

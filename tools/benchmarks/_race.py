"""Timings of several ways to do a thing, in turns, so that their ratios hold on a machine that is never quite quiet."""

import statistics
import time
from collections.abc import Callable, Hashable

import torch


def race(rows: dict[Hashable, Callable], rounds: int) -> dict[Hashable, list[float]]:
    """Seconds of each row in each round; the order turns, so that no row is always first."""
    seconds, names = {name: [] for name in rows}, list(rows)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            rows[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: list[float], to: list[float]) -> float:
    """The median over the rounds of one row's time over another's."""
    return statistics.median(a / b for a, b in zip(seconds, to, strict=True))

"""Which image goes where: by unit, by class, by seed. Pure functions on lists."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np


def cut_by_unit(units: Sequence[str], kinds: Sequence[int], fractions: dict[str, float], seed: int) -> list[str]:
    """Give every image one of the names in ``fractions``, all images of a unit the same one, each kind in proportion.

    A unit counts for its rarest kind of defect, for 0 only if all its images are good. Each name gets at least one
    unit of a kind where there are enough.

    >>> cut_by_unit(['a', 'a', 'b', 'c', 'd'], [0, 1, 0, 1, 0], {'train': 0.5, 'val': 0.5}, seed=0)
    ['train', 'train', 'train', 'val', 'val']
    """
    place = {}
    for stratum in _strata(units, kinds, seed).values():
        parts = np.split(np.array(stratum, object), _bounds(len(stratum), list(fractions.values())))
        for name, chosen in zip(fractions, parts, strict=True):
            place.update((unit, name) for unit in chosen)
    return [place[unit] for unit in units]


def deal_by_unit(
    units: Sequence[str], kinds: Sequence[int], parts: int, seed: int, dealt: Mapping[str, int] | None = None
) -> list[int]:
    """Deal units out into so many equal parts, the images of a unit into one, each kind evenly.

    A unit counts for its rarest kind, as in :func:`cut_by_unit`. Units in ``dealt`` stay in their part; a new one goes
    where there are the fewest of its kind.

    >>> deal_by_unit(['a', 'b', 'b', 'c', 'd'], [1, 0, 1, 0, 0], 2, seed=0)
    [0, 1, 1, 0, 1]
    """
    place = dict(dealt or {})
    totals = Counter(place.values())
    for stratum in _strata(units, kinds, seed).values():
        held = Counter(place[unit] for unit in stratum if unit in place)
        for unit in stratum:
            if unit not in place:
                place[unit] = min(range(parts), key=lambda part: (held[part], totals[part], part))
                held[place[unit]] += 1
                totals[place[unit]] += 1
    return [place[unit] for unit in units]


def _strata(units: Sequence[str], kinds: Sequence[int], seed: int) -> dict[int, list[str]]:
    """The units of each kind in seeded order; a unit is of its rarest kind of defect, of 0 only if all is good."""
    members = defaultdict(set)
    for unit, kind in zip(units, kinds, strict=True):
        members[unit].add(kind)
    frequency = Counter(kind for kinds_of_unit in members.values() for kind in kinds_of_unit)
    strata = defaultdict(list)
    for unit in sorted(members):
        strata[min(members[unit], key=lambda kind: (kind == 0, frequency[kind], kind))].append(unit)
    orders = {kind: np.random.default_rng([seed, kind]).permutation(len(strata[kind])) for kind in sorted(strata)}
    return {kind: [strata[kind][i] for i in order] for kind, order in orders.items()}


def _bounds(count: int, fractions: list[float]) -> list[int]:
    """Where to cut ``count`` things: rounded shares, none of them empty where there is enough for all."""
    sizes = [round(count * fraction) for fraction in fractions]
    sizes = [max(size, 1) if fraction > 0 else 0 for size, fraction in zip(sizes, fractions, strict=True)]
    while (surplus := sum(sizes) - count) != 0:
        # what is over or missing is settled by the largest share
        largest = int(np.argmax(sizes))
        if surplus > 0 and sizes[largest] == 1:
            sizes[len(sizes) - 1 - sizes[::-1].index(1)] = 0  # too few for all: the last ones get none
        else:
            sizes[largest] -= surplus if surplus < 0 or sizes[largest] > surplus else sizes[largest] - 1
    return np.cumsum(sizes)[:-1].tolist()


def nested_order(keys: Sequence[str], kinds: Sequence[int], seed: int) -> list[int]:
    """Positions in an order whose every beginning is a fair choice: kinds take turns, each in seeded order.

    >>> nested_order(['a', 'b', 'c', 'd'], [1, 1, 2, 1], seed=0)
    [3, 2, 0, 1]
    """
    by_kind = defaultdict(list)
    for position in sorted(range(len(keys)), key=lambda i: keys[i]):
        by_kind[kinds[position]].append(position)
    turns = []
    for kind, positions in sorted(by_kind.items()):
        order = np.random.default_rng([seed, kind]).permutation(len(positions))
        turns += [(turn, kind, positions[i]) for turn, i in enumerate(order)]
    return [position for _, _, position in sorted(turns)]

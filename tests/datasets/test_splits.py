from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgl_mm.datasets.splits import cut_by_unit, deal_by_unit, nested_order

FRACTIONS = {'train': 0.6, 'val': 0.2, 'test': 0.2}
images = st.lists(st.tuples(st.sampled_from('abcdefghijklmnop'), st.integers(0, 3)), min_size=1, max_size=60)
seeds = st.integers(0, 5)
shares = st.lists(st.floats(0.01, 1), min_size=1, max_size=4).map(
    lambda raw: {f'part{i}': share / sum(raw) for i, share in enumerate(raw)}
)


@given(images, shares, seeds)
def test_a_unit_stays_together(pairs, fractions, seed):
    units, kinds = zip(*pairs, strict=True)
    places = cut_by_unit(units, kinds, fractions, seed)
    assert len(places) == len(units)
    assert set(places) <= set(fractions)
    assert len(set(zip(units, places, strict=True))) == len(set(units))


@given(images, seeds, st.randoms())
def test_the_order_of_images_does_not_matter(pairs, seed, random):
    units, kinds = zip(*pairs, strict=True)
    of_unit = dict(zip(units, cut_by_unit(units, kinds, FRACTIONS, seed), strict=True))
    random.shuffle(pairs)
    units, kinds = zip(*pairs, strict=True)
    assert dict(zip(units, cut_by_unit(units, kinds, FRACTIONS, seed), strict=True)) == of_unit


@given(st.lists(st.integers(0, 25), min_size=1, max_size=4), shares, seeds)
def test_each_part_gets_its_share_of_every_kind_and_at_least_one_unit(counts, fractions, seed):
    kinds = [kind for kind, count in enumerate(counts) for _ in range(count)]
    places = cut_by_unit([str(i) for i in range(len(kinds))], kinds, fractions, seed)
    got = defaultdict(lambda: dict.fromkeys(fractions, 0))
    for kind, place in zip(kinds, places, strict=True):
        got[kind][place] += 1
    for kind, parts in got.items():
        if counts[kind] >= len(fractions):
            assert min(parts.values()) >= 1
        else:
            assert max(parts.values()) == 1
        for name, number in parts.items():
            assert abs(number - counts[kind] * fractions[name]) < len(fractions)


def test_a_unit_with_a_defect_counts_as_defective():
    """Ten mixed units and ten good ones, by images mostly good: both parts get half of either."""
    units = [f'u{i}' for i in range(20) for _ in range(8)]
    kinds = [int(part == 0 and i < 10) for i in range(20) for part in range(8)]
    for seed in range(20):
        places = cut_by_unit(units, kinds, {'train': 0.5, 'val': 0.5}, seed)
        defects = [place for place, kind in zip(places, kinds, strict=True) if kind]
        assert defects.count('val') == 5
        assert places.count('val') == 80


def test_an_empty_share_gets_nothing():
    places = cut_by_unit(list('abcdef'), [0] * 6, {'train': 1.0, 'val': 0.0}, 0)
    assert set(places) == {'train'}


def test_the_seed_decides():
    units, kinds = [str(i) for i in range(40)], [0, 1] * 20
    cuts = {tuple(cut_by_unit(units, kinds, FRACTIONS, seed)) for seed in range(10)}
    assert len(cuts) == 10


@given(st.lists(st.integers(1, 4), max_size=30), seeds)
def test_kinds_take_turns(kinds, seed):
    order = nested_order([str(i) for i in range(len(kinds))], kinds, seed)
    assert sorted(order) == list(range(len(kinds)))
    for n in range(len(kinds) + 1):
        used = np.bincount([kinds[i] for i in order[:n]], minlength=5)
        left = np.bincount([kinds[i] for i in order[n:]], minlength=5)
        assert used.max() - used[left > 0].min(initial=used.max()) <= 1


@given(st.sets(st.text(max_size=4), min_size=1, max_size=20), seeds, st.randoms())
def test_the_order_is_of_keys_and_not_of_positions(keys, seed, random):
    keys = sorted(keys)
    first = [keys[i] for i in nested_order(keys, [1] * len(keys), seed)]
    random.shuffle(keys)
    assert [keys[i] for i in nested_order(keys, [1] * len(keys), seed)] == first


@pytest.mark.parametrize('seed', range(3))
def test_the_order_is_shuffled(seed):
    assert nested_order([f'{i:02d}' for i in range(30)], [1] * 30, seed) != list(range(30))


def test_good_images_do_not_divide_defective_units():
    """Three of six defective units have good images, which are rarer: still one draw of six, and not two of three."""
    units, kinds = list('abcdefabc'), [1] * 6 + [0] * 3
    places = cut_by_unit(units, kinds, FRACTIONS, seed=0)[:6]
    assert [places.count(name) for name in FRACTIONS] == [4, 1, 1]


def test_a_unit_counts_for_its_rarest_kind():
    units, kinds = ['a', 'a', 'b', 'b', *map(str, range(20))], [1, 2, 1, 2, *[1] * 20]
    for seed in range(10):
        places = cut_by_unit(units, kinds, dict(train=0.5, test=0.5), seed)
        assert {places[0], places[2]} == {'train', 'test'}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=60), st.integers(2, 6), seeds, st.data())
def test_parts_are_even_in_every_kind_and_stay(pairs, parts, seed, data):
    units, kinds = [str(unit) for unit, _ in pairs], [unit % 3 for unit, _ in pairs]  # a unit is of one kind
    dealt = deal_by_unit(units, kinds, parts, seed)
    part_of = dict(zip(units, dealt, strict=True))
    assert [part_of[unit] for unit in units] == dealt
    for kind in range(3):
        counts = np.bincount([part_of[u] for u in set(units) if int(u) % 3 == kind] or [0], minlength=parts)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(list(part_of.values()) or [0], minlength=parts)
    assert sizes.max() - sizes.min() <= 1
    held = {unit: part for unit, part in part_of.items() if data.draw(st.booleans())}
    again = dict(zip(units, deal_by_unit(units, kinds, parts, seed, held), strict=True))
    assert held.items() <= again.items()


def test_new_units_go_where_the_fewest_of_their_kind_are():
    held = dict(a=0, b=0, c=1, x=2)
    assert deal_by_unit(['a', 'b', 'c', 'x', 'new'], [1, 1, 1, 0, 1], 3, 0, held) == [0, 0, 1, 2, 2]
    assert deal_by_unit(['a', 'b', 'c', 'x', 'new'], [1, 1, 1, 0, 0], 3, 0, held)[-1] == 1  # none, and fewer in all


def test_dealing_is_seeded():
    units = [str(i) for i in range(40)]
    assert len({tuple(deal_by_unit(units, [0, 1] * 20, 4, seed)) for seed in range(10)}) == 10

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from kgl_mm.datasets.samplers import BalancedSampler
from kgl_mm.errors import UsageError
from kgl_mm.registry import DATA_SAMPLERS


class Labelled(Dataset):
    def __init__(self, labels):
        self.labels = list(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return index

    def get_data_info(self, index):
        return dict(gt_label=self.labels[index])


def samplers(dataset, world_size, **kwargs):
    """What every one of ``world_size`` processes builds."""
    with pytest.MonkeyPatch.context() as patch:
        ranks = []
        for rank in range(world_size):
            patch.setattr('kgl_mm.datasets.samplers.get_dist_info', lambda rank=rank: (rank, world_size))
            ranks.append(BalancedSampler(dataset, **kwargs))
    return ranks


def epoch_of(ranks, epoch):
    """The lists of all ranks, and the images in the order of the global steps."""
    for sampler in ranks:
        sampler.set_epoch(epoch)
    lists = [list(sampler) for sampler in ranks]
    longest = max(map(len, lists))
    return lists, [images[step] for step in range(longest) for images in lists if step < len(images)]


LABELS = st.lists(st.integers(0, 3), min_size=2, max_size=40).filter(lambda labels: any(labels) and 0 in labels)
COMMON = dict(
    labels=LABELS,
    world_size=st.sampled_from([1, 2, 3, 5]),
    ratio=st.sampled_from([0.5, 1.0, 3.0]),
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=150, deadline=None)
@given(**COMMON)
def test_an_epoch_holds_each_defect_once_and_its_share_of_good_images(labels, world_size, ratio, seed):
    ranks = samplers(Labelled(labels), world_size, ratio=ratio, seed=seed)
    defects = [i for i, label in enumerate(labels) if label]
    goods = max(1, round(ratio * len(defects)))
    for epoch in range(4):
        lists, images = epoch_of(ranks, epoch)
        assert sorted(i for i in images if labels[i]) == defects
        size = -(-(len(defects) + goods) // world_size)
        assert [len(one) for one in lists] == [len(sampler) for sampler in ranks] == [size] * world_size


@settings(max_examples=150, deadline=None)
@given(**COMMON)
def test_good_images_rotate_fairly_at_every_moment(labels, world_size, ratio, seed):
    ranks = samplers(Labelled(labels), world_size, ratio=ratio, seed=seed)
    used = {i: 0 for i, label in enumerate(labels) if not label}
    for epoch in range(8):
        images = [i for i in epoch_of(ranks, epoch)[1] if not labels[i]]
        for image in images:
            used[image] += 1
            assert max(used.values()) - min(used.values()) <= 1
        # no image more often in one epoch than its number of places demands
        assert max(Counter(images).values()) == -(-len(images) // len(used))


def test_few_defects_repeat_no_good_image_across_the_end_of_a_pass():
    ranks = samplers(Labelled([1] * 6 + [0] * 10), 1, seed=0)
    epochs = [[i for i in epoch_of(ranks, epoch)[1] if i >= 6] for epoch in range(200)]
    assert all(len(set(images)) == 6 for images in epochs)
    assert len({frozenset(images) for images in epochs}) > 100, 'each pass is shuffled anew'


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63), defects=st.integers(1, 12), goods=st.integers(1, 40), half_batch=st.integers(1, 3))
def test_a_global_batch_holds_the_same_images_for_any_number_of_processes(seed, defects, goods, half_batch):
    dataset = Labelled([1] * (2 * defects) + [0] * goods)  # 4 * defects places: 1, 2 and 4 processes divide them
    batch = 4 * half_batch

    def batches(world_size, epoch):
        lists, _ = epoch_of(samplers(dataset, world_size, seed=seed), epoch)
        share = batch // world_size
        return [
            sorted(i for images in lists for i in images[start : start + share])
            for start in range(0, len(lists[0]), share)
        ]

    for epoch in (0, 1, 7):
        assert batches(1, epoch) == batches(2, epoch) == batches(4, epoch)


def test_surplus_places_come_last_and_change_nothing_before_them():
    dataset = Labelled([1] * 5 + [0] * 30)
    alone = epoch_of(samplers(dataset, 1, seed=3), 0)[1]
    three = epoch_of(samplers(dataset, 3, seed=3), 0)[1]
    assert three[:10] == alone
    assert len(three) == len(set(three)) == 12
    assert min(three[10:]) >= 5


def test_without_round_up_nothing_is_added():
    ranks = samplers(Labelled([1] * 5 + [0] * 30), 3, seed=0, round_up=False)
    lists, images = epoch_of(ranks, 0)
    assert [len(sampler) for sampler in ranks] == [len(one) for one in lists] == [4, 3, 3]
    assert len(set(images)) == 10


@pytest.mark.parametrize(('classes', 'number'), [(['good', 'a', 'b'], 0), (['ok', 'not ok'], 0), (['a', 'b', 'c'], 1)])
def test_where_no_class_is_good_it_is_warned_of(warnings_of, classes, number):
    dataset = Labelled([0, 1, 2, 0])
    dataset.metainfo = dict(classes=classes)
    assert len(warnings_of(lambda: BalancedSampler(dataset))) == number


def test_a_fresh_sampler_goes_on_where_the_first_was_stopped():
    dataset = Labelled([1, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0] * 3)
    whole = [epoch_of(samplers(dataset, 2, seed=5), epoch)[1] for epoch in range(6)]
    resumed = samplers(dataset, 2, seed=5)
    assert [epoch_of(resumed, epoch)[1] for epoch in (3, 4, 5)] == whole[3:]
    assert epoch_of(resumed, 4)[1] == epoch_of(resumed, 4)[1] == whole[4]
    assert len({tuple(images) for images in whole}) == 6
    assert epoch_of(samplers(dataset, 2, seed=6), 0)[1] != whole[0]


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 60), st.integers(1, 3), st.integers(0, 5))
def test_a_long_epoch_is_several_short_ones(defects, goods, at_least, world_size, epoch):
    dataset = Labelled([1] * defects + [0] * goods)
    for short, long in zip(
        samplers(dataset, world_size, seed=3), samplers(dataset, world_size, seed=3, at_least=at_least), strict=True
    ):
        assert long.total_size * long.passes >= at_least
        assert long.total_size * (long.passes - 1) < max(at_least, 1)
        long.set_epoch(epoch)
        expected = []
        for number in range(epoch * long.passes, (epoch + 1) * long.passes):
            short.set_epoch(number)
            expected += [(index, index.turn) for index in short]
        assert [(index, index.turn) for index in long] == expected
        assert len(long) == len(expected)


def test_defects_and_good_images_are_mixed():
    labels = [1] * 200 + [0] * 200
    images = epoch_of(samplers(Labelled(labels), 1, seed=0), 0)[1]
    halves = [sum(labels[i] for i in half) for half in (images[:200], images[200:])]
    assert all(70 < defects < 130 for defects in halves)


@pytest.mark.parametrize('world_size', [1, 2, 5])
def test_without_good_images_all_are_shuffled(world_size):
    ranks = samplers(Labelled([1, 2, 3, 1, 1, 2]), world_size, seed=0)
    first, second = (epoch_of(ranks, epoch)[1] for epoch in (0, 1))
    assert len(first) == len(second) == -(-6 // world_size) * world_size
    assert sorted(first[:6]) == list(range(6))
    assert first[6:] == first[: len(first) - 6]
    assert first != second


def test_without_defects_another_sampler_is_named():
    with pytest.raises(UsageError, match=r'All 3 images of Labelled are good.* use DefaultSampler'):
        BalancedSampler(Labelled([0, 0, 0]), seed=0)


@pytest.mark.parametrize('ratio', [0, -1.0, float('inf'), float('nan')])
def test_a_ratio_is_positive(ratio):
    with pytest.raises(UsageError, match='ratio above 0'):
        BalancedSampler(Labelled([0, 1]), ratio=ratio, seed=0)


def test_labels_by_category_as_in_other_mm_data_sets():
    class ByCategory(Dataset):
        def __len__(self):
            return 4

        def get_cat_ids(self, index):
            return [[0], [2], [0], [1]][index]

    assert BalancedSampler(ByCategory(), seed=0).defects.tolist() == [1, 3]


def test_a_data_set_without_labels_is_refused():
    with pytest.raises(UsageError, match='no label for image 0 of TensorDataset'):
        BalancedSampler(torch.utils.data.TensorDataset(torch.zeros(3)), seed=0)


class Mm(BaseDataset):
    METAINFO = dict(classes=('good', 'defect'))

    def load_data_list(self):
        return [dict(gt_label=label) for label in (0, 1, 0)]

    def get_cat_ids(self, index):
        return [self.get_data_info(index)['gt_label']]


@pytest.mark.parametrize(
    ('wrap', 'defects'),
    [
        (lambda: ConcatDataset([Mm(), Mm()]), [1, 4]),
        (lambda: RepeatDataset(Mm(), 2), [1, 4]),
        (lambda: ClassBalancedDataset(Mm(), 1e-3), [1]),
    ],
)
def test_mmengine_wrappers(wrap, defects):
    assert BalancedSampler(wrap(), seed=0).defects.tolist() == defects


@pytest.mark.parametrize('workers', [0, 2])
def test_in_a_data_loader(workers):
    dataset = Labelled([0] * 20 + [1] * 6)
    sampler = BalancedSampler(dataset, seed=0)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers)
    assert len(loader) == 3
    for epoch in range(3):
        sampler.set_epoch(epoch)
        images = torch.cat(list(loader)).tolist()
        assert images == list(sampler)
        assert sum(dataset.labels[i] for i in images) == 6


def test_runner_builds_it_from_a_config():
    loader = Runner.build_dataloader(
        dict(
            dataset=Mm(),
            sampler=dict(type='kgl_mm.BalancedSampler', ratio=2),
            batch_size=3,
            collate_fn=dict(type='pseudo_collate'),
        ),
        seed=11,
    )
    assert type(loader.sampler) is BalancedSampler
    assert loader.sampler.seed == 11
    assert sorted(loader.sampler) == [0, 1, 2]


def test_registered_and_seeded_by_mmengine_without_a_seed(monkeypatch):
    monkeypatch.setattr('kgl_mm.datasets.samplers.sync_random_seed', lambda: 42)
    dataset = Labelled([0] * 50 + [1] * 10)
    sampler = DATA_SAMPLERS.build(dict(type='BalancedSampler', dataset=dataset))
    assert list(sampler) == list(BalancedSampler(dataset, seed=42))


def test_a_hundred_thousand_images_are_read_once():
    class Counting(Labelled):
        reads = 0

        def get_data_info(self, index):
            self.reads += 1
            return super().get_data_info(index)

    dataset = Counting(np.arange(100_000) % 100 == 0)
    sampler = BalancedSampler(dataset, seed=0)
    sampler.set_epoch(300)
    assert len(set(sampler)) == 2000
    assert dataset.reads == 100_000

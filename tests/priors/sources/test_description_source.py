"""DescriptionSource: it finds what it was told of, the same every time, comparable across images."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS

from kgl_mm.descriptions import Description
from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore
from kgl_mm.priors.generation import as_tested, generate
from kgl_mm.priors.sources import DescriptionSource, description_source
from kgl_mm.priors.sources.base import good_indices, inputs_of
from kgl_mm.registry import PRIOR_SOURCES

SPOT = Description('plate', 'spot', contrast=(0.5, 0.8), length=(0.2, 0.3), width=(0.2, 0.3))
QUICK = dict(descriptions=[SPOT], steps=3, batch_size=2, width=4, crop=32)
PIPELINE = [dict(type='mmpretrain.LoadImageFromFile'), dict(type='kgl_mm.PackDefect')]


@pytest.fixture
def parts(tmp_path):
    """A function that writes images of these sizes and gives the data set; those beyond ``good`` have a dark disc."""

    def parts(*sizes, good):
        folder = tmp_path / 'parts'
        lines = ['path,split']
        for number, size in enumerate(sizes):
            kind = 'good' if number < good else 'dent'
            (folder / kind).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(90, 110, (*size, 3)).astype(np.uint8)
            if kind == 'dent':
                cv2.circle(pixels, (size[1] // 2, size[0] // 2), max(1, min(size) // 8), (40, 40, 40), -1)
            cv2.imwrite(str(folder / kind / f'{number}.png'), pixels)
            lines.append(f'{kind}/{number}.png,train')
        (tmp_path / 'split.csv').write_text('\n'.join(lines) + '\n')
        settings = dict(data_root=str(folder), split_file=str(tmp_path / 'split.csv'), num_positives=0)
        return as_tested(
            DATASETS.build(dict(type='kgl_mm.DefectFolder', pipeline=[], **settings)), PIPELINE
        ).with_defects()

    return parts


@pytest.fixture
def write(tmp_path):
    """A function that writes the maps of a source into a folder of this name: the store, and its maps by key."""

    def write(source, dataset, name='store', **kwargs):
        generate(source, dataset, PriorStore(tmp_path / name), **dict(dict(batch_size=1), **kwargs))
        store = PriorStore(tmp_path / name)
        return store, {key: (tmp_path / name / 'evidence' / f'{key}.png').read_bytes() for key in store.keys()}  # noqa: SIM118

    return write


def images_of(source, dataset, index):
    return inputs_of(source.model, pseudo_collate([dataset[index]]))[0]


def test_it_finds_what_it_was_told_of(write, model, parts):
    """Discs, of which it has seen none, stand out on all images; good images stay at one half and below."""
    dataset = parts(*[(40, 48)] * 12, good=8)
    source = DescriptionSource(model, **dict(QUICK, steps=50, batch_size=4, width=8, lr=0.02))
    store, _ = write(source, dataset, fraction=1.0)
    entries = [store.entry(key) for key in store.keys()]  # noqa: SIM118
    peaks = {label: [entry['peak'] for entry in entries if entry['label'] == label] for label in (0, 1)}
    assert min(peaks[1]) > max(peaks[0])
    for number in range(8, 12):
        row, column = np.unravel_index(store.read(f'dent/{number}.png').argmax(), (40, 48))
        assert np.hypot(row - 20, column - 24) <= 6
    assert store.source()['method']['descriptions'][0]['kind'] == 'spot'
    assert store.source()['method']['steps'] == 50


def test_the_scale_is_a_quantile_of_good_images_that_it_was_not_trained_on(model, parts, monkeypatch):
    dataset = parts(*[(24, 24)] * 12, good=10)
    seen = []
    trained = DescriptionSource._trained

    def noted(self, samples):
        seen.extend(samples)
        return trained(self, seen)

    monkeypatch.setattr(DescriptionSource, '_trained', noted)
    source = DescriptionSource(model, quantile=0.5, **QUICK)
    source.fit(dataset)
    paths = {sample['data_samples'].img_path for sample in seen}
    good = [index for index in good_indices(dataset) if dataset.get_data_info(index)['img_path'] not in paths]
    assert len(paths) == 8
    assert len(good) == 2
    network = source.network
    assert not network.training
    with torch.no_grad():
        distances = [torch.log1p(network(images_of(source, dataset, index)).double().exp()) for index in good]
    scale = np.median([float(distance.max()) for distance in distances])
    assert source.scale == pytest.approx(scale, rel=1e-5)
    for index in range(len(dataset)):
        images = images_of(source, dataset, index)
        distance = torch.log1p(network(images).double().exp())
        torch.testing.assert_close(source.maps(images).double(), distance / (distance + scale), rtol=1e-4, atol=1e-6)
        both = source.maps(torch.cat([images, images_of(source, dataset, 0)]))
        torch.testing.assert_close(both[:1], source.maps(images), rtol=1e-4, atol=1e-6)  # no other image matters


@pytest.mark.parametrize('good', [1, 2, 7])
def test_a_few_good_images(write, model, parts, good):
    dataset = parts(*[(24, 30)] * (good + 1), good=good)
    np.random.seed(0), torch.manual_seed(0)
    _, first = write(DescriptionSource(model, **QUICK), dataset, 'a')
    np.random.seed(5), torch.manual_seed(5)
    assert write(DescriptionSource(model, **QUICK), dataset, 'b')[1] == first
    assert write(DescriptionSource(model, **dict(QUICK, seed=1)), dataset, 'c')[1] != first
    with pytest.raises(UsageError, match=r'stale: method\.steps was 3, is 2'):
        write(DescriptionSource(model, **dict(QUICK, steps=2)), dataset, 'a')
    with pytest.raises(UsageError, match=r'stale: method\.descriptions'):
        write(DescriptionSource(model, **dict(QUICK, descriptions='metal')), dataset, 'a')


def test_the_hash_is_of_weights_and_scale(model, parts):
    dataset = parts((24, 30), (24, 30), good=2)
    hashes = set()
    for seed in (0, 0, 1):
        source = DescriptionSource(model, **dict(QUICK, seed=seed))
        source.fit(dataset)
        hashes.add(source.weights())
    assert len(hashes) == 2
    source.scale *= 2
    assert source.weights() not in hashes


def test_images_of_many_sizes(write, model, parts):
    dataset = parts((32, 40), (1, 1), (8, 5), (33, 35), (64, 20), (20, 80), (1, 50), (45, 46), good=6)
    store, first = write(DescriptionSource(model, size=30, **QUICK), dataset)
    assert sorted(store.entry(key)['size'] for key in first) == sorted(
        [list(size) for size in ((32, 40), (1, 1), (8, 5), (33, 35), (64, 20), (20, 80), (1, 50), (45, 46))]
    )


def test_images_of_one_pixel(write, model, parts):
    assert len(write(DescriptionSource(model, **QUICK), parts((1, 1), (1, 1), good=1))[1]) == 2


def test_without_a_preprocessor_and_with_padding(write, model, parts):
    dataset = parts((24, 30), (24, 30), (24, 30), good=2)
    assert len(write(DescriptionSource(**QUICK), dataset, 'none', batch_size=3)[1]) == 3
    model.data_preprocessor.pad_size_divisor = 32
    assert len(write(DescriptionSource(model, **QUICK), dataset, 'padded')[1]) == 3


def test_what_it_learns_from(model, parts):
    """Windows of shrunk good images, with the exact map of what is drawn there; nothing is drawn on some."""
    source = DescriptionSource(model, **dict(QUICK, size=20, crop=16, good=0.4, batch_size=4))
    images = [description_source._shrunk(parts((40, 60), good=1)[0]['inputs'], 20)]
    assert images[0].shape == (20, 30, 3)
    empty, marked = 0, 0
    for seed in range(20):
        inputs, targets = source._batch(images, np.random.default_rng(seed))
        assert inputs.shape == (4, 3, 16, 16)
        assert targets.shape == (4, 16, 16)
        again, _ = source._batch(images, np.random.default_rng(seed))
        assert torch.equal(again, inputs)
        for image, target in zip(inputs.mean(1), targets, strict=True):
            empty += not target.any()
            if (target == 1).any():
                marked += 1
                assert image[target == 1].mean() < image[target == 0].mean() - 0.4  # 50 gray levels are 1
    assert 80 * 0.25 < empty < 80 * 0.6
    assert marked > 20


def test_most_windows_show_some_of_the_defect():
    target = np.zeros((60, 90), np.float32)
    target[3, 80] = 1
    windows = [description_source._window(np.random.default_rng(seed), target, np.array([8, 12])) for seed in range(60)]
    assert all(target[window].shape == (8, 12) for window in windows)
    assert 60 * 0.6 < sum(target[window].any() for window in windows) < 60


def test_its_loss_by_hand():
    logits, targets = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[0.0, 0.5]]])
    p = 1 / (1 + np.exp(-2))
    cross = (np.log(2) - 0.5 * np.log(p) - 0.5 * np.log(1 - p)) / 2
    dice = (2 * 0.5 * p + 1) / (0.5 + p + 0.5 + 1)
    assert description_source._loss(logits, targets).item() == pytest.approx(cross + 1 - dice, rel=1e-5)


def test_a_network_of_any_size_sees_far():
    torch.manual_seed(0)
    network = description_source._network(3, 4, 0).eval()
    for size in [(1, 1), (7, 9), (16, 8), (33, 64)]:
        assert network(torch.rand(2, 3, *size)).shape == (2, *size)
    image = torch.rand(1, 3, 96, 96)
    changed = image.clone()
    changed[..., 48, 48] += 5
    reach = (network(image) - network(changed))[0].abs().amax(0).nonzero()
    assert reach.max() - reach.min() > 40


def test_what_is_wrong_is_said(model, parts):
    for settings, sentence in [
        (dict(steps=0), 'steps=0: not a whole number of 1 or more'),
        (dict(size=0), 'size=0'),
        (dict(lr=0), 'lr=0'),
        (dict(good=1.5), 'good=1.5'),
        (dict(quantile=2), 'quantile=2'),
        (dict(seed=-1), 'seed=-1'),
        (dict(descriptions='absent'), 'absent: cannot be read'),
        (dict(descriptions=['plate with crack defect, purpel']), 'not understood in .*: purpel'),
    ]:
        with pytest.raises(UsageError, match=sentence):
            PRIOR_SOURCES.build(dict(type='kgl_mm.DescriptionSource', model=model, **settings))
    with pytest.raises(UsageError, match='has not learned yet'):
        DescriptionSource(model, **QUICK).maps(torch.zeros(1, 3, 8, 8))
    dataset = parts((24, 30), (24, 30), good=1)
    defective = [index for index in range(2) if index not in good_indices(dataset)]
    with pytest.raises(UsageError, match='has no good image, and DescriptionSource draws on some'):
        DescriptionSource(model, **QUICK).check(dataset.get_subset(defective))  # before a training that ends in it
    with pytest.raises(UsageError, match='has no good image'):
        DescriptionSource(model, **QUICK).fit(dataset.get_subset(defective))
    with pytest.raises(UsageError, match=r'its training has diverged; set lr below 1e\+30'):
        DescriptionSource(model, **dict(QUICK, lr=1e30)).fit(dataset)
    assert not DescriptionSource.needs_model({})
    assert DescriptionSource(model, **QUICK).learns

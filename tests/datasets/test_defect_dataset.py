import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from kgl_mm.datasets import DefectDataset, KolektorSDD, Sample
from kgl_mm.datasets.masks import read_mask
from kgl_mm.errors import UsageError

LOAD = [dict(type='mmcv.LoadImageFromFile'), dict(type='kgl_mm.LoadMask')]


class Listed(DefectDataset):
    """Has the samples that it is given."""

    MISSING = 'see https://example.org for a folder with an a.png'

    def __init__(self, root, samples, **kwargs):
        self.samples = samples
        super().__init__(str(root), **dict(serialize_data=False) | kwargs)

    def find_samples(self):
        return self.samples


@pytest.fixture
def make(tmp_path, picture):
    """Samples from words such as ``train 1 unit``: an image each, with a mask where it is defective."""

    def make(*words):
        samples = []
        for number, word in enumerate(words):
            split, label, *unit = word.split()
            image = picture(tmp_path / f'{number:03d}.png')
            mask = str(picture(tmp_path / f'{number:03d}_mask.png', mark=1)) if label != '0' else None
            samples.append(Sample(str(image), int(label), mask, unit[0] if unit else str(number), split))
        return samples

    return make


@pytest.fixture
def usual(make):
    return make(*['train 0'] * 20, *['train 1'] * 12, *['test 0', 'test 1'])


def test_what_a_sample_is(tmp_path, make):
    samples = make('train 0 a', 'train 1 b', 'test 1 c', 'test 0 d')
    train = Listed(tmp_path, samples)
    assert len(train) == 2
    expected = dict(img_path=samples[1].img_path, gt_label=1, mask_path=samples[1].mask_path, unit='b', sample_idx=1)
    assert train.get_data_info(1) == expected
    assert train.get_data_info(0)['mask_path'] is None
    assert train.get_cat_ids(1) == [1]
    assert not train.test_mode
    test = Listed(tmp_path, samples, split='test')
    assert [test.get_data_info(i)['unit'] for i in range(2)] == ['c', 'd']
    assert test.test_mode
    assert test.metainfo['classes'] == ('good', 'defect')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(split='Train'), r"split='Train': not one of train, val, test"),
        (dict(val_fraction=1), 'val_fraction=1'),
        (dict(val_fraction=-0.1), 'val_fraction=-0.1'),
        (dict(split='val'), "split='val': Listed has no validation part of its own; set val_fraction"),
        (dict(num_positives=13), 'num_positives=13: the training part has 12 defective images'),
        (dict(num_positives=-1), 'num_positives=-1'),
        (dict(num_positives='x'), "num_positives='x': not a whole number of 0 or more, nor None for all"),
        (dict(val_fraction='x'), "val_fraction='x': not a number"),
        (dict(seed=0.5), 'seed=0.5: not a whole number'),
        (dict(num_positives=11, val_fraction=0.5), 'num_positives=11: the training part has 6 defective images'),
    ],
)
def test_impossible_wishes(tmp_path, usual, arguments, message):
    with pytest.raises(UsageError, match=message):
        Listed(tmp_path, usual, **arguments)


def test_a_validation_part_of_its_own(tmp_path, make):
    samples = make('train 0', 'train 1', 'val 0', 'val 1', 'test 0', 'test 1')
    assert len(Listed(tmp_path, samples, split='val')) == 2
    with pytest.raises(UsageError, match=r'val_fraction=0\.2: .* has a validation part of its own'):
        Listed(tmp_path, samples, val_fraction=0.2)


def test_a_validation_part_is_cut_by_unit(tmp_path, make, infos):
    words = [f'train {int(part == 0 and unit % 2)} u{unit}' for unit in range(20) for part in range(3)]
    samples = make(*words, 'test 0 t', 'test 1 t')
    cuts = set()
    for seed in range(5):
        options = dict(val_fraction=0.2, seed=seed)
        train, val = (infos(Listed(tmp_path, samples, split=split, **options)) for split in ('train', 'val'))
        assert len(train) == 48
        assert len(val) == 12
        assert sum(info['gt_label'] for info in val) == 2
        units = {info['unit'] for info in val}
        assert not units & {info['unit'] for info in train}
        assert {info['unit'] for info in train} | units == {f'u{i}' for i in range(20)}
        assert len(Listed(tmp_path, samples, split='test', **options)) == 2
        cuts.add(frozenset(units))
    assert len(cuts) > 1


def test_few_positives_are_among_more(tmp_path, usual, infos):
    for seed in range(3):
        before = set()
        for number in range(13):
            chosen = infos(Listed(tmp_path, usual, num_positives=number, seed=seed))
            defective = {info['img_path'] for info in chosen if info['gt_label']}
            assert len(defective) == number
            assert before <= defective
            assert len(chosen) == 20 + number
            before = defective
    firsts = {Listed(tmp_path, usual, num_positives=1, seed=seed).get_data_info(20)['img_path'] for seed in range(9)}
    assert len(firsts) > 1


def test_positives_are_limited_in_training_alone(tmp_path, usual, infos):
    options = dict(num_positives=2, val_fraction=0.25)
    labels = {
        split: [i['gt_label'] for i in infos(Listed(tmp_path, usual, split=split, **options))]
        for split in ('train', 'val', 'test')
    }
    assert {split: (len(of), sum(of)) for split, of in labels.items()} == dict(train=(17, 2), val=(8, 3), test=(2, 1))


def test_fewer_positives_than_kinds(tmp_path, make, infos):
    samples = make('train 0', 'train 1', 'train 2', 'train 2', 'train 3', 'test 0', 'test 1', 'test 2', 'test 3')
    options = dict(metainfo=dict(classes=('good', 'a', 'b', 'c')))
    assert len(Listed(tmp_path, samples, num_positives=2, **options)) == 3
    kinds = {info['gt_label'] for info in infos(Listed(tmp_path, samples, num_positives=3, **options))}
    assert kinds == {0, 1, 2, 3}


def test_the_order_is_that_of_the_paths(tmp_path, usual):
    ordered = Listed(tmp_path, usual)
    for samples in (usual[::-1], usual[5:] + usual[:5]):
        other = Listed(tmp_path, samples)
        assert [other.get_data_info(i) for i in range(len(other))] == [
            ordered.get_data_info(i) for i in range(len(ordered))
        ]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r'nothing: no such folder; see https://example\.org for a folder with'):
        Listed(tmp_path / 'nothing', [])


def test_a_folder_without_images(tmp_path):
    with pytest.raises(UsageError, match=r'no images in the layout of Listed; see https://example\.org'):
        Listed(tmp_path, [])


def test_an_empty_class_in_training(tmp_path, make):
    with pytest.raises(UsageError, match=r'the train part of \S+ has no image of class defect'):
        Listed(tmp_path, make('train 0', 'test 0', 'test 1'))
    with pytest.raises(UsageError, match='has no image of class good'):
        Listed(tmp_path, make('train 1', 'test 0', 'test 1'))


def test_an_empty_class_in_testing_is_a_warning(tmp_path, make, warnings_of):
    said = warnings_of(lambda: Listed(tmp_path, make('train 0', 'train 1', 'test 1'), split='test'))
    assert len(said) == 1
    assert 'the test part of' in said[0]
    assert 'has no image of class good' in said[0]


@pytest.mark.parametrize('split', ['val', 'test'])
def test_an_empty_part(tmp_path, make, split):
    samples = make('train 0 a', 'train 1 a')
    with pytest.raises(UsageError, match=f'the {split} part of .* has no image of class good, defect'):
        Listed(tmp_path, samples, split=split, val_fraction=0.2)


def test_several_faults_in_one_message(tmp_path, make, picture):
    samples = make('train 0', 'train 1', 'train 0', 'test 1', 'test 0')
    (tmp_path / '000.png').write_bytes(b'')
    picture(tmp_path / '001_mask.png', size=(5, 5), mark=1)
    cut = (tmp_path / '002.png').read_bytes()[:-20]
    (tmp_path / '002.png').write_bytes(cut)
    (tmp_path / '003.png').write_text('not an image at all')
    (tmp_path / '004.png').unlink()
    with pytest.raises(UsageError) as caught:
        Listed(tmp_path, samples)
    message = str(caught.value)
    assert 'Listed: 5 faults: ' in message
    assert '\n' not in message
    for name in ('000.png', '001_mask.png', '002.png', '003.png', '004.png'):
        assert message.count(name) == 1


def test_many_faults_are_counted(tmp_path, usual):
    for sample in usual[:8]:
        Path(sample.img_path).write_bytes(b'')
    with pytest.raises(UsageError, match=r'8 faults: .*004\.png: .*; and 3 more$'):
        Listed(tmp_path, usual)


def test_an_image_on_both_sides_is_a_warning(tmp_path, make, warnings_of):
    samples = make('train 0', 'train 1', 'test 0', 'test 1', 'train 0')
    content = (tmp_path / '002.png').read_bytes()
    (tmp_path / '000.png').write_bytes(content)
    said = warnings_of(lambda: Listed(tmp_path, samples))
    assert len(said) == 1
    assert f'{samples[0].img_path} = {samples[2].img_path}' in said[0]
    assert '1 images stand in more than one split' in said[0]
    (tmp_path / '002.png').write_bytes(content + b'.')
    assert warnings_of(lambda: Listed(tmp_path, samples)) == []


def test_warnings_are_seen_without_any_logger():
    """In a fresh process nobody has made a logger yet."""
    code = "from mmengine.logging import print_log; print_log('a warning', logger='current', level=30)"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert 'a warning' in done.stdout + done.stderr


def test_warnings_go_to_the_current_logger(tmp_path, make):
    log = tmp_path / 'run.log'
    MMLogger.get_instance('of_this_test', log_file=str(log))
    try:
        Listed(tmp_path, make('train 0', 'train 1', 'test 1'), split='test')
        assert 'has no image of class good' in log.read_text()
    finally:
        MMLogger._instance_dict.pop('of_this_test')


@pytest.fixture
def broken(tmp_path, make):
    """A data set whose fourth image breaks after it was built, and that image."""

    def build(damage=lambda data: data[:40], suffix='.png', **kwargs):
        samples = make('train 0', 'train 1', 'train 0', 'train 1', 'test 0', 'test 1')
        dataset = Listed(tmp_path, samples, pipeline=LOAD, **kwargs)
        path = tmp_path / f'003{suffix}'
        path.write_bytes(damage(path.read_bytes()))
        return dataset, path

    return build


@pytest.mark.parametrize('suffix', ['.png', '_mask.png'])
@pytest.mark.parametrize('damage', [lambda data: data[:40], lambda data: b'', lambda data: b'text' * 30])
def test_a_file_that_breaks_later_is_named(broken, damage, suffix):
    dataset, path = broken(damage, suffix)
    assert dataset[2]['img'].shape == (12, 8, 3)
    with pytest.raises(UsageError, match=f'{path}: cannot be read as an image'):
        dataset[3]


@pytest.mark.parametrize('kind', [np.float32, np.int32])
def test_pixels_that_no_loader_takes_are_named(broken, tmp_path, kind):
    cv2.imwrite(str(tmp_path / 'other.tiff'), np.ones((12, 8), kind))
    dataset, path = broken(lambda data: (tmp_path / 'other.tiff').read_bytes())
    with pytest.raises(UsageError, match=f'{path}: holds {kind.__name__} pixels; save it with 8 or 16 bits'):
        dataset[3]


def test_a_file_that_vanishes_later_is_named(broken):
    dataset, path = broken()
    path.unlink()
    with pytest.raises(UsageError, match=f'{path}: '):
        dataset[3]


def test_a_broken_file_is_named_by_workers(broken):
    dataset, path = broken()
    with pytest.raises(UsageError, match=f'{path}: cannot be read as an image'):
        list(DataLoader(dataset, batch_size=1, num_workers=2, collate_fn=list))


@pytest.mark.parametrize('cache', ['memory', 'disk'])
def test_a_broken_file_is_named_by_the_cache(broken, tmp_path, cache):
    def spoil_what_headers_do_not_say(data):
        return data[:60] + bytes(len(data) - 80) + data[-20:]

    cache = cache if cache == 'memory' else str(tmp_path / 'cache')
    dataset, path = broken(spoil_what_headers_do_not_say, lazy_init=True, cache=cache)
    with pytest.raises(UsageError, match=f'{path}: '):
        dataset[3]


def test_other_errors_keep_their_kind_and_name_the_image(tmp_path, usual):
    def fails(results):
        raise KeyError('color')

    with pytest.raises(KeyError, match='color') as caught:
        Listed(tmp_path, usual, pipeline=[fails])[0]
    assert caught.value.__notes__ == [f'while preparing {usual[0].img_path}']


@pytest.mark.parametrize(
    'make_mask',
    [
        lambda mark: mark * 255,
        lambda mark: mark,
        lambda mark: mark.astype(np.uint16) * 300,
        lambda mark: np.dstack([0 * mark, mark, 0 * mark]),
        lambda mark: np.dstack([mark * 255] * 3 + [np.full_like(mark, 255)]),
        lambda mark: np.dstack([mark.astype(np.uint16) * 256] * 3 + [np.full(mark.shape, 65535, np.uint16)]),
    ],
    ids=['gray', 'one', '16 bit', 'green', 'RGBA', '16 bit RGBA'],
)
def test_a_mask_of_any_depth(tmp_path, make_mask):
    mark = np.zeros((6, 9), np.uint8)
    mark[2, 3:5] = 1
    path = str(tmp_path / 'maß.png')
    cv2.imencode('.png', make_mask(mark))[1].tofile(path)
    mask = read_mask(path)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, mark)


@pytest.mark.parametrize('depth', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_images_of_any_depth_load(tmp_path, make, depth, channels):
    samples = make('train 0', 'train 1', 'test 0', 'test 1')
    pixels = np.full((12, 8, channels), np.iinfo(depth).max, depth)
    cv2.imwrite(samples[0].img_path, pixels)
    loaded = Listed(tmp_path, samples, pipeline=LOAD)[0]['img']
    assert loaded.shape == (12, 8, 3)
    assert loaded.dtype == np.uint8
    assert loaded.min() == 255


def test_the_default_folder(tmp_path, kolektor, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('KGL_DATA_ROOT', str(tmp_path))
    assert KolektorSDD().data_root == str(kolektor)
    for unset in (lambda: monkeypatch.delenv('KGL_DATA_ROOT'), lambda: monkeypatch.setenv('KGL_DATA_ROOT', '')):
        unset()
        with pytest.raises(UsageError, match=r'^data/KolektorSDD: no such folder'):
            KolektorSDD()
    assert len(KolektorSDD(kolektor)) == len(KolektorSDD(str(kolektor)))


def test_lazy_and_whole_are_the_same(tmp_path, usual):
    lazy = Listed(tmp_path, usual, lazy_init=True)
    lazy.full_init()
    lazy.full_init()
    assert lazy.get_data_info(3) == Listed(tmp_path, usual).get_data_info(3)
    assert len(Listed(tmp_path, usual, indices=5)) == 5


def test_parts_that_cannot_be_filled_are_refused(tmp_path, make, infos):
    samples = make(*(f'train {unit % 2} u{unit}' for unit in range(8)), 'train 1 u9', 'test 0', 'test 1')
    assert len(infos(Listed(tmp_path, samples, leave_out=(0, 5)))) == 7
    with pytest.raises(UsageError, match=r'crossfit=50: the training images of .* have units for 5 parts, no more'):
        Listed(tmp_path, samples, leave_out=(0, 50))
    samples = make(*(f'train {int(unit == 0)} u{unit}' for unit in (0, 0, 0, 1, 2)), 'test 0', 'test 1')
    with pytest.raises(UsageError, match=r'crossfit=2: all defective training images of .* are of one unit'):
        Listed(tmp_path, samples, leave_out=(0, 2))


def paths_of(dataset):
    return {dataset.get_data_info(i)['img_path'] for i in range(len(dataset))}


def test_good_images_alone(tmp_path, usual):
    good = Listed(tmp_path, usual, num_positives=0)
    assert [good.get_data_info(i)['gt_label'] for i in range(len(good))] == [0] * 20
    assert paths_of(good.with_defects()) == paths_of(Listed(tmp_path, usual))
    assert len(good) == 20
    assert paths_of(Listed(tmp_path, usual).with_defects()) == paths_of(Listed(tmp_path, usual))


def test_good_images_and_no_others(tmp_path, make):
    samples = make(*['train 0'] * 3, 'test 0')
    assert len(Listed(tmp_path, samples, num_positives=0).with_defects()) == 3
    with pytest.raises(UsageError, match=r'the train part of .* has no image of class defect'):
        Listed(tmp_path, samples)
    with pytest.raises(UsageError, match=r'the train part of .* has no image of class good'):
        Listed(tmp_path, make('train 1', 'train 1'), num_positives=0)


def test_parts_of_good_images_are_those_of_all(tmp_path, usual):
    """Whoever trains on the good images of a part has seen none of what it leaves out, good or defective."""
    for part in range(3):
        trained = Listed(tmp_path, usual, num_positives=0, leave_out=(part, 3))
        left = trained.left_out().with_defects()
        assert paths_of(left) == paths_of(Listed(tmp_path, usual, leave_out=(part, 3)).left_out())
        assert not paths_of(trained) & paths_of(left)
        assert {left.get_data_info(i)['gt_label'] for i in range(len(left))} == {0, 1}


def test_parts_of_a_data_set_share_nothing_with_earlier_ones(tmp_path, usual):
    """One memo for all copies, as mmengine 0.10.7 has it, takes what is made where a copied object was for that."""
    dataset = Listed(tmp_path, usual, pipeline=LOAD)
    first, second = dataset.get_subset([0]), dataset.get_subset([0])
    assert first.pipeline is not second.pipeline
    assert first[0]['img_path'] == second[0]['img_path'] == dataset[0]['img_path']


def test_kinds_take_turns_among_few_positives(tmp_path, make, infos):
    samples = make(*['train 0'] * 3, *['train 1'] * 9, *['train 2'] * 3, 'test 0', 'test 1', 'test 2')
    for seed in range(6):
        data = Listed(tmp_path, samples, num_positives=4, seed=seed, metainfo=dict(classes=('good', 'a', 'b')))
        assert sorted(info['gt_label'] for info in infos(data))[3:] == [1, 1, 2, 2]


def test_parts_share_the_defects_that_training_may_use(tmp_path, usual, infos):
    def defects(data):
        return {info['img_path'] for info in infos(data) if info['gt_label']}

    allowed = defects(Listed(tmp_path, usual, num_positives=4))
    for part in range(2):
        trained = Listed(tmp_path, usual, num_positives=4, leave_out=(part, 2))
        assert defects(trained) | defects(trained.left_out()) == allowed

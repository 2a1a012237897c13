import csv
import errno
import multiprocessing
import os
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from kgl_mm.datasets import DefectFolder
from kgl_mm.datasets import defect_folder as module
from kgl_mm.errors import UsageError

SPLITS = ('train', 'val', 'test')


@pytest.fixture
def fill(tmp_path, picture):
    """Makes so many images in each folder; keywords give folders, with ``__`` for a slash."""

    def fill(root=tmp_path / 'parts', suffix='.png', **folders):
        for folder, number in folders.items():
            for i in range(number):
                picture(root / folder.replace('__', '/') / f'{folder}_{i:02d}{suffix}')
        return root

    return fill


@pytest.fixture
def root(fill):
    return fill(good=20, scratch=10, dent=5)


@pytest.fixture
def load(infos):
    """The images of each split: path inside the root -> what is known of it."""

    def load(root, **kwargs):
        return {
            split: {
                Path(row['img_path']).relative_to(root).as_posix(): row
                for row in infos(DefectFolder(str(root), split=split, serialize_data=False, **kwargs))
            }
            for split in SPLITS
        }

    return load


def names(parts):
    return {split: set(part) for split, part in parts.items()}


def rows(root):
    with (root / 'split.csv').open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def rewrite(root, rows):
    with (root / 'split.csv').open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_first_use_draws_by_class_and_keeps(root, load):
    parts = load(root)
    kinds = {split: Counter(path.partition('/')[0] for path in part) for split, part in parts.items()}
    assert kinds == dict(
        train=dict(good=12, scratch=6, dent=3),
        val=dict(good=4, scratch=2, dent=1),
        test=dict(good=4, scratch=2, dent=1),
    )
    assert {row['path']: row['split'] for row in rows(root)} == {p: s for s, part in parts.items() for p in part}
    assert list(rows(root)[0]) == ['path', 'kind', 'unit', 'split']
    written = (root / 'split.csv').read_bytes()
    assert names(load(root, seed=99)) == names(parts)
    assert (root / 'split.csv').read_bytes() == written
    assert b'\r\r' not in written


def test_another_seed_another_draw(root, load):
    first = names(load(root))
    (root / 'split.csv').unlink()
    assert names(load(root)) == first
    (root / 'split.csv').unlink()
    assert names(load(root, seed=1)) != first


@pytest.mark.parametrize('known', [0, 25])
def test_of_several_that_draw_at_once_the_first_draws_for_all(root, load, monkeypatch, known):
    """None learns from what another one is tested with, whatever their seeds."""
    if known:
        load(root)
        rewrite(root, rows(root)[:known])
    drawing = module.cut_by_unit

    def slowly(*args):
        time.sleep(0.3)  # so that each has looked before another one writes
        return drawing(*args)

    def train(seed, queue):
        data = DefectFolder(str(root), seed=seed)
        queue.put({Path(data.get_data_info(i)['img_path']).relative_to(root).as_posix() for i in range(len(data))})

    monkeypatch.setattr(module, 'cut_by_unit', slowly)
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    processes = [context.Process(target=train, args=(seed, queue), daemon=True) for seed in (0, 1, 2)]
    for process in processes:
        process.start()
    seen = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert seen[0] == seen[1] == seen[2] == {row['path'] for row in rows(root) if row['split'] == 'train'}


def test_new_images_join(root, load, picture):
    before = names(load(root, unit=r'_(\d+)'))
    (unit,) = {row['unit'] for row in rows(root) if row['path'] in before['test'] and 'dent' in row['path']}
    picture(root / 'scratch' / f'new_{unit}.png')
    picture(root / 'good/new_77.png')
    parts = load(root, unit=r'_(\d+)')
    assert f'scratch/new_{unit}.png' in parts['test']
    for split in SPLITS:
        assert before[split] <= set(parts[split])
    assert sum(map(len, parts.values())) == len(rows(root)) == 37
    assert {row['unit'] for row in rows(root) if 'new_77' in row['path']} == {'77'}


def test_vanished_images_are_refused(root, load):
    load(root)
    before = (root / 'split.csv').read_bytes()
    for name in ('good/good_03.png', 'dent/dent_01.png'):
        (root / name).unlink()
    with pytest.raises(
        UsageError, match=r'split\.csv: 2 of its 35 images are gone .*dent_01\.png.*good_03\.png'
    ) as said:
        load(root)
    assert 'remove the file' in str(said.value)
    assert (root / 'split.csv').read_bytes() == before


def test_an_image_that_changed_its_kind_is_refused(root, load):
    load(root)
    (root / 'good/good_03.png').rename(root / 'dent/good_03.png')
    with pytest.raises(UsageError, match=r'1 of its 35 images are gone \(good/good_03\.png\)'):
        load(root)


def test_a_split_by_hand(root, load):
    everything = [dict(path=path, split='train') for part in load(root).values() for path in part]
    for kind in ('good', 'dent'):
        for i, split in enumerate(('val', 'test')):
            next(row for row in everything if row['path'].endswith(f'{kind}_0{i}.png'))['split'] = split
    rewrite(root, everything)
    text = (root / 'split.csv').read_text()
    (root / 'split.csv').write_text(text, encoding='utf-8-sig')  # as a spreadsheet saves it
    parts = load(root)
    assert set(parts['val']) == {'good/good_00.png', 'dent/dent_00.png'}
    assert set(parts['test']) == {'good/good_01.png', 'dent/dent_01.png'}


def test_a_split_that_tears_units_is_a_warning(root, load, warnings_of):
    load(root)
    said = warnings_of(lambda: DefectFolder(str(root), unit=r'_(\d)\d'))
    assert any('units stand in more than one split' in one and 'split.csv' in one for one in said)


@pytest.mark.parametrize(
    'content', [b'', b'path,split\n', b'a;b\n1;2\n', b'path,split\ngood/good_00.png,training\n', b'path,split\nx\n']
)
def test_a_split_that_is_no_table(root, content):
    (root / 'split.csv').write_bytes(content)
    with pytest.raises(UsageError, match=r'split\.csv: not a table with columns path and split'):
        DefectFolder(str(root))


def test_a_split_that_cannot_be_read(root):
    (root / 'split.csv').mkdir()
    with pytest.raises(UsageError, match=r'split\.csv: cannot be read'):
        DefectFolder(str(root))


def test_a_folder_that_cannot_be_written(root, load, tmp_path, monkeypatch):
    opened = Path.open

    def refuse(self, mode='r', *args, **kwargs):
        if self.parent == root and mode != 'r':
            raise OSError(errno.EROFS, 'Read-only file system')
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, 'open', refuse)
    with pytest.raises(UsageError, match=r'split\.csv: cannot be written \(Read-only file system\); pass split_file='):
        DefectFolder(str(root))
    elsewhere = str(tmp_path / 'elsewhere.csv')
    assert names(load(root, split_file=elsewhere)) == names(load(root, split_file=elsewhere))
    assert not (root / 'split.csv').exists()
    assert not list(root.glob('.*'))


def test_all_parts_given(fill, load):
    root = fill(train__good=4, train__dent=2, val__good=3, val__dent=1, test__good=2, test__dent=2)
    parts = load(root)
    assert {s: len(p) for s, p in parts.items()} == dict(train=6, val=4, test=4)
    assert all(path.startswith(f'{split}/') for split, part in parts.items() for path in part)
    assert not (root / 'split.csv').exists()


def test_equal_names_in_train_and_test_stay_where_they_are(fill, load, picture):
    root = fill()
    for split in ('train', 'test'):
        for kind in ('good', 'dent'):
            for i in range(10):
                picture(root / split / kind / f'{i}.png')
    for _ in range(2):
        parts = load(root)
        assert {split: len(part) for split, part in parts.items()} == dict(train=16, val=4, test=20)
        assert all(path.startswith('test/') for path in parts['test'])
        assert all(path.startswith('train/') for split in ('train', 'val') for path in parts[split])
        assert {row['path'].partition('/')[0] for row in rows(root)} == {'train'}


def test_train_alone_is_cut_in_three(fill, load):
    parts = load(fill(train__good=10, train__dent=10))
    assert {split: len(part) for split, part in parts.items()} == dict(train=12, val=4, test=4)


def test_train_and_val_given(fill, load):
    parts = load(fill(train__good=10, train__dent=10, val__good=2, val__dent=1))
    assert {split: len(part) for split, part in parts.items()} == dict(train=16, val=3, test=4)


def test_no_train(fill):
    with pytest.raises(UsageError, match='has val, test but no train/'):
        DefectFolder(str(fill(val__good=2, test__good=2)))


def test_kinds_as_classes(root, infos):
    for split in SPLITS:
        data = DefectFolder(str(root), split=split, labels='kind')
        assert data.metainfo['classes'] == ('good', 'dent', 'scratch')
        for row in infos(data):
            assert Path(row['img_path']).parent.name == data.metainfo['classes'][row['gt_label']]
    binary = DefectFolder(str(root))
    assert binary.metainfo['classes'] == ('good', 'defect')
    assert {row['gt_label'] for row in infos(binary)} == {0, 1}
    few = DefectFolder(str(root), labels='kind', num_positives=4)
    assert Counter(row['gt_label'] for row in infos(few)) == {0: 12, 1: 2, 2: 2}


@pytest.mark.parametrize('good', ['ok', 'zz good'])
def test_another_name_for_good(fill, load, good):
    root = fill(aa=6, **{good: 8})
    with pytest.raises(UsageError, match=rf"no folder 'good' but aa, {good}; name the good one"):
        DefectFolder(str(root))
    parts = load(root, good=good)
    assert Counter(row['gt_label'] for part in parts.values() for row in part.values()) == {0: 8, 1: 6}


def test_masks_beside_the_kinds(root, load, picture, warnings_of):
    mask = picture(root / 'masks/scratch/scratch_03.png', mark=1)
    stray = picture(root / 'masks/scratch/scratch_99.png', mark=1)
    (said,) = warnings_of(lambda: DefectFolder(str(root)))
    assert str(stray) in said
    assert str(mask) not in said
    found = {path: row['mask_path'] for part in load(root).values() for path, row in part.items() if row['mask_path']}
    assert found == {'scratch/scratch_03.png': str(mask)}


def test_masks_in_parts_and_of_other_suffixes(fill, load, picture):
    root = fill(suffix='.jpg', train__good=6, train__dent=6, test__good=2, test__dent=2)
    inside = picture(root / 'train/masks/dent/train__dent_01.png', mark=1)
    beside = picture(root / 'masks/dent/test__dent_00.png', mark=1)
    found = {path: row['mask_path'] for part in load(root).values() for path, row in part.items() if row['mask_path']}
    assert found == {'train/dent/train__dent_01.jpg': str(inside), 'test/dent/test__dent_00.jpg': str(beside)}


@pytest.mark.parametrize(('brightest', 'number'), [(4095, 1), (40000, 0)])
def test_twelve_bits_in_sixteen_are_warned_of(tmp_path, warnings_of, brightest, number):
    for kind in ('good', 'dent'):
        (tmp_path / kind).mkdir()
        for i in range(6):
            image = np.random.default_rng(i).integers(0, brightest, (8, 8)).astype(np.uint16)
            image[0, 0] = brightest
            cv2.imwrite(str(tmp_path / kind / f'{kind}{i}.png'), image)
    said = warnings_of(lambda: DefectFolder(str(tmp_path)))
    assert sum('uses less than a quarter of its 16 bits' in each for each in said) == number


RESIZE = dict(type='kgl_mm.Resize', scale=(16, 8))


@pytest.mark.parametrize(
    ('steps', 'lost'),
    [
        ([RESIZE], '64 x 40 pixels is seen at 16 x 8, where marks of less than 5'),
        ([dict(type='kgl_mm.LoadMask'), dict(type='Resize', scale=(10, 40))], '10 x 40, where marks of less than 7'),
        ([dict(RESIZE, scale=(16, 10))], ''),
        ([dict(type='CenterCrop', crop_size=8), RESIZE], ''),
        ([dict(RESIZE, keep_ratio=True)], ''),
        ([dict(type='Resize', scale=(16, 8), interpolation='area')], ''),
        ([], ''),
    ],
)
def test_images_seen_much_smaller_are_warned_of(tmp_path, warnings_of, steps, lost):
    for i in range(12):
        path = tmp_path / ('dent' if i % 2 else 'good') / f'{i}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 64), i, np.uint8))
    pipeline = [dict(type='LoadImageFromFile'), *steps]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        said = warnings_of(lambda: DefectFolder(str(tmp_path), pipeline=pipeline))
        assert not warnings_of(lambda: DefectFolder(str(tmp_path), split='test', pipeline=pipeline))
    assert [lost in each for each in said] == [True] * bool(lost)


@pytest.mark.parametrize('suffix', ['.bmp', '.tif', '.jpg'])
def test_masks_of_other_formats_count_if_they_lose_nothing(root, load, picture, suffix):
    mask = picture(root / f'masks/scratch/scratch_03{suffix}', mark=1)
    if suffix == '.jpg':
        with pytest.raises(UsageError, match=r'scratch_03\.jpg: compression blurs a mask'):
            DefectFolder(str(root))
        return
    found = {path: row['mask_path'] for part in load(root).values() for path, row in part.items() if row['mask_path']}
    assert found == {'scratch/scratch_03.png': str(mask)}


@pytest.mark.parametrize('known', [False, True])
def test_what_is_wrong_with_images_is_said_before_they_are_drawn(root, load, picture, known):
    """Else they would be missed when they are gone."""
    if known:
        load(root)
    there = (root / 'split.csv').read_bytes() if known else None
    (root / 'good/broken.png').write_text('no image')
    wrong = picture(root / 'masks/dent/new.png', size=(3, 3), mark=1)
    picture(root / 'dent/new.png')
    with pytest.raises(UsageError, match=r'2 faults: .*broken\.png.*mask and image differ|2 faults: .*differ.*broken'):
        DefectFolder(str(root))
    assert ((root / 'split.csv').read_bytes() if known else None) == there
    assert (root / 'split.csv').exists() is known
    (root / 'good/broken.png').unlink()
    wrong.unlink()
    assert sum(map(len, load(root).values())) == 36


def test_two_images_never_share_a_mask(fill, picture):
    root = fill(train__good=6, train__dent=6, test__good=2, test__dent=2)
    for split in ('train', 'test'):
        picture(root / f'{split}/dent/000.png')
    picture(root / 'masks/dent/000.png', mark=1)
    with pytest.raises(UsageError, match=r'dent/000.png and .*/dent/000.png would both get the mask .*of each part'):
        DefectFolder(str(root))


def test_an_empty_folder_stands_for_no_good_parts_in_the_test(fill):
    root = fill(train__good=6, train__dent=6, test__dent=2)
    with pytest.raises(
        UsageError, match="test: no folder 'good' but dent; where there are no good parts, an empty one"
    ):
        DefectFolder(str(root))
    (root / 'test/good').mkdir()
    assert len(DefectFolder(str(root), split='test')) == 2


def test_a_mask_of_another_size(root, picture):
    for i in range(10):
        picture(root / f'masks/scratch/scratch_{i:02d}.png', size=(3, 3), mark=1)
    with pytest.raises(UsageError, match=r'masks/scratch/scratch_\d\d\.png: mask and image differ in size'):
        DefectFolder(str(root))


def test_names_of_all_sorts(fill, load, picture):
    root = fill(good=3, dent=3)
    for name in (
        'good/Prüfung 1.PNG',
        'good/tief/er/b.c.JPEG',
        'dent/[x] & 件.tif',
        'dent/sub/d.WebP',
        'good/e,f".bmp',
    ):
        picture(root / name)
    picture(root / 'masks/dent/sub/d.png', mark=1)
    for strange in ('good/Thumbs.db', 'good/._a.png', 'good/notes.txt', '.cache/x.png', '__MACOSX/good/._a.png'):
        (root / strange).parent.mkdir(parents=True, exist_ok=True)
        (root / strange).write_text('nothing')
    parts = load(root)
    found = set().union(*parts.values())
    assert len(found) == 11
    assert {'good/Prüfung 1.PNG', 'good/tief/er/b.c.JPEG', 'dent/[x] & 件.tif', 'good/e,f".bmp'} <= found
    assert names(load(root)) == names(parts)
    (row,) = [part['dent/sub/d.WebP'] for part in parts.values() if 'dent/sub/d.WebP' in part]
    assert row['mask_path'] == str(root / 'masks/dent/sub/d.png')
    assert DefectFolder(str(root), labels='kind').metainfo['classes'] == ('good', 'dent')


def test_a_folder_with_a_name_of_all_sorts(fill, load, tmp_path):
    root = fill(tmp_path / 'Größe [5] mm', good=5, dent=5)
    assert sum(map(len, load(root).values())) == 10
    assert len(DefectFolder(f'{root}/')) == 6


@pytest.mark.parametrize(('unit', 'number'), [(r'\d+', 20), (r'(\d)$', 10), (r'.+', 35), (r'_(\d+)(.*)', 20)])
def test_units_stay_together(root, load, unit, number):
    of = {split: {row['unit'] for row in part.values()} for split, part in load(root, unit=unit).items()}
    assert sum(map(len, of.values())) == len(set().union(*of.values())) == number
    assert {row['unit'] for row in rows(root)} == set().union(*of.values())


@pytest.mark.parametrize('unit', [r'serial', r'^(serial)?', r'x*', r'scratch_(\d+)'])
def test_a_unit_that_names_do_not_have(root, unit):
    with pytest.raises(UsageError, match=r'/\w+_00\.png: its name does not match unit='):
        DefectFolder(str(root), unit=unit)
    assert not (root / 'split.csv').exists()


def test_wrong_settings(root):
    with pytest.raises(UsageError, match=r"unit='\(': not a regular expression"):
        DefectFolder(str(root), unit='(')
    with pytest.raises(UsageError, match="labels='multi': not one of 'binary', 'kind'"):
        DefectFolder(str(root), labels='multi')
    with pytest.raises(UsageError, match='has a validation part of its own'):
        DefectFolder(str(root), val_fraction=0.2)


def test_a_kind_of_one_image_is_for_training(fill, warnings_of):
    root = fill(good=10, dent=10, hole=1)
    assert len(DefectFolder(str(root), labels='kind')) == 13
    for split in ('val', 'test'):
        (said,) = warnings_of(lambda split=split: DefectFolder(str(root), labels='kind', split=split))
        assert f'the {split} part of' in said
        assert said.endswith('has no image of class hole.')


@pytest.mark.parametrize('folders', [dict(good=5), dict(dent=5)])
def test_an_empty_class(fill, folders):
    root = fill(**folders)
    for kind in ('good', 'dent'):
        (root / kind).mkdir(exist_ok=True)
    for labels in ('binary', 'kind'):
        with pytest.raises(UsageError, match=r'the train part of .* has no image of class (good|dent|defect)'):
            DefectFolder(str(root), labels=labels)


def test_no_images_at_all(tmp_path):
    with pytest.raises(UsageError, match='holds no folders; pass the folder that holds good/'):
        DefectFolder(str(tmp_path))
    (tmp_path / 'good').mkdir()
    (tmp_path / 'good/a.txt').touch()
    with pytest.raises(UsageError, match=r'no images \(\.jpg, '):
        DefectFolder(str(tmp_path))
    with pytest.raises(UsageError, match=r'nothing: no such folder; pass the folder that holds good/'):
        DefectFolder(str(tmp_path / 'nothing'))


def test_a_broken_image_is_found_whatever_its_split(root):
    (root / 'good/good_07.png').write_text('no image')
    for _ in range(2):
        with pytest.raises(UsageError, match=r'DefectFolder: .*good/good_07\.png: not a readable image'):
            DefectFolder(str(root))


@pytest.mark.parametrize('good', [1, 2])
def test_too_few_to_draw_three_parts(fill, load, good):
    with pytest.raises(UsageError, match=rf'its {good} units have no (test|val) part; training, validation and test'):
        load(fill(good=good), num_positives=0)


def test_three_good_images_do(fill, load):
    assert all(load(fill(good=3), num_positives=0).values())


def test_a_split_that_cannot_be_synced_is_not_there_in_part(tmp_path, picture, monkeypatch):
    for kind in ('good', 'dent'):
        for i in range(8):
            picture(tmp_path / f'parts/{kind}/{kind}{i}.png')
    monkeypatch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(UsageError, match=r'split\.csv: cannot be written'):
        DefectFolder(str(tmp_path / 'parts'))
    assert not (tmp_path / 'parts/split.csv').exists()


def test_folds_test_every_image_once(root, load):
    folds = [load(root, folds=5, fold=fold) for fold in range(5)]
    for parts in folds:
        kinds = {split: Counter(path.partition('/')[0] for path in part) for split, part in parts.items()}
        assert kinds['test'] == kinds['val'] == dict(good=4, scratch=2, dent=1)
        assert kinds['train'] == dict(good=12, scratch=6, dent=3)
    tested = [path for parts in folds for path in parts['test']]
    assert len(tested) == len(set(tested)) == 35
    assert [names(parts)['val'] for parts in folds] == [names(folds[(i + 1) % 5])['test'] for i in range(5)]
    assert not (root / 'split.csv').exists()
    written = (root / 'folds_5.csv').read_bytes()
    assert names(load(root, folds=5, fold=2, seed=7)) == names(folds[2])  # whatever the seed
    assert (root / 'folds_5.csv').read_bytes() == written
    assert len(load(root, folds=3)['test']) == 12
    assert len(load(root)['test']) == 7


def test_new_images_join_folds(root, load, picture):
    before = names(load(root, folds=5))
    for i in range(5):
        picture(root / f'dent/new_{i}.png')
        after = names(load(root, folds=5))
        assert all(before[split] <= after[split] for split in SPLITS)
    with (root / 'folds_5.csv').open(newline='') as file:
        new = [row['part'] for row in csv.DictReader(file) if '/new_' in row['path']]
    assert sorted(new) == list('01234')  # one in each


@pytest.mark.parametrize('number', [1, 4])
def test_folds_need_units_enough(fill, number):
    root = fill(good=9, dent=number)
    with pytest.raises(UsageError, match=r'folds=5: .* has no defective image for part \d'):
        DefectFolder(str(root), folds=5)
    assert not list(root.glob('folds*'))


def test_folds_need_good_units_too(fill):
    with pytest.raises(UsageError, match=r'folds=5: .* has no good image for part 4'):
        DefectFolder(str(fill(good=4)), folds=5, num_positives=0)


def test_units_that_are_good_and_defective_may_leave_a_part_without_good_ones(tmp_path, picture):
    """They are dealt as defective ones, so that their good images fill no other part."""
    names = [f'good/p{i}_a' for i in range(3)] + [f'{kind}/m{i}_{kind}' for kind in ('good', 'dent') for i in range(2)]
    for name in [*names, *(f'dent/q{i}_a' for i in range(8))]:
        picture(tmp_path / f'{name}.png')
    with pytest.raises(UsageError, match=r'folds=5: .* has no good image for part \d'):
        DefectFolder(str(tmp_path), folds=5, unit='^[a-z0-9]+')


def test_good_parts_alone_have_folds(fill, load):
    assert all(load(fill(good=5), folds=5, num_positives=0).values())


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(folds=2), 'folds=2: not a whole number of 3 or more, nor None for one split'),
        (dict(folds='five'), "folds='five': not a whole number"),
        (dict(folds=4, fold=4), 'fold=4: with folds=4 it is 0 to 3'),
        (dict(folds=4, fold=1.0), 'fold=1.0: not a whole number'),
        (dict(folds=4, fold=True), 'fold=True: not a whole number'),
        (dict(fold=1), r'fold=1: set folds=5 \(say\)'),
    ],
)
def test_wrong_folds(root, wrong, message):
    with pytest.raises(UsageError, match=message):
        DefectFolder(str(root), **wrong)


def test_no_folds_of_parts_that_are_given(fill):
    with pytest.raises(UsageError, match=r'folds=3: .* has train, test already'):
        DefectFolder(str(fill(train__good=9, train__dent=9, test__good=3)), folds=3)


def test_folds_by_hand(root, load):
    load(root, folds=3)
    file = root / 'folds_3.csv'
    file.write_text(file.read_text().replace(',0\n', ',5\n'), newline='')
    with pytest.raises(UsageError, match=r'folds_3\.csv: not a table with columns path and part of 0, 1, 2'):
        load(root, folds=3)
    file.write_text(file.read_text().replace(',5\n', ',1\n'), newline='')
    with pytest.raises(UsageError, match=r'folds=3: .* has no (good|defective) image for part 0'):
        load(root, folds=3)
    file.write_text('path,part\n' + 'x' * 200_000, newline='')
    with pytest.raises(UsageError, match=r'folds_3\.csv: cannot be read \(field larger'):
        load(root, folds=3)

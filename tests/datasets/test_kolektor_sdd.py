import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from kgl_mm.datasets import KolektorSDD
from kgl_mm.datasets.kolektor_sdd import _TEST_UNITS
from kgl_mm.errors import UsageError

DATA = os.environ.get('KGL_DATA_ROOT')
real = pytest.mark.skipif(not DATA, reason='KGL_DATA_ROOT is not set')

TEST = [(135, 18), (136, 18), (128, 16)]
TRAIN = dict(official=[(264, 34), (263, 34), (271, 36)], clean=[(248, 31), (247, 31), (255, 34)])
DROPPED = [{'kos34', 'kos39'}, {'kos26', 'kos38'}, {'kos01', 'kos27'}]


def count(rows):
    return len(rows), sum(row['gt_label'] for row in rows)


def contents(rows):
    return {hashlib.sha256(Path(row['img_path']).read_bytes()).hexdigest() for row in rows}


@pytest.fixture
def real_root():
    return str(Path(DATA, 'KolektorSDD'))


@real
@pytest.mark.parametrize('fold', range(3))
def test_counts_of_the_real_folds(fold, infos, real_root):
    units = {}
    for protocol in ('official', 'clean'):
        test = infos(KolektorSDD(real_root, fold, protocol, split='test'))
        train = infos(KolektorSDD(real_root, fold, protocol))
        assert count(test) == TEST[fold]
        assert count(train) == TRAIN[protocol][fold]
        assert bool(contents(train) & contents(test)) == (protocol == 'official')
        units[protocol] = {row['unit'] for row in train}
        assert not units[protocol] & {row['unit'] for row in test}
    assert units['official'] - units['clean'] == DROPPED[fold]


@real
@pytest.mark.parametrize('fold', range(3))
def test_only_official_folds_warn(fold, warnings_of, real_root):
    (said,) = warnings_of(lambda: KolektorSDD(real_root, fold, 'official'))
    assert f'{[8, 8, 16][fold]} images stand in more than one split' in said
    assert warnings_of(lambda: KolektorSDD(real_root, fold, 'clean')) == []


@real
@pytest.mark.parametrize('seed', range(3))
def test_a_validation_part_of_a_clean_fold_is_clean(seed, infos, real_root):
    options = dict(fold=0, protocol='clean', val_fraction=0.2, seed=seed)
    train, val = (infos(KolektorSDD(real_root, split=split, **options)) for split in ('train', 'val'))
    assert not contents(train) & contents(val)
    assert np.add(count(train), count(val)).tolist() == [248, 31]


@real
def test_kos38_and_kos39_are_one_commutator(real_root):
    """Each part of the one is found in the other, a few pixels apart, and in no third unit."""

    def spectrum(unit, part):
        image = cv2.imread(f'{real_root}/kos{unit}/Part{part}.jpg', cv2.IMREAD_GRAYSCALE)
        image = cv2.resize(image, (125, 310), interpolation=cv2.INTER_AREA).astype(np.float32)
        image -= cv2.GaussianBlur(image, (0, 0), 4)
        image *= np.outer(np.hanning(310), np.hanning(125))
        return np.fft.rfft2(image / np.linalg.norm(image))

    def likeness(one, other):
        return np.fft.irfft2(one * other.conj(), s=(310, 125)).max()

    for part in range(8):
        here = spectrum(39, (part + 6) % 8)
        assert likeness(spectrum(38, part), here) > 0.6
        assert likeness(spectrum(37, part), here) < 0.3


@real
def test_every_unit_is_tested_once(infos, real_root):
    tested = [row['img_path'] for fold in range(3) for row in infos(KolektorSDD(real_root, fold, split='test'))]
    assert len(tested) == len(set(tested)) == 399


def test_a_generated_set(kolektor, infos):
    rows = infos(KolektorSDD(str(kolektor), fold=2, protocol='clean'))
    assert count(rows) == (64, 32)
    assert count(infos(KolektorSDD(str(kolektor), fold=2, split='test'))) == (32, 16)
    row = next(row for row in rows if row['unit'] == 'kos02' and row['gt_label'])
    assert row['img_path'] == str(kolektor / 'kos02/Part1.jpg')
    assert row['mask_path'] == str(kolektor / 'kos02/Part1_label.bmp')


@pytest.mark.parametrize('fold', [0, 1, 2])
@pytest.mark.parametrize('seed', range(4))
def test_twins_stand_on_one_side_of_a_validation_part(kolektor, infos, fold, seed):
    parts = {}
    for split in ('train', 'val'):
        data = KolektorSDD(str(kolektor), fold, 'clean', split=split, val_fraction=0.5, seed=seed)
        parts |= {row['unit']: split for row in infos(data)}
    for one, other in (('kos01', 'kos26'), ('kos27', 'kos34'), ('kos38', 'kos39')):
        assert parts.get(one, 'none') == parts.get(other, 'none') or {one, other} & DROPPED[fold]


@pytest.mark.parametrize(('option', 'value'), [('fold', 3), ('fold', '0'), ('protocol', 'Clean')])
def test_wrong_settings(kolektor, option, value):
    with pytest.raises(UsageError, match=f'{option}={value!r}: not one of'):
        KolektorSDD(str(kolektor), **{option: value})


def test_a_missing_folder_names_the_page_and_the_layout(tmp_path):
    with pytest.raises(UsageError, match=r'vicos\.si.*kos01/Part0\.jpg'):
        KolektorSDD(str(tmp_path / 'nothing'))
    with pytest.raises(UsageError, match=r'no images .*vicos\.si'):
        KolektorSDD(str(tmp_path))


def test_missing_and_broken_masks_are_named_at_once(kolektor):
    (kolektor / 'kos03/Part0_label.bmp').unlink()
    (kolektor / 'kos05/Part1_label.bmp').write_bytes(b'BM')
    cut = (kolektor / 'kos07/Part1_label.bmp').read_bytes()[:-20]
    (kolektor / 'kos07/Part1_label.bmp').write_bytes(cut)
    with pytest.raises(UsageError) as caught:
        KolektorSDD(str(kolektor))
    for name in ('kos03/Part0_label.bmp', 'kos05/Part1_label.bmp', 'kos07/Part1_label.bmp'):
        assert str(caught.value).count(name) == 1


def test_strays_are_left_alone(kolektor):
    expected = len(KolektorSDD(str(kolektor)))
    (kolektor / 'kos01 (copy)').mkdir()
    (kolektor / 'kos01 (copy)/Part0.jpg').touch()
    (kolektor / 'kos01/Thumbs.db').touch()
    (kolektor / 'readme.txt').touch()
    assert len(KolektorSDD(str(kolektor))) == expected


def test_a_unit_that_lacks_is_named(kolektor, warnings_of):
    for file in (kolektor / 'kos09').iterdir():
        file.unlink()
    (said,) = warnings_of(lambda: KolektorSDD(str(kolektor)))
    assert 'kos09' in said
    assert 'kos08' not in said


def test_a_mended_mask_is_read_again(kolektor, picture, infos):
    assert count(infos(KolektorSDD(str(kolektor)))) == (66, 33)
    picture(kolektor / 'kos01/Part0_label.bmp', mark=1)
    assert count(infos(KolektorSDD(str(kolektor)))) == (66, 34)


@pytest.mark.parametrize('seed', range(3))
def test_twins_stand_in_one_part_of_a_cross_fitted_run(kolektor, infos, seed):
    for part in range(3):
        data = KolektorSDD(str(kolektor), 2, leave_out=(part, 3), seed=seed)
        left = {row['unit'] for row in infos(data.left_out())}
        trained = {row['unit'] for row in infos(data)}
        for one, other in (('kos01', 'kos26'), ('kos27', 'kos34'), ('kos38', 'kos39')):
            for side, across in ((trained, left), (left, trained)):
                assert not (one in side and other in across)


def test_each_unit_is_in_the_test_of_one_fold():
    assert sorted(unit for units in _TEST_UNITS for unit in units) == list(range(1, 51))

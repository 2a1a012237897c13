from collections import Counter

import pytest

from kgl_mm.datasets import MVTecAD
from kgl_mm.errors import UsageError


@pytest.fixture
def root(tmp_path, picture):
    """A category with 12 and 4 good images, 6 scratches and 5 dents, each kind numbered from 000."""
    folder = tmp_path / 'MVTecAD'
    for part, number in dict(train_good=12, test_good=4, test_scratch=6, test_dent=5).items():
        split, kind = part.split('_')
        for i in range(number):
            picture(folder / 'nut' / split / kind / f'{i:03d}.png')
            if kind != 'good':
                picture(folder / 'nut/ground_truth' / kind / f'{i:03d}_mask.png', mark=1)
    return folder


def paths(rows):
    return {row['img_path'] for row in rows}


def test_binary(root, infos):
    train, test = (infos(MVTecAD(str(root), 'nut', split=split)) for split in ('train', 'test'))
    assert Counter(row['gt_label'] for row in train + test) == {0: 16, 1: 11}
    assert Counter(row['gt_label'] for row in test)[0] == 4
    assert sum(row['gt_label'] for row in train) in (5, 6)
    assert not paths(train) & paths(test)
    assert len({row['unit'] for row in train + test}) == 27
    for row in train + test:
        assert (row['mask_path'] is None) == (row['gt_label'] == 0)
        if row['gt_label']:
            kind, name = row['unit'].split('/')
            assert row['mask_path'] == str(root / f'nut/ground_truth/{kind}/{name}_mask.png')


def test_by_kind(root, infos):
    train = MVTecAD(str(root), 'nut', labels='kind')
    test = MVTecAD(str(root), 'nut', labels='kind', split='test')
    assert train.metainfo['classes'] == test.metainfo['classes'] == ('good', 'dent', 'scratch')
    for row in infos(train) + infos(test):
        assert f'/{train.metainfo["classes"][row["gt_label"]]}/' in row['img_path']
    assert {row['gt_label'] for row in infos(train)} == {row['gt_label'] for row in infos(test)} == {0, 1, 2}
    assert MVTecAD.METAINFO['classes'] == ('good', 'defect')


def test_all_defects_are_for_the_test_of_what_learns_none(root, infos):
    options = dict(learn_defects=False, num_positives=0)
    train, test = (infos(MVTecAD(str(root), 'nut', split=split, **options)) for split in ('train', 'test'))
    assert [row['gt_label'] for row in train] == [0] * 12
    assert Counter(row['gt_label'] for row in test) == {0: 4, 1: 11}


def test_the_seed_splits(root, infos):
    splits = {seed: paths(infos(MVTecAD(str(root), 'nut', seed=seed))) for seed in range(6)}
    assert len(set(map(frozenset, splits.values()))) > 1
    assert paths(infos(MVTecAD(str(root), 'nut', seed=3))) == splits[3]


def test_a_defect_without_a_mask(root, infos):
    (root / 'nut/ground_truth/dent/001_mask.png').unlink()
    rows = [row for split in ('train', 'test') for row in infos(MVTecAD(str(root), 'nut', split=split))]
    (row,) = [row for row in rows if row['unit'] == 'dent/001']
    assert row['mask_path'] is None
    assert row['gt_label'] == 1


def test_faults(root, tmp_path):
    with pytest.raises(UsageError, match=r'mvtec\.com.*CATEGORY/train/good'):
        MVTecAD(str(tmp_path / 'nothing'))
    with pytest.raises(UsageError, match=r"category='bolt': \S+ has nut$"):
        MVTecAD(str(root), 'bolt')
    with pytest.raises(UsageError, match="labels='kinds': not one of"):
        MVTecAD(str(root), 'nut', labels='kinds')
    (root / 'nut/test/crack').mkdir()
    with pytest.raises(UsageError, match='no image of class crack'):
        MVTecAD(str(root), 'nut', labels='kind')


@pytest.mark.parametrize('added', ['.ipynb_checkpoints/000-checkpoint.png', '@eaDir/000.png', '__MACOSX/._000.png'])
def test_what_programs_put_beside_images_is_none(root, infos, picture, added):
    def rows():
        return [infos(MVTecAD(str(root), 'nut', split=split)) for split in ('train', 'test')]

    before = rows()
    for folder in ('train/good', 'test/good', 'test/scratch'):
        picture(root / 'nut' / folder / added)
    assert rows() == before

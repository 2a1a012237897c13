import pytest

from kgl_mm.datasets import KolektorSDD2
from kgl_mm.errors import UsageError


@pytest.fixture
def root(tmp_path, picture):
    folder = tmp_path / 'KolektorSDD2'
    for split, numbers in (('train', range(10000, 10020)), ('test', range(20000, 20006))):
        for number in numbers:
            picture(folder / split / f'{number}.png')
            picture(folder / split / f'{number}_GT.png', mark=int(number % 5 == 0))
    picture(folder / 'train/10005 (copy).png')
    picture(folder / 'train/10005_GT (copy).png', mark=1)
    return folder


def test_the_official_split(root, infos):
    train, test = (infos(KolektorSDD2(str(root), split=split)) for split in ('train', 'test'))
    assert [row['unit'] for row in test] == [f'test/{number}' for number in range(20000, 20006)]
    assert [row['gt_label'] for row in test] == [1, 0, 0, 0, 0, 1]
    assert (len(train), sum(row['gt_label'] for row in train)) == (20, 4)
    assert train[5]['mask_path'] == str(root / 'train/10005_GT.png')


def test_validation_and_positives(root, infos):
    parts = [infos(KolektorSDD2(str(root), split=s, val_fraction=0.25, num_positives=2)) for s in ('train', 'val')]
    assert [(len(part), sum(row['gt_label'] for row in part)) for part in parts] == [(14, 2), (5, 1)]


def test_faults(root, tmp_path):
    with pytest.raises(UsageError, match=r'vicos\.si/resources/kolektorsdd2.*train/10000\.png'):
        KolektorSDD2(str(tmp_path / 'nothing'))
    (root / 'train/10003_GT.png').unlink()
    (root / 'test/20001_GT.png').write_text('text')
    with pytest.raises(UsageError, match=r'10003_GT\.png.*20001_GT\.png'):
        KolektorSDD2(str(root))


def test_a_mended_mask_is_read_again(root, picture, infos):
    assert infos(KolektorSDD2(str(root)))[1]['gt_label'] == 0
    picture(root / 'train/10001_GT.png', mark=1)
    assert infos(KolektorSDD2(str(root)))[1]['gt_label'] == 1

from collections import Counter

import pytest

from kgl_mm.datasets import NEUDet
from kgl_mm.errors import UsageError
from kgl_mm.priors.sources.base import good_indices

KINDS = NEUDet.METAINFO['classes']


@pytest.fixture
def root(tmp_path, picture):
    for kind in KINDS:
        for number in range(1, 11):
            picture(tmp_path / 'NEU-DET/IMAGES' / f'{kind}_{number}.jpg')
    picture(tmp_path / 'NEU-DET/IMAGES/rust_1.jpg')
    return tmp_path / 'NEU-DET'


def test_every_fifth_is_for_the_test_and_each_kind_is_a_class(root, infos):
    train, test = (infos(NEUDet(str(root), split=split)) for split in ('train', 'test'))
    assert (len(train), len(test)) == (48, 12)
    assert Counter(row['gt_label'] for row in test) == dict.fromkeys(range(6), 2)
    for row in train + test:
        assert KINDS[row['gt_label']] in row['img_path']


def test_a_number_of_defective_images_is_shared_by_all_kinds_the_first_one_too(root, infos):
    """Class 0 is not good here."""
    few, more = (
        {row['img_path']: row['gt_label'] for row in infos(NEUDet(str(root), num_positives=number))}
        for number in (12, 18)
    )
    assert Counter(few.values()) == dict.fromkeys(range(6), 2)
    assert Counter(more.values()) == dict.fromkeys(range(6), 3)
    assert few.items() <= more.items()
    with pytest.raises(UsageError, match='num_positives=49: the training part has 48 defective images'):
        NEUDet(str(root), num_positives=49)


def test_there_are_no_good_images_to_learn_from_alone(root):
    with pytest.raises(UsageError, match='has no good images to learn from'):
        NEUDet(str(root), num_positives=0)


def test_no_source_takes_the_first_kind_for_good(root):
    assert good_indices(NEUDet(str(root))) == []


def test_another_layout_is_said(tmp_path):
    (tmp_path / 'crazing').mkdir()
    with pytest.raises(UsageError, match=r'IMAGES/crazing_1\.jpg'):
        NEUDet(str(tmp_path))

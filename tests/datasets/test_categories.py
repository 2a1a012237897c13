import numpy as np
import pytest
from mmengine.registry import DefaultScope

from kgl_mm.datasets import Categories, CategoryFolder
from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore
from kgl_mm.priors.sources.base import good_indices

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.PackDefect')]


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def root(tmp_path, picture):
    for name in (
        'steel/good/1.png', 'steel/scratch/1.png', 'steel/2.png', 'leather/deep/er/1.png', 'leather/test/1.png',
        'steel/masks/scratch/1.png', 'wood/1.jpg', '.trash/1.png', 'val/steel/1.png', '3.png',
    ):  # fmt: skip
        picture(tmp_path / 'parts' / name)
    return tmp_path / 'parts'


def names(dataset, root):
    return {dataset.get_data_info(i)['img_path'].removeprefix(f'{root}/') for i in range(len(dataset))}


def test_a_folder_is_a_category_and_what_is_kept_for_a_test_is_left_out(root, infos):
    dataset = CategoryFolder(str(root), pipeline=PIPELINE)
    assert dataset.metainfo['classes'] == ('leather', 'steel', 'wood')
    labels = {info['img_path'].removeprefix(f'{root}/'): info['gt_label'] for info in infos(dataset)}
    assert labels == {
        'leather/deep/er/1.png': 0, 'steel/2.png': 1, 'steel/good/1.png': 1, 'steel/scratch/1.png': 1, 'wood/1.jpg': 2
    }  # fmt: skip
    assert [int(dataset[i]['data_samples'].gt_label) for i in range(5)] == [0, 1, 1, 1, 2]
    assert dataset.get_cat_ids(4) == [2]
    everything = CategoryFolder(str(root), ignore=('masks',), pipeline=PIPELINE)
    assert names(everything, root) == set(labels) | {'leather/test/1.png', 'val/steel/1.png'}


def test_who_looks_as_a_test_does_gets_no_label(root, infos):
    dataset = CategoryFolder(str(root), pipeline=PIPELINE, test_mode=True)
    assert not any('gt_label' in info for info in infos(dataset))
    assert 'gt_label' not in dataset[1]['data_samples']
    assert len(dataset.metainfo['classes']) == 3
    assert good_indices(dataset) == list(range(5))  # a source learns from all of them


def test_images_without_folders_are_of_one_category(tmp_path, picture):
    for name in ('parts/1.png', 'parts/2.png', 'parts/test/3.png'):
        picture(tmp_path / name)
    dataset = CategoryFolder(str(tmp_path / 'parts'), pipeline=PIPELINE)
    assert dataset.metainfo['classes'] == ('parts',)
    assert names(dataset, tmp_path / 'parts') == {'1.png', '2.png'}


def test_several_data_sets_are_categories_each_with_its_own_store(tmp_path, picture, root):
    other = tmp_path / 'other'
    picture(other / 'good/1.png')
    stores = {}
    for place, (name, folder) in enumerate({'steel': root / 'steel', 'other': other}.items()):
        store = PriorStore(tmp_path / f'maps_{name}')
        for path in folder.rglob('*.*'):
            store.write(path.relative_to(folder).as_posix(), np.full((12, 8), (place + 1) / 4, np.float32))
        stores[name] = str(store.root)
    load, pack = PIPELINE
    parts = {
        name: dict(
            type='kgl_mm.CategoryFolder',
            data_root=str(folder),
            ignore=['masks', 'scratch', 'good'] if name == 'steel' else [],
            pipeline=[load, dict(type='kgl_mm.LoadPrior', store=stores[name]), pack],
        )
        for name, folder in {'steel': root / 'steel', 'other': tmp_path / 'other'}.items()
    }
    parts['other'] |= dict(type='CustomDataset', with_label=False, metainfo=dict(task='any'))
    parts['other'].pop('ignore')
    dataset = Categories(parts)
    assert dataset.metainfo == dict(classes=('steel', 'other'))
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    assert [int(sample.gt_label) for sample in samples] == [0, 1]
    # both have a map of the name 1.png, or good/1.png
    assert [round(float(sample.prior.max()), 2) for sample in samples] == [0.25, 0.5]


@pytest.mark.parametrize(
    ('folders', 'options', 'sentence'),
    [
        (['good', 'scratch'], {}, "'good', so its folders are labels"),
        (['a', 'b/empty'], {}, 'no image of class b'),
        (['a'], dict(ignore='test'), "ignore='test'"),
        ([], {}, 'no images in the layout of CategoryFolder'),
    ],
)
def test_what_is_no_folder_of_categories_is_said(tmp_path, picture, folders, options, sentence):
    root = tmp_path / 'parts'
    root.mkdir()
    for folder in folders:
        (root / folder).mkdir(parents=True)
        if 'empty' not in folder:
            picture(root / folder / '1.png')
    with pytest.raises(UsageError, match=sentence):
        CategoryFolder(str(root), **options)

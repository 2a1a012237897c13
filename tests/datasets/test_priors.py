"""Transforms that read priors, and how they are bound to a data set."""

import json
import shutil
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.registry import DefaultScope

from kgl_mm.datasets import BinarizePrior, DefectDataset, KolektorSDD, LoadMask, LoadPrior, PackDefect, Sample
from kgl_mm.datasets.binding import bind_priors, refuse_several_sizes
from kgl_mm.errors import UsageError
from kgl_mm.files import hash_of
from kgl_mm.priors import PriorStore, binarize
from kgl_mm.priors.generation import as_tested


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


class Parts(DefectDataset):
    """As its folder has them: good/, defect/, and the masks of some."""

    def find_samples(self):
        root = Path(self.data_root)
        masks = {path.name: str(path) for path in (root / 'masks').glob('*.png')}
        return [
            Sample(str(path), int(path.parent.name == 'defect'), masks.get(path.name), path.stem, 'train')
            for path in sorted(root.glob('[dg]*/*.png'))
        ]


@pytest.fixture
def parts(tmp_path, picture):
    """A folder of 3 good and 6 defective images, 4 of them with a mask."""
    for index in range(3):
        picture(tmp_path / f'data/good/g{index}.png')
    for index in range(6):
        picture(tmp_path / f'data/defect/d{index}.png')
        if index < 4:
            picture(tmp_path / f'data/masks/d{index}.png', mark=1)
    return tmp_path / 'data'


@pytest.fixture
def store(tmp_path, parts):
    """A map for each image, bright at a place of its own, as a source would write it."""
    store = PriorStore(tmp_path / 'store')
    for index, path in enumerate(sorted(parts.glob('[dg]*/*.png'))):
        map = np.full((12, 8), 0.05, np.float32)
        map[index, 2:5] = 0.8
        key = path.relative_to(parts).as_posix()
        store.write(key, map, image=hash_of(path), label=int('defect' in key), evidence=1.0)
    store.compact()
    return tmp_path / 'store'


def dataset_of(parts, store, binarize=None, load=None, extra=(), **kwargs):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='kgl_mm.LoadMask'),
        dict(type='Resize', scale=(16, 24)),
        dict(type='kgl_mm.LoadPrior', store=str(store), **(load or {})),
        dict(type='kgl_mm.BinarizePrior', **(binarize or {})),
        *extra,
        dict(type='kgl_mm.PackDefect'),
    ]
    return Parts(str(parts), pipeline=pipeline, **kwargs)


def packed(dataset):
    names = [info['img_path'].rsplit('/')[-1][:2] for info in dataset_infos(dataset)]
    return {name: dataset[i]['data_samples'] for i, name in enumerate(names)}


def dataset_infos(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def forget(*beginnings):
    """A store that was never filled to its end."""

    def spoil(store, _parts):
        keys = PriorStore(store).keys()
        for key in keys:
            if key.startswith(beginnings):
                (store / 'evidence' / f'{key}.png').unlink()
        lines = (store / 'manifest.jsonl').read_text().splitlines()
        kept = [line for line in lines if not json.loads(line)['key'].startswith(beginnings)]
        (store / 'manifest.jsonl').write_text('\n'.join([*kept, '']))

    return spoil


def test_the_contract_of_a_data_sample(parts, store):
    found = packed(dataset_of(parts, store))
    for name, sample in found.items():
        assert sample.prior.shape == sample.prior_mask.shape == (1, 24, 16)
        assert sample.prior.dtype == sample.prior_mask.dtype == torch.float32
        assert 0 <= sample.prior.min() < sample.prior.max() <= 1
        assert set(sample.prior_mask.unique().tolist()) == ({0.0, 1.0} if name[0] == 'd' else {0.0})
    index = 2  # d2 is the third in the order of the store
    read = PriorStore(store).read('defect/d2.png', size=(24, 16))
    np.testing.assert_allclose(found['d2'].prior[0].numpy(), read)
    np.testing.assert_array_equal(found['d2'].prior_mask[0].numpy(), binarize(read))
    assert read.argmax() // 16 in (2 * index, 2 * index + 1)


def test_everything_moves_together_through_the_pipeline_of_a_data_set(parts, store):
    flip = dict(type='RandomFlip', prob=1.0, direction='vertical')
    crop = dict(type='RandomResizedCrop', scale=(12, 10))
    plain, flipped = packed(dataset_of(parts, store)), packed(dataset_of(parts, store, extra=[flip]))
    for name in plain:
        for field in ('prior', 'prior_mask', *(['mask'] if 'mask' in plain[name] else [])):
            torch.testing.assert_close(flipped[name].get(field), plain[name].get(field).flip(1), rtol=0, atol=1e-6)
    for sample in packed(dataset_of(parts, store, extra=[crop], cache='memory')).values():
        assert sample.prior.shape == (1, 12, 10)
        if 'prior_mask' in sample:  # absent where the crop lies beside the defect
            assert sample.prior_mask.shape == sample.prior.shape
            assert sample.prior_mask.any() or not sample.gt_label.any()


def test_the_number_of_targets_is_limited_and_nested_and_the_channel_is_always_there(parts, store):
    chosen = []
    for number in (0, 2, 5, 6, None):
        found = packed(dataset_of(parts, store, binarize=dict(num_priors=number)))
        assert all('prior' in sample for sample in found.values())
        assert all('prior_mask' in found[f'g{i}'] for i in range(3))
        chosen.append({name for name in found if name[0] == 'd' and 'prior_mask' in found[name]})
    assert [len(names) for names in chosen] == [0, 2, 5, 6, 6]
    assert chosen[1] < chosen[2] < chosen[3]
    other = packed(dataset_of(parts, store, binarize=dict(num_priors=3, seed=5)))
    again = packed(dataset_of(parts, store, binarize=dict(num_priors=3), seed=5))
    assert [('prior_mask' in s) for s in other.values()] == [('prior_mask' in s) for s in again.values()]


def test_real_masks_where_they_are_and_are_asked_for(parts, store):
    found = packed(dataset_of(parts, store, binarize=dict(num_masks=2, num_priors=0)))
    taught = [name for name in found if name[0] == 'd' and 'prior_mask' in found[name]]
    assert len(taught) == 2
    assert all(torch.equal(found[name].prior_mask, found[name].mask.float()) for name in taught)
    mixed = packed(dataset_of(parts, store, binarize=dict(num_masks=None)))
    assert all('prior_mask' in sample for sample in mixed.values())
    assert [torch.equal(mixed[f'd{i}'].prior_mask, mixed[f'd{i}'].mask.float()) for i in range(4)] == [True] * 4


def test_a_prior_that_marks_nothing_is_no_target(parts, store):
    written = PriorStore(store)
    entry = written.entry('defect/d1.png')
    written.write('defect/d1.png', np.zeros((12, 8)), image=entry['image'])
    found = packed(dataset_of(parts, store))
    assert 'prior_mask' not in found['d1']
    assert not found['d1'].prior.any()


@pytest.mark.parametrize('options', [{}, dict(num_priors=0), dict(soft=True, dilation=2, max_area=0.01)])
@pytest.mark.parametrize('scale', [1, 3])
def test_what_a_person_painted_over_a_map_always_teaches_as_a_mask(parts, store, options, scale):
    written = PriorStore(store)
    mask = np.zeros((12 * scale, 8 * scale), np.uint8)
    mask[2 * scale : 4 * scale, 3 * scale : 6 * scale] = 1
    written.write('good/g0.png', np.full((12, 8), 7.0))  # another map is stronger than any mask
    written.paint('defect/d2.png', mask)
    written.paint('defect/d3.png', np.zeros_like(mask))
    written.paint('defect/d4.png', np.ones_like(mask))
    written.paint('good/g1.png', mask)
    found = packed(dataset_of(parts, store, binarize=options))
    expected = np.zeros((24, 16), np.float32)
    expected[4:8, 6:12] = 1
    np.testing.assert_array_equal(found['d2'].prior_mask[0].numpy(), expected)
    assert found['d2'].prior.max() == found['d4'].prior.max() == 1
    assert found['d2'].prior_trust == found['d4'].prior_trust == 1
    assert found['d4'].prior_mask.all()
    assert 'prior_mask' not in found['d3']  # says that nobody knows where, not that the part is good
    assert not found['g1'].prior_mask.any()


def test_a_thin_stroke_is_not_lost_where_its_map_shrinks(parts, store):
    mask = np.zeros((240, 160), np.uint8)
    mask[100:103] = 1
    PriorStore(store).paint('defect/d2.png', mask)
    rows = packed(dataset_of(parts, store))['d2'].prior_mask[0].any(1).nonzero().flatten().tolist()
    assert rows == [10]


def test_maps_of_a_folder_that_no_source_wrote_are_chosen_as_others_are(parts, store):
    header = json.loads((store / 'store.json').read_text())
    assert header['layers']['evidence']['source'] == {}
    for path in (store / 'evidence/defect').iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) // 2)
    found = packed(dataset_of(parts, store, binarize=dict(num_priors=2)))
    assert sum('prior_mask' in sample for name, sample in found.items() if name[0] == 'd') == 2


@given(
    seed=st.integers(0, 1000), dilation=st.integers(0, 3), area=st.sampled_from([None, 0.05, 0.3]), soft=st.booleans()
)
def test_options_of_the_target(seed, dilation, area, soft):
    prior = np.random.default_rng(seed).random((20, 30), np.float32) ** 3
    results = BinarizePrior(dilation=dilation, max_area=area, soft=soft)(
        dict(prior=prior.copy(), gt_label=1, img_path='x')
    )
    np.testing.assert_array_equal(results['prior'], prior)
    mask = binarize(prior, dilation, area)
    if mask.any():
        expected = mask * (prior / prior.max() if soft else 1)
        np.testing.assert_allclose(results['prior_mask'], expected, rtol=1e-6)
    else:
        assert 'prior_mask' not in results


def test_the_wrong_map_is_that_of_another_image_of_its_label(parts, store):
    right, wrong = packed(dataset_of(parts, store)), packed(dataset_of(parts, store, load=dict(wrong=True)))
    names = {}
    for name, sample in wrong.items():
        (names[name],) = [other for other in right if torch.equal(right[other].prior, sample.prior)]
    assert all(other != name and other[0] == name[0] for name, other in names.items())
    assert len(set(names.values())) == len(names)


def test_a_wrong_map_needs_another_image(parts, tmp_path, store):
    lonely = PriorStore(tmp_path / 'lonely')
    lonely.write('good/g0.png', np.eye(12, 8))
    with pytest.raises(UsageError, match='no other map'):
        LoadPrior(str(lonely.root), wrong=True).find('good/g0.png')


def test_maps_beyond_one_are_scaled_alike(parts, store, tmp_path):
    raw = PriorStore(tmp_path / 'raw')
    for i, path in enumerate(sorted(parts.glob('[dg]*/*.png'))):
        raw.write(path.relative_to(parts).as_posix(), np.full((12, 8), 5.0 * (i + 1)))
    found = packed(dataset_of(parts, tmp_path / 'raw'))
    assert [round(found[name].prior.max().item(), 3) for name in ('d0', 'd5', 'g2')] == [0.111, 0.667, 1.0]


def test_several_stores_are_one(parts, store, tmp_path):
    halves = PriorStore(tmp_path / 'one'), PriorStore(tmp_path / 'other')
    for i, path in enumerate(sorted(parts.glob('[dg]*/*.png'))):
        key = path.relative_to(parts).as_posix()
        halves[i % 2].write(key, PriorStore(store).read(key))
    both = LoadPrior([str(half.root) for half in halves])
    pipeline = [mmcv.LoadImageFromFile(), LoadMask(), both, BinarizePrior(), PackDefect()]
    found = packed(Parts(str(parts), pipeline=pipeline))
    assert found['d1'].prior[0].argmax() // 8 == 1
    assert found['d4'].prior[0].argmax() // 8 == 4


@pytest.mark.parametrize(
    ('spoil', 'sentence'),
    [
        (lambda store, parts: shutil.rmtree(store), 'no store of priors'),
        (lambda store, parts: (store / 'evidence/good/g1.png.png').unlink(), r'good/g1\.png.*missing'),
        (forget('good/'), '3 of 9 images have no map .*good/g0'),
        (lambda store, parts: (store / 'evidence/good/g1.png.png').write_bytes(b'x'), 'damaged'),
    ],
)
def test_what_is_wrong_with_a_store_is_said_before_training(parts, store, spoil, sentence):
    spoil(store, parts)
    with pytest.raises(UsageError, match=sentence):
        dataset_of(parts, store)


def test_a_store_of_another_data_set(parts, store, tmp_path, picture):
    for index in range(2):
        picture(tmp_path / f'other/good/x{index}.png')
        picture(tmp_path / f'other/defect/y{index}.png')
    with pytest.raises(UsageError, match='another data set: none of the 4 images'):
        dataset_of(tmp_path / 'other', store)
    picture(parts / 'good/g0.png')  # the same name, another image
    with pytest.raises(UsageError, match=r'good/g0\.png.*another image'):
        dataset_of(parts, store)


def test_a_mask_that_was_painted_over_another_image_teaches_nothing(parts, store, picture):
    painted = PriorStore(store)
    painted.paint('defect/d0.png', np.ones(painted.entry('defect/d0.png')['size'], bool))
    dataset_of(parts, store)
    picture(parts / 'defect/d0.png', mark=1)
    with pytest.raises(UsageError, match=r"'defect/d0.png' was painted over another image .*: revert it"):
        dataset_of(parts, store)


def test_maps_of_another_size(parts, tmp_path):
    for name, shape, fits in (('half', (6, 4), True), ('square', (12, 12), False)):
        store = PriorStore(tmp_path / name)
        for path in parts.glob('[dg]*/*.png'):
            store.write(path.relative_to(parts).as_posix(), np.eye(*shape))
        if fits:
            dataset_of(parts, tmp_path / name)
            continue
        with pytest.raises(UsageError, match=r'12 x 12, but .* has 12 x 8'):
            dataset_of(parts, tmp_path / name)


def test_two_images_never_share_a_map(parts, tmp_path, picture):
    store = PriorStore(tmp_path / 'flat')  # a tool that keeps names alone
    picture(parts / 'defect/g0.png')
    for path in parts.glob('[dg]*/*.png'):
        store.write(path.name, np.eye(12, 8))
    with pytest.raises(UsageError, match=r"both get the map 'g0\.png'"):
        dataset_of(parts, tmp_path / 'flat')


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(num_priors=7), 'num_priors=7: the training part has 6 defective images'),
        (dict(num_masks=5), 'num_masks=5: the training part has 4 defective images with a mask'),
        (dict(num_priors=-1), '0 or more'),
        (dict(num_priors='five'), "num_priors='five': not a whole number of 0 or more, nor None for all"),
        (dict(num_masks=2.5), 'num_masks=2.5: not a whole number'),
        (dict(num_priors=True), 'num_priors=True: not a whole number'),
        (dict(soft='maybe'), "soft='maybe': not one of True, False"),
        (dict(max_area='x'), "max_area='x': not a number above 0, up to 1"),
        (dict(dilation=-1), 'dilation'),
        (dict(max_area=2.0), 'max_area'),
    ],
)
def test_wrong_settings_are_said(parts, store, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        dataset_of(parts, store, binarize=settings)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(missing='typo'), "missing='typo': not one of error, empty"),
        (dict(wrong='maybe'), "wrong='maybe': not one of True, False"),
        (dict(store=5), 'store=5: not a folder'),
    ],
)
def test_wrong_settings_of_what_loads_priors_are_said(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        LoadPrior(**settings)


def test_a_target_comes_after_its_prior(parts, store):
    load, target = dict(type='kgl_mm.LoadPrior', store=str(store)), dict(type='kgl_mm.BinarizePrior')
    with pytest.raises(UsageError, match='LoadPrior before it'):  # before any image is read
        Parts(str(parts), pipeline=[dict(type='LoadImageFromFile'), target, load], lazy_init=True)
    with pytest.raises(UsageError, match='LoadPrior before it'):
        BinarizePrior()(dict(gt_label=0))


def test_a_missing_map_may_be_empty(parts, store):
    forget('defect/d0', 'defect/d1')(store, parts)
    found = packed(dataset_of(parts, store, load=dict(missing='empty')))
    assert not found['d0'].prior.any()
    assert 'prior_mask' not in found['d0']
    assert 'prior_mask' in found['d2']


def test_the_data_set_of_somebody_else_is_bound_from_outside(parts, store):
    class Theirs(BaseDataset):
        def load_data_list(self):
            paths = sorted(parts.glob('[dg]*/*.png'))
            return [dict(img_path=str(path), gt_label=int('defect' in str(path))) for path in paths]

    def build(**kwargs):
        pipeline = [
            dict(type='LoadImageFromFile'), dict(type='kgl_mm.LoadPrior', store=str(store)),
            dict(type='kgl_mm.BinarizePrior', **kwargs), dict(type='RandomFlip', prob=1.0),
            dict(type='kgl_mm.PackDefect'),
        ]  # fmt: skip
        return Theirs(pipeline=pipeline)

    with pytest.raises(UsageError, match='GuidanceHook'):
        build(num_priors=2)[0]
    dataset = build(num_priors=2)
    assert len(bind_priors(ConcatDataset([dataset]))) == 1
    assert sum('prior_mask' in dataset[i]['data_samples'] for i in range(len(dataset))) == 3 + 2
    read = PriorStore(store).read('defect/d0.png')
    np.testing.assert_allclose(dataset[0]['data_samples'].prior[0], read[:, ::-1])


def test_a_target_that_is_made_inside_a_container_is_bound_too(parts, store):
    inside = dict(type='RandomApply', prob=1.0, transforms=[dict(type='kgl_mm.BinarizePrior', num_priors=2)])
    found = packed(dataset_of(parts, store, binarize=dict(num_priors=0), extra=[inside]))
    assert sum('prior_mask' in found[f'd{i}'] for i in range(6)) == 2


def test_a_data_set_without_priors_is_left_alone(kolektor):
    dataset = KolektorSDD(str(kolektor), pipeline=[mmcv.LoadImageFromFile(), PackDefect()])
    before = list(dataset.pipeline.transforms)
    assert bind_priors(dataset) == []
    assert dataset.pipeline.transforms == before


def test_a_part_is_left_out_and_kept(kolektor):
    pipeline = [mmcv.LoadImageFromFile(), PackDefect()]
    whole = {info['img_path'] for info in dataset_infos(KolektorSDD(str(kolektor), pipeline=pipeline))}
    kept, left = [], []
    for part in range(3):
        dataset = KolektorSDD(str(kolektor), pipeline=pipeline, leave_out=(part, 3))
        kept.append({info['img_path'] for info in dataset_infos(dataset)})
        left.append({info['img_path'] for info in dataset_infos(dataset.left_out())})
        assert kept[-1] | left[-1] == whole
        assert not kept[-1] & left[-1]
        assert {path.split('/')[-2] for path in kept[-1]}.isdisjoint(path.split('/')[-2] for path in left[-1])
    assert sorted(path for part in left for path in part) == sorted(whole)


def test_images_whose_sizes_differ_behind_the_pipeline_are_refused(tmp_path):
    for index, shape in enumerate([(12, 8), (24, 16), (12, 8), (12, 16)]):
        for kind in ('good', 'defect'):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f'{index}.png'), np.full((*shape, 3), 10 * index, np.uint8))

    def dataset(*resize):
        return Parts(str(tmp_path), pipeline=[dict(type='LoadImageFromFile'), *resize, dict(type='kgl_mm.PackDefect')])

    with pytest.raises(UsageError, match=r'becomes 12 x 8 and .* becomes 24 x 16'):
        refuse_several_sizes(dataset(), 'do something')
    with pytest.raises(UsageError, match=r'3\.png becomes .*, or do something$'):  # the one of another shape
        refuse_several_sizes(dataset(dict(type='Resize', scale=(16, 24), keep_ratio=True)), 'do something')
    before = np.random.get_state()[1].tolist()
    refuse_several_sizes(dataset(dict(type='RandomResizedCrop', scale=16)), '')
    assert np.random.get_state()[1].tolist() == before


def test_the_image_itself_is_no_key(parts, store):
    assert LoadPrior(str(store)).find(str(parts / 'defect/d3.png'))[1] == 'defect/d3.png'
    assert LoadPrior(str(store)).find('/elsewhere/defect/d3.png')[1] == 'defect/d3.png'
    assert LoadPrior(str(store)).find('d3.png') is None
    image = cv2.imread(str(parts / 'defect/d3.png'))
    with pytest.raises(UsageError, match='no map'):
        Compose([LoadPrior(str(store))])(dict(img=image, img_path='d3.png'))
    with pytest.raises(UsageError, match='--priors'):
        Compose([LoadPrior()])(dict(img=image, img_path='d3.png'))


def test_the_longest_end_of_a_path_counts_and_the_first_store(tmp_path):
    for name, value in (('one', 0.25), ('other', 0.5)):
        for key in ('1.png', 'kos01/1.png'):
            PriorStore(tmp_path / name).write(key, [[value]])
    loader = LoadPrior([str(tmp_path / 'one'), str(tmp_path / 'other')])
    found, key = loader.find('/data/kos01/1.png')
    assert (Path(found.root).name, key) == ('one', 'kos01/1.png')


def test_the_wrong_map_is_not_that_of_a_neighbour_which_may_show_the_same_part(tmp_path):
    for i in range(10):
        PriorStore(tmp_path).write(f'{i}.png', [[1.0]], label=1)
    loader = LoadPrior(str(tmp_path), wrong=True)
    apart = [abs(int(loader.find(f'{i}.png')[1][0]) - i) for i in range(10)]
    assert min(apart) > 1


def test_a_target_of_which_a_crop_left_nothing_is_taken_away(parts, store):
    found = packed(dataset_of(parts, store, extra=[dict(type='CenterCrop', crop_size=(16, 4))]))
    assert {name for name in found if name[0] == 'd' and 'prior_mask' in found[name]} == {'d5'}
    assert all('prior_mask' in found[f'g{i}'] for i in range(3))


def test_a_look_at_sizes_draws_nothing(tmp_path):
    for index, shape in enumerate([(12, 8), (24, 16)]):
        for kind in ('good', 'defect'):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f'{index}.png'), np.full((*shape, 3), 10 * index, np.uint8))
    crop = [dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=16), dict(type='kgl_mm.PackDefect')]
    dataset, drawn = Parts(str(tmp_path), pipeline=crop), []
    for looks in (False, True):
        np.random.seed(0)
        if looks:
            refuse_several_sizes(dataset, '')
        drawn.append(np.random.random())
    assert drawn[0] == drawn[1]


def test_what_a_test_sees_is_not_what_a_training_has_cached(parts):
    gray = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(16, 24)), dict(type='kgl_mm.PackDefect')]
    test = [gray[0], dict(type='Resize', scale=(8, 12)), gray[2]]
    seen = as_tested(Parts(str(parts), pipeline=gray, cache='memory'), test)
    assert seen[0]['inputs'].shape == (3, 12, 8)

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope

from kgl_mm.datasets import LoadMask, Moved, SynthesizeDefect
from kgl_mm.datasets.binding import bind_priors
from kgl_mm.datasets.transforms import let_priors_move
from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore

SPOT = 'plate with spot defect, it appears as a strong dark spot, large'
LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='kgl_mm.PackDefect')


@pytest.fixture(autouse=True, scope='module')
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def good(**more):
    image = np.random.default_rng(0).integers(90, 120, (40, 50, 3)).astype(np.uint8)
    return dict(img=image, gt_label=0, img_path='a.png', **more)


def draw(results, seed=0, **kwargs):
    np.random.seed(seed)
    return SynthesizeDefect(SPOT, **dict(dict(prob=1.0), **kwargs))(results)


def test_a_good_image_gets_a_defect_and_its_map():
    before = good()
    drawn = draw(dict(before))
    map = drawn['prior_mask']
    assert drawn['gt_label'] == 1
    assert map.max() == 1
    assert map.dtype == np.float32
    assert np.array_equal(drawn['img'][map == 0], before['img'][map == 0])
    assert (drawn['img'][map == 1].mean() < 80) & (before['img'].mean() > 100)
    assert np.array_equal(drawn['gt_seg_map'], map > 0.5)
    assert drawn['gt_seg_map'].dtype == np.uint8
    assert drawn['prior_trust'] == 1.0
    assert 'prior' not in drawn


def test_what_was_not_drawn_on():
    before = good()
    after = draw(dict(before), prob=0)
    assert np.array_equal(after['img'], before['img'])
    assert after['gt_label'] == 0
    assert not after['prior_mask'].any()
    assert not after['gt_seg_map'].any()
    assert after['prior_trust'] == 1.0
    defective = good() | dict(gt_label=1)
    assert draw(dict(defective)) == defective
    assert draw(good() | dict(gt_label=np.array([0, 1])))['gt_label'].tolist() == [0, 1]


def test_probability_and_chance():
    labels = []
    transform = SynthesizeDefect('metal', prob=0.3)
    np.random.seed(0)
    for _ in range(200):
        labels.append(transform(good() | dict(img=np.full((8, 8), 100, np.uint8)))['gt_label'])
    assert 40 < sum(labels) < 80
    assert np.array_equal(draw(good(), 5)['img'], draw(good(), 5)['img'])
    assert not np.array_equal(draw(good(), 5)['img'], draw(good(), 6)['img'])


def test_labels_of_ones_own():
    assert draw(good(), label=3)['gt_label'] == 3
    drawn = draw(good() | dict(gt_label=7), label=None)
    assert drawn['gt_label'] == 7
    assert drawn['prior_mask'].any()
    unlabelled = good()
    del unlabelled['gt_label']
    assert draw(unlabelled, label=None)['prior_mask'].any()


def test_a_prior_is_nowhere_below_the_map():
    prior = np.linspace(0, 0.8, 40 * 50, dtype=np.float32).reshape(40, 50)
    drawn = draw(good(prior=prior.copy()))
    assert np.array_equal(drawn['prior'], np.maximum(prior, drawn['prior_mask']))
    assert np.array_equal(draw(good(prior=prior.copy()), prob=0)['prior'], prior)


def test_a_mask_that_is_loaded_later_keeps_the_drawing(tmp_path):
    drawn = draw(good(mask_path=str(tmp_path / 'empty.png')))
    assert np.array_equal(LoadMask()(dict(drawn))['gt_seg_map'], drawn['prior_mask'] > 0.5)


@pytest.mark.parametrize('loads', [False, True])
def test_maps_move_with_the_image(loads):
    class Loader:
        loads_prior, geometric, photometric = True, (), ()

        def __call__(self, results):
            return results | dict(prior=np.zeros(results['img'].shape[:2], np.float32))

    steps = [SynthesizeDefect(SPOT, prob=1.0), TRANSFORMS.build(dict(type='RandomFlip', prob=1.0))]
    steps = [Loader(), *steps] if loads else steps
    let_priors_move(steps)
    let_priors_move(steps)
    assert isinstance(steps[-1], Moved)
    assert not isinstance(steps[-1].inner, Moved)
    np.random.seed(0)
    flipped = Compose(steps)(good())
    straight = draw(good())
    for key in ('img', 'prior_mask', 'gt_seg_map'):
        assert np.array_equal(flipped[key], straight[key][:, ::-1])


def test_what_moves_before_it_need_not_be_known():
    class Own:
        def __call__(self, results):
            return results

    crop = TRANSFORMS.build(dict(type='RandomCrop', crop_size=20))
    steps = [crop, Own(), SynthesizeDefect(SPOT, prob=1.0)]
    let_priors_move(steps)
    assert steps[0] is crop
    assert Compose(steps)(good())['prior_mask'].shape == (20, 20)
    with pytest.raises(UsageError, match='nobody knows whether Own moves the image'):
        let_priors_move([steps[-1], Own()])
    let_priors_move([SynthesizeDefect(SPOT, photometric=['Own']), Own()])


@pytest.fixture
def parts(tmp_path, picture):
    """A folder of four good and two defective images."""
    for number in range(4):
        picture(tmp_path / f'parts/good/{number}.png', (24, 20))
    for number in range(2):
        picture(tmp_path / f'parts/dent/{number}.png', (24, 20))
    lines = [f'{path.relative_to(tmp_path / "parts")},train\n' for path in sorted(tmp_path.rglob('*.png'))]
    (tmp_path / 'split.csv').write_text('path,split\n' + ''.join(lines))

    def parts(*steps, **more):
        settings = dict(data_root=str(tmp_path / 'parts'), split_file=str(tmp_path / 'split.csv'), **more)
        return DATASETS.build(dict(type='kgl_mm.DefectFolder', **settings, pipeline=[LOAD, *steps, PACK]))

    return parts


def test_in_the_data_sets_of_the_package(parts):
    dataset = parts(
        dict(type='kgl_mm.SynthesizeDefect', descriptions=[SPOT], prob=0.5), dict(type='RandomFlip', prob=0.5)
    )
    seen = {}
    for epoch in (0, 1, 0):
        dataset.set_epoch(0, epoch)
        for index in (5, 4, 3, 2, 1, 0):  # in any order
            sample = dataset[index]['data_samples']
            if dataset.get_data_info(index)['gt_label']:
                assert 'prior_mask' not in sample
                continue
            assert bool(sample.gt_label) == sample.prior_mask.any() == sample.mask.any()
            pixels = dataset[index]['inputs']
            assert torch.equal(seen.setdefault((epoch, index), pixels), pixels)
    assert any(not torch.equal(seen[0, index], seen[1, index]) for (epoch, index) in seen if epoch)


def test_kinds_without_a_good_one_keep_their_labels(picture, tmp_path):
    for kind in ('dent', 'scratch'):
        picture(tmp_path / f'kinds/{kind}/0.png', (24, 20))

    def kinds(**settings):
        draw = dict(type='kgl_mm.SynthesizeDefect', descriptions=[SPOT], prob=1.0, **settings)
        data = dict(type='kgl_mm.CategoryFolder', data_root=str(tmp_path / 'kinds'))
        return DATASETS.build(dict(data, pipeline=[LOAD, draw, PACK]))

    with pytest.raises(UsageError, match=r"class 0 is 'dent' and not good, .*: set label=None"):
        bind_priors(kinds())
    bind_priors(kinds(label=None))
    assert [int(sample['data_samples'].gt_label) for sample in kinds(label=None)] == [0, 1]


def test_behind_the_priors_of_a_store(parts, tmp_path):
    store = PriorStore(tmp_path / 'store')
    for path in sorted((tmp_path / 'parts').rglob('*.png')):
        map = np.zeros((24, 20), np.float32)
        map[2:6, 3:7] = 0.7
        store.write(path.relative_to(tmp_path / 'parts').as_posix(), map, label=int('dent' in str(path)))
    store.compact()
    dataset = parts(
        dict(type='kgl_mm.LoadPrior', store=str(tmp_path / 'store')),
        dict(type='kgl_mm.BinarizePrior'),
        dict(type='kgl_mm.SynthesizeDefect', descriptions=[SPOT], prob=1.0),
        dict(type='RandomFlip', prob=1.0),
    )
    for index in range(6):
        sample = dataset[index]['data_samples']
        assert sample.gt_label == 1
        assert sample.prior[0, 3, 15] > 0.69  # as flipped
        if dataset.get_data_info(index)['gt_label']:
            assert torch.equal(sample.prior_mask[0, 2:6, 13:17], torch.ones(4, 4))
            assert sample.prior_mask.sum() == 16
        else:
            assert sample.prior_mask.max() == 1
            assert (sample.prior >= sample.prior_mask).all()


def test_in_a_data_set_of_others(parts):
    infos = [parts().get_data_info(index) for index in range(6)]
    steps = [
        LOAD,
        dict(type='kgl_mm.SynthesizeDefect', descriptions=[SPOT], prob=1.0),
        dict(type='RandomFlip', prob=1.0),
    ]

    class Plain(BaseDataset):
        def load_data_list(self):
            return infos

    dataset = Plain(pipeline=[*steps, PACK])
    assert bind_priors(dataset) == []
    assert isinstance(dataset.pipeline.transforms[2], Moved)
    assert all(dataset[index]['data_samples'].gt_label == 1 for index in range(6))


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(prob=2), 'prob=2: not a number from 0 to 1'),
        (dict(label=-1), 'label=-1'),
        (dict(descriptions='absent'), 'absent: cannot be read'),
        (dict(descriptions=['lorem ipsum dolor']), 'descriptions, entry 1: .*no word of it'),
        (dict(descriptions=[]), 'there is none'),
        (dict(geometric='Own'), 'both are lists'),
    ],
)
def test_what_is_wrong_is_said_at_once(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        SynthesizeDefect(**settings)


def test_what_it_needs_is_said():
    with pytest.raises(UsageError, match='there is no image yet'):
        SynthesizeDefect(SPOT)({'gt_label': 0})
    with pytest.raises(UsageError, match='gives no gt_label'):
        SynthesizeDefect(SPOT)({'img': np.zeros((9, 9), np.uint8)})


def test_its_name_says_what_it_draws():
    assert repr(SynthesizeDefect(SPOT)) == "SynthesizeDefect(descriptions=['spot'], prob=0.5, label=1)"

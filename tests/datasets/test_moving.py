import copy
import random

import mmcv
import mmpretrain.datasets as mm
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import BaseTransform, Compose, RandomApply, RandomChoice
from mmengine.registry import TRANSFORMS as MM_TRANSFORMS
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS as MMPRETRAIN_TRANSFORMS
from PIL import Image

from kgl_mm.datasets.transforms import Moved, let_priors_move, moving
from kgl_mm.errors import UsageError
from kgl_mm.registry import TRANSFORMS


@pytest.fixture(autouse=True, scope='module')
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


class Loader(BaseTransform):
    """What is asked of LoadPrior."""

    loads_prior = True

    def __init__(self, geometric=(), photometric=()):
        self.geometric, self.photometric = geometric, photometric

    def transform(self, results):
        return results


def build(cfg):
    return TRANSFORMS.build(copy.deepcopy(cfg))


def blocks(seed, size):
    """A picture of grey blocks, smooth in between, three equal channels; asymmetric, neither black nor white."""
    grey = np.random.default_rng(seed).integers(30, 225, (4, 5)).astype(np.uint8)
    grey = mmcv.imresize(grey, size[::-1], interpolation=['nearest', 'bilinear'][seed % 2])
    return np.repeat(grey[..., None], 3, axis=2)


def sample(image):
    """An image that is its own prior, its lighter half marked."""
    prior = image[..., 0].astype(np.float32) / 255
    mask = prior > 0.5
    return dict(
        img=image.copy(),
        prior=prior,
        prior_mask=mask.astype(np.float32),
        gt_seg_map=mask.astype(np.uint8),
        img_shape=prior.shape,
        gt_label=1,
    )


def run(transform, results, seed=0):
    """The results, and numbers drawn afterwards from each source of chance."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return transform(results), (random.random(), np.random.rand(), torch.rand(1).item())


def array(image):
    return np.moveaxis(np.asarray(image), 0, -1) if isinstance(image, torch.Tensor) else np.asarray(image)


def kind_of(cfg):
    name = cfg['type']
    return Image.fromarray if name.startswith('torchvision/') or name == 'MAERandomResizedCrop' else np.array


size = st.integers(20, 50)
sizes = st.tuples(size, size)
colour = st.one_of(st.integers(0, 255), st.tuples(*[st.integers(0, 255)] * 3))
smooth = st.sampled_from(['nearest', 'bilinear', 'bicubic'])
direction = st.sampled_from(['horizontal', 'vertical'])
ratios = dict(crop_ratio_range=st.just((0.2, 1.0)), aspect_ratio_range=st.just((0.5, 2.0)))
always = st.floats(0.7, 1.0)
resize = dict(keep_ratio=st.booleans(), backend=st.sampled_from(['cv2', 'pillow']), interpolation=smooth)
scale = dict(scale=st.just((0.2, 1.0)))
gate = dict(prob=always, pad_val=colour)

GEOMETRIC = {
    'CenterCrop': dict(
        crop_size=sizes,
        auto_pad=st.booleans(),
        pad_cfg=st.fixed_dictionaries(dict(type=st.just('Pad'), pad_val=st.integers(0, 255))),
    ),
    'EfficientNetCenterCrop': dict(crop_size=size, interpolation=smooth),
    'EfficientNetRandomCrop': dict(scale=size, crop_padding=st.integers(0, 9), interpolation=smooth),
    'MAERandomResizedCrop': dict(size=sizes, **scale),
    'Pad': dict(
        size=st.just((60, 53)),
        pad_val=st.integers(0, 255),
        padding_mode=st.sampled_from(['constant', 'edge', 'reflect', 'symmetric']),
    ),
    'RandomChoiceResize': dict(scales=st.lists(sizes, min_size=2, max_size=4), **resize),
    'RandomCrop': dict(crop_size=sizes, padding=st.integers(0, 9), pad_if_needed=st.booleans(), pad_val=colour),
    'RandomFlip': dict(prob=always, direction=st.sampled_from(['vertical', ['horizontal', 'diagonal']])),
    'RandomResize': dict(scale=sizes, ratio_range=st.just((0.7, 1.4)), **resize),
    'RandomResizedCrop': dict(scale=sizes, interpolation=smooth, **ratios),
    'RandomTranslatePad': dict(size=st.just(64), aug_translate=st.booleans()),
    'Resize': dict(scale=sizes, **resize),
    'kgl_mm.Resize': dict(scale=sizes, keep_ratio=st.booleans()),
    'ResizeEdge': dict(scale=size, edge=st.sampled_from(['short', 'width']), interpolation=smooth),
    'Rotate': dict(angle=st.floats(1, 80), interpolation=smooth, **gate),
    'Shear': dict(magnitude=st.floats(0.05, 0.5), direction=direction, interpolation=smooth, **gate),
    'Translate': dict(magnitude=st.floats(0.05, 0.5), direction=direction, interpolation=smooth, **gate),
    'torchvision/CenterCrop': dict(size=sizes),
    'torchvision/ElasticTransform': dict(alpha=st.just(40.0), sigma=st.just(2.0), fill=st.integers(0, 255)),
    'torchvision/Pad': dict(padding=st.integers(1, 9), fill=colour),
    'torchvision/RandomAffine': dict(degrees=st.just(60), translate=st.just((0.3, 0.3)), fill=colour),
    'torchvision/RandomCrop': dict(size=sizes, pad_if_needed=st.just(True), padding=st.integers(0, 9), fill=colour),
    'torchvision/RandomHorizontalFlip': dict(p=always),
    'torchvision/RandomPerspective': dict(distortion_scale=st.just(0.5), p=always, fill=colour),
    'torchvision/RandomResizedCrop': dict(size=sizes, **scale),
    'torchvision/RandomRotation': dict(degrees=st.just(80), expand=st.booleans(), fill=colour),
    'torchvision/RandomVerticalFlip': dict(p=always),
    'torchvision/Resize': dict(size=sizes),
}


def on_black(cfg):
    """The same with black outside the image."""
    cfg = copy.deepcopy(cfg)
    if 'pad_cfg' in cfg:
        cfg['pad_cfg']['pad_val'] = 0
    return cfg | {name: 0 for name in ('pad_val', 'fill') if name in cfg}


def test_every_geometric_transform_is_tried():
    assert {name.removeprefix('kgl_mm.') for name in GEOMETRIC} == moving.GEOMETRIC


@pytest.mark.parametrize('name', sorted(GEOMETRIC))
@settings(max_examples=12, deadline=None, database=None)
@given(data=st.data(), seed=st.integers(0, 2**20), size=sizes)
def test_a_picture_that_is_its_own_prior_stays_so(name, data, seed, size):
    cfg = dict(type=name, **{key: data.draw(values, key) for key, values in GEOMETRIC[name].items()})
    image = blocks(seed, size)
    kind = kind_of(cfg)
    results = sample(image)
    masks = np.repeat(results['gt_seg_map'][..., None] * np.uint8(255), 3, axis=2)
    alone, drawn = run(build(cfg), dict(img=kind(image), img_shape=size), seed)
    wanted = array(run(build(on_black(cfg)), dict(img=kind(image)), seed)[0]['img'])[..., 0].astype(float)
    marked = array(run(build(on_black(cfg)), dict(img=kind(masks)), seed)[0]['img'])[..., 0].astype(float)

    moved, drawn_after = run(Moved(cfg), results | dict(img=kind(image)), seed)
    assert type(moved['img']) is type(alone['img'])
    assert np.array_equal(moved['img'], alone['img'])
    assert drawn_after == drawn
    assert {key: moved[key] for key in alone if key != 'img'} == {key: alone[key] for key in alone if key != 'img'}

    assert moved['prior'].dtype == moved['prior_mask'].dtype == np.float32
    assert moved['gt_seg_map'].dtype == np.uint8
    assert moved['prior'].shape == moved['prior_mask'].shape == moved['gt_seg_map'].shape == wanted.shape
    assert 0 <= moved['prior'].min() <= moved['prior'].max() <= 1
    # the image is rounded, the prior is not, or in its own way
    assert np.abs(moved['prior'] * 255 - wanted).max() <= 1.01
    assert np.array_equal(moved['prior_mask'], moved['gt_seg_map'])
    assert set(np.unique(moved['gt_seg_map'])) <= {0, 1}
    clear = np.abs(marked - 127.5) > 1.5
    assert np.array_equal(moved['gt_seg_map'][clear], marked[clear] > 127.5)


PHOTOMETRIC = {
    'AutoContrast': dict(prob=1.0),
    'Brightness': dict(magnitude=0.3, prob=1.0),
    'ColorJitter': dict(brightness=0.3, hue=0.1),
    'ColorTransform': dict(magnitude=0.3, prob=1.0),
    'Contrast': dict(magnitude=0.3, prob=1.0),
    'Cutout': dict(shape=4, prob=1.0),
    'Equalize': dict(prob=1.0),
    'GaussianBlur': dict(radius=1, prob=1.0),
    'Invert': dict(prob=1.0),
    'Lighting': dict(eigval=[9.0, 9.0, 9.0], eigvec=[[1.0, 0.0, 0.0]] * 3),
    'Normalize': dict(mean=[9.0] * 3, std=[9.0] * 3),
    'Posterize': dict(bits=4, prob=1.0),
    'RandomErasing': dict(erase_prob=1.0, max_area_ratio=0.1),
    'RandomGrayscale': dict(prob=1.0, keep_channels=True),
    'Sharpness': dict(magnitude=0.5, prob=1.0),
    'Solarize': dict(thr=220, prob=1.0),
    'SolarizeAdd': dict(magnitude=5, prob=1.0),
    'torchvision/ColorJitter': dict(brightness=0.3),
    'torchvision/GaussianBlur': dict(kernel_size=3),
    'torchvision/Grayscale': dict(num_output_channels=3),
    'torchvision/Normalize': dict(mean=[0.5] * 3, std=[0.5] * 3),
    'torchvision/RandomAdjustSharpness': dict(sharpness_factor=2, p=1.0),
    'torchvision/RandomAutocontrast': dict(p=1.0),
    'torchvision/RandomEqualize': dict(p=1.0),
    'torchvision/RandomErasing': dict(p=1.0, scale=(0.02, 0.1)),
    'torchvision/RandomGrayscale': dict(p=1.0),
    'torchvision/RandomInvert': dict(p=1.0),
    'torchvision/RandomPosterize': dict(bits=4, p=1.0),
    'torchvision/RandomSolarize': dict(threshold=220, p=1.0),
}


def test_every_photometric_transform_is_tried():
    assert PHOTOMETRIC.keys() == moving.PHOTOMETRIC


@pytest.mark.parametrize('name', sorted(PHOTOMETRIC))
def test_photometric_transforms_leave_maps_alone(name):
    transforms = [Loader(), build(dict(type=name, **PHOTOMETRIC[name]))]
    let_priors_move(transforms)
    assert not isinstance(transforms[1], Moved)
    ramp = np.add.outer(np.arange(32) * 5, np.arange(32)).astype(np.uint8)
    before = sample(np.repeat(ramp[..., None], 3, axis=2))
    image = kind_of(dict(type=name))(before['img'])
    if name in ('torchvision/Normalize', 'torchvision/RandomErasing'):
        image = torch.from_numpy(before['img'].transpose(2, 0, 1) / 255)
    after, _ = run(Compose(transforms), before | dict(img=image))
    for key in moving.MAPS:
        assert np.array_equal(after[key], before[key])
    # and rightly so, as everything keeps its place
    grey = array(after['img'])[..., 0]
    assert abs(np.corrcoef(grey.ravel(), ramp.ravel())[0, 1]) > 0.5


def keeps_prior(cfg, image, **more):
    """Move a picture that is its own prior; both as numbers from 0 to 255."""
    results = sample(image if image.ndim == 3 else image[..., None]) | dict(img=image) | more
    moved, _ = run(Moved(cfg), results, 3)
    picture = array(moved['img'])
    return moved['prior'] * 255, picture if picture.ndim == 2 else picture[..., 0]


CROP = dict(type='RandomResizedCrop', scale=(30, 40), crop_ratio_range=(0.2, 0.6))


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_images_of_any_number_of_channels(channels):
    image = blocks(1, (40, 50))[..., :1].repeat(channels, axis=2)
    prior, picture = keeps_prior(CROP, image if channels > 1 else image[..., 0])
    assert np.abs(prior - picture).max() <= 1


def test_a_grey_image_has_all_three_maps_moved():
    results = sample(blocks(1, (40, 50)))
    moved, _ = run(Moved(dict(type='Rotate', angle=30.0, prob=1.0)), results | dict(img=results['img'][..., 0]))
    marked = moved['img'] > 127
    marked[moved['prior'] == 0] = False
    assert np.array_equal(moved['prior_mask'], marked)
    assert np.array_equal(moved['gt_seg_map'], marked)


def test_a_float_image():
    prior, picture = keeps_prior(CROP, blocks(1, (40, 50)).astype(np.float32))
    assert np.allclose(prior, picture, atol=1e-3)


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA'])
def test_pil_images(mode):
    image = blocks(1, (40, 50))
    results = sample(image) | dict(img=Image.fromarray(image).convert(mode))
    moved, _ = run(Moved(dict(type='torchvision/RandomRotation', degrees=(20, 40), fill=200)), results)
    inside = moved['prior'] > 0
    assert 0.5 < inside.mean() < 1
    assert np.abs(moved['prior'] * 255 - np.atleast_3d(moved['img'])[..., 0])[inside].max() <= 1
    assert moved['prior_mask'].any()
    assert np.array_equal(moved['prior_mask'], moved['gt_seg_map'])


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_tensors(dtype):
    image = blocks(1, (40, 50))
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy()).to(dtype)
    moved, _ = run(Moved(dict(type='torchvision/RandomCrop', size=(30, 20))), sample(image) | dict(img=tensor))
    assert moved['img'].shape == (3, 30, 20)
    assert moved['img'].dtype == dtype
    assert np.allclose(moved['prior'] * 255, moved['img'][0], atol=1e-3)


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='RandomFlip', prob=1.0),
        dict(type='Pad', size=(60, 60), pad_val=7),
        dict(type='RandomCrop', crop_size=20),
    ],
)
def test_priors_of_16_bits_stay_exact(cfg):
    image = blocks(0, (40, 50))
    prior = np.random.default_rng(0).integers(1, 2**16, (40, 50)).astype(np.float32) / np.float32(65535)
    moved, _ = run(Moved(cfg), sample(image) | dict(prior=prior))
    assert set(moved['prior'].ravel()) - {0} <= set(prior.ravel())
    assert len(set(moved['prior'].ravel())) > 300


def test_a_soft_target_stays_soft_and_what_is_absent_stays_absent():
    results = sample(blocks(1, (40, 50)))
    results['prior_mask'] = results.pop('prior')
    del results['gt_seg_map']
    moved, _ = run(Moved(CROP), results)
    assert 'prior' not in moved
    assert 'gt_seg_map' not in moved
    assert np.abs(moved['prior_mask'] * 255 - moved['img'][..., 0]).max() <= 1
    assert len(np.unique(moved['prior_mask'])) > 2


def test_a_prior_is_never_cut():
    results = sample(blocks(1, (40, 50)))
    results['prior'] = results['prior_mask']
    moved, _ = run(Moved(dict(type='Rotate', angle=30.0, prob=1.0, interpolation='bilinear')), results)
    assert ((moved['prior'] > 0.1) & (moved['prior'] < 0.9)).any()


def test_without_maps_it_is_the_bare_transform():
    image = blocks(1, (40, 50))
    moved, drawn = run(Moved(CROP), dict(img=image.copy()))
    alone, drawn_alone = run(build(CROP), dict(img=image.copy()))
    assert moved.keys() == alone.keys()
    assert np.array_equal(moved['img'], alone['img'])
    assert drawn == drawn_alone


def test_boxes_move_once():
    image = blocks(1, (40, 50))
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    cfg = dict(type='RandomTranslatePad', size=64, aug_translate=True)
    moved, _ = run(Moved(cfg), sample(image) | dict(gt_bboxes=boxes.copy()))
    alone, _ = run(build(cfg), dict(img=image, gt_bboxes=boxes.copy()))
    assert np.array_equal(moved['gt_bboxes'], alone['gt_bboxes'])
    assert not np.array_equal(moved['gt_bboxes'], boxes)


def test_the_map_is_not_the_callers():
    results = sample(blocks(1, (40, 50)))
    moved, _ = run(Moved(dict(type='RandomFlip', prob=1.0)), dict(results))
    moved['prior'][:] = 7
    assert results['prior'].max() < 1


def test_a_config_can_wrap():
    transform = MM_TRANSFORMS.build(dict(type='kgl_mm.Moved', transform=dict(type='RandomResizedCrop', scale=24)))
    moved, _ = run(transform, sample(blocks(1, (40, 50))))
    assert moved['prior'].shape == (24, 24)
    assert repr(transform).startswith('Moved(RandomResizedCrop(scale=(24, 24)')


def test_what_only_moves_in_one_config_can_be_wrapped_as_a_whole():
    policies = [dict(type='Rotate', angle=20.0, prob=0.7, pad_val=0), dict(type='Translate', magnitude=0.2, pad_val=0)]
    cfg = dict(type='RandAugment', policies=policies, num_policies=2, magnitude_level=1)
    for _ in range(5):
        prior, picture = keeps_prior(cfg, blocks(1, (40, 50)))
        assert np.array_equal(prior, picture)


class OwnGenerator(BaseTransform):
    def __init__(self):
        self.generator = np.random.default_rng(0)

    def transform(self, results):
        results['img'] = np.roll(results['img'], tuple(self.generator.integers(0, 20, 2)), (0, 1))
        return results


def test_a_transform_that_owns_its_generator():
    own, alone = Moved(OwnGenerator()), OwnGenerator()
    for _ in range(3):
        moved, _ = run(own, sample(blocks(1, (40, 50))))
        assert np.array_equal(moved['img'], alone(sample(blocks(1, (40, 50))))['img'])
        assert np.array_equal(moved['prior'] * 255, moved['img'][..., 0])
        assert np.array_equal(moved['gt_seg_map'], moved['img'][..., 0] > 127)


elsewhere = np.random.default_rng(0)


class ModuleGenerator(BaseTransform):
    def transform(self, results):
        results['img'] = np.roll(results['img'], elsewhere.integers(1, 20), 1)
        return results


def test_a_transform_that_cannot_be_repeated():
    results = sample(blocks(1, (40, 50)))
    with pytest.raises(
        UsageError, match=r'ModuleGenerator cannot be repeated, .* draw from random, numpy\.random, torch'
    ):
        Moved(ModuleGenerator())(results)


class InPlace(BaseTransform):
    """Changes what it is given, takes 8 bits only, draws from three sources, and aims at the mask."""

    def transform(self, results):
        assert results['img'].dtype == np.uint8
        results['img'][:] = np.roll(results['img'], random.randrange(9) + np.random.randint(9), 0)
        results['img'][:] = np.roll(
            results['img'], -int(results['gt_seg_map'].argmax() % 7) - int(torch.randint(9, ())), 1
        )
        results['gt_seg_map'][:] = 0
        results['history'].append('rolled')
        return results


@pytest.mark.parametrize('seed', range(4))
def test_a_transform_that_changes_what_it_is_given(seed):
    image = blocks(1, (40, 50))
    moved, drawn = run(Moved(InPlace()), sample(image) | dict(history=[]), seed)
    alone, drawn_alone = run(InPlace(), sample(image) | dict(history=[]), seed)
    assert np.array_equal(moved['img'], alone['img'])
    assert drawn == drawn_alone
    assert moved['history'] == ['rolled']
    assert np.array_equal(moved['prior'] * 255, moved['img'][..., 0])
    assert np.array_equal(moved['gt_seg_map'], moved['img'][..., 0] > 127)


def turn(results):
    results['img'] = np.rot90(results['img'], 1 + np.random.randint(3))
    return results


def test_a_function_by_its_name():
    transforms = [Loader(geometric=['turn']), turn]
    let_priors_move(transforms)
    moved, _ = run(Compose(transforms), sample(blocks(1, (40, 50))))
    assert np.array_equal(moved['prior'] * 255, moved['img'][..., 0])


class Frame(BaseTransform):
    def transform(self, results):
        results['img'] = np.pad(results['img'], [(3, 4), (5, 6), (0, 0)], constant_values=200)
        return results


def test_the_fill_of_a_transform_of_ones_own():
    results = sample(blocks(1, (40, 50)))
    moved, _ = run(Moved(Frame()), dict(results))
    for key in moving.MAPS:
        assert np.array_equal(moved[key], np.pad(results[key], [(3, 4), (5, 6)]))


def test_a_transform_of_ones_own_that_is_wrapped_needs_no_name():
    transforms = transforms_of(Moved(Frame()))
    before = list(transforms)
    let_priors_move(transforms)
    assert transforms == before
    with pytest.raises(UsageError, match='put LoadPrior before Frame'):
        let_priors_move([Moved(Frame()), Loader()])


def test_a_transform_that_gives_up():
    class GivesUp(BaseTransform):
        def transform(self, results):
            return None

    assert Moved(GivesUp())(sample(blocks(1, (40, 50)))) is None


def test_maps_that_a_transform_has_left_behind():
    results = sample(blocks(1, (40, 50))) | dict(img=blocks(1, (30, 50)))
    with pytest.raises(
        UsageError, match=r'prior is \(40, 50\) and the image \(30, 50\) before RandomFlip: .*geometric='
    ):
        Moved(mmcv.RandomFlip(prob=1.0))(results)


def transforms_of(*cfgs, **names):
    return [Loader(**names), *[build(cfg) if isinstance(cfg, dict) else cfg for cfg in cfgs]]


def test_a_pipeline():
    transforms = [build(dict(type='Resize', scale=(50, 40))), mm.ColorJitter(0.2)]
    transforms += transforms_of(
        dict(type='RandomFlip', prob=0.5),
        dict(type='ColorJitter', brightness=0.0),
        dict(type='NumpyToPIL'),
        dict(type='torchvision/RandomRotation', degrees=30),
        dict(type='PILToNumpy'),
        dict(type='Pad', size=(60, 60)),
        dict(type='kgl_mm.BinarizePrior'),
        dict(type='kgl_mm.PackDefect'),
    )
    before = list(transforms)
    let_priors_move(transforms)
    wrapped = [transform for transform in transforms if isinstance(transform, Moved)]
    assert [type(transform.inner).__name__ for transform in wrapped] == [
        'RandomFlip',
        'TorchVisonTransformWrapper',
        'Pad',
    ]
    assert [transform for transform in transforms if transform not in wrapped] == [
        transform for transform in before if transform not in [moved.inner for moved in wrapped]
    ]
    again = list(transforms)
    let_priors_move(transforms)
    assert transforms == again
    results = sample(blocks(1, (40, 50))) | dict(img_path='x.png', sample_idx=0)
    packed, _ = run(Compose(transforms[2:]), results)
    samples = packed['data_samples']
    assert samples.mask.any()
    assert samples.mask.shape == samples.prior.shape == (1, 60, 60)
    inside = samples.prior[0] > 0.1
    assert (samples.prior[0] * 255 - packed['inputs'][0])[inside].abs().max() <= 2


def test_nothing_happens_without_a_prior():
    transforms = [
        build(dict(type='RandomFlip', prob=0.5)),
        build(dict(type='RandAugment', policies='simple_increasing', num_policies=1, magnitude_level=3)),
    ]
    before = list(transforms)
    let_priors_move(transforms)
    assert transforms == before


def test_inside_containers():
    flip = dict(type='RandomFlip', prob=1.0)
    rotate = dict(type='Rotate', angle=20.0, prob=1.0, pad_val=0)
    choice = RandomChoice([[build(flip), mm.ColorJitter(0.0)], [build(rotate)]])
    transforms = [Compose([Loader(), RandomApply([choice], prob=0.8)])]
    let_priors_move(transforms)
    let_priors_move(transforms)
    assert [type(t).__name__ for t in transforms[0].transforms] == ['Loader', 'RandomApply']
    first, second = choice.transforms
    assert [type(t).__name__ for t in first.transforms] == ['Moved', 'ColorJitter']
    assert type(first.transforms[0].inner) is mmcv.RandomFlip
    assert [type(t.inner).__name__ for t in second.transforms] == ['Rotate']
    seen = set()
    for seed in range(20):
        moved, _ = run(transforms[0], sample(blocks(0, (40, 50))), seed)
        assert np.array_equal(np.round(moved['prior'] * 255), moved['img'][..., 0])
        seen.add(moved['img'].tobytes())
    assert len(seen) >= 4


class Noise(BaseTransform):
    def transform(self, results):
        results['img'] = results['img'] // 2
        return results


class MyFlip(mmcv.RandomFlip):
    def transform(self, results):
        return results


class Rotate(BaseTransform):
    transform = Noise.transform


@pytest.mark.parametrize('transform', [Noise(), MyFlip(prob=1.0), Rotate()])
def test_transforms_of_ones_own_are_named(transform):
    name = type(transform).__name__
    with pytest.raises(
        UsageError, match=rf"LoadPrior\(geometric=\['{name}'\]\).*LoadPrior\(photometric=\['{name}'\]\)"
    ):
        let_priors_move([Loader(), transform])
    with pytest.raises(UsageError, match=name):  # in front of it as well
        let_priors_move([transform, Loader()])
    geometric, photometric = transforms_of(transform, geometric=[name]), transforms_of(transform, photometric=[name])
    let_priors_move(geometric)
    let_priors_move(photometric)
    assert geometric[1].inner is transform
    with pytest.raises(UsageError, match=f'put LoadPrior before {name}'):
        let_priors_move([transform, Loader(geometric=[name])])
    assert photometric[1] is transform


def test_what_is_known_is_not_overruled():
    transforms = transforms_of(mmcv.RandomFlip(prob=1.0), photometric=['RandomFlip'])
    let_priors_move(transforms)
    assert isinstance(transforms[1], Moved)


AUGMENT = dict(policies='timm_increasing', num_policies=2, magnitude_level=3)


@pytest.mark.parametrize(
    ('cfg', 'sentence'),
    [
        (dict(type='RandAugment', **AUGMENT), r'^RandAugment both .* Rotate, Shear, Translate and ColorJitter$'),
        (dict(type='AutoAugment', policies='imagenet'), r'^AutoAugment both .*apart'),
        (dict(type='torchvision/TrivialAugmentWide'), r'^torchvision/TrivialAugmentWide both .*apart'),
        (dict(type='MultiView', transforms=[[]], num_views=2), r'^MultiView makes several images of one.*leave it out'),
        (dict(type='torchvision/FiveCrop', size=9), r'^torchvision/FiveCrop makes several'),
        (dict(type='Transpose', keys=['img'], order=(1, 0, 2)), r"LoadPrior\(geometric=\['Transpose'\]\)"),
        (dict(type='torchvision/Lambda', lambd=abs), r"LoadPrior\(photometric=\['torchvision/Lambda'\]\)"),
    ],
)
def test_refusals(cfg, sentence):
    with pytest.raises(UsageError, match=sentence):
        let_priors_move(transforms_of(cfg))
    with pytest.raises(UsageError, match=sentence):
        let_priors_move(transforms_of(RandomApply([build(cfg)])))


def test_a_mixture_whose_user_knows_better():
    transforms = transforms_of(dict(type='RandAugment', **AUGMENT), photometric=['RandAugment'])
    let_priors_move(transforms)
    assert isinstance(transforms[1], mm.RandAugment)


@pytest.mark.parametrize('name', sorted(moving.GEOMETRIC))
@settings(max_examples=1, database=None)
@given(data=st.data())
def test_only_resizing_may_come_before_the_prior(name, data):
    transform = build(dict(type=name, **{key: data.draw(values) for key, values in GEOMETRIC[name].items()}))
    for first in (transform, Moved(transform), RandomApply([transform])):
        transforms = [first, Loader()]
        if name in ('Resize', 'ResizeEdge', 'RandomResize', 'RandomChoiceResize'):
            let_priors_move(transforms)
            assert transforms[0] is first
        else:
            with pytest.raises(UsageError, match=rf'^{name} moves the image .*: put LoadPrior before {name}$'):
                let_priors_move(transforms)


# Their users must say what they do.
UNSAID = {
    'AlbuKeypoint',
    'Albumentations',
    'KeyMapper',
    'Transpose',
    *[f'torchvision/{name}' for name in ('Compose', 'Lambda', 'LinearTransformation')],
    *[f'torchvision/{name}' for name in ('RandomApply', 'RandomChoice', 'RandomOrder')],
}


def test_every_registered_transform_is_accounted_for():
    registered = {'Compose', 'RandomApply', 'RandomChoice'}  # gone through
    tables = [moving.GEOMETRIC, moving.PHOTOMETRIC, moving.NEITHER, moving.MIXED, moving.SEVERAL, UNSAID, registered]
    names = set()
    for registry in (MM_TRANSFORMS, MMPRETRAIN_TRANSFORMS):
        for name, kind in registry.module_dict.items():
            if name.startswith('torchvision/'):
                names.add(name)
            elif kind.__module__.split('.')[0] in ('mmcv', 'mmpretrain'):
                names.add(kind.__name__)
    assert len(names) > 80
    for name in names:
        assert sum(name in table for table in tables) == 1, name
    of_one_family = {'AlbuKeypoint', 'DenormalizeKeypointLocation', 'NormalizeKeypointLocation'}
    ours = {'BinarizePrior', 'LoadMask', 'LoadPrior', 'PackBoxes', 'PackDefect', 'SynthesizeDefect'}
    assert set.union(*tables) - names - of_one_family == ours
    assert ours <= TRANSFORMS.module_dict.keys()
    assert moving.FILLING | moving.WHOLE <= moving.GEOMETRIC

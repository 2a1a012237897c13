import subprocess
import sys

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.registry import DATASETS, DefaultScope

from kgl_mm.datasets import KolektorSDD, LoadMask, PackDefect
from kgl_mm.datasets.seeding import set_epoch
from kgl_mm.errors import UsageError


@pytest.fixture
def sample(tmp_path):
    """A defective sample whose mask is black and white blocks, and whose image is that mask."""
    mask = np.kron(np.random.default_rng(0).integers(0, 2, (8, 6), np.uint8), np.ones((4, 4), np.uint8)) * 255
    for name in ('image.png', 'mask.png'):
        cv2.imwrite(str(tmp_path / name), mask)
    return dict(
        img_path=str(tmp_path / 'image.png'), mask_path=str(tmp_path / 'mask.png'), gt_label=1, unit='u7', sample_idx=3
    )


def run(sample, *transforms):
    return Compose([mmcv.LoadImageFromFile(), LoadMask(), *transforms, PackDefect()])(dict(sample))


@pytest.mark.parametrize('seed', range(8))
def test_the_mask_follows_the_image(sample, seed):
    np.random.seed(seed)
    transforms = [
        # nearest, so that the image stays black and white
        mmcv.Resize(scale=(48, 96), interpolation='nearest'),
        mmcv.RandomFlip(prob=0.8, direction=['horizontal', 'vertical', 'diagonal']),
        mmcv.CenterCrop((30, 70)),
    ]
    packed = run(sample, *transforms)
    image, mask = packed['inputs'], packed['data_samples'].mask
    assert mask.shape == (1, 70, 30)
    assert mask.dtype == torch.uint8
    assert set(mask.unique().tolist()) == {0, 1}
    for channel in image:
        assert torch.equal(channel, mask[0] * 255)


def test_what_a_sample_carries(sample):
    packed = run(sample, mmcv.Resize(scale=(12, 16)))['data_samples']
    assert packed.gt_label.tolist() == [1]
    assert packed.unit == 'u7'
    assert packed.sample_idx == 3
    assert packed.img_path == sample['img_path']
    assert packed.mask_path == sample['mask_path']
    assert packed.ori_shape == (32, 24)
    assert packed.img_shape == (16, 12)
    assert {'unit', 'mask_path', 'img_path'} <= set(packed.metainfo_keys())


def test_a_good_image_without_a_mask_has_an_empty_one(sample):
    packed = run(sample | dict(gt_label=0, mask_path=None))['data_samples']
    assert packed.mask.shape == (1, 32, 24)
    assert packed.mask.dtype == torch.uint8
    assert not packed.mask.any()


def test_a_defective_image_without_a_mask_has_none(sample):
    packed = run(sample | dict(mask_path=None))['data_samples']
    assert 'mask' not in packed


def test_the_mask_of_a_good_image_is_read(sample):
    assert run(sample | dict(gt_label=0))['data_samples'].mask.any()


def test_the_packed_mask_is_its_own(sample):
    results = LoadMask()(mmcv.LoadImageFromFile()(dict(sample)))
    packed = PackDefect()(results)
    results['gt_seg_map'][:] = 7
    assert packed['data_samples'].mask.max() == 1


def test_a_mask_that_stays_behind_is_refused(sample):
    from mmpretrain.datasets import RandomCrop

    with pytest.raises(UsageError, match=r'image\.png: .* different sizes'):
        run(sample, RandomCrop(16))


def test_a_broken_mask(sample, tmp_path):
    (tmp_path / 'mask.png').write_text('no image')
    with pytest.raises(UsageError, match=r'mask\.png: cannot be read'):
        run(sample)


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_a_turned_photograph_and_its_upright_mask(sample, tmp_path, orientation):
    """As an annotation tool writes it, which shows the photograph upright."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(sample['mask_path']) as picture:
        picture.save(tmp_path / 'image.png', exif=exif)
    upright = mmcv.imread(sample['img_path'])
    cv2.imwrite(sample['mask_path'], upright)
    packed = run(sample)
    assert torch.equal(packed['inputs'][0], packed['data_samples'].mask[0] * 255)


def test_the_pipeline_of_a_data_set(kolektor):
    pipeline = [
        dict(type='mmcv.LoadImageFromFile'),
        dict(type='kgl_mm.LoadMask'),
        dict(type='mmcv.RandomFlip', prob=0.5),
        dict(type='kgl_mm.PackDefect'),
    ]
    data = KolektorSDD(str(kolektor), pipeline=pipeline)
    set_epoch(data, 0, 0)
    for i in range(6):
        sample = data[i]['data_samples']
        assert bool(sample.mask.any()) == bool(sample.gt_label.item())
        assert sample.unit == data.get_data_info(i)['unit']


CODE = """
import sys
from mmengine.registry import DATASETS, DefaultScope, init_default_scope
init_default_scope({scope!r})
assert 'kgl_mm.datasets' not in sys.modules
pipeline = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.LoadMask'), dict(type='Resize', scale=(4, 6)),
            dict(type='RandomFlip', prob=0.5), dict(type='kgl_mm.PackDefect')]
data = DATASETS.build(dict(type='kgl_mm.KolektorSDD', data_root={root!r}, pipeline=pipeline))
sample = data[1]
assert sample['inputs'].shape == (3, 6, 4) and sample['data_samples'].mask.shape == (1, 6, 4)
"""


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmengine'])
def test_names_resolve_in_a_fresh_process(kolektor, scope):
    """Without custom_imports, from the root registry."""
    code = CODE.format(scope=scope, root=str(kolektor))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_own_names_are_bare_in_the_own_scope(kolektor):
    with DefaultScope.overwrite_default_scope('kgl_mm'):
        data = DATASETS.build(
            dict(type='KolektorSDD', data_root=str(kolektor), pipeline=[dict(type='mmcv.LoadImageFromFile')])
        )
    assert data[0]['img'].shape == (12, 8, 3)

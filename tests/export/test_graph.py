import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import DefaultScope
from torch.nn import functional

from kgl_mm.apis import DefectInspector
from kgl_mm.datasets.transforms import Resize
from kgl_mm.datasets.transforms.resize import HALF_UP
from kgl_mm.errors import UsageError
from kgl_mm.export.files import build
from kgl_mm.export.graph import Inspection, resize

from .conftest import REPVGG, RESNET, SIX, write_run

side = st.integers(1, 90)


@settings(deadline=None)
@given(st.integers(0, 99), side, side, side, side)
def test_the_resize_is_that_of_the_test(seed, height, width, new_width, new_height):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    move, pixels = Resize((new_width, new_height)), torch.from_numpy(image)
    in_float64 = functional.interpolate(
        pixels.double().permute(2, 0, 1)[None], (new_height, new_width), mode='bilinear'
    )
    expected = in_float64[0].permute(1, 2, 0).numpy()
    seen = resize(pixels[None], (new_width, new_height))[0]
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-4)
    slack = 1e-4 + np.abs(move(dict(img=image.astype(np.float32)))['img'] - expected).max()
    differ = (seen + HALF_UP).round().numpy() != move(dict(img=image))['img']
    assert not differ[np.abs((expected + HALF_UP) % 1 - 0.5) > slack].any()


def test_hardly_any_gray_level_depends_on_a_last_bit():
    random = np.random.default_rng(0)
    for height, width, scale in ((1024, 1024, (224, 640)), (1270, 500, (512, 1408)), (700, 900, (512, 512))):
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        exact = resize(torch.from_numpy(image)[None], scale)[0]
        differ = (exact + HALF_UP).round().numpy() != Resize(scale)(dict(img=image))['img']
        assert differ.mean() < 1e-4


@pytest.mark.parametrize(
    'settings',
    [
        dict(guided=True, extra=", channel='self'"),
        dict(guided=True, classes=SIX, steps=''),
        dict(classes=SIX),
        dict(backbone=REPVGG, classes=SIX[1:]),
        dict(detector='stpm'),
        dict(detector='mkd'),
        dict(detector='stpm', extra=', top=0.1', steps=''),
        pytest.param(dict(backbone=RESNET, steps=''), marks=pytest.mark.slow),
    ],
    ids=[
        'guided',
        'guided, six kinds, no resize',
        'six kinds',
        'RepVGG, no good class',
        'detector',
        'detector by gradients',
        'detector by a share of the map, no resize',
        'ResNet, no resize',
    ],
)
def test_scores_and_maps_are_those_of_the_inspector(export, images, settings):
    original, exported = export(**settings)
    assert exported.classes == original.classes
    assert exported.threshold == original.threshold
    expected = original(images)
    for size in (1, 3):
        for mine, other in zip(exported([*images, *images], batch_size=size), [*expected, *expected], strict=True):
            np.testing.assert_allclose(mine.probabilities, other.probabilities, atol=1e-5)
            assert mine.score == pytest.approx(other.score, abs=1e-5)
            assert mine.map.shape == other.map.shape
            np.testing.assert_allclose(mine.map, other.map, atol=1e-4)
            assert mine.size == other.size
    same = np.stack([image for image in images if image.shape == (480, 640, 3)] * 3)
    found = exported.network.infer(same)
    assert [len(found[name]) for name in ('score', 'probabilities', 'map')] == [3, 3, 3]
    assert found['score'][0] == pytest.approx(exported(same[0])[0].score, abs=1e-6)


def test_a_score_at_the_threshold_is_defective_on_both_sides(export, images):
    for inspector in export(guided=True, extra=", channel='self'"):
        for image in images:
            (result,) = inspector(image)
            inspector.threshold = result.score
            assert inspector(image)[0].is_defective
            inspector.threshold = np.nextafter(result.score, 2)
            assert not inspector(image)[0].is_defective


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(steps="dict(type='Resize', scale=(48, 32)),"), 'mmpretrain.Resize|mmcv.Resize'),
        (dict(steps="dict(type='ResizeEdge', scale=32),"), 'mmpretrain.ResizeEdge in the pipeline'),
        (dict(steps="dict(type='kgl_mm.Resize', scale=(48, 32), keep_ratio=True),"), 'Resize in the pipeline'),
        (dict(steps="dict(type='kgl_mm.Resize', scale_factor=0.5),"), "dict.type='kgl_mm.Resize', scale="),
        (dict(load=", color_type='grayscale'"), "color_type='grayscale'"),
        (dict(load=", imdecode_backend='pillow'"), "imdecode_backend='pillow'"),
    ],
)
def test_what_no_graph_can_do_is_refused(tmp_path, settings, sentence):
    network = DefectInspector(write_run(tmp_path / 'run', **settings), device='cpu').network
    with pytest.raises(UsageError, match=sentence):
        Inspection(network)


@pytest.mark.parametrize(
    ('load', 'padding'), [(', to_float32=True', ''), ('', ', pad_size_divisor=64')], ids=['floats', 'padded']
)
def test_images_as_floats_and_images_that_are_padded(tmp_path, images, load, padding):
    run = write_run(tmp_path / 'run', guided=True, extra=", channel='self'", load=load)
    config = run / 'config.py'
    config.write_text(config.read_text().replace('to_rgb=True)', f'to_rgb=True{padding})'))
    original = DefectInspector(run, device='cpu')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        build(original.network, run / 'model.onnx')
    for mine, other in zip(DefectInspector(run / 'model.onnx')(images), original(images), strict=True):
        np.testing.assert_allclose(mine.probabilities, other.probabilities, atol=1e-5)
        assert mine.map.shape == other.map.shape
        np.testing.assert_allclose(mine.map, other.map, atol=1e-4)

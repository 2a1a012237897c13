"""FullGrad: the terms add up, each belongs to its layer, and the maps agree with grad-cam where that is right."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import build_conv_layer, build_norm_layer
from torch import nn
from torch.nn.utils import parametrize
from torchvision.models import inception_v3
from torchvision.ops import FrozenBatchNorm2d

from kgl_mm.errors import UsageError
from kgl_mm.saliency import FullGrad
from kgl_mm.saliency.full_grad import bias_of, biased_layers

from .conftest import awaken

SWIN = dict(type='SwinTransformer', arch='tiny', img_size=64, window_size=4, pad_small_map=True)


def assert_complete(model, images, tolerance=1e-10):
    found = FullGrad(model).decompose(images)
    with torch.no_grad():
        logits = model.eval()(images)
    torch.testing.assert_close(found.logits, logits[:, 1] - logits[:, 0])
    by_hand = found.input_term.sum((1, 2, 3)) + sum(term.flatten(1).sum(1) for term in found.bias_terms)
    torch.testing.assert_close(found.total, by_hand)
    relative = (found.total - found.logits).abs() / found.logits.abs()
    assert relative.max() < tolerance, relative
    assert found.input_term.shape == images.shape
    return found


def test_worked_by_hand(toy, toy_image):
    found = FullGrad(toy).decompose(toy_image)
    # gradient of the image: 1 * 2 where channel 0 lives, 2 * -1 where channel 1 does
    gradient = torch.tensor([[2.0 - 2.0, 2.0 - 2.0], [-2.0, 2.0]])
    torch.testing.assert_close(found.input_term[0, 0], toy_image[0, 0] * gradient)
    assert found.layers == ['conv', 'fc']
    torch.testing.assert_close(found.bias_terms[0][0, 0], torch.tensor([[-1.0, -1.0], [0.0, -1.0]]))
    torch.testing.assert_close(found.bias_terms[0][0, 1], torch.tensor([[6.0, 6.0], [6.0, 0.0]]))
    torch.testing.assert_close(found.bias_terms[1][0], torch.tensor([-0.5, 1.5]))
    assert found.logits.item() == pytest.approx(22.0)  # 4 * 9 / 4 + 8 * 6 / 4 + 1.5 - 0.5
    assert found.total.item() == pytest.approx(22.0)
    maps = FullGrad(toy, scale='none', normalize=None)(toy_image)
    torch.testing.assert_close(maps[0], torch.tensor([[0.0 + 7, 0 + 7], [0 + 6, 6 + 1]]))


@pytest.mark.parametrize('act', ['ReLU', 'LeakyReLU'])
@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [
        (dict(type='VGG', depth=11), 512),
        (dict(type='VGG', depth=16, norm_cfg=dict(type='BN')), 512),
        (dict(type='ResNet', depth=18), 512),
        (dict(type='ResNet', depth=50), 2048),
    ],
)
def test_terms_add_up_in_float64(classifier, images, backbone, channels, act):
    if backbone['type'] == 'VGG':
        backbone = dict(backbone, act_cfg=dict(type=act))
    model = classifier(backbone, channels)
    if backbone['type'] == 'ResNet' and act == 'LeakyReLU':
        for module in list(model.modules()):
            if hasattr(module, 'relu'):
                module.relu = nn.LeakyReLU(0.2, inplace=True)
    assert_complete(model.double(), images.double())


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [
        (dict(type='DenseNet', arch='121'), 1024),
        (dict(type='RepVGG', arch='A0'), 1280),
        (dict(type='Res2Net', depth=50, scales=4, base_width=26), 2048),
        (dict(type='kgl_mm.SlimVGG'), 64),
    ],
)
def test_terms_add_up_where_order_would_mispair(classifier, images, backbone, channels):
    assert_complete(classifier(backbone, channels).double(), images.double())


def test_terms_add_up_in_hrnet(classifier, images):
    model = classifier(dict(type='HRNet', arch='w18'), None)
    model.neck, model.head = _Gap(), nn.Linear(18 + 36 + 72 + 144, 2)
    assert_complete(awaken(model).double(), images.double())


class _Gap(nn.Module):
    def forward(self, features):
        return torch.cat([feature.mean((2, 3)) for feature in features], 1)


def test_terms_add_up_in_inception_with_its_unused_branch():
    model = awaken(inception_v3(num_classes=2, init_weights=False, aux_logits=True, transform_input=False)).double()
    found = assert_complete(model, torch.randn(2, 3, 96, 128).double())
    unused = {name for name in biased_layers(model) if name.startswith('AuxLogits')}
    assert unused
    assert not unused & set(found.layers)


def random_network(draw):
    """A small network, linear in pieces, of layers with and without biases, in random order."""
    seed = draw(st.integers(0, 2**31))
    torch.manual_seed(seed)
    channels, layers = 2, []
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.integers(1, 5))
        kind = draw(st.sampled_from(['conv', 'transposed', 'grouped', 'pointwise']))
        bias = draw(st.booleans())
        if kind == 'transposed':
            layers.append(nn.ConvTranspose2d(channels, width, 3, padding=1, bias=bias))
        elif kind == 'grouped':
            width = channels
            layers.append(nn.Conv2d(channels, width, 3, padding=1, groups=channels, bias=bias))
        else:
            layers.append(
                nn.Conv2d(channels, width, 3 if kind == 'conv' else 1, padding=int(kind == 'conv'), bias=bias)
            )
        channels = width
        norm = draw(st.sampled_from(['none', 'bn', 'affine-free', 'sync', 'instance']))
        if norm == 'bn':
            layers.append(nn.BatchNorm2d(channels))
        elif norm == 'affine-free':
            layers.append(nn.BatchNorm2d(channels, affine=False))
        elif norm == 'sync':
            layers.append(nn.SyncBatchNorm(channels))
        elif norm == 'instance':
            layers.append(nn.InstanceNorm2d(channels, affine=True, track_running_stats=True))
        inplace = draw(st.booleans())
        layers.append(draw(st.sampled_from([
            nn.ReLU(inplace), nn.LeakyReLU(0.3, inplace), nn.PReLU(channels), nn.Identity(), nn.MaxPool2d(2, 1),
            nn.AvgPool2d(2, 1), nn.Dropout(0.5)])))  # fmt: skip
    layers += [draw(st.sampled_from([nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(2)])), nn.Flatten()]
    size = 4 if isinstance(layers[-2], nn.AdaptiveMaxPool2d) else 1
    layers += [nn.Linear(channels * size, 3), nn.ReLU(), nn.Linear(3, 2)]
    return awaken(nn.Sequential(*layers), seed)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_terms_add_up_in_random_networks(data):
    network = random_network(data.draw).double()
    images = torch.randn(data.draw(st.integers(1, 3)), 2, data.draw(st.integers(8, 14)), 9).double()
    found = FullGrad(network).decompose(images)
    scale = found.input_term.abs().sum() + sum(term.abs().sum() for term in found.bias_terms) + 1
    assert (found.total - found.logits).abs().max() < 1e-12 * scale
    maps = FullGrad(network, scale=data.draw(st.sampled_from(['none', 'layer', 'channel'])))(images)
    assert maps.isfinite().all()
    assert maps.min() >= 0


def test_a_term_is_the_gradient_of_its_own_bias(classifier, images):
    """Against finite differences: the sum of a layer's terms is <df/db, b>, its own and no other's."""
    model = classifier(dict(type='ResNet', depth=18), 512).double().eval()
    found = FullGrad(model).decompose(images.double())
    terms = dict(zip(found.layers, found.bias_terms, strict=True))
    for name in ('backbone.bn1', 'backbone.layer2.0.downsample.1', 'backbone.layer3.1.bn2', 'head.fc'):
        module = model.get_submodule(name)
        whole = bias_of(module, torch.zeros(1, len(module.bias), *[1] * (2 if 'bn' in name or 'down' in name else 0),
                                            dtype=torch.double)).flatten()  # fmt: skip
        step, values = 1e-7, []
        for sign in (1, -1):
            kept = module.bias.data.clone()
            module.bias.data += sign * step * whole
            with torch.no_grad():
                logits = model(images.double())
            values.append(logits[:, 1] - logits[:, 0])
            module.bias.data.copy_(kept)
        slope = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(terms[name].flatten(1).sum(1), slope, rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_used_twice_has_two_terms():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.conv(self.conv(x).relu()).relu().mean((2, 3)))

    found = assert_complete(awaken(Twice()).double(), torch.randn(2, 3, 8, 8).double())
    assert found.layers == ['conv', 'conv', 'fc']


def test_every_layer_that_has_a_bias_counts():
    network = nn.Sequential(
        build_conv_layer(dict(type='Conv2d'), 3, 4, 3), build_norm_layer(dict(type='SyncBN'), 4)[1],
        nn.ConvTranspose2d(4, 4, 2), nn.BatchNorm2d(4, affine=False), nn.PReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 2, bias=False), nn.Linear(2, 2))  # fmt: skip
    assert list(biased_layers(network)) == ['0', '1', '2', '3', '8']
    assert_complete(awaken(network).double(), torch.randn(2, 3, 9, 9).double())


def test_biases_that_are_buffers_or_computed_count():
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

    conv = nn.Conv2d(3, 4, 3)
    parametrize.register_parametrization(conv, 'bias', Doubled())
    network = awaken(nn.Sequential(conv, FrozenBatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 2)))
    network[1].bias.normal_()
    network[1].running_mean.normal_()
    found = assert_complete(network.double(), torch.randn(2, 3, 9, 9).double())
    assert found.layers == ['0', '1', '4']


def test_statistics_are_those_of_now(toy_image):
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    method = FullGrad(awaken(network).double())
    method.decompose(toy_image.double())
    network[1].running_mean += 1
    found = method.decompose(toy_image.double())
    torch.testing.assert_close(found.total, found.logits)


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [(dict(type='SEResNet', depth=50), 2048), (dict(type='ConvNeXt', arch='atto'), 320),
     (dict(type='EfficientNet', arch='b0'), 1280), (SWIN, 768)],
)  # fmt: skip
def test_a_network_that_is_not_linear_in_pieces_is_warned_of(classifier, backbone, channels):
    model = classifier(backbone, channels, neck=backbone['type'] != 'ConvNeXt')
    method = FullGrad(model)
    pictures = torch.randn(2, 3, 64, 64)
    with pytest.warns(UserWarning, match='not linear in pieces'):
        maps = method(pictures)
    found = method.decompose(pictures)
    gap = (found.total - found.logits).abs().mean() / found.logits.abs().mean()
    assert method.gap == pytest.approx(float(gap), rel=1e-2)
    assert maps.isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # once is enough
        method(pictures)


def test_no_warning_where_terms_add_up(classifier, images):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        method = FullGrad(classifier(dict(type='ResNet', depth=18), 512))
        method(images)
    assert method.gap < 1e-3


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [(dict(type='VGG', depth=11), 512), (dict(type='VGG', depth=11, norm_cfg=dict(type='BN')), 512),
     (dict(type='ResNet', depth=18), 512)],
)  # fmt: skip
def test_agrees_with_grad_cam_scaled_by_channel(classifier, images, backbone, channels):
    """grad-cam takes the terms of Conv2d and BatchNorm2d layers, all that these networks have in space."""
    other = pytest.importorskip('pytorch_grad_cam')
    model = classifier(backbone, channels).eval()
    maps = FullGrad(model, scale='channel', normalize=None)(images)
    with other.FullGrad(model, []) as theirs:
        expected = theirs(images, [lambda logits: logits[1] - logits[0]] * len(images))
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(((maps - low) / (high - low)).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize('scale', ['none', 'layer', 'channel'])
def test_the_map_is_made_of_the_terms(classifier, images, scale):
    from torch.nn.functional import interpolate

    model = classifier(dict(type='VGG', depth=11, norm_cfg=dict(type='BN')), 512)
    found = FullGrad(model).decompose(images)
    expected = torch.zeros(len(images), *images.shape[2:])
    for term in [found.input_term, *(term for term in found.bias_terms if term.ndim == 4)]:
        if max(term.shape[2:]) == 1:
            continue
        term = term.abs()
        if scale == 'channel':
            low, high = term.amin((2, 3), keepdim=True), term.amax((2, 3), keepdim=True)
            term = (term - low) / (high - low + 1e-7)
        term = term.sum(1, keepdim=True)
        if scale == 'layer':
            low, high = term.amin((2, 3), keepdim=True), term.amax((2, 3), keepdim=True)
            term = (term - low) / (high - low + 1e-7)
        expected += interpolate(term, images.shape[2:], mode='bilinear', align_corners=False)[:, 0]
    maps = FullGrad(model, scale=scale, normalize=None)(images)
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)


def test_an_unknown_scale_is_refused(toy):
    with pytest.raises(UsageError, match='scale='):
        FullGrad(toy, scale='image')

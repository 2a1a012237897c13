"""The CAM family: hand-worked values, grad-cam as the independent implementation, properties."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kgl_mm.errors import UsageError
from kgl_mm.saliency import GradCAM, GradCAMPlusPlus, LayerCAM
from kgl_mm.saliency.base import resize
from kgl_mm.saliency.one_pass import OnePass, undisturbed

METHODS = [GradCAM, GradCAMPlusPlus, LayerCAM]

# The toy's ReLU puts out A0 = [[1, 3], [0, 5]] and A1 = [[2, 1], [3, 0]] for its image [[1, 2], [0, 3]]; logit 1 minus
# logit 0 has the gradient 4/4 = 1 in every cell of channel 0, and 8/4 = 2 in every cell of channel 1.
A0, A1 = torch.tensor([[1.0, 3.0], [0.0, 5.0]]), torch.tensor([[2.0, 1.0], [3.0, 0.0]])


@pytest.mark.parametrize('method', [GradCAM, LayerCAM])
def test_worked_by_hand(toy, toy_image, method):
    maps = method(toy, layers=['relu'], normalize=None)(toy_image)
    torch.testing.assert_close(maps[0], A0 + 2 * A1)


def test_grad_cam_plus_plus_worked_by_hand(toy, toy_image):
    maps = GradCAMPlusPlus(toy, layers=['relu'], normalize=None)(toy_image)
    alpha0, alpha1 = 1 / (2 * 1 + 9 * 1), 4 / (2 * 4 + 6 * 8)
    torch.testing.assert_close(maps[0], 4 * alpha0 * 1 * A0 + 4 * alpha1 * 2 * A1)


def test_the_other_target_has_other_signs(toy, toy_image):
    maps = LayerCAM(toy, layers=['relu'], normalize=None)(toy_image, target=lambda logits: logits[:, 0] - logits[:, 1])
    assert maps.abs().max() == 0  # nothing speaks for good


@pytest.fixture(scope='module')
def networks(classifier):
    return {
        'vgg': (classifier(dict(type='VGG', depth=11), 512), 'backbone.features.9'),
        'vgg_bn': (
            classifier(dict(type='VGG', depth=11, norm_cfg=dict(type='BN'), act_cfg=dict(type='LeakyReLU')), 512),
            'backbone.features.6',
        ),
        'resnet': (classifier(dict(type='ResNet', depth=18), 512), 'backbone.layer3'),
        'densenet': (classifier(dict(type='DenseNet', arch='121'), 1024), 'backbone.stages.2'),
        'repvgg': (classifier(dict(type='RepVGG', arch='A0'), 1280), 'backbone.stage_3'),
    }


def stretched(maps):
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return ((maps - low) / (high - low)).numpy()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('name', ['vgg', 'vgg_bn', 'resnet', 'densenet', 'repvgg'])
def test_agrees_with_grad_cam(networks, images, method, name):
    other = pytest.importorskip('pytorch_grad_cam')
    model, layer = networks[name]
    # so large that what grad-cam adds to a denominator does not count
    size = 1e5 if method is GradCAMPlusPlus else 1
    shown = 0
    for sign in (size, -size):
        target = partial(_times, sign)
        maps = method(model, layers=[layer], normalize=None)(images, target)
        with getattr(other, method.__name__)(model.eval(), [model.get_submodule(layer)]) as theirs:
            expected = theirs(images, [target] * len(images))
        there = expected.max((1, 2)) > 0
        shown += there.sum()
        np.testing.assert_allclose(stretched(maps)[there], expected[there], atol=1e-4)
    assert shown >= len(images)


def _times(factor, logits):
    """The evidence for a defect times a factor, of the logits of a batch or of one image."""
    return factor * (logits[..., 1] - logits[..., 0])


def test_agrees_with_grad_cam_over_several_layers(networks, images):
    """grad-cam stretches each layer from its minimum; done to our layers, the mean of them is the same."""
    other = pytest.importorskip('pytorch_grad_cam')
    model = networks['resnet'][0].eval()
    modules = [model.backbone.layer2, model.backbone.layer3, model.backbone.layer4]
    method, maps = LayerCAM(model), []
    with undisturbed(model), OnePass(model) as run:
        for module in modules:
            run.at_activation(module, lambda a, g: maps.append(method.layer_map(a, g)))
        run(images, 'defect')
    expected = torch.stack([resize(torch.from_numpy(stretched(layer)), images.shape[2:]) for layer in maps]).mean(0)
    with other.LayerCAM(model, modules) as theirs:
        got = theirs(images, [lambda logits: logits[1] - logits[0]] * len(images))
    np.testing.assert_allclose(stretched(expected), got, atol=1e-4)
    # ours divides each layer by its maximum alone
    layers = ['backbone.layer2', 'backbone.layer3', 'backbone.layer4']
    ours = LayerCAM(model, layers=layers, fuse='mean', normalize=None)(images)
    by_hand = torch.stack([resize(layer / layer.amax((1, 2), keepdim=True), images.shape[2:]) for layer in maps])
    torch.testing.assert_close(ours, by_hand.mean(0))


def test_fused_by_maximum(networks, images):
    model = networks['resnet'][0]
    layers = ['backbone.layer2', 'backbone.layer4']
    both = LayerCAM(model, layers=layers, normalize=None)(images)
    assert 0.8 < both.amax((1, 2)).min() <= both.amax() <= 1
    mean = LayerCAM(model, layers=layers, fuse='mean', normalize=None)(images)
    assert (both >= mean - 1e-6).all()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize(
    ('backbone', 'channels', 'head', 'size', 'last'),
    [
        (dict(type='SwinTransformer', arch='tiny', img_size=128, window_size=4), 768, 'LinearClsHead', 128,
         'backbone.norm3'),
        (dict(type='VisionTransformer', arch='deit-t', img_size=64, patch_size=16), 192, 'VisionTransformerClsHead',
         64, 'backbone.layers.11.ln1'),
    ],
)  # fmt: skip
def test_transformers(classifier, method, backbone, channels, head, size, last):
    model = classifier(backbone, channels, head, neck='Swin' in backbone['type'])
    explainer = method(model)
    pictures = torch.randn(3, 3, size, size)
    maps = torch.cat([explainer(pictures, target) for target in (0, 1)])  # nothing may speak for one of them
    assert maps.shape == (6, size, size)
    assert explainer.layers[-1] == last
    assert maps.amax() == 1
    assert maps.std() > 0.01


@pytest.mark.parametrize('method', METHODS)
def test_plain_torch_module_and_batch_sizes(method):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    pictures = torch.randn(7, 3, 10, 14)
    maps = method(network)(pictures)
    assert maps.shape == (7, 10, 14)
    alone = torch.cat([method(network)(picture[None]) for picture in pictures])
    torch.testing.assert_close(maps, alone)
    assert method(network)(pictures.double().float().to(memory_format=torch.channels_last)).shape == (7, 10, 14)


def test_layers_are_chosen_once(networks, images):
    method = LayerCAM(networks['resnet'][0])
    method(images)
    assert method.layers == ['backbone.layer2', 'backbone.layer3', 'backbone.layer4']


@pytest.mark.parametrize(
    ('kwargs', 'sentence'),
    [
        (dict(layers=['backbone.layer9']), 'no such layer as backbone.layer9'),
        (dict(layers=['head.fc']), r'layer head.fc: puts out shape \(3, 2\), which is no map'),
        (dict(layers=['backbone']), 'no gradient reaches the layers'),
        (dict(layers=['unused']), 'layer unused: the logits do not depend|no gradient reaches'),
        (dict(fuse='sum'), 'fuse='),
        (dict(normalize='minmax'), 'normalize='),
        (dict(flips='hv'), 'flips='),
        (dict(flips=['x']), 'flips='),
        (dict(target=0.5), 'target='),
        (dict(target=None), 'target='),
        (dict(target=torch.tensor([0.5, 1, 1])), 'not a class'),
        (dict(target=[0, 1]), 'one for each of the 3 images'),
        (dict(amp='float13'), 'amp='),
    ],
)
def test_wrong_arguments_get_one_sentence(classifier, images, kwargs, sentence):
    model = classifier(dict(type='ResNet', depth=18), 512)
    model.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(UsageError, match=sentence):
        LayerCAM(model, **dict(dict(layers=['backbone.layer4']), **kwargs))(images)


class Blind(nn.Module):
    """Takes no gradient behind its first layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.same = self.stem

    def forward(self, x):
        with torch.no_grad():
            x = self.stem(x).relu()
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize('name', ['stem', 'same'])
def test_a_layer_that_no_gradient_reaches_gets_one_sentence(images, name):
    with pytest.raises(UsageError, match='no gradient reaches'):
        LayerCAM(Blind(), layers=[name])(images)


@pytest.mark.parametrize(
    'bad', [torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), np.zeros((1, 3, 8, 8))]
)
def test_wrong_images_get_one_sentence(toy, bad):
    with pytest.raises(UsageError, match='images must be a tensor of floats'):
        LayerCAM(toy, layers=['relu'])(bad)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(METHODS), st.integers(0, 2**31), st.integers(1, 4), st.integers(5, 24), st.integers(5, 24),
    st.sampled_from(['max', 'evidence', None]),
)  # fmt: skip
def test_properties(method, seed, batch, height, width, normalize):
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.LeakyReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace=True), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 2))  # fmt: skip
    maps = method(network, layers=['1', '4'], normalize=normalize)(torch.randn(batch, 2, height, width))
    assert maps.shape == (batch, height, width)
    assert maps.isfinite().all()
    assert maps.min() >= 0
    assert maps.max() <= 1

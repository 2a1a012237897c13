import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18, swin_t, vgg11, vit_b_32

from kgl_mm.errors import UsageError
from kgl_mm.saliency import LayerCAM
from kgl_mm.saliency.layers import choose_layers, feature_map, named_layers


@pytest.mark.parametrize(
    ('shape', 'size', 'grid'),
    [
        ((2, 64, 14, 40), (224, 640), (14, 40)),
        ((2, 14, 40, 64), (224, 640), (14, 40)),  # channels last
        ((2, 14, 14, 14), (224, 224), (14, 14)),
        ((2, 197, 64), (224, 224), (14, 14)),  # a class token in front
        ((2, 1 + 14 * 40, 64), (224, 640), (14, 40)),
        ((2, 4 + 196, 64), (224, 224), (14, 14)),  # registers
        ((2, 49, 64), (224, 224), (7, 7)),
        ((2, 4 * 7, 64), (100, 200), (4, 7)),  # rounded up and down at stride 28
    ],
)
def test_feature_map(shape, size, grid):
    tensor = torch.arange(torch.tensor(shape).prod().item()).reshape(shape)
    seen = feature_map(shape, size)(tensor)
    assert tuple(seen.shape) == (2, 14 if shape == (2, 14, 14, 14) else 64, *grid)
    if len(shape) == 3:
        assert seen[:, :, -1, -1].equal(tensor[:, -1])
        assert seen[:, :, 0, 0].equal(tensor[:, shape[1] - grid[0] * grid[1]])


@given(st.integers(2, 40), st.integers(2, 40), st.integers(4, 32))
def test_tokens_of_any_grid_are_found(height, width, stride):
    seen = feature_map((1, height * width, 5), (height * stride, width * stride))
    assert seen(torch.zeros(1, height * width, 5)).shape[2:] == (height, width)


@pytest.mark.parametrize('shape', [(2, 64), (2, 1, 64), (2, 64, 2, 3, 4)])
def test_what_has_no_place_is_no_map(shape):
    assert feature_map(shape, (224, 640)) is None


def test_names_are_checked_and_candidates_named():
    network = resnet18()
    assert list(named_layers(network, ['layer3.0', 'layer4'])) == ['layer3.0', 'layer4']
    for names in (['layer9'], [], ['']):
        with pytest.raises(UsageError, match=r'layer4'):
            named_layers(network, names)


@pytest.mark.parametrize(
    ('network', 'expected'),
    [
        (resnet18, ['layer2', 'layer3', 'layer4']),
        (vgg11, ['features.9', 'features.14', 'features.19']),  # before the pooling, in place or not
    ],
)
def test_the_last_layer_of_each_stage_is_chosen(network, expected):
    assert choose_layers(network(num_classes=2), torch.randn(1, 3, 224, 320), 3) == expected


def test_channels_last_layers_of_a_transformer():
    """Torchvision's Swin computes channels last, and turns its last map round."""
    torch.manual_seed(0)
    network, images = swin_t(num_classes=2), torch.randn(1, 3, 64, 96)
    assert choose_layers(network, images, 2)[-1] == 'permute'
    maps = {name: LayerCAM(network, layers=[name])(images) for name in ('norm', 'permute')}
    assert maps['norm'].amax() == 1
    torch.testing.assert_close(maps['norm'], maps['permute'])


def test_of_tokens_norms_are_chosen():
    torch.manual_seed(0)
    network, images = vit_b_32(num_classes=2), torch.randn(1, 3, 224, 224)
    assert choose_layers(network, images, 3) == ['encoder.layers.encoder_layer_11.ln_1']


def test_of_a_model_with_a_backbone_only_that_is_looked_at(classifier, images):
    model = classifier(dict(type='ResNet', depth=18), 512)
    model.head.extra = nn.Conv2d(512, 1, 1)
    assert choose_layers(model, images, 2) == ['backbone.layer3', 'backbone.layer4']


def test_a_network_without_maps_is_refused():
    with pytest.raises(UsageError, match='no layer of Sequential puts out feature maps'):
        choose_layers(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.zeros(1, 3, 2, 2), 1)

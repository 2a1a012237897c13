import copy

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import nn


def awaken(model, seed=0):
    """Random weights, biases and statistics everywhere, so that no term of a map is zero by accident."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name in ('weight', 'bias'):
            parameter = getattr(module, name, None)
            if isinstance(parameter, nn.Parameter):
                # fan-in scaling for matrices, around 1 for the weights of norms
                spread = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.3
                values = torch.randn(parameter.shape, generator=generator) * spread
                is_gain = name == 'weight' and parameter.ndim == 1
                parameter.data.copy_(values + 1 if is_gain else values)
        if getattr(module, 'running_mean', None) is not None:
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model


@pytest.fixture(scope='session')
def classifier():
    """A function that builds an mmpretrain classifier of two classes, as it would be after some training."""

    def build(backbone, channels=None, head='LinearClsHead', neck=True, classes=2, **head_cfg):
        cfg = dict(type='ImageClassifier', backbone=backbone)
        if neck:
            cfg['neck'] = dict(type='GlobalAveragePooling')
        if channels:
            cfg['head'] = dict(type=head, num_classes=classes, in_channels=channels, topk=(1,), **head_cfg)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return awaken(MODELS.build(copy.deepcopy(cfg)))

    return build


@pytest.fixture
def images():
    return torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(1))


class Toy(nn.Module):
    """1x1 convolution, ReLU, mean over the image, linear: everything about it can be worked out by hand."""

    def __init__(self, inplace=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.relu = nn.ReLU(inplace)
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([2.0, -1.0])[:, None, None, None])
            self.conv.bias.copy_(torch.tensor([-1.0, 3.0]))
            self.fc.weight.copy_(torch.tensor([[0.0, 0.0], [4.0, 8.0]]))
            self.fc.bias.copy_(torch.tensor([0.5, 1.5]))

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def toy():
    return Toy()


@pytest.fixture
def toy_image():
    """Behind the ReLU: channel 0 is [[1, 3], [0, 0]], channel 1 is [[2, 1], [3, 0]]."""
    return torch.tensor([[[[1.0, 2.0], [0.0, 3.0]]]]) * torch.tensor([[1.0, 1.0], [1.0, 1.0]])

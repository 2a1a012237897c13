import pytest
import torch
from torch.nn import functional

from kgl_mm.errors import UsageError
from kgl_mm.registry import MODELS


def build(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(type='kgl_mm.SlimVGG', **kwargs))


def test_shapes():
    x = torch.randn(2, 3, 64, 48)
    (last,) = build()(x)
    assert last.shape == (2, 64, 8, 6)
    first, third = build(out_indices=(0, 2), channels=(4, 8, 16), convs=(1, 2, 1))(x)
    assert first.shape == (2, 4, 64, 48)
    assert third.shape == (2, 16, 16, 12)


def test_equals_torch_functions():
    model = build(channels=(4, 6), convs=(2, 1), in_channels=1)
    model.eval()
    x = torch.randn(2, 1, 10, 12)
    expected = x
    for s, stage in enumerate(model.stages):
        if s:
            expected = functional.max_pool2d(expected, 2)
        for block in [m for m in stage if hasattr(m, 'conv')]:
            assert block.conv.bias is None
            norm = block.norm
            torch.nn.init.normal_(norm.running_mean)
            expected = functional.conv2d(expected, block.conv.weight, padding=1)
            expected = functional.batch_norm(
                expected, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
            expected = functional.leaky_relu(expected, 0.01)
    torch.testing.assert_close(model(x)[0], expected)


@pytest.mark.parametrize(
    ('norm_cfg', 'expected'),
    [(None, set()), (dict(type='GN', num_groups=2), {'GroupNorm'}), (dict(type='BN'), {'BatchNorm2d'})],
)
def test_norms(norm_cfg, expected):
    model = build(norm_cfg=norm_cfg, channels=(4, 4), convs=(1, 1))
    names = {type(m).__name__ for m in model.modules()} & {'GroupNorm', 'BatchNorm2d'}
    assert names == expected
    assert (model.stages[0][0].conv.bias is not None) == (norm_cfg is None)
    model(torch.randn(2, 3, 8, 8))[0].mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('wrong', [2, -3])
def test_stages_that_are_not_there_are_named(wrong):
    with pytest.raises(UsageError, match=rf'out_indices=\[{wrong}\]: there are 2 stages'):
        build(channels=(4, 4), convs=(1, 1), out_indices=(0, wrong))


def test_nothing_is_overwritten_in_place():
    """The output of a normalisation keeps its gradient although an activation follows."""
    model = build(channels=(4,), convs=(1,))
    seen = []
    model.stages[0][0].norm.register_forward_hook(lambda module, args, out: seen.append(out))
    (out,) = model(torch.randn(2, 3, 8, 8))
    (gradient,) = torch.autograd.grad(out.sum(), seen)
    torch.testing.assert_close(gradient, torch.where(seen[0] > 0, 1.0, 0.01))

"""SSPConv, SimAM and AFF by their formulas, worked by hand or in another way."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError
from kgl_mm.models import AFF, SimAM, SSPConv
from kgl_mm.registry import MODELS

HALVES = [torch.float16, torch.bfloat16]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_simam_by_hand():
    """Values 0, 0, 0, 4: mean 1, squares 1, 1, 1, 9, variance 12 / 3 = 4."""
    x = torch.tensor([[[[0.0, 0.0], [0.0, 4.0]]]], dtype=torch.float64)
    expected = 4 * sigmoid(9 / (4 * (4 + 0.5)) + 0.5)
    assert SimAM(weight=0.5)(x)[0, 0].flatten().tolist() == pytest.approx([0, 0, 0, expected])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, *HALVES])
@pytest.mark.parametrize('size', [(1, 1), (1, 5), (33, 47)])
@pytest.mark.parametrize('value', [0.1, -3.0, 12345.678])
def test_simam_scales_a_constant_map_by_sigmoid_of_a_half(dtype, size, value):
    x = torch.full((2, 3, *size), value, dtype=dtype)
    found = SimAM()(x)
    assert (found.shape, found.dtype) == (x.shape, dtype)
    torch.testing.assert_close(
        found, (x.double() * sigmoid(0.5)).to(dtype), rtol=1e-2 if dtype in HALVES else 1e-6, atol=0
    )


@pytest.mark.parametrize('dtype', HALVES)
def test_the_loss_of_a_block_in_half_precision(dtype):
    x = torch.full((1, 2, 3, 3), 400, dtype=dtype)  # whose squares float16 does not hold
    assert SSPConv.loss(x * 0, x).item() == 160000


@pytest.mark.parametrize('dtype', HALVES)
def test_simam_in_half_precision_is_that_of_float32(dtype):
    x = (torch.randn(2, 3, 9, 7) * 300).to(dtype)  # whose squares float16 does not hold
    torch.testing.assert_close(SimAM()(x), SimAM()(x.float()).to(dtype), rtol=2e-2, atol=1e-3)


def test_simam_has_no_parameters_and_its_gate_stays_between_its_limits():
    x = torch.randn(2, 5, 8, 8)
    gate = SimAM()(x) / x
    assert not list(SimAM().parameters())
    assert gate.min() >= sigmoid(0.5) - 1e-5
    assert gate.max() < 1


def masked(block):
    """The one kernel of (2 (corner + gap) + 1)^2, zero in the middle, that the four corners are."""
    side = 2 * (block.corner + block.gap) + 1
    channels = len(block.corners[0].weight)
    kernel = torch.zeros(channels, channels, side, side, dtype=block.corners[0].weight.dtype)
    for number, tap in enumerate(block.corners):
        row, column = divmod(number, block.corner)
        rows, columns = ([first, first + side - block.corner] for first in (row, column))
        for i, j in itertools.product(range(2), repeat=2):
            kernel[:, :, rows[i], columns[j]] = tap.weight[:, :, i, j]
    return kernel


@pytest.mark.parametrize(('corner', 'gap'), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize('size', [(1, 1), (1, 6), (8, 5)])
def test_ssp_conv_is_a_convolution_with_a_masked_kernel(corner, gap, size):
    torch.manual_seed(0)
    block = SSPConv(3, corner, gap).double()
    torch.nn.init.normal_(block.bias)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    found = F.conv2d(x, masked(block), padding=corner + gap)
    apart = [*range(-corner - gap, -gap), *range(gap + 1, corner + gap + 1)]
    rows, columns = (
        torch.tensor([sum(0 <= at + o < length for o in apart) for at in range(length)]) for length in size
    )
    seen = (rows[:, None] * columns).clamp_min(1)
    torch.testing.assert_close(block(x), (found * 4 * corner**2 / seen + block.bias).relu())


def test_the_border_is_predicted_as_well_as_the_middle():
    """Where all positions are alike, and all corners, those that see fewer find the same."""
    block = SSPConv(4)
    torch.nn.init.constant_(block.corners[0].weight, 0.1)
    found = block(torch.rand(1, 4, 1, 1).expand(1, 4, 6, 7))
    assert found.any()
    torch.testing.assert_close(found, found[:, :, 3:4, 3:4].expand_as(found))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(0, 2), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_ssp_conv_is_blind_at_each_position(corner, gap, height, width, seed):
    torch.manual_seed(seed)
    block = SSPConv(2, corner, gap).double()
    x = torch.randn(1, 2, height, width, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(block, x)[0, :, :, :, 0]  # C H W by C H W
    there = torch.einsum('ahwbhw->abhw', jacobian)
    assert not there.any()
    if min(height, width) > corner + gap:
        assert jacobian.any()


@pytest.mark.parametrize('attention', ['none', 'se', 'simam'])
@pytest.mark.parametrize('dtype', [torch.float32, *HALVES])
@pytest.mark.parametrize('size', [(1, 1), (7, 4)])
def test_ssp_conv_keeps_shape_and_type_and_learns(attention, dtype, size):
    torch.manual_seed(0)
    block = SSPConv(16, attention=attention).to(dtype)
    x = torch.randn(1, 16, *size).to(dtype)
    predicted = block(x)
    assert (predicted.shape, predicted.dtype) == (x.shape, dtype)
    loss = block.loss(predicted, x)
    assert loss.item() == pytest.approx((predicted - x).double().square().mean().item(), rel=2e-2)
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in block.parameters())


def test_the_attention_of_ssp_conv_by_hand():
    block = SSPConv(16, attention='se')
    x = torch.randn(2, 16, 6, 6)
    plain = SSPConv(16)
    plain.load_state_dict(
        {name: value for name, value in block.state_dict().items() if not name.startswith('attention')}
    )
    squeeze, excite = block.attention.fc1, block.attention.fc2
    seen = plain(x)
    hidden = (seen.mean((2, 3)) @ squeeze.weight[:, :, 0, 0].T + squeeze.bias).relu()
    gate = (hidden @ excite.weight[:, :, 0, 0].T + excite.bias).sigmoid()
    torch.testing.assert_close(block(x), seen * gate[:, :, None, None])
    assert len(squeeze.weight) == 2
    simam = SSPConv(16, attention='simam')
    simam.load_state_dict(plain.state_dict())
    torch.testing.assert_close(simam(x), SimAM()(seen))


def normed(x, norm):
    """Batch norm in training, from its definition."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


def test_aff_by_its_formula():
    torch.manual_seed(0)
    block = AFF(8).double()
    x, y = torch.randn(2, 3, 8, 5, 4, dtype=torch.float64)

    def gate(layers, u):
        first, norm, _, last, norm2 = layers
        u = normed(torch.einsum('oc,bchw->bohw', first.weight[:, :, 0, 0], u) + first.bias[:, None, None], norm).relu()
        return normed(torch.einsum('oc,bchw->bohw', last.weight[:, :, 0, 0], u) + last.bias[:, None, None], norm2)

    both = x + y
    weight = torch.sigmoid(gate(block.local, both) + gate(block.whole[1:], both.mean((2, 3), keepdim=True)))
    torch.testing.assert_close(block(x, y), weight * x + (1 - weight) * y)
    torch.testing.assert_close(block.eval()(x, x), x)  # whatever the weights


def test_aff_takes_what_mixed_precision_makes():
    block, x = AFF(8), torch.randn(2, 8, 4, 4)
    with torch.autocast('cpu', torch.bfloat16):
        for y in (x.bfloat16(), x):
            assert block(x, y).isfinite().all()
            assert block(y, x).dtype == torch.float32


@pytest.mark.parametrize('dtype', [torch.float32, *HALVES])
@pytest.mark.parametrize('size', [(1, 1), (4, 3)])
@pytest.mark.parametrize('training', [True, False])
def test_aff_of_a_batch_of_one_and_of_a_single_position(dtype, size, training):
    block = AFF(8).to(dtype).train(training)
    x, y = torch.randn(2, 1, 8, *size).to(dtype)
    found = block(x, y)
    assert (found.shape, found.dtype) == (x.shape, dtype)
    assert torch.isfinite(found).all()
    lowest, highest = torch.minimum(x, y) - 0.05, torch.maximum(x, y) + 0.05
    assert ((found >= lowest) & (found <= highest)).all()


def test_the_blocks_are_registered():
    assert isinstance(MODELS.build(dict(type='kgl_mm.SSPConv', channels=4)), SSPConv)
    assert isinstance(MODELS.build(dict(type='kgl_mm.SimAM')), SimAM)
    assert isinstance(MODELS.build(dict(type='kgl_mm.AFF', channels=4)), AFF)


@pytest.mark.parametrize(
    ('build', 'sentence'),
    [
        (lambda: SSPConv(0), 'channels=0: not a whole number of 1 or more'),
        (lambda: SSPConv(4, gap=-1), 'gap=-1: not a whole number of 0 or more'),
        (lambda: SSPConv(4, attention='cbam'), "attention='cbam': not one of none, se, simam"),
        (lambda: SimAM(weight=0), 'weight=0: not a number above 0'),
        (lambda: AFF(4, reduction=0.5), 'reduction=0.5: not a whole number'),
        (lambda: AFF(2)(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4)), 'cannot be fused'),
    ],
)
def test_what_is_wrong_is_said(build, sentence):
    with pytest.raises(UsageError, match=sentence):
        build()

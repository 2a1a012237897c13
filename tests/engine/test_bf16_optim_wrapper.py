import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2))


def test_computes_in_bfloat16_and_keeps_weights_in_float32(net):
    wrapper = OPTIM_WRAPPERS.build(
        dict(type='kgl_mm.Bf16OptimWrapper', optimizer=torch.optim.SGD(net.parameters(), lr=0.1))
    )
    wrapper.initialize_count_status(net, 0, 10)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 8, 8)
    reference = net(images)
    before = net[0].weight.clone()
    with wrapper.optim_context(net):
        logits = net(images)
        loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1]))
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), reference, rtol=0.05, atol=0.05)
    wrapper.update_params(loss)
    assert net[0].weight.dtype == torch.float32
    assert not torch.equal(net[0].weight, before)
    assert net(images).dtype == torch.float32

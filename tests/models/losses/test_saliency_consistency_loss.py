"""A classifier's own map against a target: values by hand, gradients, and what must not disturb them."""

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from kgl_mm.errors import UsageError
from kgl_mm.models import SaliencyConsistencyLoss
from kgl_mm.registry import MODELS
from kgl_mm.saliency import GradCAM, LayerCAM
from kgl_mm.saliency.base import resize

FORMULAS = ('grad_cam', 'layer_cam')


class Network(nn.Module):
    """Features, maximum and mean over them, and a head that is smooth, so that the gradient depends on everything."""

    def __init__(self, channels=3, width=6):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.LeakyReLU())
        self.head = nn.Sequential(nn.Linear(2 * width, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, images):
        features = self.body(images)
        return features, self.head(torch.cat([features.amax((2, 3)), features.mean((2, 3))], 1))


class Logits(Network):
    def forward(self, images):
        return super().forward(images)[1]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def batch():
    """A defective image, a good one and one without a target."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.zeros(3, 8, 8)
    targets[0, :4, 2:7] = 1
    return torch.randn(3, 3, 8, 8, generator=generator), targets, torch.tensor([True, True, False])


def gradients(loss, network):
    return torch.autograd.grad(loss, [p for name, p in network.named_parameters() if name != 'head.2.bias'])


@pytest.mark.parametrize(
    ('formula', 'maps', 'defective', 'good'),
    [
        ('grad_cam', [[0.0, 1.0], [0.0, 0.0]], 1 - 0.5**0.5, 1 / 2),
        ('layer_cam', [[1.0, 3.0], [0.0, 0.0]], 1 - 4 / 20**0.5, 4 / 5),
    ],
)
def test_by_hand(formula, maps, defective, good):
    """Under a mean the gradient is the weight over the 4 cells: 4 / 4 and -8 / 4."""
    features = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 1.0], [3.0, 0.0]]]).expand(2, 2, 2, 2).requires_grad_()
    logits = features.mean((2, 3)) @ torch.tensor([[1.0, 5.0], [3.0, -5.0]])
    loss = SaliencyConsistencyLoss(formula)
    torch.testing.assert_close(loss.maps(features, logits), torch.tensor([maps, maps]))
    targets = torch.zeros(2, 1, 6, 6)
    targets[0, 0, :3] = 1
    for valid, expected in (([1, 0], defective), ([0, 1], good), ([1, 1], (defective + good) / 2)):
        got = loss(features, logits, targets, torch.tensor(valid, dtype=torch.bool))
        torch.testing.assert_close(got, torch.tensor(expected))
    torch.testing.assert_close(loss(features, logits, targets[:, 0]), torch.tensor((defective + good) / 2))


def test_the_target_is_averaged_over_each_cell():
    features = torch.tensor([[[[1.0, 0.5]]]], requires_grad=True)
    target = torch.tensor([[[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]]])
    loss = SaliencyConsistencyLoss()(features, features.sum((2, 3)), target)
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize('formula', FORMULAS)
def test_gradient_of_weights_by_finite_differences(network, batch, formula):
    network.double()
    images, targets, valid = batch
    names, values = zip(*network.named_parameters(), strict=True)

    def of_weights(*weights):
        outputs = functional_call(network, dict(zip(names, weights, strict=True)), (images.double(),))
        return SaliencyConsistencyLoss(formula)(*outputs, targets, valid)

    assert of_weights(*values).dtype == torch.float64
    assert torch.autograd.gradcheck(of_weights, values)


@pytest.mark.parametrize(('formula', 'method'), [('grad_cam', GradCAM), ('layer_cam', LayerCAM)])
def test_maps_are_those_of_the_saliency_methods(batch, formula, method):
    torch.manual_seed(0)
    model = Logits().eval()
    maps = SaliencyConsistencyLoss(formula).maps(*Network.forward(model, batch[0]))
    assert maps.shape == (3, 4, 4)
    torch.testing.assert_close(resize(maps, (8, 8)), method(model, layers='body', normalize=None)(batch[0]))


@pytest.mark.parametrize('formula', FORMULAS)
def test_an_image_without_a_target_is_left_out(network, batch, formula):
    images, targets, valid = batch
    loss = SaliencyConsistencyLoss(formula)
    expected = gradients(loss(*network(images[:2]), targets[:2]), network)
    for other in (images[2], torch.zeros(3, 8, 8), torch.full((3, 8, 8), 50.0)):
        images[2], targets[2] = other, other[0].abs()
        torch.testing.assert_close(gradients(loss(*network(images), targets, valid), network), expected)


def test_nobody_has_a_target(network, batch):
    loss = SaliencyConsistencyLoss()(*network(batch[0][:1]), batch[1][:1], torch.tensor([False]))
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients(loss, network))


@pytest.mark.parametrize('formula', FORMULAS)
def test_scale_counts_with_an_empty_target_only(network, batch, formula):
    images, targets, _ = batch
    features, logits = network(images)
    maps = SaliencyConsistencyLoss(formula).maps(features, logits)
    for factor in (1e-3, 1.0, 1e3):
        each = [
            SaliencyConsistencyLoss(formula)(features, factor * logits, targets, torch.arange(3) == i) for i in (0, 1)
        ]
        cosine = torch.cosine_similarity(
            maps[0].flatten(), targets[0].reshape(4, 2, 4, 2).mean((1, 3)).flatten(), dim=0
        )
        torch.testing.assert_close(each[0], 1 - cosine)
        total = factor * maps[1].sum()
        torch.testing.assert_close(each[1], total / (1 + total))


@pytest.mark.parametrize('formula', FORMULAS)
@pytest.mark.parametrize(('features', 'weight'), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, -1.0), (1e-30, 1.0)])
def test_empty_maps_are_finite(formula, features, weight):
    features = torch.full((2, 3, 4, 4), features, requires_grad=True)
    weight = torch.full((3,), weight, requires_grad=True)
    targets = torch.zeros(2, 4, 4)
    targets[0, 1:3] = 1
    loss = SaliencyConsistencyLoss(formula)(features, (features.mean((2, 3)) @ weight)[:, None], targets)
    torch.testing.assert_close(loss, torch.tensor(0.5), atol=1e-6, rtol=0)
    for gradient in torch.autograd.grad(loss, [features, weight]):
        assert gradient.isfinite().all()


def test_a_last_spark_sends_no_huge_gradient():
    features = torch.full((1, 1, 4, 4), -1.0)
    features[0, 0, 0, 0] = features[0, 0, 2, 2] = 1e-6
    features.requires_grad_()
    target = torch.zeros(1, 4, 4)
    target[0, 2, 2] = 1
    loss = SaliencyConsistencyLoss()(features, features.sum((2, 3)), target)
    assert torch.autograd.grad(loss, features)[0].abs().max() < 100


def test_weights():
    features = torch.ones(1, 1, 2, 2, requires_grad=True)
    loss = SaliencyConsistencyLoss(loss_weight=3.0, decay='constant')
    assert (loss.guidance, loss.decay) == (1.0, 'constant')
    assert not loss.state_dict()
    arguments = features, features.mean((2, 3)), torch.zeros(1, 2, 2)
    assert loss(*arguments).item() == pytest.approx(1.5)
    loss.guidance = 0.25
    assert loss(*arguments).item() == pytest.approx(0.375)
    assert MODELS.build(dict(type='kgl_mm.SaliencyConsistencyLoss')).decay == 'linear'


def test_mixed_precision(network, batch):
    images, targets, valid = batch
    loss = SaliencyConsistencyLoss()
    expected = loss(*network(images), targets, valid)
    with torch.autocast('cpu', torch.bfloat16):
        features, logits = network(images)
        got = loss(features, logits, targets, valid)
    assert (features.dtype, logits.dtype, got.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.01)
    for narrow, full in zip(gradients(got, network), gradients(expected, network), strict=True):
        torch.testing.assert_close(narrow, full, rtol=0.1, atol=0.1 * full.abs().max().item())


def test_a_mean_over_many_cells_in_float16():
    """The gradient at a cell, 0.01 / 16384, has two bits in float16."""
    features = torch.rand(1, 4, 128, 128, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    weight = torch.tensor([0.013, -0.017, 0.011, 0.003]).half()
    maps = SaliencyConsistencyLoss().maps(features, (features.mean((2, 3)) @ weight)[:, None])
    expected = torch.einsum('bchw,c->bhw', features.float(), weight.float()).relu() / 128**2
    torch.testing.assert_close(maps, expected, rtol=0, atol=2e-3 * expected.max().item())


@pytest.mark.parametrize('fullgraph', [False, True])
def test_compile_is_refused_in_one_sentence(network, batch, fullgraph):
    def step(images, targets):
        return SaliencyConsistencyLoss()(*network(images), targets)

    torch._dynamo.reset()
    with pytest.raises(
        Exception, match=r'torch.compile does not support double backward, .*: leave compile out'
    ) as info:
        torch.compile(step, backend='aot_eager', fullgraph=fullgraph)(*batch[:2])
    assert fullgraph or info.type is UsageError


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(features=torch.ones(2, 3, requires_grad=True)), r'needs feature maps .*, not shape \(2, 3\)'),
        (dict(features=(torch.ones(2),)), 'not tuple'),
        (dict(features=torch.ones(2, 3, 4, 4)), 'features without a graph: .*frozen_stages'),
        (dict(features=torch.ones(2, 3, 4, 4, requires_grad=True)), 'logits that are made of the features'),
        (dict(logits=torch.ones(2, 2)), 'logits that are made of the features'),
        (dict(targets=torch.ones(3, 4, 4)), r'targets of shape \(3, 1, 4, 4\)'),
        (dict(targets=torch.ones(2, 2, 4, 4)), r'targets of shape \(2, 2, 4, 4\)'),
        (dict(logits=torch.ones(2)), 'logits of shape'),
    ],
)
def test_what_it_refuses(change, sentence):
    features = torch.ones(2, 3, 4, 4, requires_grad=True)
    arguments = dict(features=features, logits=features.mean((2, 3)), targets=torch.ones(2, 4, 4))
    with pytest.raises(UsageError, match=sentence):
        SaliencyConsistencyLoss()(**arguments | change)


@pytest.mark.parametrize(
    'change', [dict(formula='cam'), dict(decay='cosine'), dict(loss_weight=-1.0), dict(loss_weight='x')]
)
def test_what_settings_it_refuses(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        SaliencyConsistencyLoss(**change)


def squares(count=16, size=16):
    """Every other image has a bright square in channel 0, which is marked, and a decoy in channel 1."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.rand(count, 2, size, size, generator=generator)
    masks, labels = torch.zeros(count, size, size), torch.arange(count) % 2
    for index in labels.nonzero()[:, 0]:
        top, left = 2 * torch.randint(0, size // 2 - 2, (2,), generator=generator)
        images[index, 0, top : top + 4, left : left + 4] += 1
        masks[index, top : top + 4, left : left + 4] = 1
        top, left = 2 * torch.randint(0, size // 2 - 2, (2,), generator=generator)
        images[index, 1, top : top + 4, left : left + 4] += 1.5
    return images, masks, labels


@pytest.mark.parametrize('formula', FORMULAS)
def test_training_moves_the_map_to_the_square(formula):
    images, masks, labels = squares()
    loss = SaliencyConsistencyLoss(formula)
    inside = torch.nn.functional.adaptive_avg_pool2d(masks, 8)
    found, agreement = {}, {}
    for weight in (0.0, 1.0):
        torch.manual_seed(1)
        network = Network(channels=2)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9)
        for _ in range(40):
            features, logits = network(images)
            optimizer.zero_grad()
            (cross_entropy(logits, labels) + weight * loss(features, logits, masks)).backward()
            optimizer.step()
        features, logits = network(images)
        assert (logits.argmax(1) == labels).all()
        maps = loss.maps(features, logits)[labels == 1]
        found[weight] = ((maps * inside[labels == 1]).sum() / maps.sum()).item()
        agreement[weight] = 1 - loss(features, logits, masks).item()
    assert found[0.0] < 0.2
    assert found[1.0] > 0.9
    assert agreement[0.0] < 0.6
    assert agreement[1.0] > 0.8


class TorchvisionModel(BaseModel):
    """Any network of torchvision, in a single pass that gives features and logits."""

    def __init__(self):
        super().__init__()
        self.net = create_feature_extractor(resnet18(num_classes=2), {'layer4': 'features', 'fc': 'logits'})
        self.consistency = SaliencyConsistencyLoss()

    def forward(self, images, masks, labels, mode='tensor'):
        outputs = self.net(images)
        if mode == 'loss':
            return dict(
                loss=cross_entropy(outputs['logits'], labels),
                loss_consistency=self.consistency(**outputs, targets=masks),
            )
        return outputs['logits']


def test_in_a_plain_mmengine_runner_with_a_torchvision_model(tmp_path):
    images, masks, labels = squares(8, 64)
    dataset = list(zip(images.repeat(1, 2, 1, 1)[:, :3], masks, labels, strict=True))
    runner = Runner(
        model=TorchvisionModel(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=4,
            dataset=dataset,
            sampler=dict(type=DefaultSampler, shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        randomness=dict(seed=0),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
    )
    runner.train()
    history, _ = runner.message_hub.get_scalar('train/loss_consistency').data
    assert len(history) == 4
    assert all(0 < value < 1 for value in history)

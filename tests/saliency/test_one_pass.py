"""The model is left as it was, and what a layer put out is kept as it was."""

import pytest
import torch
from torch import nn

from kgl_mm.saliency import FullGrad, GradCAM, GradCAMPlusPlus, LayerCAM, explain

METHODS = [GradCAM, GradCAMPlusPlus, LayerCAM, FullGrad]


def state_of(model):
    """Everything about a model that a saliency method could disturb."""
    hooks = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
    return dict(
        training=[m.training for m in model.modules()],
        requires_grad=[p.requires_grad for p in model.parameters()],
        grads=[None if p.grad is None else p.grad.clone() for p in model.parameters()],
        values=[v.clone() for v in model.state_dict().values()],
        hooks=[[len(getattr(m, hook)) for hook in hooks] for m in model.modules()],
    )


def assert_same_state(one, other):
    assert (one['training'], one['requires_grad'], one['hooks']) == (
        other['training'],
        other['requires_grad'],
        other['hooks'],
    )
    for key in ('grads', 'values'):
        for a, b in zip(one[key], other[key], strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


@pytest.fixture
def busy_model(classifier):
    """In training, with a frozen layer, a part in evaluation mode, gradients on its weights and a hook of its own."""
    model = classifier(dict(type='ResNet', depth=18), 512).train()
    model.backbone.layer1.eval()
    model.backbone.conv1.weight.requires_grad_(False)
    model.head.fc.weight.grad = torch.ones_like(model.head.fc.weight)
    model.backbone.layer2.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize('method', METHODS)
def test_the_model_is_as_before(busy_model, images, method):
    before = state_of(busy_model)
    given = images.clone().requires_grad_()
    maps = method(busy_model, flips=['h'])(given)
    assert_same_state(before, state_of(busy_model))
    assert given.grad is None
    assert not maps.requires_grad
    assert maps.grad_fn is None


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('where', ['forward', 'backward', 'target'])
def test_the_model_is_as_before_after_an_error(busy_model, images, method, where):
    def stop(*_):
        raise Stop

    explainer = method(busy_model)
    explainer(images)  # so that layers are chosen
    if where == 'forward':
        busy_model.head.register_forward_pre_hook(stop)
    elif where == 'backward':
        busy_model.neck.register_forward_hook(
            lambda m, i, out: out[0].requires_grad and out[0].register_hook(stop) and None
        )
    before = state_of(busy_model)
    with pytest.raises(Stop):
        explainer(images, target=stop if where == 'target' else None)
    assert_same_state(before, state_of(busy_model))


@pytest.mark.parametrize('method', METHODS)
def test_under_no_grad_and_inference_mode(classifier, images, method):
    explainer = method(classifier(dict(type='ResNet', depth=18), 512))
    expected = explainer(images)
    with torch.no_grad():
        torch.testing.assert_close(explainer(images), expected)
    with torch.inference_mode():
        torch.testing.assert_close(explainer(images.clone()), expected)


class Stack(nn.Module):
    """Convolutions whose outputs are changed behind them: by an in-place activation, by ``+=``, or not."""

    def __init__(self, inplace):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.act, self.fc, self.inplace = nn.LeakyReLU(0.1, inplace), nn.Linear(8, 2), inplace

    def forward(self, x):
        kept = self.act(self.first(x))
        y = self.second(kept)
        if self.inplace:
            y += kept
        else:
            y = y + kept
        return self.fc(self.act(y).amax((2, 3)))


@pytest.mark.parametrize('method', METHODS)
def test_in_place_operations_change_nothing(images, method):
    torch.manual_seed(0)
    plain, inplace = Stack(False), Stack(True)
    inplace.load_state_dict(plain.state_dict())
    kwargs = {} if method is FullGrad else dict(layers=['first', 'second'])
    one, other = method(plain, **kwargs)(images), method(inplace, **kwargs)(images)
    assert one.amax() > 0
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_methods_together_equal_methods_apart(classifier, images):
    calls = []
    model = classifier(dict(type='VGG', depth=11), 512)
    methods = [LayerCAM(model), GradCAM(model), FullGrad(model), GradCAMPlusPlus(model), FullGrad(model, scale='none')]
    apart = [method(images) for method in methods]
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    together = explain(methods, images)
    assert len(calls) == 1
    for one, other in zip(apart, together, strict=True):
        torch.testing.assert_close(one, other.maps)


def test_layers_left_open_are_chosen_before_the_shared_pass(classifier, images):
    model = classifier(dict(type='ResNet', depth=18), 512)
    first, second = explain([LayerCAM(model), GradCAM(model)], images)
    torch.testing.assert_close(second.maps, GradCAM(model)(images))
    torch.testing.assert_close(first.maps, LayerCAM(model)(images))


class Greedy(nn.Module):
    """Works in place on what it is given."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.conv(x.sub_(0.5)).relu().mean((2, 3)))


@pytest.mark.parametrize('method', METHODS)
def test_the_images_are_as_before(images, method):
    given = images.clone()
    method(Greedy(), flips=['h'])(given)
    assert given.equal(images)


@pytest.mark.parametrize('method', METHODS)
def test_checkpointed_blocks(classifier, images, method):
    plain = classifier(dict(type='ResNet', depth=18), 512)
    frugal = classifier(dict(type='ResNet', depth=18, with_cp=True), 512)
    torch.testing.assert_close(method(frugal)(images), method(plain)(images))
    assert frugal.backbone.layer1[0].with_cp


def test_no_graph_and_no_weight_gradient_is_computed(classifier, images):
    model = classifier(dict(type='ResNet', depth=18), 512)
    seen = []
    model.backbone.layer3.register_forward_hook(lambda m, i, out: seen.append(out.requires_grad))
    model.backbone.layer4.register_forward_hook(lambda m, i, out: seen.append(all(
        not p.requires_grad for p in model.parameters())))  # fmt: skip
    GradCAM(model, layers=['backbone.layer4'])(images)
    assert seen == [False, True]  # below the layer there is no graph


def test_memory_does_not_grow_with_the_number_of_images(classifier):
    """Live tensors after many batches are those after one."""
    import gc

    model = classifier(dict(type='ResNet', depth=18), 512)
    methods = [LayerCAM(model), FullGrad(model)]

    def live():
        gc.collect()
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    explain(methods, torch.randn(2, 3, 32, 32))
    before = live()
    for _ in range(5):
        explain(methods, torch.randn(2, 3, 32, 32))
    assert live() == before


def test_full_grad_keeps_no_gradients_during_the_pass(classifier, images):
    """What the callbacks keep while the backward pass runs does not grow with channels: one map a resolution."""
    import gc

    model = classifier(dict(type='VGG', depth=11, norm_cfg=dict(type='BN')), 512)
    method = FullGrad(model)
    method(images)  # measures its gap, which keeps one number an image and layer
    largest = []

    def count(*_):
        kept = [t for t in gc.get_objects() if isinstance(t, torch.Tensor) and t.ndim == 3 and len(t) == len(images)]
        largest.append(sum(t.numel() for t in kept))

    model.backbone.features[0].register_forward_hook(lambda m, i, out: out.register_hook(count) and None)
    method(images)
    assert largest[0] < 3 * images.shape[0] * images.shape[2] * images.shape[3]

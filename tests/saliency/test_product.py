import pytest
import torch

from kgl_mm.engine.hooks.prior_generation_hook import build_method
from kgl_mm.errors import UsageError
from kgl_mm.saliency import FullGrad, GradCAM, LayerCAM, SaliencyProduct


@pytest.fixture
def model(classifier):
    return classifier(dict(type='ResNet', depth=18), 512)


def test_a_product_by_hand(model, images):
    layer_cam = LayerCAM(model, fuse='mean', normalize=None)(images)
    full_grad = FullGrad(model, scale='none', normalize=None)(images)
    tops = [maps.amax((1, 2), keepdim=True) for maps in (layer_cam, full_grad)]
    torch.testing.assert_close(
        SaliencyProduct(model, normalize=None)(images), layer_cam / tops[0] * (full_grad / tops[1])
    )


def test_one_pass_serves_all(model, images):
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    methods = [dict(type='GradCAM'), dict(type='kgl_mm.FullGrad'), dict(type='kgl_mm.FullGrad')]
    method = SaliencyProduct(model, methods, target=0)
    method.prepare(images)
    calls.clear()
    maps = method(images)
    assert len(calls) == 1
    grad_cam, full_grad = GradCAM(model, target=0)(images), FullGrad(model, target=0)(images)
    expected = grad_cam * full_grad.square()
    torch.testing.assert_close(maps, expected / expected.amax((1, 2), keepdim=True))


def test_where_one_map_is_empty_so_is_the_product(model, images, monkeypatch):
    monkeypatch.setattr(LayerCAM, 'layer_map', lambda self, activation, gradient: gradient[:, 0] * 0)
    assert FullGrad(model)(images).any()
    assert not SaliencyProduct(model)(images).any()


def test_settings_name_the_methods_and_their_layers(model, images):
    method = build_method(dict(type='SaliencyProduct'), model)
    method.prepare(images)
    found = method.settings()
    assert (found['type'], found['normalize'], found['flips']) == ('SaliencyProduct', 'evidence', ['h', 'v', 'hv'])
    assert [each['type'] for each in found['methods']] == ['LayerCAM', 'FullGrad']
    assert 'flips' not in found['methods'][0]
    assert len(found['methods'][0]['layers']) == LayerCAM.depth


@pytest.mark.parametrize(
    ('methods', 'message'),
    [
        ([dict(type='LayerCAM', flips=['h'])], 'flips is set for the product, not for LayerCAM'),
        (['GradCAM'], 'not a list such as'),
        (dict(type='GradCAM'), 'not a list such as'),
        ([dict(fuse='mean')], 'not a list such as'),
        ([dict(type='NoCAM')], 'method kgl_mm.SaliencyProduct: .*NoCAM'),
        ([dict(type='LayerCAM', depth=3)], 'method kgl_mm.SaliencyProduct: .*depth'),
    ],
)
def test_methods_that_cannot_be_are_named(model, methods, message):
    with pytest.raises(UsageError, match=message):
        build_method(dict(type='kgl_mm.SaliencyProduct', methods=methods), model)

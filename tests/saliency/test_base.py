import pytest
import torch
from torch import nn

from kgl_mm.saliency import FullGrad, GradCAM, LayerCAM, SaliencyProduct
from kgl_mm.saliency.anomaly_map import _blurred
from kgl_mm.saliency.base import by_maximum, resize

METHODS = [GradCAM, LayerCAM, FullGrad, SaliencyProduct]


@pytest.fixture
def model(classifier):
    return classifier(dict(type='ResNet', depth=18), 512)


def test_normalisations(model, images):
    raw = LayerCAM(model, normalize=None).explain(images)
    top = raw.maps.amax((1, 2), keepdim=True)
    torch.testing.assert_close(LayerCAM(model, normalize='max')(images), raw.maps / top)
    by_evidence = LayerCAM(model, normalize='evidence')(images)
    torch.testing.assert_close(by_evidence, raw.maps / top * raw.evidence.sigmoid()[:, None, None])
    with torch.no_grad():
        logits = model.eval()(images)
    torch.testing.assert_close(raw.evidence, logits[:, 1] - logits[:, 0])
    torch.testing.assert_close(by_evidence.amax((1, 2)), logits.softmax(1)[:, 1])  # a good part's map stays faint


def test_an_empty_map_stays_empty():
    assert by_maximum(torch.zeros(2, 3, 4)).equal(torch.zeros(2, 3, 4))


@pytest.mark.parametrize('method', METHODS)
def test_flips_average_the_maps_of_the_flipped_images(model, images, method):
    plain = method(model, normalize=None)
    views = torch.stack([
        plain(images), plain(images.flip(3)).flip(2), plain(images.flip(2)).flip(1), plain(images.flip(2, 3)).flip(1, 2)
    ])  # fmt: skip
    found = method(model, normalize=None, flips=['h', 'v', 'hv']).explain(images)
    torch.testing.assert_close(found.views, views)
    torch.testing.assert_close(found.maps, views.mean(0))
    assert (views[0] - views[1]).abs().max() > 1e-3  # otherwise this shows nothing


@pytest.mark.parametrize('method', METHODS)
def test_an_average_over_all_flips_flips_with_the_image(model, images, method):
    flips = method(model, flips=['h', 'v', 'hv'])
    torch.testing.assert_close(flips(images.flip(3)), flips(images).flip(2), rtol=1e-4, atol=1e-4)


def test_resize_is_opencv_s():
    import cv2

    small = torch.rand(1, 5, 7)
    expected = cv2.resize(small[0].numpy(), (31, 16), interpolation=cv2.INTER_LINEAR)
    torch.testing.assert_close(resize(small, (16, 31))[0].numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_mixed_precision_is_close_and_in_float32(model, images, method):
    exact, mixed = method(model)(images), method(model, amp=True)(images)
    assert method(model, amp='bfloat16')(images).equal(mixed)
    assert mixed.dtype == torch.float32
    assert not mixed.equal(exact)
    correlation = torch.corrcoef(torch.stack([exact.flatten(), mixed.flatten()]))[0, 1]
    assert correlation > 0.95


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
@pytest.mark.parametrize('method', METHODS)
def test_cpu_and_gpu_agree(model, images, method):
    on_cpu = method(model)(images)
    on_gpu = method(model.cuda())(images.cuda())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=1e-4)


def test_many_classes_are_a_stated_choice(classifier, images):
    model = classifier(dict(type='ResNet', depth=18), 512, classes=4)
    method = LayerCAM(model)
    with torch.no_grad():
        logits = model.eval()(images)
    any_defect = method.explain(images)
    torch.testing.assert_close(any_defect.evidence, logits[:, 1:].amax(1) - logits[:, 0])
    kinds = torch.tensor([1, 2, 3])
    by_kind = method.explain(images, target=kinds)
    torch.testing.assert_close(by_kind.evidence, logits[range(3), kinds])
    torch.testing.assert_close(by_kind.maps[1], method(images[1:2], target=2)[0])


def test_a_model_in_half_precision(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    exact = LayerCAM(network)(images)
    half = LayerCAM(network.bfloat16())(images.bfloat16())
    assert (half.float() - exact).abs().max() < 0.05


def test_evidence_is_averaged_over_the_same_views_as_the_map_and_others_are_only_looked_at(model, images):
    plain, method = LayerCAM(model, normalize=None), LayerCAM(model, normalize=None, flips=['h'])
    found = method.explain(images, also=['v'])
    one, other = plain.explain(images), plain.explain(images.flip(3))
    torch.testing.assert_close(found.evidence, (one.evidence + other.evidence) / 2)
    torch.testing.assert_close(found.maps, (one.maps + other.maps.flip(2)) / 2)
    assert len(found.views) == 3


def test_of_a_layer_that_is_used_twice_the_last_use_counts():
    torch.manual_seed(0)
    shared = nn.Conv2d(3, 3, 3, padding=1)
    images = torch.randn(2, 3, 8, 8)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.fc = shared, nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.shared(self.shared(x).relu()).mean((2, 3)))

    model = Twice()
    alone = nn.Sequential(shared, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.fc)
    expected = GradCAM(alone, layers=['0'], normalize=None)(shared(images).relu().detach())
    torch.testing.assert_close(GradCAM(model, layers=['shared'], normalize=None)(images), expected)


def test_a_blur_leaves_a_constant_map_as_it_is():
    torch.testing.assert_close(_blurred(torch.ones(1, 9, 7), 2.0), torch.ones(1, 9, 7))

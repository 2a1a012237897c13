import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError
from kgl_mm.models import AnomalyMapDistillLoss
from kgl_mm.models.losses import attention_map, map_distances


def random(*shape, seed=0, **kwargs):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **kwargs)


def independent(features, maps, weight=1.0):
    """In numpy, one image and one stage after the other, bilinear weights written out."""
    total, count = 0.0, 0
    for image, map in enumerate(maps.numpy()):
        if not map.any():
            continue
        count += 1
        for stage in features:
            a = (stage[image].detach().numpy().astype(np.float64) ** 2).sum(0)
            m = np.zeros(a.shape)
            for y, x in np.ndindex(*a.shape):
                v = max((y + 0.5) * map.shape[0] / a.shape[0] - 0.5, 0)
                u = max((x + 0.5) * map.shape[1] / a.shape[1] - 0.5, 0)
                j, i = int(v), int(u)
                below, right = min(j + 1, map.shape[0] - 1), min(i + 1, map.shape[1] - 1)
                top = (1 - u + i) * map[j, i] + (u - i) * map[j, right]
                bottom = (1 - u + i) * map[below, i] + (u - i) * map[below, right]
                m[y, x] = (1 - v + j) * top + (v - j) * bottom
            total += 2 - 2 * (a * m).sum() / np.linalg.norm(a) / np.linalg.norm(m)
    return weight * total / count


def test_values_worked_out_by_hand():
    # attention 25 and 0 against a map of 1 and 1: 2 - 2 / sqrt(2); 9 and 16 against 1 and 0: 2 - 2 * 9 / sqrt(337)
    one = torch.tensor([[[3.0, 0.0]], [[4.0, 0.0]]])[None]
    other = torch.tensor([[[0.0, 4.0]], [[3.0, 0.0]]])[None]
    features = torch.cat([one, other])
    maps = torch.tensor([[[5.0, 5.0]], [[0.1, 0.0]]])
    assert attention_map(features).tolist() == [[[25, 0]], [[9, 16]]]
    expected = [2 - math.sqrt(2), 2 - 18 / math.sqrt(337)]
    torch.testing.assert_close(map_distances([features], maps), torch.tensor([expected]))
    loss = AnomalyMapDistillLoss(loss_weight=2.0)
    assert loss([features], maps).item() == pytest.approx(sum(expected))
    # a second stage, of the size of one cell, agrees with any map; a third one is of another image's place
    assert loss([features, features[..., :1]], maps).item() == pytest.approx(sum(expected))
    third = map_distances([features.flip(3)], maps)[0]
    torch.testing.assert_close(third, torch.tensor([expected[0], 2 - 32 / math.sqrt(337)]))


def test_twice_the_cosine_is_the_published_squared_distance_of_unit_vectors():
    features, maps = random(3, 5, 4, 6), random(3, 4, 6, seed=1).abs()
    a, m = (F.normalize(x.flatten(1), dim=1) for x in (attention_map(features), maps))
    published = 2 * (a - m).square().sum(1).mean()
    torch.testing.assert_close(AnomalyMapDistillLoss(loss_weight=2.0)([features], maps), published)


@pytest.mark.parametrize('size', [(3, 5), (7, 9), (16, 12), (30, 31)])
def test_by_an_independent_implementation(size):
    features = [random(3, 4, 8, 6), random(3, 7, 4, 3, seed=1), random(3, 2, 2, 2, seed=2)]
    maps = random(3, *size, seed=3).abs()
    maps[1] = 0
    found = AnomalyMapDistillLoss(loss_weight=0.5)(features, maps)
    assert found.item() == pytest.approx(independent(features, maps, 0.5), rel=1e-5)
    torch.testing.assert_close(AnomalyMapDistillLoss(loss_weight=0.5)(features, maps[:, None]), found)


def test_each_stage_gets_the_original_map_in_any_order():
    features = [random(2, 4, 3, 3), random(2, 4, 8, 8, seed=1), random(2, 4, 5, 5, seed=2)]
    maps = random(2, 32, 32, seed=3).abs()
    each = torch.cat([map_distances([stage], maps) for stage in features])
    torch.testing.assert_close(map_distances(features, maps), each, rtol=0, atol=0)
    torch.testing.assert_close(map_distances(features[::-1], maps), each.flip(0), rtol=0, atol=0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(-12, 12),
    stretch=st.floats(-12, 12),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_only_places_count_and_each_stage_is_between_0_and_2(seed, scale, stretch, size):
    features, maps = random(2, 3, 5, 4, seed=seed), random(2, *size, seed=seed + 1).relu()
    found = map_distances([features], maps)
    assert ((found >= 0) & (found <= 2)).all()
    again = map_distances([features * 10**scale], maps * 10**stretch)
    torch.testing.assert_close(again, found, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100))
def test_zero_where_attention_is_proportional_to_the_map_and_only_there(seed, factor):
    features = random(2, 3, 4, 4, seed=seed, dtype=torch.float64)
    maps = factor * attention_map(features)
    assert map_distances([features], maps).max() < 1e-12
    maps[:, 0, 0] += 0.5 * maps.amax((1, 2))
    assert map_distances([features], maps).min() > 1e-3


def test_the_gradient_by_finite_differences():
    features = [random(3, 2, 3, 4, dtype=torch.float64), random(3, 3, 2, 2, seed=1, dtype=torch.float64)]
    maps = random(3, 5, 6, seed=2, dtype=torch.float64).abs()
    maps[2] = 0
    features = [stage.requires_grad_() for stage in features]
    for antialias in (False, True):
        loss = AnomalyMapDistillLoss(1.5, antialias)
        assert torch.autograd.gradcheck(lambda *given, loss=loss: loss(given, maps), features)
    loss(features, maps).backward()
    assert not features[0].grad[2].any()
    assert features[0].grad[:2].any()


def test_images_with_an_empty_map_are_left_out_and_all_of_them_give_a_zero_with_a_graph():
    features = random(4, 3, 4, 4).requires_grad_()
    maps = random(4, 8, 8, seed=1).abs()
    maps[[0, 2]] = 0
    loss = AnomalyMapDistillLoss()
    torch.testing.assert_close(loss([features], maps), loss([features[[1, 3]]], maps[[1, 3]]))
    nothing = loss([features], torch.zeros(4, 8, 8))
    assert nothing.item() == 0
    nothing.backward()
    assert features.grad.eq(0).all()


def test_a_map_that_is_nowhere_above_what_counts_is_empty():
    features, maps = random(3, 3, 4, 4), random(3, 8, 8, seed=1).abs()
    maps /= maps.amax((1, 2), keepdim=True)
    maps[1] *= 0.5
    found = AnomalyMapDistillLoss(least=0.5)([features], maps[:, None])
    torch.testing.assert_close(found, AnomalyMapDistillLoss()([features[::2]], maps[::2]))
    assert AnomalyMapDistillLoss(least=1)([features], maps) == 0


def test_features_of_zeros_and_stages_where_nothing_is_left_of_a_map_do_no_harm():
    features = torch.zeros(1, 3, 4, 4, requires_grad=True)
    loss = AnomalyMapDistillLoss()([features], torch.ones(1, 4, 4))
    assert loss.item() == 2
    loss.backward()
    assert features.grad.eq(0).all()
    thin = torch.zeros(1, 32, 32)
    thin[0, 0] = 1  # a line between the points that are read of it
    features = random(1, 3, 2, 2).requires_grad_()
    missed, averaged = (AnomalyMapDistillLoss(antialias=antialias)([features], thin) for antialias in (False, True))
    assert missed.item() == 0 < averaged.item()
    missed.backward()
    assert features.grad.eq(0).all()


def test_averaging_changes_nothing_where_a_map_is_coarser_than_the_features():
    features, maps = [random(2, 3, 14, 14), random(2, 5, 7, 7, seed=1)], random(2, 5, 5, seed=2).abs()
    found = [AnomalyMapDistillLoss(antialias=antialias)(features, maps) for antialias in (False, True)]
    torch.testing.assert_close(*found)


def test_float32_under_autocast_and_without_overflow():
    features, maps = (1e3 * random(2, 3, 4, 4)).bfloat16(), random(2, 8, 8, seed=1).abs()
    with torch.autocast('cpu', torch.bfloat16):
        found = AnomalyMapDistillLoss()([features], maps)
    assert found.dtype == torch.float32
    assert torch.equal(found, AnomalyMapDistillLoss()([features.float()], maps))
    half = (6e4 * random(2, 3, 4, 4).clamp(-1, 1)).half().requires_grad_()
    found = AnomalyMapDistillLoss()([half], maps)
    torch.testing.assert_close(found, AnomalyMapDistillLoss()([half.float()], maps))
    assert map_distances([random(1, 2, 3, 3, dtype=torch.float64)], maps[:1]).dtype == torch.float64
    assert AnomalyMapDistillLoss()([1e30 * random(2, 3, 4, 4)], 1e30 * maps).isfinite()


@pytest.mark.parametrize(
    ('features', 'maps', 'sentence'),
    [
        ([torch.ones(2, 3)], torch.ones(2, 4, 4), 'needs feature maps'),
        ([(torch.ones(2, 3, 4, 4),)], torch.ones(2, 4, 4), 'not tuple'),
        ([torch.ones(2, 3, 4, 4)], torch.ones(3, 4, 4), 'not one for each of 2 images'),
        ([torch.ones(2, 3, 4, 4)], torch.ones(2, 3, 4, 4), 'not one for each of 2 images'),
        ([torch.ones(2, 3, 4, 4)], torch.ones(4, 4), 'not one for each of 2 images'),
    ],
)
def test_what_does_not_fit_is_said(features, maps, sentence):
    with pytest.raises(UsageError, match=sentence):
        AnomalyMapDistillLoss()(features, maps)


@pytest.mark.parametrize(
    'options', [dict(loss_weight=-1), dict(loss_weight='x'), dict(antialias='yes'), dict(least=-1)]
)
def test_wrong_options(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        AnomalyMapDistillLoss(**options)

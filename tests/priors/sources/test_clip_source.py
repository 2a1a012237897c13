"""ClipSource on a small network at random: its maps by their formula, and the same store every time.

What the network says of patches, wholes and texts is compared with float64 in ``clip/test_embeddings.py``.
"""

import math

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image

from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore
from kgl_mm.priors.generation import generate
from kgl_mm.priors.sources import ClipSource
from kgl_mm.priors.sources.base import good_indices, inputs_of
from kgl_mm.priors.sources.clip import patches_and_whole
from kgl_mm.registry import PRIOR_SOURCES
from kgl_mm.saliency.base import FLIPS, resize

open_clip = pytest.importorskip('open_clip', reason='open_clip is not installed')

SENTENCES = ['plate with crack defect, it appears as a thin dark line', 'dent on plate']


@pytest.fixture
def source(small_clip):
    """A function that builds a source with the small network; few prompts, few blocks, two good images."""

    def source(**kwargs):
        usual = dict(descriptions=SENTENCES, object='plate', layers=(1, 2, 4), vv_blocks=3, k=2, compare=3)
        settings = dict(type='kgl_mm.ClipSource', network=f'local-dir:{small_clip}', pretrained=None)
        return PRIOR_SOURCES.build(dict(settings, **(usual | kwargs)))

    return source


@pytest.fixture
def write(surfaces, tmp_path):
    """A function that writes the maps of a source into a folder of this name: the bytes of all maps by key."""

    def write(source, name='store', dataset=surfaces, **kwargs):
        generate(source, dataset, PriorStore(tmp_path / name), **dict(dict(batch_size=3), **kwargs))
        return {
            path.relative_to(tmp_path / name): path.read_bytes() for path in sorted((tmp_path / name).rglob('*.png'))
        }

    return write


def seen(source, dataset, index):
    return inputs_of(source.model, pseudo_collate([dataset[index]]))[0]


def score(source, embedding, temperature=0.07):
    good, defective = (math.exp(float(embedding @ direction) / temperature) for direction in source.directions.double())
    return defective / (good + defective)


def by_the_formula(source, images, remembered=(), temperature=0.07):
    """M of each cell, and S of the whole, patch by patch in float64."""
    patches, whole = (part.double() for part in source.embed(images))
    found = np.zeros(patches.shape[2])
    for layer, cells in enumerate(patches[:, 0]):
        known = torch.cat([source.embed(other)[0][layer, 0].double() for other in remembered]) if remembered else None
        for place, patch in enumerate(cells):
            found[place] += score(source, patch, temperature) / len(patches)
            if remembered:
                found[place] += 0.5 * min(1 - float(patch @ other) for other in known) / len(patches)
    return found.reshape(source.model.visual.grid_size), score(source, whole[0], temperature)


@pytest.mark.parametrize('image_size', [None, (16, 40)])
def test_zero_shot_is_the_score_alone(source, surfaces, image_size):
    bare = source(k=0, quantile=None, image_size=image_size)
    assert not bare.learns
    images = seen(bare, surfaces, 1)
    found = bare.explain(images, also=['h'])
    expected, whole = by_the_formula(bare, images)
    (smooth,) = resize(torch.from_numpy(expected)[None], (64, 64))
    np.testing.assert_allclose(found.maps[0].cpu(), smooth, atol=1e-4)
    assert found.evidence.item() == pytest.approx(whole, abs=1e-4)
    assert found.maps.std() > 0.01
    flipped = bare.maps(images.flip(3)).flip(2)
    assert torch.equal(found.views, torch.stack([found.maps, flipped]))
    assert torch.equal(bare(images), found.maps)


@pytest.mark.parametrize(('layers', 'vv_blocks'), [((1, 2, 4), 3), ((4, 3), 1)])
def test_patches_are_those_of_the_settings(source, layers, vv_blocks):
    few = source(layers=layers, vv_blocks=vv_blocks)
    images = torch.randn(2, 3, 32, 32, device=few.model.logit_scale.device)
    for found, expected in zip(
        few.embed(images), patches_and_whole(few.model.visual, images, layers, vv_blocks), strict=True
    ):
        assert torch.equal(found, expected)


def test_large_images_are_made_small_as_by_open_clip(source, surfaces):
    bare = source()
    image = Image.open(surfaces.get_data_info(1)['img_path']).convert('RGB')
    small = bare.model.data_preprocessor.cast_data(open_clip.image_transform(32, is_train=False)(image)[None])
    for found, expected in zip(bare.embed(seen(bare, surfaces, 1)), bare.embed(small), strict=True):
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0)  # theirs has 8 bits
    coarse = bare.embed(seen(bare, surfaces, 1)[..., ::2, ::2])[0]
    assert (coarse - bare.embed(small)[0]).abs().max() > 0.1


def test_score_and_memory_by_the_formula(source, surfaces):
    few = source(temperature=0.2)
    few.fit(surfaces)
    good = good_indices(surfaces)
    kept = [seen(few, surfaces, index) for index in (good[0], good[-1])]
    others = [good[0], good[len(good) // 2], good[-1]]  # compare=3, evenly
    peaks = []
    for index in others:
        remembered = [image for place, image in zip((good[0], good[-1]), kept, strict=True) if place != index]
        peaks.append(by_the_formula(few, seen(few, surfaces, index), remembered, 0.2)[0].max())
    assert few.scale == pytest.approx(np.quantile(peaks, 0.99), abs=1e-4)
    images = seen(few, surfaces, 1)
    expected, whole = by_the_formula(few, images, kept, 0.2)
    (smooth,) = resize(torch.from_numpy(expected)[None], (64, 64))
    found = few.explain(images)
    np.testing.assert_allclose(found.maps[0].cpu(), smooth / (smooth + few.scale), atol=1e-4)
    assert found.evidence.item() == pytest.approx((whole + expected.max()) / 2, abs=1e-4)
    assert (by_the_formula(few, images, temperature=0.2)[0] < expected - 1e-3).any()  # the memory says something


def test_maps_as_they_are_are_halved(source, surfaces):
    plain, scaled = source(quantile=None), source()
    for few in (plain, scaled):
        few.fit(surfaces)
    images = seen(plain, surfaces, 1)
    raw = 2 * plain.maps(images)
    torch.testing.assert_close(scaled.maps(images), raw / (raw + scaled.scale))


@pytest.mark.parametrize('k', [0, 1, 4])
def test_a_single_good_image_is_compared_with_itself(source, surfaces, k):
    good = good_indices(surfaces)
    alone = source(k=k)
    alone.fit(surfaces.get_subset(good[:1]))
    image = seen(alone, surfaces, good[0])
    views = [image.flip(dims) for dims in FLIPS.values()] if k else [image]
    peaks = [by_the_formula(alone, view, [image] if k else [])[0].max() for view in views]
    assert alone.scale == pytest.approx(max(peaks), abs=1e-4)


def test_one_of_several_good_images_is_not_compared_with_itself(source, surfaces):
    good = good_indices(surfaces)
    one = source(k=1, compare=100, quantile=1)
    one.fit(surfaces)
    kept = seen(one, surfaces, good[0])
    peaks = [by_the_formula(one, seen(one, surfaces, index), [kept])[0].max() for index in good[1:]]
    assert one.scale == pytest.approx(max(peaks), abs=1e-4)


def test_the_same_bytes_every_time_and_none_of_other_settings(source, write):
    first = write(source(), 'a')
    assert len(first) == 11 + 1  # and their contact sheet
    assert write(source(), 'b') == first
    assert write(source(), 'a') == first  # all of them are there
    for changed, name in [
        (dict(object='tube'), r'method\.object was plate, is tube'),
        (dict(descriptions=['a dent']), r'method\.descriptions was '),
        (dict(vv_blocks=2), r'method\.vv_blocks was 3, is 2'),
        (dict(k=3), r'method\.k was 2, is 3'),
        (dict(image_size=[64, 32]), r'method\.image_size was absent, is \[64, 32\]'),
    ]:
        with pytest.raises(UsageError, match=f'stale: .*{name}'):
            write(source(**changed), 'a')


def test_weights_are_all_that_was_learned(source, surfaces):
    good = good_indices(surfaces)

    def weights(images, **kwargs):
        fitted = source(**kwargs)
        fitted.fit(surfaces.get_subset(images))
        fitted.prepare(seen(fitted, surfaces, 0))
        return fitted.weights()

    for settings in (dict(k=0), dict(k=1, quantile=None)):  # the scale alone, the memory alone
        assert weights(good[:3], **settings) == weights(good[:3], **settings) != weights(good[3:], **settings)
    bare = dict(k=0, quantile=None)
    assert weights(good, **bare) == weights(good[:3], **bare) != weights(good, **bare, object='tube')  # the directions


def test_a_map_depends_on_its_image_alone(source, surfaces):
    few = source(image_size=(32, 64))
    few.fit(surfaces)
    images = torch.cat([seen(few, surfaces, index) for index in range(3)])
    together = few.maps(images)
    assert together.shape == (3, 64, 64)
    for one, image in zip(together, images, strict=True):
        torch.testing.assert_close(few.maps(image[None])[0], one, atol=1e-5, rtol=1e-4)


def test_descriptions_change_the_maps(source, surfaces):
    images = seen(source(), surfaces, 1)
    maps = [source(descriptions=given, k=0, quantile=None).maps(images) for given in (None, SENTENCES, 'metal')]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert (maps[one] - maps[other]).abs().max() > 1e-3


def test_no_random_numbers_are_drawn(source):
    before = torch.get_rng_state()
    source()
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_wrong_is_said(source, surfaces):
    for settings, sentence in [
        (dict(k=-1), 'k=-1: not a whole number of 0 or more'),
        (dict(quantile=0), 'quantile=0'),
        (dict(temperature=0), 'temperature=0'),
        (dict(layers=[5]), 'layers=5: not a whole number from 1 to 4'),
        (dict(layers=[]), r'layers=\[\]: name at least one'),
        (dict(vv_blocks=5), 'vv_blocks=5: not a whole number from 0 to 4'),
        (dict(image_size=0), 'image_size=0'),
        (dict(image_size=[32, 'a']), "image_size='a'"),
        (dict(image_size=[32, 32, 3]), r'image_size=\[32, 32, 3\]: neither a number nor'),
        (dict(image_size=7), r'cannot be loaded \(.*output \(H: 0, W: 0\)'),
        (dict(descriptions=['a dent', 3]), 'descriptions, entry 2'),
        (dict(object=' '), "object='': name in words"),
        (dict(object=7), 'object=7: name in words'),
    ]:
        with pytest.raises(UsageError, match=sentence):
            source(**settings)
    with pytest.raises(UsageError, match='call fit with some first'):
        source().maps(torch.zeros(1, 3, 32, 32))
    defective = [index for index in range(len(surfaces)) if index not in good_indices(surfaces)]
    with pytest.raises(UsageError, match='has no good image, and ClipSource compares'):
        source().check(surfaces.get_subset(defective))
    source(k=0, quantile=None).check(surfaces.get_subset(defective))  # which needs none
    assert not ClipSource.needs_model({})

"""Pixel metrics against scikit-learn, whose partial areas give AUPRO too, region by region."""

import pickle

import cv2
import numpy as np
import pytest
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, roc_auc_score

from kgl_mm.errors import UsageError
from kgl_mm.evaluation.pixels import STEPS, PixelTally, SharedTally, steps_of


def cases(seed, number=6, shape=(24, 31), steps=None):
    """Random maps, somewhat higher in the masks, of which the first is empty."""
    random = np.random.default_rng(seed)
    maps, masks = [], []
    for image in range(number):
        mask = np.zeros(shape, np.uint8)
        for _ in range(random.integers(1, 4) if image else 0):
            cv2.circle(mask, [int(random.integers(side)) for side in shape[::-1]], int(random.integers(1, 6)), 1, -1)
        map = np.clip(random.random(shape) * 0.7 + 0.3 * mask * random.random(), 0, 1)
        maps.append(np.rint(map * steps) / steps if steps else map.astype(np.float32))
        masks.append(mask)
    return maps, masks


def aupro(maps, masks, limit=0.3):
    """The mean over regions of the area under their own curve, each against all that lies outside."""
    outside = np.concatenate([map[mask == 0] for map, mask in zip(maps, masks, strict=True)])
    areas = []
    for map, mask in zip(maps, masks, strict=True):
        parts, count = label(mask, np.ones((3, 3)))
        for part in range(1, count + 1):
            region = map[parts == part]
            standard = roc_auc_score(np.r_[region * 0 + 1, outside * 0], np.r_[region, outside], max_fpr=limit)
            least = limit**2 / 2  # by chance; the library gives 1/2 for it, and 1 for all of the limit
            areas.append(least + (2 * standard - 1) * (limit - least))
    return np.mean(areas) / limit


def logits(maps, scale=1.0):
    """Maps as detectors give them: odd distances with a long tail, divided by themselves and a scale."""
    distances = [np.exp(8 * map - 8) for map in maps]
    return [(d / (d + scale)).astype(np.float32) for d in distances]


def counted(maps, masks):
    tally = PixelTally()
    for map, mask in zip(maps, masks, strict=True):
        tally.add(map, mask)
    return tally


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(('steps', 'within'), [(65535, 1e-9), (15, 1e-9), (None, 1e-4)])
def test_metrics_are_those_of_an_independent_library(seed, steps, within):
    maps, masks = cases(seed, steps=steps)
    same_as_library(maps, masks, within)


def same_as_library(maps, masks, within):
    found = counted(maps, masks).metrics()
    labels, scores = np.ravel(masks), np.ravel(maps)
    assert found['pixel_AUROC'] == pytest.approx(roc_auc_score(labels, scores), abs=within)
    assert found['pixel_AP'] == pytest.approx(average_precision_score(labels, scores), abs=within)
    assert found['AUPRO'] == pytest.approx(aupro(maps, masks), abs=within)


@pytest.mark.parametrize('scale', [1e-6, 1e-3, 1, 1e3, 1e6])
def test_ranks_are_kept_whatever_the_scale_of_maps(scale):
    """With a scale of 1000 all of them lie below 1/1000, with 1e-6 above 0.99."""
    maps, masks = cases(3)
    same_as_library(logits(maps, scale), masks, 1e-3)
    if scale >= 1:  # nearer to 1 float32 itself no longer tells them apart
        at_one = counted(logits(maps), masks).metrics()
        assert counted(logits(maps, scale), masks).metrics() == pytest.approx(at_one, abs=1e-3)


def test_steps_rise_from_0_to_the_last_and_tell_16_bits_apart():
    found = steps_of(np.linspace(0, 1, 65536, dtype=np.float32))
    assert (np.diff(found) > 0).all()
    assert (found[0], found[-1], steps_of(np.float32(0.5))) == (0, STEPS - 1, STEPS // 2)
    random = np.sort(np.random.default_rng(0).random(10000, np.float32)) ** np.float32(6)
    for values in (random, 1 - random[::-1]):
        assert (np.diff(steps_of(values)) >= 0).all()


def test_by_hand():
    """Two regions of 1 and 2 pixels, one good pixel between the scores of the larger one."""
    found = counted([np.array([[1.0, 0.0, 0.8, 0.2, 0.0, 0.4]])], [np.array([[1, 0, 1, 1, 0, 0]])]).metrics()
    # false positive rates 0, 1/3 and 1; overlaps 0.75 (of 1 and 1/2), then 0.75 at 1/3, then 1
    assert found['AUPRO'] == pytest.approx(0.75, abs=1e-9)
    assert found['pixel_AUROC'] == pytest.approx(8 / 9, abs=1e-9)
    perfect = counted([np.array([[1.0, 0.0]])], [np.array([[1, 0]])]).metrics()
    assert perfect == dict(pixel_AUROC=1, pixel_AP=1, AUPRO=1)


def test_memory_does_not_grow():
    tallies = PixelTally(), SharedTally()
    sizes = []
    for image in range(40):
        map, mask = np.random.default_rng(image).random((48, 64), np.float32), np.eye(48, 64)
        tallies[0].add(map, mask)
        tallies[1].add((image, ''), map, mask, is_good=False)
        sizes.append(len(pickle.dumps([vars(tally) for tally in tallies])))
    assert sizes[-1] - sizes[5] < map.nbytes / 4  # names of images are kept, no map


def test_parts_add_up():
    maps, masks = cases(0, number=9)
    whole, first, second = counted(maps, masks), counted(maps[:4], masks[:4]), counted(maps[4:], masks[4:])
    first.merge(second)
    assert first.metrics() == pytest.approx(whole.metrics())


def test_one_kind_of_pixel_has_no_metrics():
    assert counted([np.zeros((2, 2))], [np.zeros((2, 2))]).metrics() == {}
    assert counted([np.zeros((2, 2))], [np.ones((2, 2))]).metrics() == {}
    assert PixelTally().metrics() == {}


@pytest.mark.parametrize(
    ('map', 'sentence'),
    [
        (np.zeros((2, 3)), r'\(2, 3\) and its mask \(2, 2\)'),
        (np.full((2, 2), 1.5), 'must lie in'),
        (np.full((2, 2), np.nan), 'must lie in'),
    ],
)
def test_what_is_wrong_is_said(map, sentence):
    with pytest.raises(UsageError, match=sentence):
        PixelTally().add(map, np.zeros((2, 2)))


def shared(shares, maps, masks):
    """As in processes that see these images each, in this order."""
    parts = []
    tallies = [SharedTally() for _ in shares]
    for tally, images in zip(tallies, shares, strict=True):
        for i in images:
            tally.add((i, f'{i}.png'), maps[i], masks[i], is_good=masks[i] is None or not masks[i].any())

    def collect(part):
        parts.append(part)
        return []

    for tally in tallies:
        tally.total(collect)
    return SharedTally().total(lambda _: parts)


@pytest.mark.parametrize(
    'shares', [[[0, 1, 2, 3, 4]], [[0, 2, 4], [1, 3, 0]], [[0, 3], [1, 4], [2, 0]], [[0, 0, 1, 2, 3, 4, 4]]]
)
def test_each_image_counts_once(shares):
    maps, masks = cases(1, number=5)
    total, lacking = shared(shares, maps, masks)
    assert (total.images, lacking) == (5, 0)
    assert total.metrics() == pytest.approx(counted(maps, masks).metrics())


def test_masks_that_are_not_there():
    maps, masks = cases(2, number=4)
    tally = SharedTally()
    tally.add((0, ''), maps[0], None, is_good=True)
    tally.add((1, ''), maps[1], None, is_good=False)
    tally.add((2, ''), np.pad(maps[2], ((0, 3), (0, 1)), constant_values=1), masks[2], is_good=False)  # a padded image
    total, lacking = tally.total(lambda part: [part])
    assert (total.images, lacking) == (2, 1)
    assert total.metrics() == counted([maps[0], maps[2]], [masks[0], masks[2]]).metrics()
    assert tally.total(lambda part: [part])[0].images == 0  # begun anew


def test_pixels_that_touch_at_corners_are_one_region():
    random = np.random.default_rng(0)
    maps, masks = (
        [random.random((9, 9), np.float32) for _ in range(2)],
        [np.eye(9, dtype=np.uint8), np.zeros((9, 9), np.uint8)],
    )
    masks[1][2, 2:5] = masks[1][6, 6] = 1
    assert counted(maps, masks).regions == 3
    same_as_library(maps, masks, 1e-4)

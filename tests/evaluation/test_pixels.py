"""Pixel metrics against scikit-learn, and against a slow AUPRO that looks at every threshold and region in turn."""

import itertools

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from kgl_mm.errors import UsageError
from kgl_mm.evaluation.pixels import STEPS, PixelTally, SharedTally


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


def slow_aupro(maps, masks, limit=0.3):
    """By its definition: at each threshold the mean share found of a region, over the false positive rate."""
    regions = []
    for map, mask in zip(maps, masks, strict=True):
        count, parts = cv2.connectedComponents(mask, connectivity=8)
        regions += [map[parts == part] for part in range(1, count)]
    outside = np.concatenate([map[mask == 0] for map, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([map.ravel() for map in maps]))[::-1]:
        overlap = np.mean([np.mean(region >= threshold) for region in regions])
        points.append((np.mean(outside >= threshold), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def counted(maps, masks):
    tally = PixelTally()
    for map, mask in zip(maps, masks, strict=True):
        tally.add(map, mask)
    return tally


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(('steps', 'within'), [(STEPS - 1, 1e-9), (15, 1e-9), (None, 1e-3)])
def test_metrics_are_those_of_an_independent_library(seed, steps, within):
    if steps == 15:
        assert (STEPS - 1) % steps == 0  # so these are steps of the tally too
    maps, masks = cases(seed, steps=steps)
    found = counted(maps, masks).metrics()
    labels, scores = np.ravel(masks), np.ravel(maps)
    assert found['pixel_AUROC'] == pytest.approx(roc_auc_score(labels, scores), abs=within)
    assert found['pixel_AP'] == pytest.approx(average_precision_score(labels, scores), abs=within)
    assert found['AUPRO'] == pytest.approx(slow_aupro(maps, masks), abs=within)


def test_by_hand():
    """Two regions of 1 and 2 pixels, one good pixel between the scores of the larger one."""
    found = counted([np.array([[1.0, 0.0, 0.8, 0.2, 0.0, 0.4]])], [np.array([[1, 0, 1, 1, 0, 0]])]).metrics()
    # false positive rates 0, 1/3 and 1; overlaps 0.75 (of 1 and 1/2), then 0.75 at 1/3, then 1
    assert found['AUPRO'] == pytest.approx(0.75, abs=1e-9)
    assert found['pixel_AUROC'] == pytest.approx(8 / 9, abs=1e-9)
    perfect = counted([np.array([[1.0, 0.0]])], [np.array([[1, 0]])]).metrics()
    assert perfect == dict(pixel_AUROC=1, pixel_AP=1, AUPRO=1)


def test_memory_does_not_grow_and_parts_add_up():
    maps, masks = cases(0, number=9)
    whole, first, second = counted(maps, masks), counted(maps[:4], masks[:4]), counted(maps[4:], masks[4:])
    first.merge(second)
    assert first.metrics() == pytest.approx(whole.metrics())
    assert sum(value.nbytes for value in vars(whole).values() if isinstance(value, np.ndarray)) == 3 * 8 * STEPS


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

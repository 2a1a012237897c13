"""How good priors are, as pure functions on arrays: against true masks, against themselves, and as a whole set.

A prior has shape (H, W), is finite and not negative; of a mask or a pseudo-label, everything but 0 is inside. What has
nothing to be divided by is 0, so no function returns NaN. The records of a set are one dict a map::

    {'key': str, 'peak': float, 'constant': bool, 'label': 0 or 1, 'quality': {...}, 'trust': float}

``label`` is 1 for a defective image. Of a map that nobody measured, all but ``key`` and ``peak`` may be missing.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from kgl_mm.errors import UsageError

EMPTY = 1 / 255  # a lower peak cannot be told from 0 in a map of 8 bits
MISSED = 0.1  # less of its evidence on the defect than even a coarse map keeps there, where its peak lies elsewhere
MANY = 0.2  # a few hard images are in every set; a source that fails does so on many


def pointing_game(prior, mask, tolerance: float = 0) -> float:
    """Share, in [0, 1], of the pixels with the highest value that lie in the mask or within ``tolerance`` pixels of it.

    That is 0 or 1 where the maximum is one pixel, and as good as chance where the map is constant.

    >>> pointing_game([[0.0, 0.9, 0.9], [0.1, 0.0, 0.2]], [[0, 1, 0], [0, 1, 0]])
    0.5
    """
    prior, inside = _checked(prior, mask)
    if not inside.any():
        return 0.0
    distance = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(np.mean(distance[prior == prior.max()] <= tolerance))


def energy_inside(prior, mask) -> float:
    """Share of the map's sum inside the mask, in [0, 1].

    >>> energy_inside([[0.5, 0.25], [0.25, 0.0]], [[1, 1], [0, 0]])
    0.75
    """
    prior, inside = _checked(prior, mask)
    return _share(prior[inside].sum(), prior.sum())


def area_holding(prior, share: float = 0.9) -> float:
    """The smallest share of the pixels that holds this share of the map's sum: how concentrated a map is.

    >>> area_holding([[0.75, 0.25], [0.0, 0.0]], share=0.7), area_holding([[1.0, 1.0], [1.0, 1.0]], share=0.7)
    (0.25, 0.75)
    """
    prior, _ = _checked(prior, prior)
    values = np.cumsum(np.sort(prior, axis=None)[::-1])
    # a last bit of a sum must not cost a pixel
    return float((np.searchsorted(values, values[-1] * share * (1 - 1e-12)) + 1) / prior.size) if values[-1] else 0.0


def iou(a, b) -> float:
    """Area common to two masks over the area of both together."""
    a, b = _inside(a, b)
    return _share(np.sum(a & b), np.sum(a | b))


def recall(label, mask) -> float:
    """Share of the mask that the pseudo-label covers."""
    label, mask = _inside(label, mask)
    return _share(np.sum(label & mask), np.sum(mask))


def precision(label, mask) -> float:
    """Share of the pseudo-label that lies in the mask."""
    return recall(mask, label)


def quality(prior, mask, label) -> dict[str, float]:
    """All of these for one image; ``label`` is the pseudo-label (H, W) that was made of the prior.

    >>> quality([[0.8, 0.2]], [[1, 0]], [[1, 1]])
    {'pointing': 1.0, 'energy': 0.8, 'iou': 0.5, 'recall': 1.0, 'precision': 0.5}
    """
    return {
        'pointing': pointing_game(prior, mask),
        'energy': energy_inside(prior, mask),
        'iou': iou(label, mask),
        'recall': recall(label, mask),
        'precision': precision(label, mask),
    }


def trust(maps) -> np.ndarray:
    """How alike an image's maps are however it is flipped, shape (B,), in [-1, 1], blind to the scale of each map.

    Args:
        maps: Shape (F, B, H, W), the same images seen in F flips and flipped back.

    Returns:
        The mean correlation (Pearson) of the first map with each other one; 0 with a constant map.

    >>> trust([[[[1, 2, 3]]], [[[2, 4, 6]]], [[[5, 5, 5]]]]).round(3).tolist()
    [0.5]
    """
    maps = np.asarray(maps)
    if maps.ndim != 4 or len(maps) < 2 or not np.isfinite(maps).all():
        raise UsageError(f'maps {maps.shape} must be finite and of shape (F, B, H, W), seen in at least 2 flips.')
    first, *others = map(_standardised, maps)
    return np.mean([(first * other).sum(1) for other in others], axis=0).clip(-1, 1)


def warnings_of(records: Sequence[dict]) -> list[str]:
    """One sentence for each fault that many maps of defective images share; maps of good images may well be faint.

    An image without a label counts as defective.
    """
    defective = [record for record in records if record.get('label', 1) and not record.get('edited')]
    measured = [record for record in defective if 'quality' in record]
    warnings = []
    for fault, among, remedy in [
        ('is empty', defective, 'check that the source finds defects at all'),
        ('is constant', defective, 'check that the source looks at places, not at whole images'),
        ('lies outside the mask', measured, 'look at the maps for a shift, a flip or a bright edge'),
    ]:
        found = [record['key'] for record in among if _fault(record) == fault]
        if found and len(found) >= MANY * len(among):
            whose = f'{len(found)} of {len(among)} defective images, such as {found[0]}'
            warnings.append(f'the map of {whose}, {fault}; {remedy}')
    return warnings


def summary(records: Sequence[dict]) -> str:
    """One line on a set: the number of maps, how many are empty, and the means of what was measured.

    >>> summary([{'key': 'a', 'peak': 0.5, 'constant': False, 'trust': 0.9}, {'key': 'b', 'peak': 0, 'constant': True}])
    '2 maps, 50% empty; trust 0.90'
    """
    parts = [f'{len(records)} maps, {_share(sum(r["peak"] < EMPTY for r in records), len(records)):.0%} empty']
    measured = [record['quality'] for record in records if 'quality' in record]
    if measured:
        names = ('pointing', 'energy', 'iou', 'recall')
        means = ', '.join(f'{name} {np.mean([scores[name] for scores in measured]):.2f}' for name in names)
        parts.append(f'{means} on {len(measured)} with a mask')
    if trusts := [record['trust'] for record in records if 'trust' in record]:
        parts.append(f'trust {np.mean(trusts):.2f}')
    return '; '.join(parts)


def _fault(record: dict) -> str | None:
    if record['peak'] < EMPTY:
        return 'is empty'
    if record.get('constant'):
        return 'is constant'
    scores = record.get('quality')
    return 'lies outside the mask' if scores and scores['energy'] < MISSED and not scores['pointing'] else None


def _inside(*masks):
    """Masks as booleans, alike in shape."""
    masks = [np.asarray(mask) != 0 for mask in masks]
    if len({mask.shape for mask in masks}) > 1:
        raise UsageError(f'{" and ".join(str(mask.shape) for mask in masks)} differ; bring the maps to one size first.')
    return masks


def _checked(prior, mask):
    """A prior in float64 and its mask as booleans."""
    prior = np.asarray(prior, np.float64)
    _, mask = _inside(prior, mask)
    if prior.ndim != 2 or not prior.size or not (np.isfinite(prior) & (prior >= 0)).all():
        raise UsageError(f'a prior {prior.shape} must be of shape (H, W), finite and not negative.')
    return prior, mask


def _share(part, whole) -> float:
    return float(part / whole) if whole else 0.0


def _standardised(maps):
    """Maps (B, H, W) as (B, H * W) with mean 0 and length 1; a constant one is 0."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    varies = np.ptp(maps, axis=(1, 2))[:, None] > 0  # the length of a constant map may be a rounding error
    return np.divide(flat, length, out=np.zeros_like(flat), where=varies & (length > 0))

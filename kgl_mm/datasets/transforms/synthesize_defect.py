from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform

from kgl_mm.descriptions import Description, as_descriptions, render
from kgl_mm.errors import UsageError, check_number
from kgl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SynthesizeDefect(BaseTransform):
    """Draws described defects onto good images, and says exactly where.

    It belongs behind what loads and resizes the image, its mask and its prior, and behind ``BinarizePrior``, and before
    what crops, flips or turns the image, which then moves the maps too. It draws from numpy's global state, as mmcv's
    transforms do. A defective image stays as it is.

    **Required keys:** ``img`` (an array), ``gt_label``. **Modified keys:** of an image that is drawn on, ``img``;
    ``gt_label``; ``mask_path``, which is then None; ``prior``, where there is one, is nowhere below the map.
    **Added keys** of all good images, drawn on or not: ``prior_mask``, the map (float32 H x W in [0, 1], which may be
    empty); ``gt_seg_map``, where it is above one half; ``prior_trust``, 1.

    Args:
        descriptions: a file of them, the name of shipped ones, or a list of sentences and of records as dicts.
        prob: of drawing on a good image; each description is as probable.
        label: that an image with a drawn defect gets. With None labels stay and every image counts as good.
        geometric: names of transforms of your own that move the image, as for ``LoadPrior``.
        photometric: names of transforms of your own that leave places alone.
    """

    draws_prior = True

    def __init__(
        self,
        descriptions: str | Path | Sequence[str | dict | Description] = 'metal',
        prob: float = 0.5,
        label: int | None = 1,
        geometric: tuple[str, ...] = (),
        photometric: tuple[str, ...] = (),
    ) -> None:
        check_number(0, 1, prob=prob)
        check_number(0, whole=True, none='as it is', label=label)
        if isinstance(geometric, str) or isinstance(photometric, str):
            raise UsageError(f'geometric={geometric!r}, photometric={photometric!r}: both are lists of names')
        self.descriptions = as_descriptions(descriptions)
        self.prob = prob
        self.label = label
        self.geometric = geometric
        self.photometric = photometric

    def transform(self, results: dict) -> dict:
        if 'img' not in results:
            raise UsageError('SynthesizeDefect: there is no image yet; put it behind LoadImageFromFile')
        if self.label is not None and 'gt_label' not in results:
            raise UsageError('SynthesizeDefect: the data set gives no gt_label; label=None draws on all images')
        if self.label is not None and np.any(results['gt_label']):
            return results
        image, map = results['img'], np.zeros(np.shape(results['img'])[:2], np.float32)
        if np.random.random_sample() < self.prob:
            record = self.descriptions[np.random.randint(len(self.descriptions))]
            results['img'], map = render(image, record, int(np.random.randint(2**31)))
            if self.label is not None:
                results['gt_label'] = self.label
            if 'mask_path' in results:
                results['mask_path'] = None
            if 'prior' in results:
                results['prior'] = np.maximum(results['prior'], map)
        results['prior_mask'] = map
        results['gt_seg_map'] = (map > 0.5).astype(np.uint8)
        results['prior_trust'] = 1.0
        results['prior_is_marked'] = bool(map.any())
        return results

    def __repr__(self) -> str:
        kinds = [record.kind for record in self.descriptions]
        return f'{type(self).__name__}(descriptions={kinds}, prob={self.prob}, label={self.label})'

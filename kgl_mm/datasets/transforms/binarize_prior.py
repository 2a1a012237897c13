import numpy as np
from mmcv.transforms import BaseTransform

from kgl_mm.datasets.splits import nested_order
from kgl_mm.errors import UsageError, check_choice, check_number
from kgl_mm.priors import binarize, painted_mask
from kgl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class BinarizePrior(BaseTransform):
    """Makes the target of the segmentation: empty for a good image, of its prior or its mask for a defective one.

    A defective image beyond ``num_priors`` and ``num_masks`` gets none, and so does one whose prior marks nothing: it
    is left out of the segmentation, never taken for a good one. The choice is nested, so the first five are among the
    first ten. A map that a person painted where a source had written one is a mask: it always teaches, beside those
    that ``num_priors`` chooses, and ``soft``, ``dilation`` and ``max_area`` leave it alone.

    **Required keys:** ``prior``, ``gt_label``, ``img_path``; ``gt_seg_map`` for a real mask. **Added keys:**
    ``prior_mask`` (float32 H x W in [0, 1]); ``prior_trust``, the weight of the target: 1 for a real mask and for a map
    that a person edited, and where those teach also for good images, else the trust in the source.

    Args:
        num_priors: how many defective images are taught by their prior; None for all.
        num_masks: how many are taught by their real mask instead; None for all that have one.
        seed: of the choice; by default that of the data set.
        soft: whether what is marked keeps the strength of its prior, relative to the strongest place.
        dilation: radius in pixels by which marked regions grow.
        max_area: share of the image that may be marked, the strongest places first.
    """

    needs_prior = True

    def __init__(
        self,
        num_priors: int | None = None,
        num_masks: int | None = 0,
        seed: int | None = None,
        soft: bool = False,
        dilation: int = 0,
        max_area: float | None = None,
    ) -> None:
        check_number(0, whole=True, none='all', num_priors=num_priors, num_masks=num_masks)
        check_number(0, whole=True, none='that of the data set', seed=seed)
        check_choice((True, False), soft=soft)
        binarize(np.zeros((1, 1)), dilation, max_area)  # its checks, before the training
        self.num_priors = num_priors
        self.num_masks = num_masks
        self.seed = seed
        self.soft = soft
        self.dilation = dilation
        self.max_area = max_area
        self._by_mask: set[str] | None = None
        self._by_prior: set[str] | None = None
        self._has_good = True
        self._is_taught_by_people = False
        self.trust = 1.0  # in priors that nobody edited, set by GuidanceHook

    def bind(self, data_infos: list[dict], seed: int = 0, has_good: bool = True, painted: bool = False) -> None:
        """Choose among all images of the data set.

        Args:
            data_infos: of its images.
            seed: where there is none of its own.
            has_good: whether class 0 is good.
            painted: whether a person made or edited a map of them.
        """
        self._has_good = has_good
        defective = [info for info in data_infos if info['gt_label'] or not has_good]
        order = nested_order(
            [info['img_path'] for info in defective],
            [info['gt_label'] for info in defective],
            seed if self.seed is None else self.seed,
        )
        paths = [defective[index]['img_path'] for index in order]
        masked = [defective[index]['img_path'] for index in order if defective[index].get('mask_path')]
        for name, number, there, what in (
            ('num_priors', self.num_priors, paths, 'defective images'),
            ('num_masks', self.num_masks, masked, 'defective images with a mask'),
        ):
            if number is not None and number > len(there):
                raise UsageError(f'{name}={number}: the training part has {len(there)} {what}')
        self._by_mask = set(masked[: self.num_masks])
        self._by_prior = set(paths[: self.num_priors])
        self._is_taught_by_people = bool(self._by_mask) or painted

    def transform(self, results: dict) -> dict:
        if 'prior' not in results:
            raise UsageError('BinarizePrior: there is no prior yet; put kgl_mm.LoadPrior before it')
        prior = results['prior']
        if self._has_good and not results['gt_label']:
            results['prior_mask'] = np.zeros_like(prior)
            results['prior_trust'] = 1.0 if self._is_taught_by_people else self.trust
            return results
        if self._by_mask is None and (self.num_priors is not None or self.num_masks != 0):
            raise UsageError(
                'BinarizePrior: num_priors and num_masks choose among all images: use a data set of kgl_mm, or add '
                "custom_hooks = [dict(type='kgl_mm.GuidanceHook')]"
            )
        path = results['img_path']
        if path in (self._by_mask or ()):
            if 'gt_seg_map' not in results:
                raise UsageError(f'num_masks={self.num_masks}: put kgl_mm.LoadMask before BinarizePrior')
            results['prior_mask'] = results['gt_seg_map'].astype(np.float32)
            results['prior_trust'] = 1.0
        elif results.get('prior_is_mask'):
            mask = painted_mask(prior).astype(np.float32)
            if mask.any():
                results['prior_mask'] = mask
                results['prior_trust'] = 1.0
        elif self._by_prior is None or path in self._by_prior:
            mask = binarize(prior, self.dilation, self.max_area).astype(np.float32)
            if mask.any():
                results['prior_mask'] = mask * (prior / prior.max() if self.soft else 1)
                results['prior_trust'] = 1.0 if results.get('prior_is_edited') else self.trust
        results['prior_is_marked'] = 'prior_mask' in results
        return results

    def __repr__(self) -> str:
        options = ('num_priors', 'num_masks', 'seed', 'soft', 'dilation', 'max_area')
        return f'{type(self).__name__}({", ".join(f"{name}={getattr(self, name)!r}" for name in options)})'

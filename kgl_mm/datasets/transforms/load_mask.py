import numpy as np
from mmcv.transforms import BaseTransform

from kgl_mm.datasets.masks import read_mask
from kgl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadMask(BaseTransform):
    """Loads the mask beside the image as ``gt_seg_map``, which mmcv's geometric transforms move along with it.

    **Required keys:** ``img``, ``gt_label``, ``mask_path``. **Added keys:** ``gt_seg_map`` (H x W of 0 and 1), all 0
    for a good image, absent for a defective one without a mask.
    """

    def transform(self, results: dict) -> dict:
        if results['mask_path'] is not None:
            results['gt_seg_map'] = read_mask(results['mask_path'])
        elif results['gt_label'] == 0:
            results['gt_seg_map'] = np.zeros(results['img'].shape[:2], np.uint8)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'

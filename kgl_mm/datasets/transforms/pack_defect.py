import numpy as np
import torch
from mmpretrain.datasets.transforms import PackInputs

from kgl_mm.errors import UsageError
from kgl_mm.registry import TRANSFORMS

FIELDS = {'gt_seg_map': 'mask', 'prior': 'prior', 'prior_mask': 'prior_mask'}


@TRANSFORMS.register_module()
class PackDefect(PackInputs):
    """mmpretrain's ``PackInputs``, with what stands beside the image as 1 x H x W, and ``unit`` as meta information.

    ``mask`` is made from ``gt_seg_map``; ``prior``, ``prior_mask`` and the number ``prior_trust`` keep their names.
    What is absent stays absent, and a target of which a crop left nothing is taken away: it says nothing of this part.
    """

    def __init__(self, meta_keys=(*PackInputs.DEFAULT_META_KEYS, 'unit', 'mask_path'), **kwargs) -> None:
        super().__init__(meta_keys=meta_keys, **kwargs)

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        if results.get('prior_mask') is not None and results.get('prior_is_marked') and not results['prior_mask'].any():
            results = {key: value for key, value in results.items() if key != 'prior_mask'}
        for key, name in FIELDS.items():
            if key not in results:
                continue
            if results[key].shape != results['img'].shape[:2]:
                raise UsageError(
                    f'{results["img_path"]}: the pipeline gives image and {name} different sizes; use transforms that '
                    'move both before PackDefect'
                )
            packed['data_samples'].set_field(torch.from_numpy(np.array(results[key]))[None], name)
        if 'prior_mask' in results and 'prior_trust' in results:
            packed['data_samples'].set_field(float(results['prior_trust']), 'prior_trust')
        return packed

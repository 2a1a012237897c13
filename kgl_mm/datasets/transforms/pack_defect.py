import numpy as np
import torch
from mmpretrain.datasets.transforms import PackInputs

from kgl_mm.errors import UsageError
from kgl_mm.registry import TRANSFORMS

FIELDS = {'gt_seg_map': 'mask', 'prior': 'prior', 'prior_mask': 'prior_mask'}


@TRANSFORMS.register_module()
class PackDefect(PackInputs):
    """mmpretrain's ``PackInputs``, with what stands beside the image as 1 x H x W, and ``unit`` as meta information.

    ``mask`` is made from ``gt_seg_map``; ``prior`` and ``prior_mask`` keep their names. What is absent stays absent.
    """

    def __init__(self, meta_keys=(*PackInputs.DEFAULT_META_KEYS, 'unit', 'mask_path'), **kwargs) -> None:
        super().__init__(meta_keys=meta_keys, **kwargs)

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        for key, name in FIELDS.items():
            if key not in results:
                continue
            if results[key].shape != results['img'].shape[:2]:
                raise UsageError(
                    f'{results["img_path"]}: the pipeline gives image and {name} different sizes; use transforms that '
                    'move both before PackDefect'
                )
            packed['data_samples'].set_field(torch.from_numpy(np.array(results[key]))[None], name)
        return packed

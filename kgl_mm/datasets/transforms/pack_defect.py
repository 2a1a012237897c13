import torch
from mmpretrain.datasets.transforms import PackInputs

from kgl_mm.errors import UsageError
from kgl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackDefect(PackInputs):
    """mmpretrain's ``PackInputs``, with ``mask`` (1 x H x W) from ``gt_seg_map``, and ``unit`` as meta information."""

    def __init__(self, meta_keys=(*PackInputs.DEFAULT_META_KEYS, 'unit', 'mask_path'), **kwargs) -> None:
        super().__init__(meta_keys=meta_keys, **kwargs)

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        if 'gt_seg_map' in results:
            if results['gt_seg_map'].shape != results['img'].shape[:2]:
                raise UsageError(
                    f"{results['img_path']}: the pipeline gives image and mask different sizes; use mmcv's Resize, "
                    'CenterCrop and the like, which move both, before PackDefect'
                )
            packed['data_samples'].mask = torch.from_numpy(results['gt_seg_map'].copy())[None]
        return packed

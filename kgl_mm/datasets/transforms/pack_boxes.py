import numpy as np
import torch
from mmengine.structures import InstanceData
from mmpretrain.datasets.transforms import PackInputs

from kgl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackBoxes(PackInputs):
    """mmpretrain's ``PackInputs``, with the boxes as ``gt_instances`` (``bboxes`` N x 4 and ``labels``).

    A box of which the pipeline left nothing is taken away.
    """

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        boxes = np.asarray(results['gt_bboxes'], np.float32).reshape(-1, 4)
        left = (boxes[:, 2:] > boxes[:, :2]).all(1)
        packed['data_samples'].gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes[left]), labels=torch.from_numpy(results['gt_bboxes_labels'][left])
        )
        return packed

import inspect

import torch
from mmpretrain.models import BaseSelfSupervisor, SimMIMHead
from torch import nn

from kgl_mm.errors import UsageError, check_number
from kgl_mm.registry import MODELS


@MODELS.register_module()
class AnomalyGuidedPretrainer(BaseSelfSupervisor):
    """Pretrains a backbone to look where maps of anomalies are, beside a task of its own or without one.

    The loss is that of :class:`~kgl_mm.models.AnomalyMapDistillLoss` on all outputs of the backbone (``out_indices``),
    plus ``task_weight`` times that of the head, which makes it one of three:

    - no head: distillation alone;
    - a head for classification, behind a neck where it needs one. The label is the *category* of an image: its
      material, or where it is from (see ``kgl_mm.CategoryFolder``), never whether it is defective;
    - mmpretrain's ``SimMIMHead`` behind ``SimMIMLinearDecoder``, with the backbone ``SimMIMSwinTransformer``. It
      reconstructs what ``SimMIMMaskGenerator`` has masked; a second pass, of the whole image, gives the features that
      are compared with the map.

    What comes out is the backbone, which ``kgl_mm.BackboneHook`` writes as a file of weights. Which of its stages learn
    is up to its own ``frozen_stages``.

    Args:
        backbone: any of mmpretrain that puts out maps.
        neck: between backbone and head.
        head: see above.
        distill: settings of the loss of the maps, or another one by its ``type``.
        task_weight: see above.
        data_preprocessor: by default mmpretrain's ``ClsDataPreprocessor``.
        init_cfg: as in mmengine.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        distill: dict | None = None,
        task_weight: float = 1.0,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build(dict(type='ClsDataPreprocessor') | (data_preprocessor or {}))
        super().__init__(backbone, neck, head, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        check_number(0, task_weight=task_weight)
        self.distill = MODELS.build(dict(type='kgl_mm.AnomalyMapDistillLoss') | (distill or {}))
        self.task_weight = task_weight
        self.can_mask = 'mask' in inspect.signature(self.backbone.forward).parameters
        self.reconstructs = isinstance(self.head, SimMIMHead)
        if self.reconstructs and not (self.can_mask and self.with_neck):
            raise UsageError(
                'SimMIMHead needs a backbone that takes masks, SimMIMSwinTransformer, and the neck SimMIMLinearDecoder'
            )
        if self.with_head and not hasattr(self.head, 'loss'):
            raise UsageError(f'head {type(self.head).__name__}: has no loss; use a head of mmpretrain, or None')
        if self.with_neck and not self.with_head:
            raise UsageError('a neck without a head: give a head, or set neck=None too')

    def extract_feat(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All outputs of the backbone, of whole images."""
        return self.backbone(inputs, None) if self.can_mask else self.backbone(inputs)

    def loss(self, inputs: torch.Tensor, data_samples: list) -> dict[str, torch.Tensor]:
        """``loss_distill`` and, with a head, ``loss_task``, as they are added; of other values what the head says."""
        maps = stacked(inputs, data_samples, 'prior', 'kgl_mm.LoadPrior')
        feats = self.extract_feat(inputs)
        losses = dict(loss_distill=self.distill(feats, maps))
        if not self.with_head:
            return losses
        if self.reconstructs:
            mask = torch.stack([_field(sample, 'mask', 'SimMIMMaskGenerator') for sample in data_samples])
            found = self.head.loss(self.neck(self.backbone(inputs, mask)[-1]), inputs, mask.to(inputs.device))
        else:
            for sample in data_samples:
                _field(sample, 'gt_label', 'kgl_mm.CategoryFolder', 'take your images by')
            found = self.head.loss(self.neck(feats) if self.with_neck else feats, data_samples)
        for name, value in (found if isinstance(found, dict) else dict(loss=found)).items():
            losses[name.replace('loss', 'loss_task', 1)] = self.task_weight * value if 'loss' in name else value
        return losses


def stacked(inputs: torch.Tensor, data_samples: list | None, name: str, loader: str) -> torch.Tensor:
    """A field of all data samples that is as large as the images, (B, 1, H, W), on their device."""
    size = 1, *inputs.shape[2:]
    found = [_field(sample, name, loader) for sample in data_samples or [None]]
    for sample, values in zip(data_samples, found, strict=True):
        if values.shape != size:
            raise UsageError(
                f'{name} of {_name(sample)} has shape {tuple(values.shape)}, and its image {size}: use transforms that '
                'move both, and no padding of batches'
            )
    return torch.stack(found).to(inputs.device, torch.float32, non_blocking=True)


def _field(sample, name: str, by: str, how: str = 'put this into the pipeline:') -> torch.Tensor:
    if sample is None or name not in sample:
        raise UsageError(f'{_name(sample)} has no {name}, which the pretraining needs: {how} {by}')
    return sample.get(name)


def _name(sample) -> str:
    return sample.get('img_path', 'an image') if sample is not None else 'an image'

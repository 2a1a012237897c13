import torch
from mmpretrain.models import ImageClassifier

from kgl_mm.errors import UsageError
from kgl_mm.models.losses.saliency_consistency_loss import refuse_compile
from kgl_mm.registry import MODELS


@MODELS.register_module()
class ConsistentClassifier(ImageClassifier):
    """An ``ImageClassifier`` whose own map of a defect is taught by priors, whatever its backbone, neck and head.

    It differs in training only, by ``loss_consistency``: inference, export and checkpoints are those of an
    ``ImageClassifier`` of the same parts. The map is that of the last output of the backbone, or of the neck where that
    puts out maps too. The head's loss runs once, as ever, and may have guidance of its own.

    An image without a target is left out, and so is a defective one whose target is empty, such as a crop beside the
    defect.

    Args:
        *args: as for ``ImageClassifier``.
        consistency: settings of :class:`SaliencyConsistencyLoss`, or of another loss by its ``type``.
        **kwargs: as for ``ImageClassifier``.
    """

    def __init__(self, *args, consistency: dict | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if getattr(self.data_preprocessor, 'batch_augments', None) is not None:
            raise UsageError('train_cfg.augments mix images, and priors cannot follow: leave them out')
        self.consistency = MODELS.build(dict(type='kgl_mm.SaliencyConsistencyLoss') | (consistency or {}))

    def loss(self, inputs: torch.Tensor, data_samples: list) -> dict[str, torch.Tensor]:
        refuse_compile(torch.compiler.is_compiling())
        targets, valid = self._targets(inputs, data_samples)
        maps = feats = self.extract_feat(inputs, stage='backbone')
        if self.with_neck:
            feats = self.neck(maps)
            if getattr(feats[-1], 'ndim', None) == 4:
                maps = feats
        logits = []
        with self.head.register_forward_hook(lambda *call: logits.append(call[-1])):
            losses = self.head.loss(feats, data_samples)
        if not logits:
            raise UsageError(f'{type(self.head).__name__}.loss does not call the head, so its logits cannot be seen')
        return losses | dict(loss_consistency=self.consistency(maps[-1], logits[-1], targets, valid))

    def _targets(self, inputs: torch.Tensor, data_samples: list | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets (B, 1, H, W), and how far each is trusted, 0 where there is none (B,)."""
        targets = inputs.new_zeros(len(inputs), 1, *inputs.shape[2:], dtype=torch.float32)
        valid = []
        for target, sample in zip(targets, data_samples or [None] * len(inputs), strict=True):
            name = getattr(sample, 'img_path', 'an image')
            if sample is None or 'gt_label' not in sample:
                raise UsageError(f'{name} has no gt_label, which the training needs: pack its label')
            valid.append(float(sample.get('prior_trust', 1.0)) if 'prior_mask' in sample else 0.0)
            if 'prior_mask' in sample:
                given = sample.prior_mask
                if given.shape != target.shape:
                    raise UsageError(
                        f'prior_mask of {name} has shape {tuple(given.shape)}, and its image '
                        f'{tuple(target.shape[1:])}: use transforms that move both, and no padding of batches'
                    )
                target.copy_(given)
        good = torch.stack([sample.gt_label.eq(0).all() for sample in data_samples]).to(inputs.device)
        return targets, torch.tensor(valid, device=inputs.device) * (good | targets.flatten(1).any(1))

import torch
from mmengine.dist import all_reduce
from mmpretrain.registry import MODELS as MM_MODELS
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import check_choice, check_number
from kgl_mm.registry import MODELS

DECAYS = ('linear', 'constant')


@MODELS.register_module()
class KnowledgeGuidedLoss(nn.Module):
    r"""Classification plus guidance that fades: :math:`L = L_{cls} + \lambda\, w_{seg}\, L_{seg}`.

    :math:`L_{seg}` is the binary cross-entropy of each cell, mean over the cells of an image and then over the images
    that have a target, each weighted by the trust in it; one without is left out. The mean is over all processes.

    Args:
        classification: any loss that takes ``(logits, labels, avg_factor=...)``.
        seg_weight: :math:`w_{seg}`; 0 is the head without guidance.
        pos_weight: the weight of a marked cell against one that is not.
        decay: of :math:`\lambda`, read by ``GuidanceHook``: ``'linear'`` or ``'constant'``.

    ``guidance`` is :math:`\lambda`. ``GuidanceHook`` sets it; without the hook it is 1.
    """

    def __init__(
        self,
        classification: dict = dict(type='CrossEntropyLoss'),  # noqa: B006
        seg_weight: float = 5.0,
        pos_weight: float = 3.0,
        decay: str = 'linear',
    ) -> None:
        super().__init__()
        check_choice(DECAYS, decay=decay)
        check_number(0, seg_weight=seg_weight)
        check_number(0, above=True, pos_weight=pos_weight)
        self.classification = MM_MODELS.build(classification)
        self.seg_weight = seg_weight
        self.register_buffer('pos_weight', torch.tensor(float(pos_weight)), persistent=False)
        self.decay = decay
        self.guidance = 1.0  # plain, so that a checkpoint does not carry it: it is a function of the epoch

    def forward(
        self,
        cls_score: torch.Tensor,
        labels: torch.Tensor,
        seg_logits: torch.Tensor,
        seg_target: torch.Tensor,
        weights: torch.Tensor,
        **kwargs,
    ) -> dict[str, torch.Tensor]:
        """``loss_cls`` and ``loss_seg``.

        Args:
            cls_score: logits (B, K).
            labels: (B,).
            seg_logits: (B, 1, h, w).
            seg_target: (B, 1, h, w), in [0, 1].
            weights: (B,), how far the target of an image is trusted; 0 where it has none.
            **kwargs: to the classification loss.
        """
        each = F.binary_cross_entropy_with_logits(
            seg_logits.float(),
            seg_target.float(),
            pos_weight=self.pos_weight.float(),
            reduction='none',
        ).mean((1, 2, 3))
        count = (weights > 0).sum(dtype=torch.float32)
        all_reduce(count, 'mean')
        # images are weighted by 0, not dropped: the branch then takes part in every step, as several processes need
        segmentation = (each * weights).sum() / count.clamp_min(1e-6)
        return dict(
            loss_cls=self.classification(cls_score, labels, **kwargs),
            loss_seg=self.guidance * self.seg_weight * segmentation,
        )

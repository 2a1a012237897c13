import torch
from mmengine.dist import all_reduce
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError, check_choice, check_number
from kgl_mm.registry import MODELS
from kgl_mm.saliency import evidence

from .knowledge_guided_loss import DECAYS

# Positive evidence counts for at least this share of all evidence, so that a last spark cannot send huge gradients.
_LEAST_SHARE = 0.01
_TINY = 1e-8
NO_COMPILE = (
    'torch.compile does not support double backward, which the consistency loss needs: leave compile out of the '
    'config, or compile the backbone alone, by model.backbone.compile()'
)


@MODELS.register_module()
class SaliencyConsistencyLoss(nn.Module):
    r"""How far a classifier's own map of a defect is from a target, for any network with feature maps.

    With features A, the gradient G of the evidence for a defect at A, and the target t averaged over their cells:

    .. math::
        S = \sum_c w_c A_c, \quad M = ReLU(S), \quad w_c = mean_{xy} G_{cxy} \text{ or } ReLU(G_c)

        L = 1 - \frac{\langle M, t \rangle}{\max(|M|, 0.01 |S|)\, |t|} \text{ where t is not empty, else }
        \frac{P}{1 + P}, \quad P = \sum_{xy} M_{xy}

    So M is the map of ``GradCAM`` or ``LayerCAM``. With a target the scale of neither counts, only where they are; an
    empty map has L = 1. An empty target says that the image is good: P, in logits, is what the map holds for a defect
    there, and nothing would be right. L is in [0, 1]. The loss is the mean over the images that have a target, of all
    processes, times ``loss_weight`` and ``guidance``.

    Only the layers behind the features are differentiated twice. Take the last features before pooling: where no layer
    behind them mixes images, as batch norm does in training, the map of an image is its own.

    Args:
        formula: ``'grad_cam'`` or ``'layer_cam'``.
        loss_weight: beside the loss of the classifier.
        decay: of ``guidance``, read by ``GuidanceHook``: ``'linear'`` or ``'constant'``.

    ``kgl_mm.ConsistentClassifier`` puts it beside the loss of any classifier of mmpretrain. Elsewhere any network will
    do that gives features and logits in one pass:

    >>> from torchvision.models import resnet18
    >>> from torchvision.models.feature_extraction import create_feature_extractor
    >>> net = create_feature_extractor(resnet18(num_classes=2), {'layer4': 'features', 'fc': 'logits'})
    >>> masks = torch.zeros(4, 64, 64)  # the third and fourth are good
    >>> masks[:2, :32, 32:] = 1
    >>> loss = SaliencyConsistencyLoss()(**net(torch.rand(4, 3, 64, 64)), targets=masks)
    >>> loss.backward()

    In a Runner of mmengine these lines stand in ``forward`` of a ``BaseModel``, which returns
    ``dict(loss=cross_entropy(logits, labels), loss_consistency=loss)``.
    """

    def __init__(self, formula: str = 'grad_cam', loss_weight: float = 1.0, decay: str = 'linear') -> None:
        super().__init__()
        check_choice(('grad_cam', 'layer_cam'), formula=formula)
        check_choice(DECAYS, decay=decay)
        check_number(0, loss_weight=loss_weight)
        self.formula = formula
        self.loss_weight = loss_weight
        self.decay = decay
        # a hook sets it; plain, so that a checkpoint does not carry it: it is a function of the epoch
        self.guidance = 1.0

    def forward(
        self, features: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss, a scalar in float32.

        Args:
            features: (B, C, h, w), of which the logits were made, with their graph.
            logits: (B, K), column 0 for good.
            targets: (B, H, W) or (B, 1, H, W), not negative, of any size; empty for a good image.
            valid: (B,), how far the target of an image is trusted, 0 where it has none; by default all are 1.
        """
        refuse_compile(torch.compiler.is_compiling())
        signed = self._signed(features, logits).flatten(1)
        if targets.ndim == 3:
            targets = targets[:, None]
        if targets.ndim != 4 or targets.shape[:2] != (len(features), 1):
            raise UsageError(f'targets of shape {tuple(targets.shape)}: not one map for each of {len(features)} images')
        target = F.adaptive_avg_pool2d(targets.to(signed), features.shape[2:]).flatten(1)
        held = signed.relu()
        norm = torch.maximum(held.norm(dim=1), _LEAST_SHARE * signed.norm(dim=1)).clamp_min(_TINY)
        agreement = (held * target).sum(1) / (norm * target.norm(dim=1).clamp_min(_TINY))
        total = held.sum(1)
        each = torch.where(target.any(1), 1 - agreement, total / (1 + total))
        valid = torch.ones_like(each) if valid is None else valid.to(each)
        count = (valid > 0).sum(dtype=each.dtype)
        all_reduce(count, 'mean')
        # images are weighted by 0, not dropped: the graph is then the same in every step, as several processes need
        return self.guidance * self.loss_weight * (each * valid).sum() / count.clamp_min(_TINY)

    def maps(self, features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The maps M, (B, h, w), in float32, with their graph."""
        return self._signed(features, logits).relu()

    def _signed(self, features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if not isinstance(features, torch.Tensor) or features.ndim != 4:
            what = f'shape {tuple(features.shape)}' if isinstance(features, torch.Tensor) else type(features).__name__
            raise UsageError(f'the consistency loss needs feature maps (images, channels, height, width), not {what}')
        if not features.requires_grad:
            raise UsageError(
                'the consistency loss cannot teach features without a graph: let the last stage of the backbone train '
                '(frozen_stages), and leave out torch.no_grad'
            )
        # Float16 has no room for the gradient behind a mean over many cells, nor for its inverse in the second pass.
        # The root of the number of cells lies between mean and maximum, and a power of 2 rounds nothing.
        scale = 2.0 ** (features[0, 0].numel().bit_length() // 2)
        score = evidence(logits).sum() * scale
        gradient = None
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(score, features, create_graph=True, allow_unused=True)
        if gradient is None:
            raise UsageError(
                'the consistency loss needs logits that are made of the features: give it those that the head uses'
            )
        wide = torch.promote_types(features.dtype, torch.float32)
        gradient = gradient.to(wide) / scale
        weights = gradient.mean((2, 3), keepdim=True) if self.formula == 'grad_cam' else gradient.relu()
        return (weights * features.to(wide)).sum(1)


@torch.compiler.disable(reason=NO_COMPILE)
def refuse_compile(compiling: bool) -> None:
    """Say so under torch.compile: an error reaches the user as it is only from where nothing is compiled."""
    if compiling:
        raise UsageError(NO_COMPILE)

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from mmpretrain.models.classifiers import BaseClassifier
from torch import nn

from kgl_mm.errors import UsageError, check_choice, check_number, first_line
from kgl_mm.models.blocks import AFF, SSPConv
from kgl_mm.models.heads.anomaly_head import pairs
from kgl_mm.models.pretrained import check_pretrained, is_pretrained
from kgl_mm.registry import MODELS
from kgl_mm.saliency import AnomalyMap, evidence

FUSIONS = ('aff', 'add', 'replace')
LEARNED = ('pretrained', 'checkpoint_path')
"""Options of backbones that are none of mmpretrain's, by which they load weights."""


@MODELS.register_module()
class TeacherStudentDetector(BaseClassifier):
    """Finds what good parts never show: where a student, which has learned from good parts alone, leaves its teacher.

    The teacher is any backbone that puts out maps; it is frozen. The student learns to put out the same on good images.
    Both are compared with each channel shifted and scaled so that the teacher's has mean 0 and deviation 1 on good
    images: else what all images share hides where they differ. :class:`~kgl_mm.engine.CalibrationHook` finds mean and
    deviation before the training; they are buffers, 0 and 1 until then.

    Behind each output F of the student stands, where ``ssp`` is given, a block that predicts F from around a position::

        P = SSPConv(F),   F' = AFF(F, P) or F + P or P
        loss = head.loss + ssp_weight * mean over the blocks of mean((P - F)^2) / mean(F^2)

    A block's loss is relative, since what else the student learns by may not depend on the scale of F (at unit length
    it does not): it would only make F small.

    The teacher's weights are in the checkpoint, since without them the student is worth nothing: it is whole, and no
    download is needed to run it. They come from ``teacher.init_cfg``, in one line of a config, of ImageNet or of a
    classifier that was trained here::

        model = dict(teacher=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')))
        model = dict(teacher=dict(init_cfg=dict(type='Pretrained', checkpoint='PATH', prefix='backbone.')))

    and are random without it, which is the control. An image that is labelled defective is left out of the loss.
    Predictions carry ``pred_map`` (1 x H x W, in [0, 1)) beside ``pred_score`` (good, defective).

    Args:
        teacher: a backbone; ``out_indices`` chooses the layers.
        student: a backbone that puts out maps of the same shapes; by default that of the teacher, not pretrained. What
            of it none of its maps comes by is not trained.
        ssp: settings of :class:`~kgl_mm.models.SSPConv` but ``channels``; None for no blocks.
        fuse: F and P: ``'aff'``, ``'add'``, or ``'replace'`` F by P.
        ssp_weight: see above.
        standardize: as above; without it features are compared as they are.
        head: an :class:`~kgl_mm.models.AnomalyHead`. Its ``unit`` is by default False where the teacher's weights were
            learned and its features are standardised: how far these are from what is usual then means something. The
            checkpoint keeps it, so that it needs no ``init_cfg`` later.
        data_preprocessor: by default mmpretrain's ``ClsDataPreprocessor``.
        init_cfg: as in mmengine.
    """

    SOURCE = 'kgl_mm.TeacherStudentSource'
    """Of priors, where a config names none."""

    def __init__(
        self,
        teacher: dict,
        student: dict | None = None,
        ssp: dict | None = None,
        fuse: str = 'aff',
        ssp_weight: float = 0.1,
        standardize: bool = True,
        head: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build(dict(type='ClsDataPreprocessor') | (data_preprocessor or {}))
        super().__init__(init_cfg=init_cfg, data_preprocessor=data_preprocessor)
        check_choice(FUSIONS, fuse=fuse)
        check_choice((True, False), standardize=standardize)
        if not isinstance(ssp, dict | None):
            raise UsageError(f'ssp={ssp!r}: give a dict of settings of SSPConv, or None')
        check_number(0, ssp_weight=ssp_weight)
        self.teacher = MODELS.build(teacher)
        self.student = MODELS.build(student or _untrained(teacher))
        self.teacher.requires_grad_(False)
        self.ssp_weight = ssp_weight
        self.standardize = standardize
        taught, learned = _maps(self.teacher), _maps(self.student)
        _freeze_unused(self.student, learned)
        channels = [feature.shape[1] for feature, _ in pairs((taught, learned))]
        self.scales = nn.ModuleList(_Standardized(number) for number in channels)
        self.blocks = nn.ModuleList(_Predicted(number, ssp, fuse) for number in channels if ssp is not None)
        learned = is_pretrained(self.teacher) or any(teacher.get(key) for key in LEARNED)
        self.head = MODELS.build(dict(type='kgl_mm.AnomalyHead') | (head or {}))
        self.head.propose(unit=not (standardize and learned))
        self.train()

    def extra_repr(self) -> str:
        return f'standardize={self.standardize}'

    def train(self, mode: bool = True) -> 'TeacherStudentDetector':
        super().train(mode)
        self.teacher.eval()
        return self

    def init_weights(self) -> None:
        """As in mmengine, but weights of the teacher that do not fit, or cannot be read, are an error."""
        check_pretrained(self.teacher, 'model.teacher')
        super().init_weights()

    def forward(self, inputs: torch.Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """Logits (B, 2), with ``mode='tensor'``; losses with ``'loss'``, data samples with ``'predict'``."""
        check_choice(('tensor', 'loss', 'predict'), mode=mode)
        if mode == 'tensor':
            return self.head(self.extract_feat(inputs))
        return self.loss(inputs, data_samples) if mode == 'loss' else self.predict(inputs, data_samples)

    def extract_feat(self, inputs: torch.Tensor, stage: str | None = None) -> tuple[tuple, tuple]:
        """What teacher and student put out."""
        learned = self.student(inputs)
        if self.blocks:
            learned = [block(feature)[0] for block, feature in zip(self.blocks, learned, strict=True)]
        return self._compared(self.teacher(inputs), learned)

    def _compared(self, taught: Sequence[torch.Tensor], learned: Sequence[torch.Tensor]) -> tuple[tuple, tuple]:
        if not self.standardize:
            return tuple(taught), tuple(learned)
        return tuple(tuple(scale(x) for scale, x in zip(self.scales, part, strict=True)) for part in (taught, learned))

    def loss(self, inputs: torch.Tensor, data_samples: list | None = None) -> dict[str, torch.Tensor]:
        good = [not _is_defective(sample) for sample in data_samples or [None] * len(inputs)]
        here = inputs.new_tensor(float(sum(good)))
        all_reduce(everywhere := here.clone(), 'mean')
        if not any(good):  # nothing is learned, also by batch norm; processes that share weights need a gradient, of 0
            nothing = 0 * sum(weight.sum() for weight in self.parameters() if weight.requires_grad)
            return dict.fromkeys(['loss_distillation', 'loss_ssp'] if self.blocks else ['loss_distillation'], nothing)
        seen = inputs if all(good) else inputs[torch.tensor(good, device=inputs.device)]
        taught, learned, predictions = self.teacher(seen), self.student(seen), []
        if self.blocks:
            fused = [block(feature) for block, feature in zip(self.blocks, learned, strict=True)]
            predictions = [
                SSPConv.loss(predicted, x) / SSPConv.loss(torch.zeros_like(x), x).clamp_min(1e-8)
                for (_, predicted), x in zip(fused, learned, strict=True)
            ]
            learned = [feature for feature, _ in fused]
        losses = self.head.loss(self._compared(taught, learned), data_samples)
        if predictions:
            losses['loss_ssp'] = self.ssp_weight * sum(predictions) / len(predictions)
        # each good image counts alike, whichever process has it
        return {name: loss * (here / everywhere) for name, loss in losses.items()}

    def predict(self, inputs: torch.Tensor, data_samples: list | None = None) -> list:
        logits = []

        def target(given: torch.Tensor) -> torch.Tensor:
            logits.append(given.detach())
            return evidence(given)

        maps = AnomalyMap(self).explain(inputs, target).maps
        samples = self.head._get_predictions(logits[0], data_samples)
        for sample, found in zip(samples, maps, strict=True):
            sample.set_field(found[None], 'pred_map')
        return samples


class _Standardized(nn.Module):
    """A map (B, C, h, w) whose channels have mean 0 and deviation 1 where the teacher's maps of good images are it."""

    LEAST = 1e-3  # of the largest deviation: what hardly ever moves must not outweigh all else

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(channels, 1, 1))
        self.register_buffer('deviation', torch.ones(channels, 1, 1))

    def set(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Both have shape (C,)."""
        self.mean.copy_(mean.view_as(self.mean))
        self.deviation.copy_(deviation.clamp_min(self.LEAST * float(deviation.max()) or 1.0).view_as(self.deviation))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.deviation


class _Predicted(nn.Module):
    """F to F' and P, as above."""

    def __init__(self, channels: int, ssp: dict, fuse: str) -> None:
        super().__init__()
        self.ssp = MODELS.build(dict(type='kgl_mm.SSPConv', channels=channels) | dict(ssp))
        self.fuse = fuse
        self.aff = AFF(channels) if fuse == 'aff' else None

    def extra_repr(self) -> str:
        return f'fuse={self.fuse}'

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        predicted = self.ssp(x)
        if self.fuse == 'aff':
            return self.aff(x, predicted), predicted
        return (x + predicted if self.fuse == 'add' else predicted), predicted


def _untrained(teacher: dict) -> dict:
    """The same network, with the weights that it begins a training with, and none of them frozen."""
    if learned := [key for key in LEARNED if teacher.get(key)]:
        raise UsageError(f'model.teacher.{learned[0]}: the student would have these weights too; give a student')
    init = teacher.get('init_cfg')
    inits = [each for each in (init if isinstance(init, list) else [init]) if each and each['type'] != 'Pretrained']
    kept = {key: value for key, value in teacher.items() if key not in ('init_cfg', 'frozen_stages', 'norm_eval')}
    return kept | (dict(init_cfg=inits) if inits else {})


def _maps(network: nn.Module) -> Sequence[torch.Tensor]:
    """What a network puts out, found by trying."""
    training = network.training
    network.eval()  # which those of mmpretrain do not return
    checkpointed = [module for module in network.modules() if getattr(module, 'with_cp', False) is True]
    for module in checkpointed:  # else nothing could ask which weights have a gradient
        module.with_cp = False
    colours = next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)
    try:
        found = list(network(torch.zeros(1, colours, 224, 224)))
    except (RuntimeError, AttributeError, IndexError, AssertionError) as error:
        raise UsageError(f'{type(network).__name__}: puts out no feature maps ({first_line(error)})') from error
    finally:
        network.train(training)
        for module in checkpointed:
            module.with_cp = True
    if any(not isinstance(each, torch.Tensor) or each.ndim != 4 for each in found):
        raise UsageError(f'{type(network).__name__}: puts out something that is no feature map (B, C, h, w)')
    return found


def _freeze_unused(network: nn.Module, maps: Sequence[torch.Tensor]) -> None:
    """Several processes would wait for the gradient of weights, as of a stage behind the last map, that have none."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    if weights:
        found = torch.autograd.grad(sum(x.sum() for x in maps), weights, allow_unused=True)
        for weight, gradient in zip(weights, found, strict=True):
            weight.requires_grad_(gradient is not None)


def _is_defective(sample) -> bool:
    return sample is not None and 'gt_label' in sample and bool(sample.gt_label.any())

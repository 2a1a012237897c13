from collections.abc import Sequence

import torch
from mmpretrain.models.heads import ClsHead
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError, check_choice, check_number
from kgl_mm.registry import MODELS

KINDS = ('stpm', 'mkd')
Features = tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]
"""What teacher and student put out, B x C x h x w of each layer."""


@MODELS.register_module()
class AnomalyHead(ClsHead):
    r"""How far a student is from its teacher, as a loss, a map, a score and logits.

    With t and s the features of a layer, and hats where they are divided by their length over the channels::

        d(y, x) = mean over channels of (t(y, x) - s(y, x))^2      at each position; with ``unit`` |t^ - s^|^2, up to 4
        stpm:  loss = sum over layers of the mean of d             map = product over layers of d, score = its maximum
        mkd:   loss = sum over layers of 1 - cos(t, s) + mse_weight MSE(t, s), a layer as one long vector
               map = |gradient of the image's loss by its pixels|, summed over colours, blurred; score = the loss

    Scores and maps compare across images: q being the ``quantile`` of the scores of good images, the probability of a
    defect is score / (score + q), 1/2 at q; a map is divided in the same way by the quantile of its maxima. Both q are
    buffers, so they travel in checkpoints; :class:`~kgl_mm.engine.CalibrationHook` sets them, and until then they are
    1. Logits are (0, log score - log q).

    Args:
        loss: ``'stpm'`` or ``'mkd'``.
        unit: see above; True is as published. By default the detector says it, and a checkpoint is looked at as it was
            trained.
        maps: the same, independent of ``loss``; the map of ``'mkd'`` is the gradient of whatever the loss is.
        combine: ``'product'``, ``'sum'`` or ``'max'`` of the layers' d, at the size of the finest.
        top: the score is the mean of this share of the map with the highest values; 0 for the maximum.
        mse_weight: of ``'mkd'``.
        blur: standard deviation, in pixels, of what blurs a gradient.
        quantile: of good images, in (0, 1].
        init_cfg: as in mmengine.
    """

    def __init__(
        self,
        loss: str = 'stpm',
        unit: bool | None = None,
        maps: str = 'stpm',
        combine: str = 'product',
        top: float = 0.0,
        mse_weight: float = 0.5,
        blur: float = 4.0,
        quantile: float = 0.99,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_choice(KINDS, loss=loss, maps=maps)
        check_choice(('product', 'sum', 'max'), combine=combine)
        check_choice((None, True, False), unit=unit)
        check_number(0, 1, top=top)
        check_number(0, mse_weight=mse_weight, blur=blur)
        check_number(0, 1, above=True, quantile=quantile)
        self.distance = loss
        self.unit = True if unit is None else unit
        self._is_unit_open = unit is None
        self.maps = maps
        self.combine = combine
        self.top = top
        self.mse_weight = mse_weight
        self.blur = blur
        self.quantile = quantile
        self.register_buffer('score_scale', torch.ones(()))
        self.register_buffer('map_scale', torch.ones(()))

    def forward(self, feats: Features) -> torch.Tensor:
        """Logits (B, 2)."""
        odds = _log(self.score(feats)) - _log(self.score_scale)
        return torch.stack([torch.zeros_like(odds), odds], 1)

    def loss(self, feats: Features, data_samples: list | None = None, **_) -> dict[str, torch.Tensor]:
        return dict(loss_distillation=self.per_image(feats).mean())

    def per_image(self, feats: Features) -> torch.Tensor:
        """The loss of each image (B,)."""
        if self.distance == 'stpm':
            return sum(distance.mean((1, 2)) for distance in self.distances(feats))
        parts = []
        for taught, learned in pairs(feats):
            flat = taught.flatten(1), learned.flatten(1)
            mse = (flat[0] - flat[1]).square().mean(1)
            parts.append(1 - F.cosine_similarity(*flat) + self.mse_weight * mse)
        return sum(parts)

    def distances(self, feats: Features) -> list[torch.Tensor]:
        """The d of each layer (B, h, w)."""
        if self.unit:
            return [(_unit(t) - _unit(s)).square().sum(1) for t, s in pairs(feats)]
        return [(t - s).square().mean(1) for t, s in pairs(feats)]

    def combined(self, feats: Features) -> torch.Tensor:
        """The d of all layers in one (B, h, w), at the size of the finest."""
        distances = self.distances(feats)
        size = max((distance.shape[1:] for distance in distances), key=lambda shape: shape[0] * shape[1])
        layers = torch.stack(
            [F.interpolate(distance[:, None], size=size, mode='bilinear')[:, 0] for distance in distances]
        )
        return dict(product=layers.prod, sum=layers.sum, max=layers.amax)[self.combine](0)

    def score(self, feats: Features) -> torch.Tensor:
        """How odd each image is (B,), not negative."""
        if self.maps == 'mkd':
            return self.per_image(feats)
        values = self.combined(feats).flatten(1)
        if not self.top:
            return values.amax(1)
        number = torch.sym_int(self.top * values.shape[1] + 0.5)  # of any size, in an exported graph
        return values.topk(torch.sym_max(1, number), 1).values.mean(1)

    def calibrated(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps in [0, 1) of raw ones: 1/2 at the scale that good images gave."""
        return maps / (maps + self.map_scale.clamp_min(torch.finfo(maps.dtype).tiny))

    def calibrate(self, scores: Sequence[float], peaks: Sequence[float]) -> None:
        """Set both q by the scores of good images and by the maxima of their raw maps."""
        for scale, values in ((self.score_scale, scores), (self.map_scale, peaks)):
            found = torch.tensor(list(values), dtype=torch.float64).quantile(self.quantile)
            if not found.isfinite():
                raise UsageError('the scores of good images are not finite: the training may have diverged')
            scale.fill_(float(found))

    def propose(self, unit: bool) -> None:
        """What ``unit`` is to be where no config says it."""
        if self._is_unit_open:
            self.unit = unit

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(self.unit)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.propose(bool(state))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        state_dict.setdefault(f'{prefix}_extra_state', self.get_extra_state())  # older checkpoints have none
        super()._load_from_state_dict(state_dict, prefix, *args)

    def settings(self) -> dict:
        """What shapes maps and scores beside the features and both q."""
        names = ('unit', 'maps', 'combine', 'top', 'mse_weight', 'blur', 'quantile')
        return dict(loss=self.distance, **{name: getattr(self, name) for name in names})

    def extra_repr(self) -> str:
        return ', '.join(f'{name}={value!r}' for name, value in self.settings().items())

    @property
    def is_calibrated(self) -> bool:
        return bool(self.score_scale != 1 or self.map_scale != 1)


def pairs(feats: Features) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Features of teacher and student by layer, in float32 or wider, which must be alike."""
    taught, learned = ([x.float() if x.dtype.itemsize < 4 else x for x in part] for part in feats)
    shapes = [[tuple(x.shape[1:]) for x in part] for part in (taught, learned)]
    if shapes[0] != shapes[1] or any(len(shape) != 3 for shape in shapes[0]):
        raise UsageError(f'the features of the teacher are {shapes[0]}, those of the student {shapes[1]}: they must be '
                         'maps C x h x w, alike; choose another student, or out_indices of both')  # fmt: skip
    return list(zip(taught, learned, strict=True))


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Of length 1 over the channels; ``F.normalize`` takes twice as long on a CPU."""
    return x * x.square().sum(1, keepdim=True).clamp_min(1e-24).rsqrt()


def _log(value: torch.Tensor) -> torch.Tensor:
    return value.clamp_min(torch.finfo(value.dtype).tiny).log()

import itertools
from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmpretrain.models.heads import ClsHead
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError, check_choice, check_number
from kgl_mm.models.necks.global_pooling import POOLS, GlobalPooling
from kgl_mm.registry import MODELS

CHANNELS = ('none', 'dropout', 'self', 'given')


@MODELS.register_module()
class KnowledgeInjectionHead(ClsHead):
    """A classifier that sees where its own segmentation branch, taught by priors, finds a defect.

    Of features F and the prior H, brought to their size::

        F' = [F, H]                             with a channel, else F
        S  = branch(F')                         logits of a defect, cell by cell
        logits = last([mlp(pool(F')), pool(stop(S))])

    Features are maps, so the classifier has ``neck=None``, or a neck that keeps them maps. An image is all that
    inference needs: where the data samples carry no ``prior`` the channel is what :attr:`channel` says.

    Args:
        num_classes: outputs; class 0 is good.
        in_channels: of the features.
        in_index: which of the backbone's outputs they are.
        pooling: of the features: ``'avg'``, ``'max'`` or ``'max_avg'``.
        hidden: widths of the layers of the MLP.
        channel: ``'none'``; ``'dropout'``: the prior, dropped at random in training, absent at inference; ``'self'``:
            where it is dropped or absent, what the branch itself says without it; ``'given'``: always the prior.
        channel_dropout: how often an image's channel is dropped in training.
        pool_channel: whether the MLP sees the channel too (F' and not F).
        branch: widths of the 3x3 convolutions before the last one of the branch.
        norm_cfg: of the branch; None for none.
        fine_index: an output of the backbone of finer stride that the branch reads beside F, at its size.
        fine_channels: how many it has.
        inject: whether the classifier sees S.
        seg_pooling: of S, as ``pooling``.
        seg_gradient: share of the gradient that the classification sends into S; 0 stops it, 1 lets it in.
        **kwargs: as for ``ClsHead``.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        in_index: int = -1,
        pooling: str = 'max_avg',
        hidden: Sequence[int] = (64,),
        channel: str = 'none',
        channel_dropout: float = 0.5,
        pool_channel: bool = True,
        branch: Sequence[int] = (64,),
        norm_cfg: dict | None = dict(type='BN'),  # noqa: B006
        fine_index: int | None = None,
        fine_channels: int = 0,
        inject: bool = True,
        seg_pooling: str = 'max_avg',
        seg_gradient: float = 0.0,
        loss: dict = dict(type='kgl_mm.KnowledgeGuidedLoss'),  # noqa: B006
        init_cfg: dict | list | None = None,
        **kwargs,
    ) -> None:
        super().__init__(loss=loss, init_cfg=init_cfg, **kwargs)
        check_choice(CHANNELS, channel=channel)
        check_choice(tuple(POOLS), pooling=pooling, seg_pooling=seg_pooling)
        check_choice((True, False), inject=inject, pool_channel=pool_channel)
        check_number(0, 1, channel_dropout=channel_dropout, seg_gradient=seg_gradient)
        check_number(2, whole=True, num_classes=num_classes)
        check_number(1, whole=True, in_channels=in_channels)
        check_number(0, whole=True, fine_channels=fine_channels)
        check_number(whole=True, in_index=in_index)
        check_number(whole=True, none='no finer stride', fine_index=fine_index)
        _check_widths(hidden=hidden, branch=branch)
        if not isinstance(norm_cfg, dict | None):
            raise UsageError(f"norm_cfg={norm_cfg!r}: not a dict such as dict(type='BN'), nor None for none")
        if (fine_index is None) == bool(fine_channels):
            raise UsageError(f'fine_index={fine_index}, fine_channels={fine_channels}: one needs the other')
        if not hasattr(self.loss_module, 'guidance'):
            name = type(self.loss_module).__name__
            raise UsageError(f"loss: {name} knows no segmentation; use dict(type='kgl_mm.KnowledgeGuidedLoss')")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.in_index = in_index
        self.channel = channel
        self.channel_dropout = channel_dropout
        self.pool_channel = pool_channel and channel != 'none'
        self.fine_index = fine_index
        self.fine_channels = fine_channels
        self.inject = inject
        self.seg_gradient = seg_gradient
        self.pool = GlobalPooling(pooling)
        self.seg_pool = GlobalPooling(seg_pooling)
        self.seg_branch = _branch(in_channels + fine_channels + (channel != 'none'), branch, norm_cfg)
        widths = [len(self.pool.parts) * (in_channels + self.pool_channel), *hidden]
        self.mlp = nn.Sequential(
            *(
                layer
                for before, after in itertools.pairwise(widths)
                for layer in (nn.Linear(before, after), nn.LeakyReLU())
            )
        )
        self.fc = nn.Linear(widths[-1] + len(self.seg_pool.parts) * inject, num_classes)

    def pre_logits(self, feats: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """F: the features, B x C x h x w."""
        features = feats[self.in_index] if -len(feats) <= self.in_index < len(feats) else None
        if not isinstance(features, torch.Tensor) or features.ndim != 4 or features.shape[1] != self.in_channels:
            given = f'shape {tuple(features.shape)}' if isinstance(features, torch.Tensor) else type(features).__name__
            raise UsageError(
                f'KnowledgeInjectionHead needs feature maps B x {self.in_channels} x h x w but was given {given}: set '
                'in_channels, neck=None, and what makes the backbone put out maps'
            )
        return features

    def forward(
        self, feats: tuple[torch.Tensor, ...], prior: torch.Tensor | None = None, seg: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (B, K); ``prior`` is a channel at the size of the features, ``seg`` what :meth:`segment` gave."""
        features = self.pre_logits(feats)
        prior = self._fill(feats, prior)
        pooled = self.mlp(self.pool((_joined(features, prior if self.pool_channel else None),))[0])
        if not self.inject:
            return self.fc(pooled)
        seg = self.segment(feats, prior) if seg is None else seg
        if self.seg_gradient < 1:
            share = self.seg_gradient
            seg = seg.detach() + share * (seg - seg.detach()) if share else seg.detach()
        return self.fc(torch.cat([pooled, self.seg_pool((seg,))[0]], 1))

    def segment(self, feats: tuple[torch.Tensor, ...], prior: torch.Tensor | None = None) -> torch.Tensor:
        """S: logits of a defect, B x 1 x h x w."""
        return self._segment(feats, self._fill(feats, prior))

    def loss(self, feats: tuple[torch.Tensor, ...], data_samples: list, **kwargs) -> dict:
        size = self.pre_logits(feats).shape[2:]
        prior = None
        if self.channel != 'none':
            prior = self._dropped(feats, F.adaptive_avg_pool2d(_stacked(data_samples, 'prior', feats), size))
        seg = self.segment(feats, prior)
        cls_score = self(feats, prior, seg)
        target, weights = _targets(data_samples, feats, seg)
        if self.channel == 'self':  # what stands for the channel at inference is taught as well
            seg = torch.cat([seg, self._segment(feats, self._nothing(feats))])
            target, weights = target.repeat(2, 1, 1, 1), weights.repeat(2)
        return self._get_loss(cls_score, data_samples, seg_logits=seg, seg_target=target, weights=weights)

    def _get_loss(self, cls_score: torch.Tensor, data_samples: list, **kwargs) -> dict:
        losses = super()._get_loss(cls_score, data_samples, **kwargs)
        # ClsHead knows a single loss, and puts what the module returns under that name
        return {**losses.pop('loss'), **losses}

    def predict(self, feats: tuple[torch.Tensor, ...], data_samples: list | None = None) -> list:
        return self._get_predictions(self(feats, self.prior_of(feats, data_samples)), data_samples)

    def prior_of(self, feats: tuple[torch.Tensor, ...], data_samples: list | None) -> torch.Tensor | None:
        """The channel at the size of the features, where the head has one and all data samples carry a ``prior``."""
        samples = data_samples or [None]
        if self.channel == 'none' or not all(sample is not None and 'prior' in sample for sample in samples):
            return None
        return F.adaptive_avg_pool2d(_stacked(samples, 'prior', feats), self.pre_logits(feats).shape[2:])

    def _segment(self, feats: tuple[torch.Tensor, ...], prior: torch.Tensor | None) -> torch.Tensor:
        features = self.pre_logits(feats)
        if self.fine_index is not None:
            fine = feats[self.fine_index] if -len(feats) <= self.fine_index < len(feats) else features[:, :0]
            if fine.shape[1] != self.fine_channels:
                raise UsageError(
                    f'fine_index={self.fine_index}, fine_channels={self.fine_channels}: the backbone puts out maps of '
                    f'{[f.shape[1] for f in feats]} channels; set its out_indices'
                )
            features = torch.cat([fine, _resized(features, fine)], 1)
        return self.seg_branch(_joined(features, prior))

    def _fill(self, feats: tuple[torch.Tensor, ...], prior: torch.Tensor | None) -> torch.Tensor | None:
        """The channel as it is where there is one, else what stands for it."""
        if prior is not None or self.channel == 'none':
            return prior
        if self.channel == 'given':
            raise UsageError(
                "channel='given': every image needs its prior; load it with kgl_mm.LoadPrior in the test's pipeline"
            )
        nothing = self._nothing(feats)
        if self.channel == 'dropout':
            return nothing
        return _resized(self._segment(feats, nothing), nothing).sigmoid().detach()

    def _nothing(self, feats: tuple[torch.Tensor, ...]) -> torch.Tensor:
        features = self.pre_logits(feats)
        return features.new_zeros(features.shape[0], 1, *features.shape[2:])  # of a size that an export can trace

    def _dropped(self, feats: tuple[torch.Tensor, ...], prior: torch.Tensor) -> torch.Tensor:
        prior = prior.to(self.pre_logits(feats).dtype)
        if self.channel == 'given':
            return prior
        dropped = torch.rand(len(prior), 1, 1, 1, device=prior.device) < self.channel_dropout
        return torch.where(dropped, self._fill(feats, None), prior)


def _check_widths(**options) -> None:
    for name, widths in options.items():
        if not isinstance(widths, list | tuple) or not all(isinstance(w, int) and w > 0 for w in widths):
            raise UsageError(f'{name}={widths!r}: not a list of whole numbers above 0, like (64, 64), nor ()')


def _branch(channels: int, widths: Sequence[int], norm_cfg: dict | None) -> nn.Sequential:
    layers = []
    for width in widths:
        layers.append(
            ConvModule(channels, width, 3, padding=1, norm_cfg=norm_cfg, act_cfg=dict(type='LeakyReLU'), inplace=False)
        )
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))


def _joined(features: torch.Tensor, prior: torch.Tensor | None) -> torch.Tensor:
    return features if prior is None else torch.cat([features, _resized(prior, features).to(features.dtype)], 1)


def _resized(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if maps.shape[2:] == like.shape[2:]:
        return maps
    return F.interpolate(maps, size=like.shape[2:], mode='bilinear', align_corners=False)


def _targets(data_samples: list, feats: tuple, seg: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the branch is taught, at its size, and how far each is trusted (B,): 0 where an image has no target."""
    taught = [sample for sample in data_samples if 'prior_mask' in sample]
    if not taught:
        return torch.zeros_like(seg), seg.new_zeros(len(seg))
    targets = [sample if 'prior_mask' in sample else _untaught(sample, taught[0]) for sample in data_samples]
    masks = _stacked(targets, 'prior_mask', feats)
    trust = [float(s.get('prior_trust', 1.0)) if 'prior_mask' in s else 0.0 for s in data_samples]
    # a cell is marked where anything in it is, so that a thin defect does not vanish
    return F.adaptive_max_pool2d(masks, seg.shape[2:]), torch.tensor(trust).to(seg.device, non_blocking=True)


def _untaught(sample: DataSample, other: DataSample) -> DataSample:
    """A target that says nothing, at the size of the image where its prior tells, else at that of another's target."""
    return DataSample(prior_mask=torch.zeros_like(sample.get('prior', other.prior_mask)))


def _stacked(data_samples: list, name: str, feats: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """A field of all data samples, B x 1 x H x W, padded as the preprocessor pads images, where the features are."""
    if missing := [sample for sample in data_samples if name not in sample]:
        which = missing[0].get('img_path') or 'an image'
        raise UsageError(
            f"{which} has no {name}: put dict(type='kgl_mm.LoadPrior') into the pipeline, or set channel='none'"
        )
    maps = [sample.get(name) for sample in data_samples]
    height, width = (max(side) for side in zip(*(m.shape[1:] for m in maps), strict=True))
    if any(m.shape[1:] != (height, width) for m in maps):
        maps = [F.pad(m, (0, width - m.shape[2], 0, height - m.shape[1])) for m in maps]
    return torch.stack(maps).to(feats[-1].device, torch.float32, non_blocking=True)

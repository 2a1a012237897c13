from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import nn

from kgl_mm.errors import UsageError
from kgl_mm.registry import MODELS


@MODELS.register_module()
class SlimVGG(BaseBackbone):
    """Stages of 3x3 convolutions with a max-pool between two of them: the features of stage i have stride 2**i.

    Args:
        channels: Output channels of each stage.
        convs: Convolutions of each stage.
        out_indices: Stages whose feature maps are returned, counted from 0; -1 is the last.
        norm_cfg: None leaves normalisation out, and gives the convolutions a bias.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 64),
        convs: Sequence[int] = (2, 2, 2, 2),
        in_channels: int = 3,
        out_indices: Sequence[int] = (-1,),
        norm_cfg: dict | None = dict(type='BN'),  # noqa: B006
        act_cfg: dict | None = dict(type='LeakyReLU'),  # noqa: B006
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        if wrong := [i for i in out_indices if not -len(channels) <= i < len(channels)]:
            raise UsageError(f'SlimVGG: out_indices={wrong}: there are {len(channels)} stages, counted from 0')
        self.out_indices = {range(len(channels))[i] for i in out_indices}
        self.stages = nn.ModuleList()
        cfgs = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        for stage, (width, count) in enumerate(zip(channels, convs, strict=True)):
            layers = [nn.MaxPool2d(2)] if stage else []
            for _ in range(count):
                # Saliency reads gradients at what an in-place activation would overwrite.
                layers.append(ConvModule(in_channels, width, 3, padding=1, inplace=False, **cfgs))
                in_channels = width
            self.stages.append(nn.Sequential(*layers))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

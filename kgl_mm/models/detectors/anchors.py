import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator


class Anchors(AnchorGenerator):
    """torchvision's anchors, placed as mmdet places them, so that weights mean the same in both.

    Sizes are not rounded, distances are the strides of the network whatever the size of the image, and all is in
    float32, since half a number of bits leaves no room for coordinates.

    Args:
        strides: of each level.
        sizes: of each level, one or more.
        ratios: height over width.
        offset: of the centre in the first cell, as a share of the stride.

    >>> Anchors([8], [(8,)], offset=0.5).cell_anchors[0].tolist()
    [[0.0, 0.0, 8.0, 8.0]]
    """

    def __init__(
        self,
        strides: list[int],
        sizes: list[tuple[float, ...]],
        ratios: tuple[float, ...] = (1.0,),
        offset: float = 0.0,
    ) -> None:
        super().__init__(tuple(sizes), (tuple(ratios),) * len(sizes))
        self.strides = strides
        self.cell_anchors = [cell + offset * stride for cell, stride in zip(self.cell_anchors, strides, strict=True)]

    @classmethod
    def of_fcos(cls, strides: list[int]) -> 'Anchors':
        """The points of FCOS: a square of the stride around the middle of each cell."""
        return cls(strides, [(stride,) for stride in strides], offset=0.5)

    @classmethod
    def of_retinanet(cls, strides: list[int]) -> 'Anchors':
        return cls(strides, [tuple(4 * stride * 2 ** (i / 3) for i in range(3)) for stride in strides], (0.5, 1.0, 2.0))

    @classmethod
    def of_faster_rcnn(cls, strides: list[int]) -> 'Anchors':
        return cls(strides, [(8 * stride,) for stride in strides], (0.5, 1.0, 2.0))

    def generate_anchors(
        self,
        scales: tuple[float, ...],
        aspect_ratios: tuple[float, ...],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cpu',
    ) -> Tensor:
        scales, tall = torch.tensor(scales, dtype=dtype), torch.tensor(aspect_ratios, dtype=dtype).sqrt()
        width, height = ((share[:, None] * scales).flatten() for share in (1 / tall, tall))
        return (torch.stack([-width, -height, width, height], 1) / 2).to(device)

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        super().set_cell_anchors(torch.float32, device)

    def grid_anchors(self, grid_sizes: list, strides: list) -> list[Tensor]:
        return super().grid_anchors(grid_sizes, [(stride, stride) for stride in self.strides])

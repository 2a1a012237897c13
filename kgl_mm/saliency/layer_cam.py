import torch

from kgl_mm.registry import SALIENCY

from .cam import CAM


@SALIENCY.register_module()
class LayerCAM(CAM):
    r"""LayerCAM (Jiang et al. 2021): each activation weighted by its own positive gradient.

    .. math:: M = ReLU(\sum_c ReLU(G_c) A_c)

    Sharp also in shallow layers, where the mean gradient of a channel says nothing.
    """

    depth = 3

    def layer_map(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        weighted = gradient.relu().mul_(activation).flatten(2)
        # a product with ones: several times as fast as a sum over the channels
        return (weighted.new_ones(weighted.shape[1]) @ weighted).relu().unflatten(1, gradient.shape[2:])

import torch

from kgl_mm.registry import SALIENCY

from .cam import CAM


@SALIENCY.register_module()
class GradCAM(CAM):
    r"""Grad-CAM (Selvaraju et al. 2017): channels weighted by their mean gradient.

    .. math:: M = ReLU(\sum_c w_c A_c), \quad w_c = mean_{xy} G_{cxy}

    The densest of the maps here: under max pooling, where the gradient enters at one cell of a channel, it still
    shows wherever that channel is active.

    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 2))
    >>> GradCAM(network, layers=['1'])(torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 8, 8])
    """

    def layer_map(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        weights = gradient.mean((2, 3))
        return torch.einsum('bchw,bc->bhw', activation, weights).relu()

import torch

from kgl_mm.registry import SALIENCY

from .cam import CAM


@SALIENCY.register_module()
class GradCAMPlusPlus(CAM):
    r"""Grad-CAM++ (Chattopadhay et al. 2018): positive gradients, weighted so that each occurrence counts alike.

    .. math::
        M = ReLU(\sum_c w_c A_c), \quad w_c = \sum_{xy} \alpha_{cxy} ReLU(G_{cxy}), \quad
        \alpha_{cxy} = G_{cxy}^2 / (2 G_{cxy}^2 + G_{cxy}^3 \sum_{xy} A_{cxy})
    """

    def layer_map(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        # a factor G^2 is taken out of the fraction, so that small gradients do not vanish in its cube
        alpha = 1 / (2 + gradient * activation.sum((2, 3), keepdim=True))
        alpha = torch.where(gradient == 0, 0, alpha).nan_to_num(0, 0, 0)
        weights = (alpha * gradient.relu()).sum((2, 3))
        return torch.einsum('bchw,bc->bhw', activation, weights).relu()

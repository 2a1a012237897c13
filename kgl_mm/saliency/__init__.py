from kgl_mm._require import require_mm

require_mm()

from .anomaly_map import AnomalyMap  # noqa: E402
from .base import Explanation, SaliencyMethod, explain  # noqa: E402
from .cam import CAM  # noqa: E402
from .full_grad import Decomposition, FullGrad  # noqa: E402
from .grad_cam import GradCAM  # noqa: E402
from .grad_cam_plus_plus import GradCAMPlusPlus  # noqa: E402
from .layer_cam import LayerCAM  # noqa: E402
from .product import SaliencyProduct  # noqa: E402
from .segmentation_map import SegmentationMap  # noqa: E402
from .targets import evidence  # noqa: E402

__all__ = [
    'CAM',
    'AnomalyMap',
    'Decomposition',
    'Explanation',
    'FullGrad',
    'GradCAM',
    'GradCAMPlusPlus',
    'LayerCAM',
    'SaliencyMethod',
    'SaliencyProduct',
    'SegmentationMap',
    'evidence',
    'explain',
]

import cv2
import numpy as np
from mmengine.dist import master_only
from mmengine.visualization import Visualizer

from kgl_mm.registry import VISUALIZERS

from .overlay import overlay


@VISUALIZERS.register_module()
class DefectVisualizer(Visualizer):
    """mmengine's Visualizer, which also sends priors and contact sheets to its backends.

    They are drawn with OpenCV; no figure is opened, so that any number of pictures takes the memory of one.

    Example::

        visualizer = dict(type='kgl_mm.DefectVisualizer', vis_backends=[dict(type='LocalVisBackend')])
    """

    @master_only
    def add_prior(
        self,
        name: str,
        image: np.ndarray,
        prior: np.ndarray,
        mask: np.ndarray | None = None,
        step: int = 0,
        top: float = 1.0,
    ) -> None:
        """Send a prior over its image; ``image`` (BGR), ``prior``, ``mask`` and ``top`` as :func:`overlay` has them."""
        self._add_bgr(name, overlay(image, prior, mask, top), step)

    @master_only
    def add_contact_sheet(self, name: str, png: bytes, step: int = 0) -> None:
        """Send what :func:`draw_contact_sheet` returned."""
        self._add_bgr(name, cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), step)

    def _add_bgr(self, name: str, picture: np.ndarray, step: int) -> None:
        # LocalVisBackend makes no folders, and without them it writes nothing and says nothing.
        self.add_image(name.replace('/', '_'), cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), step)

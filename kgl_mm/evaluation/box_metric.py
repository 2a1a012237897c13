import logging

import numpy as np
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from kgl_mm.errors import UsageError
from kgl_mm.evaluation.boxes import Boxes, Found, best_threshold, match, require_coco
from kgl_mm.evaluation.gathering import every_image_once
from kgl_mm.registry import METRICS
from kgl_mm.visualization.boxes import draw_found

FIELDS = ('bboxes', 'labels', 'scores')


@METRICS.register_module()
class BoxMetric(BaseMetric):
    """Mean average precision of boxes, as COCO counts it (pycocotools, at most 100 boxes an image and class).

    ``mAP_50`` at IoU 0.5 and ``mAP``, the mean of IoU 0.5 to 0.95, over the classes that have true boxes; both of each
    class as ``AP_50_NAME`` and ``AP_NAME``; ``num_images``, ``num_boxes``. Each image counts once, however many
    processes there are and whatever the sampler gave.

    After an evaluation, on the main process, ``draw()`` gives a picture of the images on which most boxes were missed,
    most were wrong, and those without an error, at the threshold of the best F1.

    Args:
        **kwargs: of ``BaseMetric``.

    Example:
        >>> test_evaluator = dict(type='kgl_mm.BoxMetric')
        >>> default_hooks = dict(checkpoint=dict(type='kgl_mm.SafeCheckpointHook', save_best='mAP_50'))
    """

    default_prefix = ''

    def __init__(self, **kwargs) -> None:
        require_coco()
        super().__init__(**kwargs)
        self.images: list[dict] = []
        self.classes: list[str] = []
        self.found: Found | None = None

    def process(self, data_batch, data_samples) -> None:
        for sample in data_samples:
            if missing := {'pred_instances', 'gt_instances'} - sample.keys():
                raise UsageError(
                    f'BoxMetric needs {" and ".join(sorted(missing))} in every data sample: the model must predict it '
                    'or the pipeline pack it (kgl_mm.PackBoxes)'
                )
            self.results.append(
                dict(
                    sample_idx=sample.get('sample_idx'),
                    img_path=sample.get('img_path') or '',
                    truth=_boxes(sample['gt_instances']),
                    found=_boxes(sample['pred_instances']),
                )
            )

    def evaluate(self, size: int) -> dict:
        """Metrics over the ``size`` images of the data set, each counted once."""
        distinct = every_image_once(self.results, size, type(self).__name__)
        if distinct is None:
            return super().evaluate(size)
        metrics = [self.compute_metrics(distinct) if is_main_process() else None]
        broadcast_object_list(metrics)
        self.results.clear()
        return {f'{self.prefix}/{name}' if self.prefix else name: value for name, value in metrics[0].items()}

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.images = results
        truth, found = ([result[side] for result in results] for side in ('truth', 'found'))
        broken = [result['img_path'] for result in results if not np.isfinite(result['found'].scores).all()]
        if broken:
            raise UsageError(f'{broken[0]}: its scores are not finite; the training may have diverged')
        classes = self.classes = self._classes(truth + found)
        self.found = match(truth, found, len(classes))
        metrics = dict(num_images=float(len(results)), num_boxes=float(self.found.true.sum()))
        known = ~np.isnan(self.found.precision[0])
        if not known.any():
            sentence = f'no mAP: none of the {len(results)} images has a true box.'
            print_log(sentence, logger='current', level=logging.WARNING)
            return metrics
        at_half, mean = self.found.precision[0], self.found.precision.mean(0)
        metrics = dict(mAP_50=float(at_half[known].mean()), mAP=float(mean[known].mean())) | metrics
        for name, *values in zip(classes, at_half.tolist(), mean.tolist(), known, strict=True):
            if values.pop():
                metrics |= {f'{key}_{name}': value for key, value in zip(('AP_50', 'AP'), values, strict=True)}
        return metrics

    def draw(self) -> bytes:
        """The picture, as a PNG file."""
        return draw_found(self.images, self.found, best_threshold(self.found), self.classes)

    def _classes(self, boxes: list[Boxes]) -> list[str]:
        most = max((int(one.labels.max(initial=-1)) for one in boxes), default=-1)
        names = (self.dataset_meta or {}).get('classes')
        if names and most >= len(names):
            raise UsageError(
                f'the model finds class {most}, but the data set has {len(names)} classes ({", ".join(names)}): '
                f'--cfg-options model.num_classes={len(names)}'
            )
        return list(names or map(str, range(most + 1)))


def _boxes(instances) -> Boxes:
    # an Evaluator hands data samples over as dicts, and what is in them as it was
    return Boxes(*(instances[key].detach().float().cpu().numpy() for key in FIELDS if key in instances))

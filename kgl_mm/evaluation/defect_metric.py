import logging

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, print_log

from kgl_mm.errors import UsageError
from kgl_mm.evaluation import functional, thresholds
from kgl_mm.evaluation.gathering import every_image_once
from kgl_mm.evaluation.pixels import SharedTally
from kgl_mm.registry import METRICS


@METRICS.register_module()
class DefectMetric(BaseMetric):
    """Image-level metrics of good parts against defective ones, and of kinds of defect.

    With a good class (class 0): ``AP`` and ``AUROC``, each with ``_low`` and ``_high`` of its 95 % bootstrap interval
    (of a perfect ranking the least that so few images may hide);
    ``FP_at_zero_FN``, ``recall_at_1pct_FPR``; ``oracle_F1``, the best that any threshold could give on these very
    images; and ``FP``, ``FN``, ``precision``, ``recall``, ``accuracy`` at ``threshold``. With more than two classes, or
    without a good one: ``macro_AP`` and ``accuracy`` of the most probable class, and in the log a table by class and
    the confusion matrix. What the images cannot answer is absent.

    The threshold is a probability of defect. Training stores the chosen one in the message hub as
    ``threshold=dict(value, aim, calibrated)``, the aim in words; without it 0.5 is used and ``threshold_calibrated`` is
    0. ``miss_rate_high`` is the share of new defective parts that may be missed at it, with 95 % certainty, judged by
    how many of these were; with less where these very images chose it for the best F1 or by prices.

    Where predictions carry a map in [0, 1] (``pred_map``, 1 x H x W, as that of a detector) and data samples a ``mask``
    of that size: ``pixel_AUROC``, ``pixel_AP`` over all pixels, and ``AUPRO``, the mean overlap with the regions of the
    masks up to a false positive rate of 0.3, over 0.3. Defective images without a mask are left out there, good ones
    need none. Memory for these does not grow with the images.

    After an evaluation ``table`` holds, on the main process, a dict an image: ``sample_idx``, ``img_path``, ``label``,
    ``probabilities``, and with a good class ``score`` (the probability of defect) and ``log_odds``; ``threshold`` is
    the one that was used, as in the message hub.

    Args:
        threshold_aim: ``'f1'``, ``'misses=0.02'`` or ``'miss=100:false_alarm=1'``, see :mod:`.thresholds`. When given,
            as for validation data, the threshold that serves it best is returned as ``chosen_threshold``, and what is
            counted at a threshold is counted there.
        good: Name of the good class; the data set has one if it is the first of its ``classes``, or if it names none.
        **kwargs: Of ``BaseMetric``. Its ``collect_device`` and ``collect_dir`` matter only to samples that have no
            ``sample_idx``.

    Example:
        >>> val_evaluator = dict(type='kgl_mm.DefectMetric', threshold_aim='f1')
        >>> default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='AP', rule='greater'))
    """

    default_prefix = ''

    def __init__(self, threshold_aim: str | dict | None = None, good: str = 'good', **kwargs) -> None:
        super().__init__(**kwargs)
        self.threshold_aim = threshold_aim
        self.aim = None if threshold_aim is None else thresholds.aim_in_words(threshold_aim)
        self.good = good
        self.table: list[dict] = []
        self.threshold: dict = {}
        self._said: set[str] = set()
        self._pixels = SharedTally()

    def process(self, data_batch, data_samples) -> None:
        for sample in data_samples:
            if missing := {'pred_score', 'gt_label'} - sample.keys():
                raise UsageError(
                    f'DefectMetric needs {" and ".join(sorted(missing))} in every data sample, but found only '
                    f'{sorted(sample)}: the model must predict it or the pipeline pack it.'
                )
            index = sample.get('sample_idx')
            image = {'sample_idx': None if index is None else int(index), 'img_path': sample.get('img_path') or ''}
            label = torch.as_tensor(sample['gt_label']).flatten().tolist()
            if len(label) != 1 or label[0] < 0:
                raise UsageError(f'DefectMetric needs one gt_label of 0 or more an image, but {image} has {label}.')
            probabilities = torch.as_tensor(sample['pred_score']).detach().flatten().cpu().double().numpy()
            self.results.append(image | {'label': int(label[0]), 'probabilities': probabilities})
            if sample.get('pred_map') is None:
                continue
            if index is not None:
                self._count_pixels(image, sample, is_good=not label[0])
            elif sample.get('mask') is not None:
                self._warn('no pixel metrics: they need the sample_idx of images, which PackDefect packs.')

    def evaluate(self, size: int) -> dict:
        """Metrics over the ``size`` images of the data set, each counted once, however often the sampler gave it."""
        distinct = every_image_once(self.results, size, type(self).__name__)
        if distinct is None:
            return super().evaluate(size)
        metrics = [None]
        pixels, lacking = self._pixels.total(all_gather_object)
        if is_main_process():
            computed = self.compute_metrics(distinct)
            computed |= self._of_pixels(pixels, lacking)
            metrics = [{f'{self.prefix}/{name}' if self.prefix else name: value for name, value in computed.items()}]
        broadcast_object_list(metrics)
        self.results.clear()
        return metrics[0]

    def _count_pixels(self, image: dict, sample: dict, is_good: bool) -> None:
        map, mask = (
            None if x is None else torch.as_tensor(x).detach().float().cpu()[0].numpy()
            for x in (sample['pred_map'], sample.get('mask'))
        )
        height, width = (sample.get('img_shape') or map.shape)[:2]  # what padding added is no part of it
        try:
            self._pixels.add(tuple(image.values()), map[:height, :width], mask, is_good)
        except UsageError as error:
            raise UsageError(f'{image["img_path"]}: {error}') from None

    def _of_pixels(self, pixels, lacking: int) -> dict:
        if not pixels.images and not lacking:
            return {}
        metrics = pixels.metrics()
        if lacking:
            left = 'without them' if metrics else 'so there are no pixel metrics'
            self._warn(f'{lacking} defective images have a map and no mask, {left}: add masks, and LoadMask.')
        elif not metrics:
            self._warn('no pixel metrics: no mask marks a defect.')
        return metrics

    def compute_metrics(self, results: list) -> dict:
        probabilities, labels = _arrays(results)
        rows = zip(results, probabilities.tolist(), strict=True)
        self.table = [result | {'probabilities': row} for result, row in rows]
        classes = (self.dataset_meta or {}).get('classes')
        has_good = not classes or classes[0] == self.good
        metrics = self._good_or_defective(probabilities, labels) if has_good else {}
        if not has_good and len(classes) == 2:
            self._warn(
                f'no AP and AUROC: class 0 is {classes[0]!r}, not {self.good!r}, so both classes count as defects; '
                f'if it is the good class, set DefectMetric(good={classes[0]!r}).'
            )
        if not has_good or probabilities.shape[1] > 2:
            metrics |= self._by_class(probabilities, labels, classes)
        metrics['num_images'] = len(labels)
        # mmengine's log hook writes counts as null unless they are floats.
        return {name: float(value) for name, value in metrics.items()}

    def _good_or_defective(self, probabilities, labels) -> dict:
        log_odds = functional.log_odds(probabilities)
        # Ranks come from the log-odds, thresholds from what a deployed model gives and compares.
        scores = functional.event_probability(probabilities)
        for row, score, odds in zip(self.table, scores.tolist(), log_odds.tolist(), strict=True):
            row |= {'score': score, 'log_odds': odds}
        stored = MessageHub.get_current_instance().get_info('threshold') or {'value': 0.5, 'calibrated': False}
        defects = int(np.count_nonzero(labels))
        one_class = defects in (0, len(labels))
        chosen = {}
        if self.aim and not one_class:
            chosen = {'chosen_threshold': thresholds.choose_threshold(scores, labels, self.threshold_aim)}
            stored = {'value': chosen['chosen_threshold'], 'aim': self.aim, 'calibrated': True}
        self.threshold = stored
        at_threshold = {
            'threshold': stored['value'],
            'threshold_calibrated': stored['calibrated'],
            **functional.at_threshold(scores, labels, stored['value']),
            'num_defects': defects,
        }
        if defects:
            at_threshold['miss_rate_high'] = thresholds.miss_rate_bound(at_threshold['FN'], defects)
        if one_class:
            missing, left = ('good', 'FN, recall') if defects else ('defective', 'FP')
            uncalibrated = ', and no threshold can be chosen, so it stays uncalibrated' if self.aim else ''
            self._warn(
                f'no AP and AUROC: none of the {len(labels)} images is {missing}; left are {left} and accuracy'
                f'{uncalibrated}.'
            )
            return at_threshold
        if chosen:
            by_misses = 'misses' in thresholds.read_aim(self.threshold_aim)
            certainty = '95 % certainty' if by_misses else 'less than 95 % certainty'
            print_log(
                f'threshold {stored["value"]:.3f} for {self.aim}: {at_threshold["FN"]} of {defects} missed, so of new '
                f'defects up to {at_threshold["miss_rate_high"]:.0%} may be (with {certainty}); '
                f'{at_threshold["FP"]} of {len(labels) - defects} good ones rejected',
                logger='current',
            )
        metrics = {
            'AP': functional.average_precision(log_odds, labels),
            'AUROC': functional.auroc(log_odds, labels),
            'FP_at_zero_FN': functional.fp_at_zero_fn(log_odds, labels),
            'recall_at_1pct_FPR': functional.recall_at_fpr(log_odds, labels, 0.01),
            'oracle_F1': functional.best_f1(log_odds, labels)[0],
        }
        for name, (low, high) in functional.bootstrap_interval(log_odds, labels).items():
            metrics |= {f'{name}_low': low, f'{name}_high': high}
        return metrics | chosen | at_threshold

    def _by_class(self, probabilities, labels, classes) -> dict:
        count = probabilities.shape[1]
        names = list(map(str, classes or range(count)))
        if len(names) != count or labels.max() >= count:
            raise UsageError(
                f'the model gives {count} probabilities an image, but the data set has {len(names)} classes and labels '
                f'up to {labels.max()}: set num_classes of the head to the number of classes.'
            )
        rows = functional.per_class(probabilities, labels)
        matrix = functional.confusion_matrix(probabilities.argmax(1), labels, count).tolist()
        by_class = [['class', *rows[0]], *([name, *row.values()] for name, row in zip(names, rows, strict=True))]
        confusion = [['true \\ predicted', *names], *([name, *row] for name, row in zip(names, matrix, strict=True))]
        print_log(f'by class:\n{_aligned(by_class)}\n{_aligned(confusion)}', logger='current')
        metrics = {'accuracy': functional.accuracy(probabilities, labels)}
        if len(set(labels.tolist())) == 1:
            self._warn(f'no macro AP: all {len(labels)} images are of class {names[labels[0]]}; left is accuracy.')
        else:
            metrics['macro_AP'] = functional.macro_average_precision(probabilities, labels)
        return metrics

    def _warn(self, sentence: str) -> None:
        """Once, however many epochs it is true of."""
        if sentence not in self._said:
            self._said.add(sentence)
            print_log(sentence, logger='current', level=logging.WARNING)


def _arrays(results: list) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, C), with C = 2 for a model that gives the one of a defect alone, and labels (N,)."""
    if not results:
        raise UsageError('no image reached DefectMetric: the data set or its sampler is empty.')
    if len({len(result['probabilities']) for result in results}) > 1:
        raise UsageError('pred_score must hold the same number of probabilities for every image.')
    probabilities = np.stack([result['probabilities'] for result in results])
    broken = ~((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all(1)
    if broken.any():
        first = results[int(broken.argmax())]
        raise UsageError(
            f'pred_score is not in [0, 1] for {broken.sum()} of {len(results)} images, first '
            f'{first["img_path"] or first["sample_idx"]}: the training diverged, or the model gives logits.'
        )
    if probabilities.shape[1] == 1:
        probabilities = np.hstack([1 - probabilities, probabilities]).clip(0, 1)
    return probabilities, np.array([result['label'] for result in results])


def _aligned(rows: list[list]) -> str:
    cells = [['-' if x is None else f'{x:.4f}' if isinstance(x, float) else str(x) for x in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join('  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)

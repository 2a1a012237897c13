import csv
import io
from pathlib import Path

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook

import kgl_mm
from kgl_mm.engine.config import config_hash
from kgl_mm.files import read_json, write_atomically, write_json
from kgl_mm.registry import HOOKS
from kgl_mm.visualization.gallery import draw_gallery

_COUNTS = ('FP', 'FN', 'FP_at_zero_FN', 'num_images', 'num_defects', 'num_boxes', 'threshold_calibrated')


@HOOKS.register_module()
class RecordHook(Hook):
    """Writes what validation and test found: ``metrics.json`` as ``{stage: {split: {...}}}``, scores and a picture.

    Beside the metrics stand the seed, the hash of the configuration and the versions; per image scores go to
    ``SPLIT_scores.csv`` and the most telling images to ``SPLIT.png``, both in the runner's work directory, where a
    :class:`~kgl_mm.evaluation.DefectMetric` is among the metrics; the picture alone with a
    :class:`~kgl_mm.evaluation.BoxMetric`.

    Args:
        stage: the name under which the metrics stand.
        file: where ``metrics.json`` is; by default in the runner's work directory.
        config: the hash of the configuration; by default that of the runner's.

    Example::

        default_hooks = dict(record=dict(type='kgl_mm.RecordHook'))
    """

    priority = 'LOW'

    def __init__(self, stage: str = 'stage1', file: str | None = None, config: str | None = None) -> None:
        self.stage = stage
        self.file = file
        self.config = config

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._record(runner, 'val', metrics, runner.val_dataloader, runner.val_evaluator)

    def after_test_epoch(self, runner, metrics=None) -> None:
        self._record(runner, 'test', metrics, runner.test_dataloader, runner.test_evaluator)

    @master_only
    def _record(self, runner, split: str, metrics: dict | None, dataloader, evaluator) -> None:
        facts = {key: int(value) if key in _COUNTS else value for key, value in (metrics or {}).items()}
        metric = next((metric for metric in evaluator.metrics if getattr(metric, 'table', None)), None)
        if aim := getattr(metric, 'threshold', {}).get('aim'):
            facts['threshold_aim'] = aim
        facts.update(seed=runner.seed, config=self.config or config_hash(runner.cfg), versions=versions())
        path = Path(self.file or Path(runner.work_dir, 'metrics.json'))
        record = read_json(path)
        record.setdefault(self.stage, {})[split] = facts
        write_json(path, record)
        picture = Path(runner.work_dir, f'{split}.png')
        for boxes in evaluator.metrics:
            if getattr(boxes, 'found', None):
                write_atomically(picture, boxes.draw())
        if metric is None:
            return
        table = metric.table
        _write_table(Path(runner.work_dir, f'{split}_scores.csv'), table)
        if 'score' not in table[0]:  # no good class, so nothing is called defective
            return
        masks = {
            info['img_path']: info.get('mask_path')
            for info in map(dataloader.dataset.get_data_info, range(len(dataloader.dataset)))
            if 'img_path' in info
        }
        write_atomically(picture, draw_gallery(table, masks, threshold=facts.get('threshold', 0.5)))


def versions() -> dict[str, str]:
    import mmengine
    import mmpretrain

    return dict(
        kgl_mm=kgl_mm.__version__,
        torch=torch.__version__,
        mmengine=mmengine.__version__,
        mmpretrain=mmpretrain.__version__,
    )


def _write_table(path: Path, table: list[dict]) -> None:
    text = io.StringIO(newline='')
    rows = [_flat(row) for row in table]
    writer = csv.DictWriter(text, fieldnames=rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode(errors='surrogateescape'))  # names of files may be of any bytes


def _flat(row: dict) -> dict:
    probabilities = {f'p{label}': p for label, p in enumerate(row['probabilities'])}
    return {key: value for key, value in row.items() if key != 'probabilities'} | probabilities

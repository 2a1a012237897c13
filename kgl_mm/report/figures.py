"""The sections of figures: metrics of all stages, the threshold tool, curves, and figures by class."""

import numpy as np

from kgl_mm.engine.work_dir import first_is_better
from kgl_mm.evaluation.functional import (
    auroc,
    average_precision,
    confusion_matrix,
    per_class,
    precision_recall,
    roc_curve,
)

from . import page
from .charts import Line, line_chart
from .data import Run, Scores
from .pictures import Splits, thumbnail

CONFUSIONS = 12


def metrics_section(run: Run) -> str:
    """All stages and splits side by side, and what is to be known of their thresholds."""
    metrics = {stage.name: stage.metrics for stage in run.stages if stage.metrics}
    if not metrics:
        return page.sentence('No stage has been tested yet.')
    text = page.metrics_table(metrics)
    every = [found for splits in metrics.values() for found in splits.values()]
    if any('AP_low' in found for found in every):
        text += page.note(
            'In brackets: 95 % intervals, by drawing the images anew; where all defects score above all good parts, '
            'the least that so few images may hide, which may lie below the interval of a ranking with an error.'
        )
    if any('miss_rate_high' in found for found in every):
        text += page.note(
            'Share of defects missed: the most that it may be on new parts, with 95 % certainty, as far as these '
            'images say; more where they chose the threshold for another aim than the share of misses. The '
            'fewer defective ones there are, the less is certain.'
        )
    used = [found for found in every if 'threshold' in found]
    for origin in dict.fromkeys(page.origin_of(found) for found in used if found.get('threshold_calibrated')):
        text += page.note(f'Calibrated: the threshold was {origin}.')
    if not all(found.get('threshold_calibrated') for found in used):
        text += page.note('Not calibrated: no threshold was chosen on validation data, and 0.5 is a guess.')
    if better := first_is_better(metrics, run.best):
        text += page.note(better)
    elif run.best:
        text += page.note(f'On validation data the best is {run.best}.')
    untested = [stage.name for stage in run.stages if not stage.metrics]
    if untested:
        text += page.note(f'Without a test: {", ".join(untested)}.')
    return text


def threshold_section(run: Run) -> str:
    """The threshold to move, filled by the script of the page."""
    if run.shown is None:
        return page.sentence('There are no scores of good and defective parts, so there is no threshold to move.')
    text = '' if run.shown.test.both_classes else page.note(_one_class(run.shown.test))
    return text + page.template('threshold.html')


def _one_class(test: Scores) -> str:
    only = 'defective' if test.labels.any() else 'good'
    return f'All {len(test.labels)} test images are {only}, so there are no curves and no costs.'


def curves_section(run: Run) -> str:
    """Precision over recall, and ROC curves, of all stages."""
    precision, roc = [], []
    for number, stage in enumerate(run.stages):
        if not stage.test or not stage.test.both_classes:
            continue
        odds, labels = stage.test.log_odds, stage.test.labels
        area = average_precision(odds, labels)
        precision.append(Line(f'{stage.name}, AP {area:.3f}', *precision_recall(odds, labels), number % 6))
        area = auroc(odds, labels)
        roc.append(Line(f'{stage.name}, area {area:.3f}', *roc_curve(odds, labels), number % 6))
    if not precision:
        return ''
    charts = [
        line_chart('Precision over recall', precision, ('recall', 'precision'), unit=True, key='pr'),
        line_chart('ROC curve', roc, ('share of good parts rejected', 'recall'), unit=True, key='roc'),
    ]
    return f'<div class="charts">{"".join(charts)}</div>' + page.note('The ring is the threshold chosen above.')


def classes_section(run: Run, splits: Splits, short: dict[str, str]) -> str:
    """Figures by class where there are more than good and defective, and the clearest confusions."""
    parts = []
    for stage in run.stages:
        test = stage.test
        if not test or (test.scores is not None and test.probabilities.shape[1] <= 2):
            continue
        number = test.probabilities.shape[1]
        dataset = splits.dataset(stage, 'test')
        names = [] if isinstance(dataset, str) else dataset.metainfo.get('classes') or []
        names = [str(name) for name in names] if len(names) == number else [f'class {i}' for i in range(number)]
        found = per_class(test.probabilities, test.labels)
        rows = [[name, *map(_figure, row.values())] for name, row in zip(names, found, strict=True)]
        head = ['', 'Images', 'Precision', 'Recall', 'F1', 'Average precision']
        matrix = confusion_matrix(test.probabilities.argmax(1), test.labels, number).tolist()
        confusion = [[name, *map(str, row)] for name, row in zip(names, matrix, strict=True)]
        parts.append(
            f'<h3>{page.escape(stage.name)}</h3>' + page.table(head, rows, f'Figures by class of {stage.name}')
        )
        called = ['true, called', *names]
        rule = 'the most probable class counts, whatever the threshold'
        parts.append(page.note(f'How often each true class was called what; {rule}:'))
        parts.append(page.table(called, confusion, f'Confusion of {stage.name}'))
        parts.append(_confusions(test, names, short))
    return ''.join(parts)


def _confusions(test: Scores, names: list[str], short: dict[str, str]) -> str:
    called = test.probabilities.argmax(1)
    certain = test.probabilities.max(1)
    wrong = np.flatnonzero(called != test.labels)
    shown = wrong[np.argsort(-certain[wrong], kind='stable')][:CONFUSIONS]
    if not len(shown):
        return page.sentence('Every image is called what it is.')
    tiles = []
    for i in shown:
        says = f'{names[test.labels[i]]}, called {names[called[i]]}, {certain[i]:.2f}'
        tiles.append((thumbnail(test.paths[i]), short[test.paths[i]], f'{short[test.paths[i]]}: {says}'))
    return page.note(f'The most certain of {len(wrong)} confusions:') + page.tiles(tiles)


def _figure(value: float | int | None) -> str:
    return '-' if value is None else f'{value:.3f}' if isinstance(value, float) else str(value)

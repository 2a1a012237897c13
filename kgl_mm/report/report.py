"""From a work directory to its ``report.html``: which sections there are, and what they show."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.dist import master_only
from mmengine.logging import print_log

from kgl_mm.errors import first_line
from kgl_mm.evaluation.functional import average_precision, confusion_matrix, per_class, precision_recall
from kgl_mm.files import write_atomically

from . import page
from .charts import Line, line_chart
from .data import Run, Scores, read_run
from .knowledge import labels_section, priors_section
from .pictures import Splits, look, mask_picture, thumbnail, views_of

REPORT = 'report.html'
THUMBNAILS = 40  # of good parts, and of defective ones, that a threshold may reach first
WORST, SAMPLE = 5, 4


@master_only
def try_report(root: str | Path) -> Path | None:
    """Write the report of a work directory; what goes wrong is a warning, since the results are there without it."""
    try:
        return write_report(root)
    except Exception as error:
        print_log(
            f'{root}: the report could not be drawn ({type(error).__name__}: {first_line(error)}); everything else is '
            f'written. Once that is mended: python tools/report.py {root}',
            logger='current',
            level=logging.WARNING,
        )
        return None


def write_report(root: str | Path) -> Path:
    """Write ``ROOT/report.html``, one file that needs nothing else, and return its path.

    What the work directory lacks is left out, or said in a sentence.
    """
    run = read_run(root)
    splits = Splits(run)
    names = short_names([path for stage in run.stages if stage.test for path in stage.test.paths])
    sections = [
        ('metrics', 'Metrics', lambda: _metrics(run)),
        ('threshold', 'Threshold and cost', lambda: _threshold(run)),
        ('curves', 'Curves', lambda: _curves(run)),
        ('classes', 'Kinds', lambda: _classes(run, splits)),
        ('errors', 'Errors and hits', lambda: _errors(run, splits, names)),
        ('labels', 'Labels worth a second look', lambda: labels_section(run, splits)),
        ('priors', 'Priors', lambda: priors_section(run, splits)),
        ('training', 'Training', lambda: _training(run)),
        ('run', 'Data, configuration, versions', lambda: _facts(run, splits)),
    ]
    drawn = [(key, name, _section(name, make)) for key, name, make in sections]
    path = Path(root, REPORT)
    title = f'Inspection report: {path.resolve().parent.name}'
    write_atomically(path, page.render(title, _lead(run), drawn, payload(run, names)))
    return path


def _section(name: str, make: Callable[[], str]) -> str:
    """What cannot be drawn, of a run that nobody foresaw, costs its section and not the report."""
    try:
        return make()
    except Exception as error:
        print_log(
            f'report, {name}: {type(error).__name__}, {first_line(error)}', logger='current', level=logging.WARNING
        )
        return page.sentence(f'This could not be drawn: {type(error).__name__}, {first_line(error)}.')


def short_names(paths: list[str]) -> dict[str, str]:
    """Paths without the folder that all of them are in."""
    split = {path: Path(path).parts for path in paths}
    common = 0
    if split:
        for level in zip(*(parts[:-1] for parts in split.values()), strict=False):
            if len(set(level)) > 1:
                break
            common += 1
    return {path: '/'.join(parts[common:]) for path, parts in split.items()}


def payload(run: Run, names: dict[str, str]) -> dict:
    """What the script of the page computes with."""
    index = {path: number for number, path in enumerate(names)}
    stages, thumbs = [], {}
    for stage in run.stages:
        test = stage.test
        if not test or test.scores is None:
            continue
        found = stage.metrics.get('test', {})
        stages.append(
            dict(
                name=stage.name,
                threshold=found.get('threshold', 0.5),
                origin=page.calibration(found),
                both=test.both_classes,
                scores=test.scores.tolist(),
                defect=(test.labels != 0).astype(int).tolist(),
                image=[index[path] for path in test.paths],
            )
        )
        for place in _first_to_be_wrong(test):
            number = index[test.paths[place]]
            if number not in thumbs:
                thumbs[number] = thumbnail(test.paths[place])
    shown = [stage['name'] for stage in stages].index(run.shown.name) if run.shown else 0
    return dict(stages=stages, names=list(names.values()), thumbs=thumbs, shown=shown)


def _first_to_be_wrong(test: Scores) -> list[int]:
    order = np.argsort(-test.scores, kind='stable')
    good = [int(i) for i in order if not test.labels[i]]
    bad = [int(i) for i in order[::-1] if test.labels[i]]
    return good[:THUMBNAILS] + bad[:THUMBNAILS]


def _lead(run: Run) -> str:
    parts = [page.note(f'{run.root.resolve()}, written {time.strftime("%Y-%m-%d %H:%M")}.')]
    if run.shown:
        found = run.shown.metrics.get('test', {})
        text = f'{run.shown.name} on {len(run.shown.test.paths)} test images'
        if 'AP' in found:
            text += f': average precision {page.cell("AP", found)}'
        words = dict(FP=('false alarm', 'false alarms'), FN=('miss', 'misses'))
        wrong = [f'{found[key]:.0f} {pair[found[key] != 1]}' for key, pair in words.items() if key in found]
        if wrong:
            text += f', {" and ".join(wrong)} at a threshold of {page.cell("threshold", found)}'
        parts.insert(0, page.sentence(f'{text}.'))
    return ''.join(parts) + ''.join(map(page.note, run.notes))


def _metrics(run: Run) -> str:
    metrics = {stage.name: stage.metrics for stage in run.stages if stage.metrics}
    if not metrics:
        return page.sentence('No stage has been tested yet.')
    text = page.metrics_table(metrics)
    if any('AP_low' in found for splits in metrics.values() for found in splits.values()):
        text += page.note('In brackets: 95 % intervals, by drawing the images anew.')
    if any(found.get('threshold_calibrated') for splits in metrics.values() for found in splits.values()):
        text += page.note('A calibrated threshold was chosen on validation data.')
    else:
        text += page.note('No threshold was chosen on validation data: 0.5 is a guess.')
    if run.best:
        text += page.note(f'The best of the rounds is {run.best}.')
    untested = [stage.name for stage in run.stages if not stage.metrics]
    if untested:
        text += page.note(f'Without a test: {", ".join(untested)}.')
    return text


def _threshold(run: Run) -> str:
    if run.shown is None:
        return page.sentence('There are no scores of good and defective parts, so there is no threshold to move.')
    text = '' if run.shown.test.both_classes else page.note(_one_class(run.shown.test))
    return text + page.template('threshold.html')


def _one_class(test: Scores) -> str:
    only = 'defective' if test.labels.any() else 'good'
    return f'All {len(test.labels)} test images are {only}, so there are no curves and no costs.'


def _curves(run: Run) -> str:
    precision, roc = [], []
    for number, stage in enumerate(run.stages):
        if not stage.test or not stage.test.both_classes:
            continue
        odds, labels = stage.test.log_odds, stage.test.labels
        recalls, precisions = precision_recall(odds, labels)
        area = average_precision(odds, labels)
        precision.append(Line(f'{stage.name}, AP {area:.3f}', recalls.tolist(), precisions.tolist(), number % 6))
        alarms, hits = roc_curve(odds, labels)
        found = stage.metrics.get('test', {}).get('AUROC')
        name = stage.name if found is None else f'{stage.name}, area {found:.3f}'
        roc.append(Line(name, alarms, hits, number % 6))
    if not precision:
        return ''
    charts = [
        line_chart('Precision over recall', precision, ('recall', 'precision'), unit=True, key='pr'),
        line_chart('ROC curve', roc, ('share of good parts rejected', 'recall'), unit=True, key='roc'),
    ]
    return f'<div class="charts">{"".join(charts)}</div>' + page.note('The ring is the threshold chosen above.')


def roc_curve(scores, labels) -> tuple[list[float], list[float]]:
    """Share of the good parts that are called defective, and of the defective ones, from no call to all of them.

    >>> roc_curve([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    _, place = np.unique(-np.asarray(scores), return_inverse=True)
    defective = np.asarray(labels) != 0
    alarms, hits = (np.bincount(place[which], minlength=place.max() + 1).cumsum() for which in (~defective, defective))
    return [0.0, *(alarms / alarms[-1]).tolist()], [0.0, *(hits / hits[-1]).tolist()]


def _classes(run: Run, splits: Splits) -> str:
    """Figures by class where there are more than good and defective."""
    parts = []
    for stage in run.stages:
        test = stage.test
        if not test or (test.scores is not None and test.probabilities.shape[1] <= 2):
            continue
        number = test.probabilities.shape[1]
        dataset = splits.dataset(stage, 'test')
        names = [] if isinstance(dataset, str) else dataset.metainfo.get('classes') or []
        names = [str(name) for name in names] if len(names) == number else [f'class {i}' for i in range(number)]
        rows = [
            [
                name,
                *('-' if value is None else f'{value:.3f}' if isinstance(value, float) else str(value) for value in x),
            ]
            for name, x in zip(names, (row.values() for row in per_class(test.probabilities, test.labels)), strict=True)
        ]
        head = ['', 'Images', 'Precision', 'Recall', 'F1', 'Average precision']
        matrix = confusion_matrix(test.probabilities.argmax(1), test.labels, number).tolist()
        confusion = [[name, *map(str, row)] for name, row in zip(names, matrix, strict=True)]
        parts.append(
            f'<h3>{page.escape(stage.name)}</h3>' + page.table(head, rows, f'Figures by class of {stage.name}')
        )
        called = ['true, called', *names]
        parts.append(page.note('How often each true class was called what:'))
        parts.append(page.table(called, confusion, f'Confusion of {stage.name}'))
    return ''.join(parts)


def _figure(value: float | int | None) -> str:
    return '-' if value is None else f'{value:.3f}' if isinstance(value, float) else str(value)


def _errors(run: Run, splits: Splits, names: dict[str, str]) -> str:
    stage = run.shown
    if stage is None:
        return ''
    test, threshold = stage.test, stage.metrics.get('test', {}).get('threshold', 0.5)
    defective, called = test.labels != 0, test.scores >= threshold
    order = [int(i) for i in np.argsort(-test.scores, kind='stable')]
    alarms = [i for i in order if called[i] and not defective[i]]
    misses = [i for i in order[::-1] if not called[i] and defective[i]]
    hits = [i for i in order if called[i] and defective[i]]
    sample = [hits[i] for i in np.unique(np.linspace(0, len(hits) - 1, SAMPLE).round().astype(int))] if hits else []
    groups = {
        'Worst false alarms': (alarms[:WORST], len(alarms), 'No good part is called defective.'),
        'Worst misses': (misses[:WORST], len(misses), 'No defect is missed.'),
        'A sample of hits': (sample, len(hits), 'No defect is found.'),
    }
    if defective.all():
        del groups['Worst false alarms']
    if not defective.any():
        groups = {'Worst false alarms': groups['Worst false alarms']}
    wanted = [test.paths[i] for chosen, _, _ in groups.values() for i in chosen]
    maps, reason = look(stage, splits, wanted) if wanted else ({}, None)
    infos = splits.infos(stage, 'test')
    parts = [page.sentence(f'{stage.name} at a threshold of {threshold:.3f}, as recorded.')]
    if any(maps.values()):
        parts.append(page.note('All maps are on one scale: the brighter, the more speaks for a defect.'))
    if reason:
        parts.append(page.note(reason))
    for title, (chosen, number, none) in groups.items():
        count = f', {len(chosen)} of {number}' if number else ''
        parts.append(f'<h3>{title}{count}</h3>')
        cases = [_case(test, i, names, maps, infos) for i in chosen]
        parts.append(f'<div class="cases">{"".join(cases)}</div>' if cases else page.sentence(none))
    return ''.join(parts)


def _case(test: Scores, place: int, names: dict, maps: dict, infos: dict) -> str:
    path = test.paths[place]
    shown = views_of(path, maps.get(path, {}))
    mask = mask_picture(infos.get(path, {}).get('mask_path')) if test.labels[place] else None
    views = [
        ('image', shown['image'], 'file not found'),
        ('heat map', shown.get('heat'), 'none'),
        ('segmentation', shown.get('seg'), 'none'),
        ('mask', mask, 'none' if test.labels[place] else 'good part'),
    ]
    return page.case(names[path], f'score {test.scores[place]:.4g}', views)


def _training(run: Run) -> str:
    parts = []
    for stage in run.stages:
        losses = [name for name in stage.curves if name.split('.')[-1].startswith('loss')]
        checked = [name for name in ('AP', 'AUROC', 'macro_AP') if name in stage.curves]
        guidance = [name for name in stage.curves if name.startswith('lambda')]
        rates = [name for name in stage.curves if name == 'lr']
        groups = {'Loss': losses, 'Validation': checked, 'Weight of guidance': guidance, 'Learning rate': rates}
        charts = []
        for title, chosen in groups.items():
            lines = [
                Line(name, list(stage.curves[name]), list(stage.curves[name].values()), (i + 1) % 6)
                for i, name in enumerate(chosen)
            ]
            if lines:
                charts.append(line_chart(f'{title} of {stage.name}', lines, ('epoch', title.lower())))
        if charts:
            parts.append(f'<h3>{page.escape(stage.name)}</h3><div class="charts small">{"".join(charts)}</div>')
    return ''.join(parts) or page.sentence('No log of a training was found.')


def _facts(run: Run, splits: Splits) -> str:
    parts, rows, reasons = [], [], []
    for stage in run.stages:
        for split in ('train', 'val', 'test'):
            dataset = splits.dataset(stage, split)
            if isinstance(dataset, str):
                reasons += [] if dataset == 'there is none' else [f'{stage.name}, {split}: {dataset}.']
                continue
            rows.append([f'{stage.name}, {split}', *_counts(splits.infos(stage, split), dataset)])
    if rows:
        parts.append(
            page.table(['Data', 'Images', 'Good', 'Defective', 'Defects with a mask'], rows, 'Counts of the data')
        )
    parts += [page.note(f'The images could not be counted. {reason}') for reason in reasons]
    rows = []
    for stage in run.stages:
        found = stage.metrics.get('test') or next(iter(stage.metrics.values()), {})
        if found:
            versions = ', '.join(f'{name} {version}' for name, version in found.get('versions', {}).items())
            checkpoint = stage.checkpoint.name if stage.checkpoint else '-'
            seed, config = (str(found.get(key, '-')) for key in ('seed', 'config'))
            rows.append([stage.name, seed, config, checkpoint, versions])
    if rows:
        head = ['Stage', 'Seed', 'Hash of the configuration', 'Checkpoint', 'Versions']
        parts.append('<h3>Seeds and versions</h3>' + page.table(head, rows, 'Seeds and versions'))
    for stage in run.stages:
        if stage.config_text:
            text = f'<pre tabindex="0">{page.escape(stage.config_text)}</pre>'
            parts.append(page.details(f'Configuration of {stage.name}', text))
    return ''.join(parts)


def _counts(infos: dict[str, dict], dataset) -> list[str]:
    labels = [int(np.ravel(info.get('gt_label', 0))[0]) for info in infos.values()]
    classes = dataset.metainfo.get('classes')
    good = sum(label == 0 for label in labels) if not classes or classes[0] == 'good' else None
    pairs = zip(labels, infos.values(), strict=True)
    masks = sum(bool(info.get('mask_path')) for label, info in pairs if label or good is None)
    split = ['-', '-'] if good is None else [str(good), str(len(labels) - good)]
    return [str(len(labels)), *split, str(masks)]

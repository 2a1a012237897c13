"""From a work directory to its ``report.html``: which sections there are, and what they show."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.dist import master_only
from mmengine.logging import print_log

from kgl_mm.errors import first_line
from kgl_mm.files import write_atomically

from . import page
from .boxes import boxes_section, finds_boxes
from .data import Run, Scores, read_run
from .examples import errors_section
from .facts import facts_section, training_section
from .figures import classes_section, curves_section, metrics_section, threshold_section
from .knowledge import labels_section, priors_section
from .pictures import Splits, thumbnail

REPORT = 'report.html'
THUMBNAILS = 40  # of good parts, and of defective ones, that a threshold may reach first


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
        ('metrics', 'Metrics', lambda: metrics_section(run)),
        ('boxes', 'Boxes', lambda: boxes_section(run)),
        ('threshold', 'Threshold and cost', lambda: threshold_section(run)),
        ('curves', 'Curves', lambda: curves_section(run)),
        ('classes', 'Kinds', lambda: classes_section(run, splits, names)),
        ('errors', 'Errors and hits', lambda: errors_section(run, splits, names)),
        ('labels', 'Labels worth a second look', lambda: labels_section(run, splits)),
        ('priors', 'Priors', lambda: priors_section(run, splits)),
        ('training', 'Training', lambda: training_section(run)),
        ('run', 'Data, configuration, versions', lambda: facts_section(run, splits)),
    ]
    if finds_boxes(run):  # nothing is good or defective there
        sections = [section for section in sections if section[0] not in ('threshold', 'labels')]
    drawn = [(key, name, _section(name, make)) for key, name, make in sections]
    if gone := sum(not Path(name).is_file() for name in names):
        where = f'{gone} of {len(names)} test images are not where they were, seen from {Path.cwd()}'
        print_log(f'report: {where}: their pictures are missing.', logger='current', level=logging.WARNING)
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
                origin=page.origin_of(found),
                both=test.both_classes,
                scores=test.scores.tolist(),
                defect=(test.labels != 0).astype(int).tolist(),
                image=[index[path] for path in test.paths],
            )
        )
        for place in _first_to_be_wrong(test, found.get('threshold', 0.5)):
            number = index[test.paths[place]]
            if number not in thumbs:
                thumbs[number] = thumbnail(test.paths[place])
    shown = [stage['name'] for stage in stages].index(run.shown.name) if run.shown else 0
    return dict(stages=stages, names=list(names.values()), thumbs=thumbs, shown=shown)


def _first_to_be_wrong(test: Scores, threshold: float) -> list[int]:
    """Good and defective images, the worst first; of many that are wrong at the threshold also those next to it."""
    defective, half, chosen = test.labels != 0, THUMBNAILS // 2, []
    wrong = (test.scores >= threshold) != defective
    for mine, badness in ((~defective, test.scores), (defective, -test.scores)):
        ranked = np.flatnonzero(mine)[np.argsort(-badness[mine], kind='stable')]
        start = max(half, int(wrong[mine].sum()) - half)
        chosen += [*ranked[:half], *ranked[start : start + half]]
    return [int(i) for i in chosen]


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
            text += f', {" and ".join(wrong)} at a threshold of {found["threshold"]:.3f} ({page.origin_of(found)})'
        parts.insert(0, page.sentence(f'{text}.'))
    return ''.join(parts) + ''.join(map(page.note, run.notes))

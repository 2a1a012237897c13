"""The section of images: the worst false alarms and misses, and a sample of hits."""

import numpy as np

from . import page
from .data import Run, Scores
from .pictures import Splits, look, mask_picture, views_of

WORST, SAMPLE = 5, 4


def errors_section(run: Run, splits: Splits, names: dict[str, str]) -> str:
    """What the shown stage gets wrong at its recorded threshold, each image with its maps and its mask."""
    stage = run.shown
    if stage is None:
        return ''
    test, found = stage.test, stage.metrics.get('test', {})
    threshold = found.get('threshold', 0.5)
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
    parts = [page.sentence(f'{stage.name} at the recorded threshold of {threshold:.3f}, {page.origin_of(found)}.')]
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

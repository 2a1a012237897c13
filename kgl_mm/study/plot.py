"""The summary of a study as a picture."""

import io
from collections import defaultdict

import numpy as np
from matplotlib.figure import Figure

from kgl_mm.evaluation.intervals import t_interval

from .summary import POSITIVES, Group, by_seed, curve_of


def draw(groups: list[Group], name: str, split: str = 'test') -> bytes:
    """A PNG file: mean of each group, its interval and its seeds; curves where the number of defects varies."""
    counts = {group.settings.get(POSITIVES, 'None') for group in groups} - {'None'}
    found = [(group, list(by_seed(group, name, split).values())) for group in groups]
    found = [(group, values) for group, values in found if values]
    figure = _curves(found) if len(counts) > 1 else _bars(found)
    axes = figure.axes[0]
    (axes.set_ylabel if len(counts) > 1 else axes.set_xlabel)(f'{split} {name}: mean over seeds, 95 % interval')
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, dpi=120, bbox_inches='tight')
    return file.getvalue()


def _bars(found: list[tuple[Group, list[float]]]) -> Figure:
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(found)))
    axes = figure.add_subplot()
    for place, (_, values) in enumerate(found):
        _mark(axes.errorbar, np.mean(values), place, values, 'x')
        axes.plot(values, [place] * len(values), '.', color='0.6', zorder=1)
    axes.set_yticks(range(len(found)), [group.label for group, _ in found])
    axes.invert_yaxis()
    return figure


def _curves(found: list[tuple[Group, list[float]]]) -> Figure:
    figure = Figure(figsize=(7, 4.5))
    axes = figure.add_subplot()
    series = defaultdict(list)
    for group, values in found:
        if group.settings.get(POSITIVES, 'None') != 'None':
            series[curve_of(group)].append((int(group.settings[POSITIVES]), values))
    for label, points in series.items():
        points.sort(key=lambda point: point[0])
        counts, means = [count for count, _ in points], [np.mean(values) for _, values in points]
        (line,) = axes.plot(counts, means, 'o-', label=label)
        spans = np.array([t_interval(values) for _, values in points])
        if np.isfinite(spans).all():
            axes.fill_between(counts, *spans.T.clip(0, 1), alpha=0.15, color=line.get_color())
    axes.set_xlabel('defective training images')
    axes.legend(frameon=False)
    return figure


def _mark(errorbar, x: float, y: float, values: list[float], axis: str) -> None:
    low, high = t_interval(values)
    error = [[x - max(low, 0)], [min(high, 1) - x]] if np.isfinite(low) else None
    errorbar(x, y, **{f'{axis}err': error}, fmt='o', capsize=3, color='C0', zorder=2)

"""Line charts as SVG text; colours and type are those of ``template/style.css``."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 42
MOST = 600  # points of a line, more than a chart has pixels


class Line(NamedTuple):
    """A line of a chart; ``colour`` is a number of the palette."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 0


def line_chart(title: str, lines: Sequence[Line], labels: tuple[str, str], unit: bool = False, key: str = '') -> str:
    """An SVG picture of some lines.

    Args:
        title: what it shows, for those who cannot see it.
        lines: finite numbers, at least one point each.
        labels: of the axes.
        unit: whether both axes go from 0 to 1.
        key: marks the picture, and asks for a dot that the page moves.
    """
    if unit:
        x_range, y_range = (0.0, 1.0), (0.0, 1.0)
    else:
        x_range, y_range = _range([line.xs for line in lines]), _range([line.ys for line in lines], zero=True)
    x = _scale(x_range, LEFT, WIDTH - RIGHT)
    y = _scale(y_range, HEIGHT - BOTTOM, TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"']
    parts[0] += f' data-chart="{escape(key)}">' if key else '>'
    for value in ticks(*x_range, whole=not unit):
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(_text(x(value), HEIGHT - BOTTOM + 16, number(value), 'middle'))
    for value in ticks(*y_range):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(_text(LEFT - 6, y(value) + 4, number(value), 'end'))
    for line in lines:
        xs, ys = thinned(line.xs, line.ys)
        points = ' '.join(f'{x(a):.1f},{y(b):.1f}' for a, b in zip(xs, ys, strict=True))
        if len(xs) == 1:
            parts.append(f'<circle class="dot c{line.colour}" cx="{x(xs[0]):.1f}" cy="{y(ys[0]):.1f}" r="3"/>')
        else:
            parts.append(f'<polyline class="line c{line.colour}" points="{points}"/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, labels[0], 'middle'))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="tick" transform="translate(13 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f'{escape(labels[1])}</text>'
    )
    if key:
        parts.append('<circle class="here" r="5" visibility="hidden"/>')
    legend = ''.join(f'<li><i class="c{line.colour}"></i>{escape(line.name)}</li>' for line in lines)
    return f'<figure class="chart">{"".join(parts)}</svg><ul class="legend">{legend}</ul></figure>'


def thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most some hundred points, the first and the last one among them."""
    if len(xs) <= MOST:
        return list(xs), list(ys)
    chosen = np.unique(np.linspace(0, len(xs) - 1, MOST).round().astype(int))
    return [xs[i] for i in chosen], [ys[i] for i in chosen]


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Some five round numbers from ``low`` to ``high``.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(1, 3, whole=True)
    [1, 2, 3]
    """
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    if whole:
        step = max(1, round(step))
    first = math.ceil(low / step - 1e-9)
    values = [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]
    return values if whole else [round(value, 10) + 0.0 for value in values]


def number(value: float) -> str:
    """Short, without zeros that say nothing.

    >>> number(0.25), number(40.0), number(0.00001)
    ('0.25', '40', '1e-05')
    """
    return f'{value:.4g}'


def _range(groups: Sequence[Sequence[float]], zero: bool = False) -> tuple[float, float]:
    values = [value for group in groups for value in group]
    low, high = min(values), max(values)
    if zero and low > 0:
        low = 0.0
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _scale(span: tuple[float, float], start: float, end: float):
    return lambda value: start + (value - span[0]) / (span[1] - span[0]) * (end - start)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'

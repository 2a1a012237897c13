"""The page itself: sections of HTML in which everything that comes from a run is escaped."""

import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from kgl_mm.evaluation.thresholds import origin

from .charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

METRICS = {
    'AP': 'Average precision',
    'AUROC': 'Area under the ROC curve',
    'recall_at_1pct_FPR': 'Recall at 1 % false alarms',
    'oracle_F1': 'Best possible F1',
    'macro_AP': 'Average precision, mean of classes',
    'mAP_50': 'Mean average precision of boxes, IoU 0.5',
    'mAP': 'Mean average precision of boxes, IoU 0.5 to 0.95',
    'accuracy': 'Accuracy',
    'threshold': 'Threshold',
    'FP': 'False alarms',
    'FN': 'Misses',
    'miss_rate_high': 'Share of defects missed, at most',
    'precision': 'Precision',
    'recall': 'Recall',
    'FP_at_zero_FN': 'False alarms if nothing is missed',
    'num_images': 'Images',
    'num_defects': 'Defective among them',
    'num_boxes': 'Boxes in them',
}
_COUNTS = ('FP', 'FN', 'FP_at_zero_FN', 'num_images', 'num_defects', 'num_boxes')


def render(title: str, lead: str, sections: Sequence[tuple[str, str, str]], data: dict) -> bytes:
    """The whole file.

    Args:
        title: plain text.
        lead: HTML below the title.
        sections: key, title (plain text) and HTML of each; those without HTML are left out.
        data: for the script, under ``#data``.
    """
    sections = [section for section in sections if section[2]]
    nav = ''.join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    body = ''.join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{escape(name)}</h2>{html}</section>'
        for key, name, html in sections
    )
    area = dict(left=LEFT, right=WIDTH - RIGHT, top=TOP, bottom=HEIGHT - BOTTOM)
    parts = dict(
        TITLE=escape(title),
        LEAD=lead,
        NAV=nav,
        BODY=body,
        DATA=as_json(dict(data, area=area)),
        STYLE=template('style.css'),
        SCRIPT=template('report.js'),
    )
    page = re.sub(r'<!-- ([A-Z]+) -->', lambda match: parts[match[1]], template('page.html'))
    return page.encode('utf-8', 'replace')


def template(name: str) -> str:
    return files('kgl_mm.report').joinpath('template', name).read_text('utf-8')


def as_json(data: object) -> str:
    """JSON that cannot end the element of a page that it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(',', ':'))
    return text.replace('&', '\\u0026').replace('<', '\\u003c').replace('>', '\\u003e')


def sentence(text: str) -> str:
    return f'<p>{escape(text)}</p>'


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """A table whose first column names its rows; cells are plain text."""
    top = ''.join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = ''.join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def metrics_table(metrics: dict[str, dict[str, dict]]) -> str:
    """All stages and splits side by side; ``metrics`` is what ``metrics.json`` holds."""
    columns = [(f'{stage},\n{split}', found) for stage, splits in metrics.items() for split, found in splits.items()]
    rows = []
    for name, title in METRICS.items():
        if any(name in found for _, found in columns):
            rows.append([title, *(cell(name, found).replace(' (', '\n(') for _, found in columns)])
    return table(['', *(name for name, _ in columns)], rows, 'Metrics of all stages')


def cell(name: str, found: dict) -> str:
    """A metric as text, with its interval, or whether it is calibrated, in brackets."""
    value = found.get(name)
    if not isinstance(value, int | float):
        return '-'
    if name in _COUNTS:
        return f'{value:.0f}'
    text = f'{value:.3f}'
    if name == 'threshold':
        return f'{text} ({"calibrated" if found.get("threshold_calibrated") else "not calibrated"})'
    low, high = found.get(f'{name}_low'), found.get(f'{name}_high')
    return f'{text} ({low:.3f} to {high:.3f})' if low is not None and high is not None else text


def origin_of(found: dict) -> str:
    """Where the threshold of some metrics comes from."""
    return origin(bool(found.get('threshold_calibrated')), found.get('threshold_aim'))


def picture(uri: str | None, alt: str, caption: str, missing: str = 'no picture') -> str:
    """A picture with its caption, or a word where there is none."""
    shown = f'<img src="{uri}" alt="{escape(alt)}">' if uri else f'<span class="none">{escape(missing)}</span>'
    return f'<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>'


def case(name: str, text: str, pictures: Sequence[tuple[str, str | None, str]]) -> str:
    """One image in several views: (caption, data URI, what to say where it is missing) of each."""
    views = ''.join(picture(uri, f'{caption} of {name}', caption, missing) for caption, uri, missing in pictures)
    title = f'<h4 title="{escape(name)}">{escape(name)} <span>{escape(text)}</span></h4>'
    return f'<article class="case">{title}<div class="views">{views}</div></article>'


def tiles(items: Sequence[tuple[str | None, str, str]]) -> str:
    """Pictures in a row: (data URI, name, caption) of each."""
    shown = ''.join(f'<li>{picture(uri, name, caption)}</li>' for uri, name, caption in items)
    return f'<ul class="tiles">{shown}</ul>'


def details(title: str, html: str) -> str:
    return f'<details><summary>{escape(title)}</summary>{html}</details>'

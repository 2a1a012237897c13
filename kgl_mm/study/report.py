"""The summary of a table, as text, file and picture."""

from collections.abc import Sequence
from pathlib import Path

from kgl_mm.errors import UsageError
from kgl_mm.files import write_atomically

from .plot import draw
from .summary import (
    better,
    compare,
    groups_of,
    markdown,
    metric_of,
    steps,
    summarise,
    with_or_without,
    write_summary,
)


def report(
    rows: list[dict],
    out: Path,
    pairs: Sequence[tuple[str, str]] = (),
    split: str = 'test',
    choices: Sequence[Sequence[str]] = (),
) -> str:
    """Write ``OUT.csv``, ``OUT.md`` and ``OUT.png``; returns the text, which is Markdown.

    Args:
        rows: of a table.
        out: the path of the files, without suffix.
        pairs: of groups, by what they are called in the text: by how much the second is ahead of the first.
        split: ``'test'`` or ``'val'``.
        choices: of groups, of which validation data choose for each fold and seed; ``'A or B'`` is such a group. A
            stage that was trained with and without guidance is chosen from in any case where validation data can.
    """
    groups = groups_of(rows)
    metric = metric_of(groups, split)
    chosen, notes = with_or_without(groups, metric)
    groups += [better(groups, labels, metric) for labels in choices] + chosen
    lines = summarise(groups, split)
    write_summary(lines, out.with_suffix('.csv'))
    differences = [compare(groups, *pair, metric, split) for pair in pairs] + steps(groups, metric, split)
    text = markdown(lines, differences, notes)
    write_atomically(out.with_suffix('.md'), text.encode())
    if any(metric in line for line in lines):
        write_atomically(out.with_suffix('.png'), draw(groups, metric, split))
    return text


def choose(rows: list[dict], where: dict[str, list]) -> list[dict]:
    """The rows whose fields have one of the values."""
    for name, values in where.items():
        if any(name not in row for row in rows):
            raise UsageError(f'--where {name}: not a field of this table, which has {", ".join(rows[0])}')
        allowed = set(map(str, values))
        rows = [row for row in rows if row[name] in allowed]
    if not rows:
        raise UsageError('--where: no row is like that')
    return rows

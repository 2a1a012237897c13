"""The summary of a table, as text, file and picture."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from kgl_mm.errors import UsageError
from kgl_mm.files import write_atomically

from .plot import draw
from .summary import (
    better,
    called,
    compare,
    groups_of,
    markdown,
    metric_of,
    steps,
    summarise,
    with_or_without,
    write_summary,
)
from .table import varied_in


def report(
    rows: list[dict],
    out: Path,
    pairs: Sequence[tuple[str, str]] = (),
    split: str = 'test',
    choices: Sequence[Sequence[str]] = (),
    compared: str | None = None,
    remark: str = '',
) -> str:
    """Write ``OUT.csv``, ``OUT.md`` and ``OUT.png``; returns the text, which is Markdown.

    Args:
        rows: of a table.
        out: the path of the files, without suffix.
        pairs: of groups, by what they are called in the text: by how much the second is ahead of the first.
        split: ``'test'`` or ``'val'``.
        choices: of groups, of which validation data choose for each fold and seed; ``'A or B'`` is such a group. A
            stage that was trained with and without guidance is chosen from in any case where validation data can.
        compared: the metric of differences and picture; by default the first that there is, which choices are made by.
        remark: a sentence to stand below.
    """
    groups = groups_of(rows)
    metric = metric_of(groups, split)
    chosen, notes = with_or_without(groups, metric)
    groups += [better(groups, labels, metric) for labels in choices] + chosen
    if compared and not any(row.get(f'{split}_{compared}', '') != '' for row in rows):
        raise UsageError(f'--metric {compared}: no row has it')
    metric = compared or metric
    for label in itertools.chain(*pairs):
        called(label, groups, '--compare')
    lines = summarise(groups, split)
    write_summary(lines, out.with_suffix('.csv'))
    differences = []
    for pair in pairs:
        try:
            differences.append(compare(groups, *pair, metric, split))
        except UsageError as error:  # all runs of one have failed, say
            notes.append(f'{error}.')
    differences += steps(groups, metric, split)
    text = markdown(lines, differences, notes + [remark] * bool(remark))
    write_atomically(out.with_suffix('.md'), text.encode())
    if any(metric in line for line in lines):
        write_atomically(out.with_suffix('.png'), draw(groups, metric, split))
    return text


def refuse_mixed(rows: list[dict]) -> None:
    """No mean is of several configs, or of other data; rows of old tables tell less of theirs, and fit a longer one.

    Raises:
        UsageError: names one that would be.
    """
    found = defaultdict(set)
    for row in rows:
        found[(*(row[name] for name in varied_in(row)), row['stage'])].add(row.get('config', ''))
    for group, configs in found.items():
        longest = max(configs, key=len)
        if not all(map(longest.startswith, configs)):
            raise UsageError(
                f'{" ".join(filter(None, group))}: there are rows of several configs, or of other data '
                f'({", ".join(sorted(configs))}); choose those of one by --where config={longest}'
            )


def choose(rows: list[dict], where: dict[str, list]) -> list[dict]:
    """The rows whose fields have one of the values, all of one config."""
    for name, values in where.items():
        if any(name not in row for row in rows):
            raise UsageError(f'--where {name}: not a field of this table, which has {", ".join(rows[0])}')
        allowed = set(map(str, values))
        rows = [row for row in rows if row[name] in allowed]
    if not rows:
        raise UsageError('--where: no row is like that')
    refuse_mixed(rows)
    return rows

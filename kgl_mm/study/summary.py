"""What the rows of a study say: means with their intervals, paired differences, a learning curve."""

import csv
import io
import itertools
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kgl_mm.datasets.checks import some
from kgl_mm.engine.stages import ALONE
from kgl_mm.errors import UsageError
from kgl_mm.evaluation.intervals import paired_bootstrap, t_interval
from kgl_mm.files import write_atomically

from .table import PIXELS, varied_in

MEANS = ('AP', 'AUROC', 'macro_AP', 'accuracy', *PIXELS)
COUNTS = ('FP', 'FN')
POSITIVES = 'data.num_positives'
SPOKEN = ('table', 'variant')  # their values speak for themselves
PART = '_part'  # in the name of a part of stage 1, of a cross-fitted run
FEW_PAIRS = 10
"""With fewer, an interval drawn from the pairs says less than it seems to."""


class Group(NamedTuple):
    """The rows that differ in fold and seed alone.

    ``label`` is what the other groups do not share with them, ``folds`` are those of the whole table.
    """

    label: str
    settings: dict[str, str]
    rows: list[dict]
    folds: set[str]
    stage: str


def groups_of(rows: list[dict]) -> list[Group]:
    """Rows by varied fields and stage; a stage that several settings share is one group."""
    found = defaultdict(list)
    for row in rows:
        found[(*(row[name] for name in varied_in(row)), row['stage'])].append(row)
    # the last stage is what a group without a word of it means, and no part of another one
    stages = sorted(dict.fromkeys(row['stage'] for row in rows), key=lambda s: not (s.endswith(ALONE) or PART in s))
    folds = {row['fold'] for row in rows}
    groups, sharing, seen = [], [], {}
    for settings, members in found.items():
        keys = (settings[-1], *sorted(row['key'] for row in members))
        if keys in seen:
            seen[keys].append(settings)
        else:
            seen[keys] = [settings]
    names = varied_in(rows[0]) if rows else []
    varying = {name for name in names if len({row[name] for row in rows}) > 1} or names
    for (stage, *_), shared in seen.items():
        common = {name: shared[0][i] for i, name in enumerate(names) if len({s[i] for s in shared}) == 1}
        # a stage that all settings of a field share is not told apart by it, nor are groups by what all rows share
        told = {name: value for name, value in common.items() if name in varying}
        label = ' '.join([value if name in SPOKEN else f'{_short(name)}={value}' for name, value in told.items()])
        words = [label, stage if len(stages) > 1 and (stage != stages[-1] or not label) else '']
        groups.append(Group(' '.join(filter(None, words)) or stage, common, found[shared[0]], folds, stage))
        sharing.append(', '.join(' '.join(s[i] for i, name in enumerate(names) if name in varying) for s in shared))
    labels = [group.label for group in groups]
    return [
        group._replace(label=f'{group.label} of {of}') if labels.count(group.label) > 1 else group
        for group, of in zip(groups, sharing, strict=True)
    ]


def _short(name: str) -> str:
    """The last word of a field that is one.

    >>> _short('data.num_positives'), _short('train_dataloader.dataset.pipeline.4.num_priors')
    ('num_positives', 'num_priors')
    """
    return name.rpartition('.')[2]


def by_seed(group: Group, name: str, split: str = 'test') -> dict[str, float]:
    """Of each seed whose folds are all there: their mean, of a count their sum."""
    values = defaultdict(dict)
    for row in group.rows:
        if row['status'] == 'done' and row.get(f'{split}_{name}', '') != '':
            values[row['seed']][row['fold']] = float(row[f'{split}_{name}'])
    merge = np.sum if name in COUNTS else np.mean
    return {
        seed: float(merge(list(found.values()))) for seed, found in values.items() if len(found) == len(group.folds)
    }


def summarise(groups: list[Group], split: str = 'test') -> list[dict]:
    """One line a group: AP and AUROC averaged over folds, errors summed over them, and then over seeds.

    A seed counts where all folds are there; ``lacking`` is how many of the others have some.
    """
    lines = []
    for group in groups:
        done = [row for row in group.rows if row['status'] == 'done']
        failed = sum(row['status'] == 'failed' for row in group.rows)
        line = dict(name=group.label, runs=len(group.rows), failed=failed)
        line['stale'] = sum(row.get('stale') == 'yes' for row in group.rows)
        there = [name for name in MEANS if any(row.get(f'{split}_{name}', '') != '' for row in done)]
        begun = {row['seed'] for row in done if any(row.get(f'{split}_{name}', '') != '' for name in there)}
        line['seeds'] = 0
        for name in MEANS:
            values = list(by_seed(group, name, split).values())
            if values:
                low, high = t_interval(values)
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
                line['seeds'] = line['seeds'] or len(values)  # those of the first one, which the table shows
                line |= {name: float(np.mean(values)), f'{name}_std': spread, f'{name}_worst': min(values)}
                line |= {f'{name}_low': max(low, 0.0), f'{name}_high': min(high, 1.0)}
        line['lacking'] = len(begun) - (len(by_seed(group, there[0], split)) if there else 0)
        for name in COUNTS:
            values = list(by_seed(group, name, split).values())
            if values:
                line[name] = float(np.mean(values))
        line['seconds'] = float(np.mean([float(row['seconds'] or 0) for row in done])) if done else np.nan
        lines.append(line)
    return lines


def compare(groups: list[Group], first: str, second: str, name: str = 'AP', split: str = 'test') -> dict:
    """By how much the second is ahead of the first, over the pairs of runs with the same fold and seed.

    Pairs of seeds that lack other folds count, too. ``alone`` names the runs without a partner.

    Raises:
        UsageError: there is no such pair.
    """
    values = []
    for label in (first, second):
        group = called(label, groups, '--compare')
        rows = [row for row in group.rows if row['status'] == 'done' and row.get(f'{split}_{name}', '') != '']
        values.append({(row['fold'], row['seed']): float(row[f'{split}_{name}']) for row in rows})
    pairs = sorted(values[0].keys() & values[1].keys())
    if not pairs:
        raise UsageError(f'--compare {first} {second}: they have no run of the same fold and seed with {name}')
    differences = [values[1][pair] - values[0][pair] for pair in pairs]
    low, high = paired_bootstrap(differences)
    ahead = sum(difference > 0 for difference in differences)
    return dict(
        name=f'{second} - {first}',
        metric=name,
        pairs=len(pairs),
        difference=float(np.mean(differences)),
        low=low,
        high=high,
        ahead=ahead,
        alone=[
            ' '.join([label, *([f'fold {fold}'] if fold else []), f'seed {seed}'])
            for label, mine, others in ((first, *values), (second, *values[::-1]))
            for fold, seed in sorted(mine.keys() - others.keys())
        ],
    )


def better(groups: list[Group], labels: Sequence[str], name: str = 'AP') -> Group:
    """A group of its own: of each fold and seed the run, of those in some groups, that validation data say is best."""
    members = [called(label, groups, '--better') for label in labels]
    found = defaultdict(list)
    for group in members:
        if _is_unjudged(group, name):
            raise UsageError(f'--better {group.label}: its runs have no {name} of validation data to choose by')
        for row in group.rows:
            found[row['fold'], row['seed']].append(row)
    rows = []
    for runs in found.values():
        failed = [row for row in runs if row['status'] != 'done']
        if len(runs) == len(labels):  # else there is nothing to choose from
            rows.append(failed[0] if failed else max(runs, key=lambda row: float(row[f'val_{name}'])))
    common = set.intersection(*(set(group.settings.items()) for group in members))
    shared = dict(item for item in members[0].settings.items() if item in common)
    return Group(' or '.join(labels), shared, rows, groups[0].folds, ' or '.join(group.stage for group in members))


def _is_unjudged(group: Group, name: str) -> bool:
    """Whether validation data say nothing of a run: there may be no defects among them."""
    return any(row['status'] == 'done' and row.get(f'val_{name}', '') == '' for row in group.rows)


def with_or_without(groups: list[Group], name: str = 'AP') -> tuple[list[Group], list[str]]:
    """Where the last stage is trained without guidance too: what validation data choose of each setting.

    Of settings where they cannot choose, a sentence says so.
    """
    found, notes = [], []
    for alone in groups:
        guided = defaultdict(list)
        for group in groups if alone.stage.endswith(ALONE) else ():
            is_last = group.stage.startswith(alone.stage.removesuffix(ALONE)) and not group.stage.endswith(ALONE)
            if is_last and alone.settings.items() <= group.settings.items():
                guided[tuple(group.settings.items())].append(group)
        for others in guided.values():
            members = [alone, *others]  # of equal ones the first is chosen, as a run itself has it
            labels = [group.label for group in members]
            if any(_is_unjudged(group, name) for group in members):
                chosen = ' or '.join(labels)
                notes.append(f'There is no "{chosen}": some of these runs have no {name} of validation data.')
            else:
                found.append(better(groups, labels, name))
    return found, notes


def called(label: str, groups: list[Group], option: str) -> Group:
    for group in groups:
        if group.label == label:
            return group
    raise UsageError(f'{option} {label}: not among {", ".join(group.label for group in groups)}')


def curve_of(group: Group) -> str:
    """What groups share that differ in the number of defective images alone; a choice is named by what it is of."""
    parts = zip(group.label.split(' or '), group.stage.split(' or '), strict=False)
    return ' or '.join(
        ' '.join(word for word in label.split(' ') if not word.startswith('num_positives=')) or stage
        for label, stage in parts
    )


def steps(groups: list[Group], name: str = 'AP', split: str = 'test') -> list[dict]:
    """What more defective images bring: the paired difference of each number to the next one, other fields equal."""
    series = defaultdict(list)
    for group in groups:
        if group.settings.get(POSITIVES, 'None') != 'None':
            series[curve_of(group)].append(group)
    found = []
    for members in series.values():
        members.sort(key=lambda group: int(group.settings[POSITIVES]))
        for fewer, more in itertools.pairwise(members):
            with suppress(UsageError):  # all runs of one of them failed, or their stage has no test
                found.append(compare([fewer, more], fewer.label, more.label, name, split))
    return found


def metric_of(groups: list[Group], split: str = 'test') -> str:
    """The first of the metrics that any row has."""
    names = [name for name in MEANS if any(row.get(f'{split}_{name}', '') != '' for g in groups for row in g.rows)]
    return names[0] if names else 'AP'


def markdown(lines: list[dict], differences: list[dict], notes: Sequence[str] = ()) -> str:
    """The summary as tables; a group with a failed run says so, and its mean is of whole seeds alone.

    ``notes`` are sentences to stand below.
    """
    names = [name for name in MEANS if any(name in line for line in lines)][:2]
    counts = [name for name in COUNTS if any(name in line for line in lines)]
    intervals = [f'{name} (95 % interval)' for name in names]
    header = ['', 'seeds', *intervals, 'std', 'worst', *counts, 'seconds', 'remarks']
    rows = []
    for line in lines:
        remarks = [f'{line["failed"]} of {line["runs"]} runs failed'] if line['failed'] else []
        remarks += [f'{line["stale"]} rows of older code'] if line['stale'] else []
        if lacking := line['lacking']:
            remarks.append('1 seed lacks folds' if lacking == 1 else f'{lacking} seeds lack folds')
        means = [_with_interval(line, name) for name in names]
        spread = [_number(line.get(f'{names[0]}_{what}', np.nan)) if names else '' for what in ('std', 'worst')]
        errors = [_number(line.get(name, np.nan), 1) for name in counts]
        rows.append(
            [line['name'], line['seeds'], *means, *spread, *errors, _number(line['seconds'], 0), ', '.join(remarks)]
        )
    text = _table(header, rows)
    if differences:
        header = ['paired difference', 'metric', 'pairs', 'mean (95 % interval)', 'ahead in', 'remarks']
        rows = [
            [
                d['name'],
                d['metric'],
                d['pairs'],
                f'{d["difference"]:+.3f} {_range(d["low"], d["high"], "+") if d["pairs"] > 1 else "(one pair)"}',
                d['ahead'],
                f'without a partner: {some(d["alone"], most=3)}' if d['alone'] else '',
            ]
            for d in differences
        ]
        text += '\n' + _table(header, rows)
    if any(1 < d['pairs'] < FEW_PAIRS for d in differences):
        about = 'is no more than about the range of what they show, and covers less than 95 %'
        notes = [*notes, f'The interval of fewer than {FEW_PAIRS} pairs {about}.']
    return text + ''.join(f'\n{note}\n' for note in notes)


def _table(header: list, rows: list[list]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return ''.join(f'| {" | ".join(map(str, line))} |\n' for line in lines)


def _with_interval(line: dict, name: str) -> str:
    if name not in line:
        return 'none'
    interval = _range(line[f'{name}_low'], line[f'{name}_high']) if line['seeds'] > 1 else '(one seed)'
    return f'{line[name]:.3f} {interval}'


def _range(low: float, high: float, sign: str = '') -> str:
    return f'({low:{sign}.3f} to {high:{sign}.3f})'


def _number(value: float, digits: int = 3) -> str:
    return '' if np.isnan(value) else f'{value:.{digits}f}'


def write_summary(lines: list[dict], path: Path) -> None:
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, names, restval='')
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(path, text.getvalue().encode())

"""Tables of docs/benchmarks.md, cell by cell, beside what the rows in docs/results say."""

import re
from pathlib import Path

import numpy as np
import pytest

from kgl_mm.study.report import choose
from kgl_mm.study.summary import better, compare, groups_of, summarise
from kgl_mm.study.table import read_table

DOCS = Path(__file__).parents[1] / 'docs'
FEW = 'plain_long,head,head_open,guided,guided_open,patches,patches_random,masks_open'
NUMBER = re.compile(r'[+-]?\d+\.?\d*')

# of a heading: the rows of each condition that heads a column, as (table, variants, number of defects), and how many
# cells there are to check
SECTIONS = {
    'Guidance and its controls, reduced size': (
        {'10 defects': [('ksdd_avg', '', '10')], 'all': [('ksdd_avg', '', 'None')]},
        116,
    ),
    'Ten defects': ({'mean': [('ten', '', '10')], '': [('ten', '', '10')]}, 53),
    'Five defects': ({column: [('few_max_avg', '', '5')] for column in ('AP', '')}, 46),
    'Average pooling, five defects': ({column: [('few', FEW, '5')] for column in ('AP', '')}, 64),
    'Small differences': ({number: [('surface_many', '', number)] for number in ('5', '10', '20', '50')}, 48),
    'Hard surfaces': (
        {
            'weight 1': [('surface_sources_1', '', '')],
            'weight 5': [('surface_sources_5', '', ''), ('surface_sources_1', 'head,head_open', '')],
        },
        52,
    ),
    'Six kinds, few images': (
        {
            f'{number} a kind: accuracy': [(table, '', str(6 * number)) for table in ('neu', 'neu_boxes')]
            for number in (5, 20)
        },
        20,
    ),
    'Guidance by source': (
        {name: [('sources', '', name.split()[0].replace('all', 'None'))] for name in ('5 defects', '10', 'all')},
        54,
    ),
}
BY_RUN = ('Ten defects', 'Guidance by source')  # where a seed lacks folds
NAMES = {
    'plain': ('', 'stage1'),
    'no second network': ('', 'stage1'),
    'plain, twice the epochs': ('plain_long', 'stage1'),
    'head': ('head', 'stage2'),
    'head, open': ('head_open', 'stage2'),
    'none': ('head_open', 'stage2'),
    'guided': ('guided', 'stage2'),
    'guided, insisting': ('guided_open', 'stage2'),
    'the first network': ('guided_open', 'stage2'),
    'guided, stopped': ('guided_stopped', 'stage2'),
    'wrong': ('wrong_open', 'stage2'),
    'three rounds': ('rounds', 'stage2_round3'),
    'consistency loss': ('consistency', 'stage2'),
    'real masks for 5': ('masks5_open', 'stage2'),
    'real masks': ('masks_open', 'stage2'),
    'patches, first network': ('patches', 'stage2'),
    'patches, random network': ('patches_random', 'stage2'),
    'patches, trained network': ('patches_neu', 'stage2'),
    'detector, random teacher': ('good_random', 'stage2'),
    'detector, trained teacher': ('good_neu', 'stage2'),
    'real boxes': ('boxes', 'stage2'),
    'descriptions': ('descriptions', 'stage2'),
    'described, `metal`': ('metal', 'stage2'),
    'described, four sentences': ('words', 'stage2'),
}
CHOICES = {
    'head or head, open': ('head', 'head, open'),
    'guided or head, open': ('head, open', 'guided'),
    'guided or wrong': ('guided', 'wrong'),
    'patches, random network, or head, open': ('head, open', 'patches, random network'),
    'described, one or the other': ('described, `metal`', 'described, four sentences'),
}


class Rows:
    """What the page calls rows of results by."""

    def __init__(self, sources: list[tuple[str, str, str]], by_run: bool) -> None:
        rows = []
        for table, variants, defects in sources:
            where = {'variant': variants, 'data.num_positives': defects}
            where = {name: value.split(',') for name, value in where.items() if value}
            rows += choose(read_table(DOCS / 'results' / f'{table}.csv'), where)
        self.groups, self.by_run = groups_of(rows), by_run

    def group(self, name: str):
        if name in CHOICES:
            self.groups.append(better(self.groups, [self.group(part).label for part in CHOICES[name]]))
            return self.groups[-1]
        variant, stage = NAMES[name]
        variants = {variant, variant or 'plain'}
        (found,) = (g for g in self.groups if g.stage == stage and g.settings.get('variant', '') in variants)
        return found

    def numbers(self, name: str, kind: str) -> list[float]:
        """What stands in a column of a row, in percent."""
        group = self.group(name)
        if 'accuracy' in kind or kind == 'macro AP':
            metric = kind.split(': ')[-1].replace(' ', '_')
            line = next(line for line in summarise(self.groups) if line['name'] == group.label)
            return [100 * line[key] for key in (metric, f'{metric}_low', f'{metric}_high')]
        runs = [100 * float(row['test_AP']) for row in group.rows]
        if kind == 'worst':
            return [min(runs)]
        if self.by_run:
            errors = [sum(float(row[f'test_{kind}']) for row in group.rows)] if kind in ('FP', 'FN') else []
            return errors or [np.mean(runs), np.std(runs, ddof=1)]
        line = next(line for line in summarise(self.groups) if line['name'] == group.label)
        return [line[kind]] if kind in ('FP', 'FN') else [100 * line['AP'], 100 * line['AP_std']]

    def difference(self, second: str, first: str, kind: str) -> list[float]:
        found = compare(self.groups, self.group(first).label, self.group(second).label)
        return [found['ahead']] if kind == 'ahead in' else [100 * found[key] for key in ('difference', 'low', 'high')]


def tables_below(heading: str) -> list[list[list[str]]]:
    """The cells of the tables between a heading and the next one, without what only lays them out."""
    text = re.split(rf'^#+ {re.escape(heading)}$', (DOCS / 'benchmarks.md').read_text(), flags=re.M)[1]
    blocks = re.findall(r'(?:^\|.*\n)+', re.split(r'^#', text, flags=re.M)[0], flags=re.M)
    lines = [block.replace('*', '').splitlines() for block in blocks]
    return [[[cell.strip() for cell in line.strip('|').split('|')] for line in block] for block in lines]


def called(label: str) -> str | None:
    """The name of a row, which may have remarks."""
    label = re.sub(r' \(.*\)', '', label).removeprefix('guided by ')
    names = (label, re.sub(r', (insisting|open)$', '', label))
    return next((name for name in names if name in NAMES or name in CHOICES), None)


@pytest.mark.parametrize('heading', SECTIONS)
def test_cells_are_what_the_rows_say(heading):
    conditions, number = SECTIONS[heading]
    rows = {condition: Rows(sources, heading in BY_RUN) for condition, sources in conditions.items()}
    checked, wrong = 0, []
    for header, _, *lines in tables_below(heading):
        control = re.match('less (.*), in points', header[0])
        for row, *cells in lines:
            names = [called(name) for name in [*row.split(' - '), *(control.groups() if control else ())]]
            condition = None
            for kind, cell in zip(header[1:], cells, strict=True):
                condition = kind if kind in rows else condition
                written = [float(found) for found in NUMBER.findall(cell)]
                if None in names or condition is None or not written:
                    continue
                found = rows[condition].numbers if len(names) == 1 else rows[condition].difference
                expected = found(*names, kind)
                checked += 1
                lacks = len(written) < len(expected) and kind != 'mean'  # which stands without a deviation
                if lacks or not all(abs(a - b) <= 0.0501 for a, b in zip(written, expected, strict=False)):
                    wrong.append(f'{row}, {condition} {kind}: {cell}, not {" ".join(f"{x:.1f}" for x in expected)}')
    assert not wrong
    assert checked == number

"""What guidance gains over its control, against what stage 1 knew: a picture, and a table by the AP of stage 1.

A point is one fold and seed of one setting. The control is the better on validation data of the variants named. Stage 1
of every run is that which its own maps came from.

Example:
    python tools/benchmarks/gain.py docs/results/surface_many.csv docs/results/ksdd_avg.csv --out docs/gain.png
"""

import argparse
import io
import itertools
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import numpy as np
from matplotlib.figure import Figure

from kgl_mm.apis import cli
from kgl_mm.errors import UsageError
from kgl_mm.evaluation.intervals import paired_bootstrap
from kgl_mm.files import write_atomically
from kgl_mm.study.report import refuse_mixed
from kgl_mm.study.table import read_table, varied_in

LOOK = {
    ('guided',): ('judged', 'C0', 'o'),
    ('guided_open',): ('insisting', 'C1', 'x'),
    ('head_open', 'guided'): ('with or without, by validation data', 'C2', '^'),
}
"""Of equal ones the first is taken, as a run with ``unguided=True`` does it."""
EDGES = (0, 40, 60, 80, 95, 100)


def points(table: list[dict[str, str]], controls: list[str]) -> dict[tuple[str, ...], list[tuple[float, float]]]:
    """Of each way to guide the AP of stage 1 and the difference from the control, in percent."""
    cells = defaultdict(dict)
    for row in table:
        if row['status'] == 'done':
            others = [row[name] for name in varied_in(row) if name != 'variant']
            cells[(*others, row['seed'], row['fold'])][row['variant'], row['stage']] = row
    found = defaultdict(list)
    there = [name for name in controls if any(row['variant'] == name for row in table)]
    for cell in cells.values():  # one in which anything failed says nothing
        for names in LOOK:
            if there and all((name, 'stage2') in cell for name in {*there, *names}):
                gain = float(_best(cell, names)['test_AP']) - float(_best(cell, there)['test_AP'])
                found[names].append((100 * float(cell[names[-1], 'stage1']['test_AP']), 100 * gain))
    return found


def _best(cell: dict[tuple[str, str], dict[str, str]], names: Sequence[str]) -> dict[str, str]:
    return max((cell[name, 'stage2'] for name in names), key=lambda row: float(row['val_AP']))


def draw(found: dict[tuple[str, ...], list[tuple[float, float]]]) -> bytes:
    figure = Figure(figsize=(8, 4.5))
    axes = figure.add_subplot()
    axes.axhline(0, color='0.6', linewidth=1)
    for names, values in found.items():
        label, color, marker = LOOK[names]
        axes.plot(*np.transpose(values), marker, color=color, label=label, alpha=0.6, markersize=5)
    axes.set_xlabel('test AP of stage 1, in percent')
    axes.set_ylabel('guided minus control, in points of AP')
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, dpi=120, bbox_inches='tight')
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tables', nargs='+', type=Path, help='results.csv of studies')
    parser.add_argument('--control', nargs='+', default=['head', 'head_open'], metavar='VARIANT')
    parser.add_argument('--out', type=Path, default=Path('gain.png'))
    args = parser.parse_args()
    found = defaultdict(list)
    for path in args.tables:
        rows = read_table(path)
        if not rows or not {'variant', 'status', 'test_AP', 'val_AP'} <= rows[0].keys():
            raise UsageError(f'{path}: not the results.csv of a study of variants with AP on validation data')
        refuse_mixed(rows)
        for names, values in points(rows, args.control).items():
            found[names] += values
    if not found:
        raise UsageError(f'{args.tables[0]}: no guided run has one of {" or ".join(args.control)} beside it')
    found = {names: found[names] for names in LOOK if names in found}
    write_atomically(args.out, draw(found))
    print('| stage 1 | ' + ' | '.join(LOOK[names][0] for names in found) + ' |\n|---|' + '---|' * len(found))
    for low, high in itertools.pairwise(EDGES):
        cells = []
        for values in found.values():
            gains = [gain for known, gain in values if low <= known < high or known == high == EDGES[-1]]
            span = paired_bootstrap(gains) if len(gains) > 1 else None
            cells.append(f'{np.mean(gains):+.1f} ({span[0]:+.1f} to {span[1]:+.1f}), {len(gains)} runs' if span else '')
        print(f'| {low} to {high} | {" | ".join(cells)} |')


if __name__ == '__main__':
    cli.run(main)

"""Summarise the results.csv of one or more studies: means with intervals, paired differences, a picture.

Examples:
    python tools/summarise.py work_dirs/study/results.csv --split val --where seed=0,1 --compare head guided
    python tools/summarise.py work_dirs/study/results.csv --by-run      (the spread over folds too)
    python tools/summarise.py short.csv long.csv --by-table --compare "short guided" "long guided"
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli
from kgl_mm.errors import UsageError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tables', nargs='+', type=Path, help='results.csv of studies that varied the same fields')
    parser.add_argument('--split', choices=['test', 'val'], default='test')
    parser.add_argument('--where', nargs='+', default=[], metavar='FIELD=V1,V2', help='only rows like these')
    parser.add_argument('--compare', nargs=2, action='append', default=[], metavar=('A', 'B'))
    parser.add_argument(
        '--better',
        nargs='+',
        action='append',
        default=[],
        metavar='A',
        help='add "A or B": of each fold and seed the one that is better on validation data',
    )
    parser.add_argument('--metric', help='of the differences and the picture, such as AUROC or AUPRO (default: AP)')
    parser.add_argument('--by-table', action='store_true', help='tell runs apart by the name of their table')
    parser.add_argument('--by-run', action='store_true', help='means over runs, whether or not seeds have all folds')
    parser.add_argument('--out', type=Path, help='where to write, without suffix (default: summary beside the table)')
    args = parser.parse_args()

    from kgl_mm.study.report import choose, report
    from kgl_mm.study.table import read_table, varied_in

    rows = []
    for path in args.tables:
        found = read_table(path)
        if not found or 'stage' not in found[0] or 'seed' not in found[0]:
            raise UsageError(f'{path}: not the results.csv of a study')
        if rows and varied_in(found[0]) != [name for name in varied_in(rows[0]) if name != 'table']:
            raise UsageError(f'{path}: varies other fields than {args.tables[0]}')
        name = path.resolve().parent.name if path.stem == 'results' else path.stem
        rows += [dict(table=name) | row for row in found] if args.by_table else found
    rows = choose(rows, cli.value_lists('--where', args.where))
    results = Counter((*(row[name] for name in varied_in(row)), row['seed'], row['fold'], row['stage']) for row in rows)
    if twice := [result for result, count in results.items() if count > 1]:
        raise UsageError(f'{" ".join(filter(None, twice[0]))}, and {len(twice)} in all, are in several of the tables')
    remark = ''
    if args.by_run:
        remark = 'Each run counts for itself, as a seed.'
        rows = [dict(row, seed=f'{row["seed"]} on fold {row["fold"]}', fold='') for row in rows]
    out = args.out or args.tables[0].with_name('summary')
    print(report(rows, out, args.compare, args.split, args.better, args.metric, remark))


if __name__ == '__main__':
    cli.run(main)

"""How surely does a validation part of some size choose the better of two variants of a study?

Parts of each size are drawn from the validation images of the study; in each, every fold, seed and value of a field
takes the variant whose AP is higher there, the first of equal ones. What counts is the test AP of what was taken.

Example:
    python tools/benchmarks/choice.py work_dirs/study head_open guided --sizes 15+5 30+10 60+20
"""

import argparse
import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import numpy as np

from kgl_mm.apis import cli
from kgl_mm.errors import UsageError
from kgl_mm.evaluation.functional import average_precision
from kgl_mm.study.report import choose
from kgl_mm.study.table import read_table


def scores_of(study: Path, row: dict) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and labels of the validation images, in their order."""
    with (study / 'runs' / row['run'] / row['stage'] / 'val_scores.csv').open(newline='') as file:
        rows = sorted(csv.DictReader(file), key=lambda found: found['img_path'])
    return np.array([float(found['log_odds']) for found in rows]), np.array([int(found['label']) for found in rows]) > 0


def cell_of(row: dict) -> tuple:
    """What two variants share: the other varied fields, seed and fold, which a table has before the stage."""
    return tuple(value for name, value in list(row.items())[: list(row).index('stage')] if name != 'variant')


def outcome(pairs: list, good: int, defective: int, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Mean test AP over draws and pairs of what is chosen, and how often the second of a pair is.

    A pair is ``(labels, scores of both, test AP of both)``.
    """
    taken, second = [], []
    for labels, scores, test in pairs:
        if good > np.sum(~labels) or defective > np.sum(labels):
            raise UsageError(f'--sizes {good}+{defective}: there are {np.sum(~labels)}+{np.sum(labels)} images')
        for _ in range(draws):
            part = np.concatenate(
                [
                    rng.choice(np.flatnonzero(labels == kind), number, replace=False)
                    for kind, number in ((False, good), (True, defective))
                ]
            )
            found = [average_precision(of[part], labels[part]) for of in scores]
            second.append(found[1] > found[0])
            taken.append(test[int(second[-1])])
    return float(np.mean(taken)), float(np.mean(second))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', type=Path, help='the work directory of tools/cross_validate.py')
    parser.add_argument('variants', nargs=2)
    parser.add_argument('--sizes', nargs='+', default=['15+5', '30+10', '60+20'], metavar='GOOD+DEFECTIVE')
    parser.add_argument('--where', nargs='+', default=[], metavar='FIELD=V1,V2', help='only rows like these')
    parser.add_argument('--draws', type=int, default=200)
    args = parser.parse_args()
    rows = [row for row in read_table(args.study / 'results.csv') if row['status'] == 'done']
    rows = choose(rows, cli.value_lists('--where', args.where)) if rows else []
    last = {row['variant']: row['stage'] for row in rows if row.get('variant') in args.variants}
    if len(set(last.values())) > 1:
        raise UsageError(f'{args.study}: {" and ".join(f"{name} ends in {stage}" for name, stage in last.items())}')
    rows = [row for row in rows if row['stage'] in last.values()]
    runs = {variant: {cell_of(r): r for r in rows if r.get('variant') == variant} for variant in args.variants}
    both = sorted(set.intersection(*(set(found) for found in runs.values())))
    if not both:
        raise UsageError(f'{args.study}: no runs of the same fold and seed of {" and ".join(args.variants)}')
    pairs = []
    for key in both:
        of = [runs[variant][key] for variant in args.variants]
        (first, labels), (other, again) = (scores_of(args.study, row) for row in of)
        if not np.array_equal(labels, again):
            raise UsageError(f'{args.study}: {of[0]["run"]} and {of[1]["run"]} have other validation images')
        pairs.append((labels, (first, other), [float(row['test_AP']) for row in of]))
    for variant, values in zip(args.variants, zip(*(test for *_, test in pairs), strict=True), strict=True):
        print(f'{variant:<24} test AP {np.mean(values):.3f}')
    best = np.mean([max(test) for *_, test in pairs])
    print(f'{"the better on the test":<24} test AP {best:.3f}, beyond which no choice can come')
    for size in args.sizes:
        good, _, defective = size.partition('+')
        if not good.isdigit() or not defective.isdigit():
            raise UsageError(f'--sizes {size}: write GOOD+DEFECTIVE, such as 60+20')
        mean, share = outcome(pairs, int(good), int(defective), args.draws, np.random.default_rng(0))
        print(f'{size + " choose":<24} test AP {mean:.3f}, {args.variants[1]} in {share:.0%}')


if __name__ == '__main__':
    cli.run(main)

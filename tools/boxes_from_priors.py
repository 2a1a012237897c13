"""Write boxes around what stands out of a store of priors, as COCO, to pretrain a detector on."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('store', metavar='STORE', help='a folder of priors, which has a store.json')
    parser.add_argument('--out', metavar='FILE', required=True, help='the JSON file')
    where = parser.add_mutually_exclusive_group()
    where.add_argument('--images', metavar='DIR', help='the folder that the names of maps start from')
    where.add_argument('--config', help='or a config with the data set of these images')
    parser.add_argument('--data', metavar='DIR', help='with --config: the root of the data set')
    parser.add_argument(
        '--data-options', nargs='+', default=[], metavar='KEY=VALUE', help='with --config: its settings'
    )
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train', help='with --config')
    parser.add_argument('--sheet', metavar='FILE', help='a PNG file of boxes on images')
    parser.add_argument('--layer', default='evidence', help='of the store (default: evidence)')
    parser.add_argument('--margin', type=float, default=0.1, help='below the mean of the largest values (default: 0.1)')
    parser.add_argument('--threshold', type=float, help='above which a value stands out, instead of that')
    parser.add_argument('--most', type=int, default=10, help='boxes of an image at most (default: 10)')
    parser.add_argument('--iou', type=float, default=0.8, help='above which the weaker of two goes (default: 0.8)')
    args = parser.parse_args()
    args.cfg_options, args.seed, args.device, args.work_dir = [], None, 'cpu', None
    cfg = cli.configure(args) if args.config else None

    from kgl_mm._require import require_mm

    require_mm()
    from kgl_mm.apis.boxes import boxes_from_priors

    options = {name: getattr(args, name) for name in ('layer', 'margin', 'threshold', 'most', 'iou')}
    boxes_from_priors(args.store, args.out, args.images, cfg, args.split, args.sheet, **options)


if __name__ == '__main__':
    cli.run(main)

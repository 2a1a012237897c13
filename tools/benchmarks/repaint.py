"""Let the masks of a data set play the human who repaints maps: a copy of a store in which some are replaced by masks.

Each mask is saved as the page of tools/serve.py saves what is painted, so a training takes it for just that.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

from kgl_mm.apis import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', metavar='WORK_DIR', help='of a run or of the stage that wrote the maps; or their store')
    parser.add_argument('out', help='the folder of the copy')
    parser.add_argument('--number', type=int, required=True, help='of maps to be replaced, all of defective images')
    parser.add_argument('--order', default='doubtful', choices=['doubtful', 'random'], help='which (default: doubtful)')
    parser.add_argument('--seed', type=int, default=0, help='of the random order (default: 0)')
    parser.add_argument('--data', metavar='DIR', help='where the images lie, if they have moved')
    args = parser.parse_args()
    cli.choose_device('cpu')

    from kgl_mm.serve import open_gallery, paint_masks

    gallery = open_gallery(args.run, args.data).copy_to(args.out)
    keys = paint_masks(gallery, args.number, args.order, args.seed)
    print('\n'.join([f'{args.out}: {len(keys)} of {len(gallery)} maps are masks now', *(f'  {key}' for key in keys)]))


if __name__ == '__main__':
    cli.run(main)

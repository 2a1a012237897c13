"""Write the weights of a detector under the names of another framework; docs/detection.md has the configs they fit."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='of a kgl_mm.TorchvisionDetector')
    parser.add_argument('out', metavar='OUT', help='the file to write')
    parser.add_argument('--to', choices=['mmdet'], default='mmdet', help='(default: mmdet)')
    args = parser.parse_args()
    cli.choose_device('cpu')

    from kgl_mm._require import require_mm

    require_mm()
    from kgl_mm.apis.export_detector import export_detector

    export_detector(args.checkpoint, args.out)


if __name__ == '__main__':
    cli.run(main)

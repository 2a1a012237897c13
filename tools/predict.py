"""Inspect images with a trained model: verdict, score and place of defects."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'model', metavar='WORK_DIR', help='of a run or of one of its stages; a checkpoint; a config; an exported file'
    )
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='files and folders')
    parser.add_argument('--checkpoint', metavar='PATH', help='which one; a config needs it')
    parser.add_argument('--out', metavar='DIR', help='write pictures with heat maps and regions there')
    parser.add_argument('--csv', metavar='FILE', help='write a table there')
    parser.add_argument('--threshold', type=float, help='of the score (default: the one that travels with the model)')
    parser.add_argument('--batch-size', type=int, default=4, help='images at once (default: 4)')
    parser.add_argument('--device', help='cpu, cuda or cuda:N (default: a GPU where there is one)')
    args = parser.parse_args()
    from kgl_mm.inspection.exported_network import is_exported

    if not is_exported(args.model):  # whose runtime has devices of its own
        cli.choose_device(args.device)

    from kgl_mm.apis.inspector import DefectInspector
    from kgl_mm.apis.predict import predict

    inspector = DefectInspector(args.model, args.checkpoint, args.device)
    if args.threshold is not None:
        inspector.threshold = args.threshold
    predict(inspector, args.images, args.out, args.csv, args.batch_size)


if __name__ == '__main__':
    cli.run(main)

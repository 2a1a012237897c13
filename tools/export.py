"""Export a trained model for a runtime without torch, and prove that it is the same."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', metavar='WORK_DIR', help='of a run or of one of its stages; a checkpoint; or a config')
    parser.add_argument('--format', choices=['onnx', 'openvino'], default='onnx', help='(default: onnx)')
    parser.add_argument('--int8', action='store_true', help='write one in 8 bits too, if it is as good')
    parser.add_argument('--checkpoint', metavar='PATH', help='which one; a config needs it')
    parser.add_argument('--out', metavar='FILE', help='where to (default: WORK_DIR/export/NAME.onnx, or .xml)')
    parser.add_argument('--no-map', action='store_true', help='the score alone, without a heat map')
    parser.add_argument('--data', metavar='DIR', help='where the images lie that it is compared on, if they have moved')
    args = parser.parse_args()
    cli.choose_device('cpu')

    from kgl_mm._require import require_mm

    require_mm()
    from kgl_mm.apis.export import export

    export(args.model, args.format, args.int8, args.checkpoint, args.out, not args.no_map, args.data)


if __name__ == '__main__':
    cli.run(main)

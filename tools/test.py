"""Test a checkpoint on the test part of a config's data set."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument('checkpoint', help="a checkpoint, or a stage's directory for the one that was tested")
    args = parser.parse_args()
    cfg = cli.configure(args)

    from kgl_mm.apis.evaluate import evaluate

    evaluate(cfg, args.checkpoint, launcher=args.launcher)


if __name__ == '__main__':
    cli.run(main)

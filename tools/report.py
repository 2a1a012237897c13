"""Write the report of a run, ``WORK_DIR/report.html``: one file that needs nothing else."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', help='of tools/train.py or tools/test.py')
    parser.add_argument('--device', help='cpu, cuda or cuda:N (default: a GPU where there is one)')
    args = parser.parse_args()
    cli.choose_device(args.device)

    from kgl_mm._require import require_mm

    require_mm()
    from kgl_mm.report import write_report

    print(f'written:\n  {write_report(args.work_dir)}')


if __name__ == '__main__':
    cli.run(main)

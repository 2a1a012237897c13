"""Train all stages of a config, test them, and say what came out and where it is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument(
        '--resume',
        nargs='?',
        const=True,
        default=False,
        metavar='CHECKPOINT',
        help='go on where the run was stopped (or from this checkpoint of it)',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision; bfloat16 on the CPU')
    parser.add_argument('--no-validate', action='store_true', help='leave validation out')
    parser.add_argument('--stage', help='run this stage alone, by number or name; those before it must be done')
    parser.add_argument(
        '--priors', metavar='DIR', help='a store of priors to be guided by, instead of one made by stage 1'
    )
    args = parser.parse_args()
    cfg = cli.configure(args)

    from kgl_mm.apis.train import train

    options = dict(resume=args.resume, amp=args.amp, validate=not args.no_validate, launcher=args.launcher)
    train(cfg, **options, stage=args.stage, priors=args.priors)


if __name__ == '__main__':
    cli.run(main)

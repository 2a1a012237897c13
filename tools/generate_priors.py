"""Write the priors of a data set: for each image a map of what a trained network holds for a defect."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help="a checkpoint, or a stage's directory for the one that was tested; maps made elsewhere need none",
    )
    parser.add_argument('--out', metavar='DIR', help='the folder of the store (default: WORK_DIR/STAGE/priors)')
    parser.add_argument(
        '--method',
        help='GradCAM, GradCAMPlusPlus, LayerCAM, FullGrad, SaliencyProduct, PatchMemorySource, '
        'DescriptionSource, FolderSource, ...',
    )
    parser.add_argument(
        '--method-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='such as layers=[backbone.layer3] flips=[h]',
    )
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train')
    parser.add_argument('--layer', help='the layer of the store (default: evidence)')
    parser.add_argument('--fraction', type=float, help='maps are kept at this share of the size of the image')
    parser.add_argument('--batch-size', type=int)
    parser.add_argument('--threads', type=int, help='of each process on a CPU (default: 1)')
    args = parser.parse_intermixed_args()
    cfg = cli.configure(args)

    from kgl_mm.apis.generate import generate_priors

    method = cli.key_values('--method-options', args.method_options)
    if args.method:
        method['type'] = args.method
    given = {name: getattr(args, name) for name in ('layer', 'fraction', 'batch_size', 'threads')}
    given = {name: value for name, value in given.items() if value is not None}
    generate_priors(cfg, args.checkpoint, args.out, method, args.split, args.launcher, **given)


if __name__ == '__main__':
    cli.run(main)

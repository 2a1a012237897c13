"""Open a page in the browser: to try a trained model on images, or with --priors to repaint the maps that guide it."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli
from kgl_mm.errors import UsageError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'model',
        metavar='WORK_DIR',
        help='of a run or a stage; a checkpoint, an exported model or a config; with --priors also a store',
    )
    parser.add_argument('--priors', action='store_true', help='repaint the maps that guide the training')
    parser.add_argument('--data', metavar='DIR', help='with --priors: where the images lie, if they have moved')
    parser.add_argument('--checkpoint', metavar='PATH', help='which one; a config needs it')
    parser.add_argument('--threshold', type=float, help='of the score (default: the one that travels with the model)')
    parser.add_argument('--device', help='cpu, cuda or cuda:N (default: a GPU where there is one)')
    parser.add_argument(
        '--host', default='127.0.0.1', help='the address to serve at; any other than the default opens it to others'
    )
    parser.add_argument('--port', type=int, help='(default: 8000, or any that is free)')
    parser.add_argument('--no-browser', action='store_true', help='open no browser')
    args = parser.parse_args()
    for name in ('checkpoint', 'threshold', 'device') if args.priors else ('data',):
        if getattr(args, name) is not None:
            raise UsageError(f'--{name}: says nothing {"with" if args.priors else "without"} --priors')
    from kgl_mm.inspection.exported_network import is_exported

    if args.priors or not is_exported(args.model):  # whose runtime has devices of its own
        cli.choose_device('cpu' if args.priors else args.device)

    from kgl_mm.serve import app

    at = app.bind(args.host, args.port)  # before a model is read for nothing
    names = app.names_of(args.host)
    if args.priors:
        from kgl_mm.serve import open_gallery, repaint_app

        page = repaint_app(open_gallery(args.model, args.data), names)
    else:
        from kgl_mm.apis import DefectInspector
        from kgl_mm.serve import inspect_app

        inspector = DefectInspector(args.model, args.checkpoint, args.device)
        if args.threshold is not None:
            inspector.threshold = args.threshold
        page = inspect_app(inspector, args.model, names)
    app.serve(page, at, not args.no_browser)


if __name__ == '__main__':
    cli.run(main)

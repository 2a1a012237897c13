"""Show what descriptions of defects draw: the record of each, the words not understood, and a sheet of pictures."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from kgl_mm.apis import cli
from kgl_mm.errors import UsageError, check_number

SIZE = (128, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'descriptions',
        nargs='*',
        default=['metal'],
        metavar='FILE|SENTENCE',
        help='YAML files, the name of shipped descriptions, or sentences such as "steel plate with crack defect, it '
        'appears as a thin dark line" (default: metal)',
    )
    parser.add_argument('--images', metavar='FOLDER', help='good images to draw on (default: drawn metal surfaces)')
    parser.add_argument('--out', default='descriptions.png', metavar='FILE', help='the sheet (default: %(default)s)')
    parser.add_argument('--columns', type=int, default=6, help='of a row (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the first column (default: %(default)s)')
    args = parser.parse_args()
    if Path(args.out).is_dir() or not args.out.endswith('.png'):
        raise UsageError(f'--out {args.out}: not the name of a PNG file')
    check_number(1, 100, whole=True, **{'--columns': args.columns})

    from kgl_mm.descriptions.sheet import draw_descriptions
    from kgl_mm.files import write_atomically

    records = [record for given in args.descriptions for record in understood(given)]
    images = found(Path(args.images), args.columns) if args.images else surfaces(args.columns)
    sheet = draw_descriptions(records, images, args.columns, args.seed)
    write_atomically(args.out, sheet)
    print(f'written:\n  {args.out}')


def understood(given: str) -> list:
    from kgl_mm.descriptions import load_descriptions, parse, suggestions
    from kgl_mm.descriptions.files import is_file_name

    if is_file_name(given):
        return load_descriptions(given)
    record, left = parse(given)
    print(f'{given}\n' + '\n'.join(f'  {field.name:12} {getattr(record, field.name)}' for field in fields(record)))
    if left:
        print(f'  not understood: {suggestions(left)}')
    return [record]


def found(folder: Path, number: int) -> list:
    import cv2
    import numpy as np

    from kgl_mm.image_files import find_images

    if not folder.is_dir():
        raise UsageError(f'--images {folder}: no such folder')
    paths = find_images(folder)[:number]
    if not paths:
        raise UsageError(f'--images {folder}: holds no images')
    images = [cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH) for path in paths]
    if broken := [path for path, image in zip(paths, images, strict=True) if image is None]:
        raise UsageError(f'{broken[0]}: cannot be read as an image')
    return images


def surfaces(number: int) -> list:
    import numpy as np

    from kgl_mm.datasets.synthetic import Surface, draw_part

    generators = [np.random.default_rng(seed) for seed in range(max(number, 1))]
    return [draw_part(Surface(rng), rng, SIZE, False, 0.5)[0] for rng in generators]


if __name__ == '__main__':
    cli.run(main)

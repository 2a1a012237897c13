"""Write the boxes of a data set in VOC's layout as maps, one PNG an image, white inside: for FolderSource.

Example:
    python tools/benchmarks/boxes_as_maps.py --name NEU-DET --out work_dirs/neu_boxes
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import cv2
import numpy as np

from kgl_mm.apis import cli
from kgl_mm.datasets import Boxed, VocBoxes
from kgl_mm.errors import UsageError


def mask_of(image: Boxed) -> np.ndarray:
    """White inside of the boxes."""
    picture = cv2.imread(image.img_path)
    if picture is None:
        raise UsageError(f'{image.img_path}: cannot be read as an image')
    mask = np.zeros(picture.shape[:2], np.uint8)
    for left, top, right, bottom in image.boxes:
        mask[int(top) : int(bottom), int(left) : int(right)] = 255
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', help='the folder with IMAGES/ and ANNOTATIONS/; default: $KGL_DATA_ROOT/NAME')
    parser.add_argument('--name', default='NEU-DET')
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args()
    dataset = VocBoxes(args.data, args.name, lazy_init=True)
    root, found = dataset.data_root, dataset.find_boxes()
    for image in found:
        path = (args.out / Path(image.img_path).relative_to(root)).with_suffix('.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), mask_of(image))
    print(f'{len(found)} maps in {args.out}')


if __name__ == '__main__':
    cli.run(main)

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', help='the folder with IMAGES/ and ANNOTATIONS/; default: $KGL_DATA_ROOT/NAME')
    parser.add_argument('--name', default='NEU-DET')
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args()
    from kgl_mm.datasets import VocBoxes

    found = VocBoxes(args.data, args.name, lazy_init=True).find_boxes()
    args.out.mkdir(parents=True, exist_ok=True)
    for image in found:
        mask = np.zeros(cv2.imread(image.img_path).shape[:2], np.uint8)
        for left, top, right, bottom in image.boxes:
            mask[int(top) : int(bottom), int(left) : int(right)] = 255
        cv2.imwrite(str(args.out / f'{Path(image.img_path).stem}.png'), mask)
    print(f'{len(found)} maps in {args.out}')


if __name__ == '__main__':
    cli.run(main)

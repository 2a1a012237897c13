"""Inference with score and heat map, ratios in one run: inspector, ONNX, INT8, OpenVINO; guided and plain.

Images are arrays, so that no row reads files; resizing and all that follows count. Exports that are not there are made.
"""

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import cv2
import torch
from _race import race, ratio
from mmengine.registry import DefaultScope

from kgl_mm.apis import DefectInspector, cli
from kgl_mm.apis.export import export
from kgl_mm.engine.loading import load_dataset
from kgl_mm.errors import UsageError
from kgl_mm.inspection import sources
from kgl_mm.inspection.images import read_file

FIRST = 'inspector'
FORMS = {'ONNX': '.onnx', 'ONNX, INT8': '.int8.onnx', 'OpenVINO': '.xml'}


def exported(stage: Path) -> dict[str, Path]:
    """The files of a stage by their form, without what an export refuses to write."""
    paths = {form: stage / 'export' / f'{stage.name}{suffix}' for form, suffix in FORMS.items()}
    for form, kind in {'ONNX': 'onnx', 'OpenVINO': 'openvino'}.items():
        if not paths[form].exists():
            try:
                export(str(stage), kind, int8=kind == 'onnx')
            except UsageError as error:
                print(error)
    return {form: path for form, path in paths.items() if path.exists()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', help='of a run of both stages')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 16])
    parser.add_argument('--rounds', type=int, default=10)
    args = parser.parse_args()
    stages = dict(guided=Path(args.work_dir, 'stage2'), plain=Path(args.work_dir, 'stage1'))
    inspectors = {}
    for kind, stage in stages.items():
        inspectors[kind, FIRST] = DefectInspector(stage, device='cpu')
        for form, path in exported(stage).items():
            inspectors[kind, form] = DefectInspector(path, device='cpu')
    network = inspectors['guided', FIRST].network
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = load_dataset(network.config, 'test')
    paths = [dataset.get_data_info(index)['img_path'] for index in range(min(len(dataset), max(args.batches)))]
    images = [read_file(path) for path in paths]
    images = [cv2.resize(image, images[0].shape[1::-1]) for image in images]  # only images of one size share a batch
    first = next(sources(images[0])), images[0]
    size = ' x '.join(map(str, reversed(network.shape(network.prepare(*first))[1:])))
    print(f'images of {images[0].shape[1]} x {images[0].shape[0]} seen at {size}, {torch.get_num_threads()} threads')
    for number in args.batches:
        batch = images[:number]
        rows = {key: partial(run, batch, batch_size=number) for key, run in inspectors.items()}
        seconds = race(rows, args.rounds)
        for (kind, form), times in seconds.items():
            ms = 1000 * statistics.median(times) / len(batch)
            text = f'  batch {number:2}  {kind:<7} {form:<11} {ms:7.1f} ms an image'
            if form != FIRST:
                text += f', {ratio(seconds[kind, FIRST], times):.2f} times as fast as the inspector'
            elif kind == 'plain':
                more = ratio(seconds['guided', FIRST], times)
                text += f'; guided costs {more:.2f} times as much'
            print(text)


if __name__ == '__main__':
    cli.run(main)

"""Boxes from a store of priors: what ``tools/boxes_from_priors.py`` does."""

import json
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.progress import track

from kgl_mm.datasets.transforms import LoadPrior
from kgl_mm.engine.hooks.prior_generation_hook import of_all_kinds
from kgl_mm.engine.loading import load_dataset
from kgl_mm.engine.stages import stages_of
from kgl_mm.errors import UsageError, check_number
from kgl_mm.files import write_atomically
from kgl_mm.image_files import image_size
from kgl_mm.priors import PriorStore
from kgl_mm.priors.boxes import IOU, MARGIN, MOST, boxes_of, threshold_of, to_coco
from kgl_mm.visualization import draw_box_sheet

COLUMNS = 6


def boxes_from_priors(
    store: str | Path,
    out: str | Path,
    images: str | Path | None = None,
    cfg: Config | None = None,
    split: str = 'train',
    sheet: str | Path | None = None,
    layer: str = 'evidence',
    margin: float = MARGIN,
    threshold: float | None = None,
    most: int = MOST,
    iou: float = IOU,
) -> dict:
    """Write the boxes of all maps of a store as COCO, one class ``anomaly``; returns what was written.

    Args:
        store: of priors; its keys become the names of files.
        out: the JSON file.
        images: the folder that keys start from, to compare the sizes with, and for the picture.
        cfg: or a config, of whose data set the images are; file names then start from its root.
        split: of that data set.
        sheet: a picture of boxes on images, where one is wanted.
        layer: of the store.
        margin: below the mean of the largest values; see :func:`~kgl_mm.priors.boxes.threshold_of`.
        threshold: instead of it.
        most: boxes of an image at most.
        iou: see :func:`~kgl_mm.priors.boxes.nms`.
    """
    check_number(0, margin=margin)
    check_number(0, none='the mean of the largest values minus the margin', threshold=threshold)
    check_number(1, whole=True, most=most)
    check_number(0, 1, iou=iou)
    if sheet and not (images or cfg):
        raise UsageError('--sheet: say where the images are, by --images or --config')
    store = PriorStore(store)
    keys = store.keys(layer)
    if not keys:
        raise UsageError(f'{store.root}: there is no map in layer {layer}: write priors first')
    places = (
        _of_folder(keys, images) if images else _of_config(store, layer, cfg, split) if cfg else dict.fromkeys(keys)
    )
    names = {key: key if path is None else path[1] for key, path in places.items()}
    files = {key: path[0] for key, path in places.items() if path}
    if threshold is None:
        threshold = threshold_of((store.read(key, layer).max() for key in _track(places, 'looking for peaks')), margin)
    found = []
    for key in _track(places, 'looking for boxes'):
        map = store.read(key, layer, _size(store, layer, key, files.get(key)))
        boxes, scores = boxes_of(map, threshold, most, iou)
        found.append(dict(file_name=names[key], height=map.shape[0], width=map.shape[1], boxes=boxes, scores=scores))
    record = to_coco(found, threshold=threshold, layer=layer)
    write_atomically(out, (json.dumps(record) + '\n').encode())
    if sheet:
        write_atomically(sheet, _sheet([files[key] for key in places], found, threshold))
    without = sum(not len(image['boxes']) for image in found)
    print(
        f'{len(record["annotations"])} boxes in {len(found)} images, {without} of them without, from values above '
        f'{threshold:.4g}\nwritten:\n  {out}' + (f'\n  {sheet}' if sheet else '')
    )
    return record


def _of_folder(keys: list[str], folder: str | Path) -> dict[str, tuple[str, str]]:
    """The file, and its name, of each map."""
    if not Path(folder).is_dir():
        raise UsageError(f'--images {folder}: no such folder')
    if missing := [key for key in keys if not Path(folder, key).is_file()]:
        raise UsageError(
            f'--images {folder}: {len(missing)} of the {len(keys)} images that the store has maps of are not there, '
            f'such as {missing[0]}: give the folder that these names start from'
        )
    return {key: (str(Path(folder, key)), key) for key in keys}


def _of_config(store: PriorStore, layer: str, cfg: Config, split: str) -> dict[str, tuple[str, str]]:
    stage = next(iter(stages_of(cfg).values()))
    with DefaultScope.overwrite_default_scope(stage.get('default_scope', 'mmengine')):
        dataset = load_dataset(stage, split)
        dataset = of_all_kinds(dataset) if split == 'train' else dataset
        paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    load = LoadPrior(store.root, layer)
    maps = [load.find(path) for path in paths]
    if missing := [path for path, found in zip(paths, maps, strict=True) if found is None]:
        raise UsageError(load.sentence_on_missing(missing, len(paths)))
    root = dataset.data_root or ''
    names = (os.path.relpath(path, root) if root else path for path in paths)
    return {key: (path, Path(name).as_posix()) for (_, key), path, name in zip(maps, paths, names, strict=True)}


def _size(store: PriorStore, layer: str, key: str, file: str | None) -> tuple[int, int]:
    """Height and width of the image, which must be those that the map was made for."""
    height, width = store.entry(key, layer)['size']
    if file and image_size(file) != (width, height):
        found = '{} x {}'.format(*image_size(file))
        raise UsageError(f'{file}: has {found} pixels, but its map is for {width} x {height}: write the priors again')
    return height, width


def _track(things, what: str):
    console = Console(stderr=True)
    return track(things, what, console=console, disable=not console.is_terminal)


def _sheet(files: list[str], found: list[dict], threshold: float) -> bytes:
    best = [max(image['scores'], default=0.0) for image in found]
    order = sorted(range(len(found)), key=lambda index: -best[index])
    rows = {
        'first': range(min(COLUMNS, len(found))),
        'best scores': [index for index in order if best[index]][:COLUMNS],
        'lowest scores': [index for index in order if best[index]][-COLUMNS:],
        'without boxes': [index for index in order if not best[index]][:COLUMNS],
    }
    legend = f'{sum(len(image["boxes"]) for image in found)} boxes in {len(found)} images, values above {threshold:.4g}'
    return draw_box_sheet(
        {title: [_tile(files[i], found[i]) for i in chosen] for title, chosen in rows.items()}, legend
    )


def _tile(file: str, image: dict) -> dict:
    texts = [f'{score:.2f}' for score in image['scores']]
    caption = f'{len(texts)} box{"es" if len(texts) != 1 else ""}'
    return dict(image=file, found=image['boxes'], texts=texts, caption=caption)

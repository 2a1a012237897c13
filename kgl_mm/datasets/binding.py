"""Making the transforms that read priors fit for a data set, and saying before the training what does not fit."""

import logging
from collections.abc import Iterable, Iterator

from mmengine.logging import print_log

from kgl_mm.errors import UsageError
from kgl_mm.files import hash_of
from kgl_mm.image_files import image_size
from kgl_mm.priors import PriorStore

from .seeding import random_states, set_random_states
from .transforms.binarize_prior import BinarizePrior
from .transforms.load_prior import LoadPrior
from .transforms.moving import let_priors_move

PROPORTION = 0.02  # a map may differ this much from its image in height over width: it was rounded to whole pixels


def bind_priors(dataset: object) -> list[LoadPrior]:
    """Check the priors of a data set against its images, and choose its targets; inside wrappers too.

    Transforms behind ``LoadPrior`` that move the image then move the prior as well. Data sets of this package do it by
    themselves; for others ``GuidanceHook`` does it. A data set that reads no priors is left alone.
    """
    bound = []
    for inner in [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', [])]:
        if inner is not None:
            bound += bind_priors(inner)
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    loaders = [transform for transform in _all(transforms) if isinstance(transform, LoadPrior)]
    let_priors_move(transforms)
    for transform in _all(transforms):
        if getattr(transform, 'draws_prior', False) and transform.label is not None and not has_good_class(dataset):
            raise UsageError(
                f'{type(transform).__name__}: class 0 is {dataset.metainfo["classes"][0]!r} and not good, so what is '
                'drawn on would become another class: set label=None'
            )
    if loaders and not getattr(loaders[0], 'is_bound', False):
        dataset.full_init()
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        for loader in loaders:
            _check(loader, infos)
        has_good = has_good_class(dataset)
        classes = list(dataset.metainfo.get('classes') or ())
        if not has_good and 'good' in classes:
            rest = sorted({*classes} - {'good'})
            raise UsageError(f'class 0 is {classes[0]!r}, but good must be the first class: {["good", *rest]}')
        if not has_good and binarizers(dataset):
            print_log(
                f'Warning: class 0 is {dataset.metainfo["classes"][0]!r}, so every image counts as defective: '
                'where there are good parts, make them class 0 and call it good.',
                logger='current',
                level=logging.WARNING,
            )
        for transform in _all(transforms):
            if isinstance(transform, BinarizePrior):
                painted = any(loader.painted for loader in loaders)
                transform.bind(infos, getattr(dataset, 'seed', 0), has_good, painted)
        loaders[0].is_bound = True
    return bound + loaders


def refuse_several_sizes(dataset: object, remedy: str) -> None:
    """Say it where the images of a batch would differ in size; the extremes of the files stand for all."""
    paths = [dataset.get_data_info(index).get('img_path') for index in range(len(dataset))]
    if None in paths:  # what is not a file has no size yet
        return
    sizes = [image_size(path) for path in paths]
    if len(set(sizes)) < 2:
        return
    areas, ratios = [width * height for width, height in sizes], [width / height for width, height in sizes]
    extremes = [values.index(end(values)) for values in (areas, ratios) for end in (min, max)]
    before = random_states()
    seen = {index: tuple(dataset[index]['inputs'].shape[-2:]) for index in extremes}
    set_random_states(before)  # the training draws what it would have drawn
    first, *others = seen
    other = next((index for index in others if seen[index] != seen[first]), None)
    if other is not None:
        found = ' and '.join('{} becomes {} x {}'.format(paths[i], *seen[i]) for i in (first, other))
        raise UsageError(
            f'{found}, and the images of a batch are of one size: put '
            f"dict(type='kgl_mm.Resize', scale=(WIDTH, HEIGHT)) into the pipeline, or {remedy}"
        )


def refuse_what_does_not_stack(loader: object) -> None:
    """The same for a loader whose ``collate_fn`` stacks images; mmengine's usual one lets them be padded."""
    collate = getattr(loader.collate_fn, 'func', loader.collate_fn)
    if getattr(collate, '__name__', '') == 'default_collate':
        refuse_several_sizes(loader.dataset, "set collate_fn=dict(type='pseudo_collate'), which pads, in the loader")


def has_good_class(dataset: object) -> bool:
    """Whether class 0 is good: where it is called so, or the data set names no classes."""
    classes = dataset.metainfo.get('classes')
    return not classes or classes[0] == 'good'


def binarizers(dataset: object) -> list[BinarizePrior]:
    """What makes the targets of a data set, inside wrappers too."""
    transforms = list(_all(getattr(getattr(dataset, 'pipeline', None), 'transforms', [])))
    found = [transform for transform in transforms if isinstance(transform, BinarizePrior)]
    for inner in [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', [])]:
        found += binarizers(inner) if inner is not None else []
    return found


def _all(transforms: Iterable) -> Iterator[object]:
    """Those inside containers and wrappers too."""
    for transform in transforms:
        yield transform
        inner = getattr(transform, 'transforms', None) or getattr(transform, 'inner', None) or ()
        yield from _all(inner if isinstance(inner, Iterable) else [inner])


def _check(loader: LoadPrior, infos: list[dict]) -> None:
    paths = [info['img_path'] for info in infos]
    found = [loader.find(path) for path in paths]
    missing = [path for path, place in zip(paths, found, strict=True) if place is None]
    loader.lacks = len(missing)
    if missing and (loader.missing == 'error' or len(missing) == len(paths)):
        raise UsageError(loader.sentence_on_missing(missing, len(paths)))
    loader.painted = any(store.is_edited(key, loader.layer) for store, key in filter(None, found))
    _ = loader.scale  # here, and not in each worker
    taken = {}
    for path, place in zip(paths, found, strict=True):
        if place is None:
            continue
        store, key = place
        if taken.setdefault((str(store.root), key), path) != path:
            raise UsageError(
                f'{store.root}: {path} and {taken[str(store.root), key]} would both get the map {key!r}: '
                "name maps by the images' paths inside the data set"
            )
        if not loader.wrong:
            _check_image(store, key, loader.layer, path)


def _check_image(store: PriorStore, key: str, layer: str, path: str) -> None:
    entry = store.entry(key, layer)
    if entry.get('image', '') and entry['image'] != hash_of(path):
        if entry.get('edited'):
            raise UsageError(
                f'{store.root}: the map {key!r} was painted over another image than {path}: revert it '
                '(tools/serve.py --priors), write the priors again, and paint it anew'
            )
        raise UsageError(
            f'{store.root}: the map {key!r} was made of another image than {path}: it is the store of another data '
            'set, or the image has changed since; write the priors again'
        )
    width, height = image_size(path)
    rows, columns = entry['size']
    if abs(rows * width - columns * height) > PROPORTION * rows * width + max(width, height):
        raise UsageError(
            f'{store.root}: the map {key!r} is for an image of {rows} x {columns}, but {path} has {height} x {width}: '
            'write the priors of these images'
        )

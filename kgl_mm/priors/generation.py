"""Filling a store with the maps of a data set, by any number of processes, from wherever the last attempt stopped."""

import copy
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import print_log
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from kgl_mm.datasets.masks import read_mask
from kgl_mm.errors import UsageError, check_choice, check_number
from kgl_mm.files import hash_of, write_atomically
from kgl_mm.saliency import Explanation, SaliencyMethod
from kgl_mm.visualization import SHEET, draw_contact_sheet

from .binarize import binarize
from .fingerprint import without_addresses
from .quality import quality, summary, trust, warnings_of
from .sources import PriorSource, as_source
from .sources.base import inputs_of, loaded, naming_images, steady
from .store import PriorStore

FLIPS = ('h', 'v')
TO_DO = {'missing', 'changed', 'foreign', 'damaged'}
COLUMNS = 6


def generate(
    source: PriorSource | SaliencyMethod,
    dataset: BaseDataset,
    store: PriorStore,
    layer: str = 'evidence',
    batch_size: int = 4,
    num_workers: int = 0,
    fraction: float = 0.5,
    bits: int = 16,
    flips: Sequence[str] = FLIPS,
    threads: int = 1,
    fit_on: BaseDataset | None = None,
) -> list[dict]:
    """Write the map of every image; returns the store's entries of them, in the order of the data set.

    Batches are fixed by the order of the data set and shared out among the processes, so the maps are byte for byte
    the same whatever the number of processes and interruptions. Maps that are there and belong to their image stay,
    those edited by hand in any case; a layer that something else wrote is refused. With each map go the hash of its
    image, its evidence, how far it agrees with the maps of the flipped image (``trust``), and its quality where the
    image has a mask. At the end there are one line on all of them, warnings, and a contact sheet in the store.

    Args:
        source: of the maps, with a model that is ready to look, on its device; a saliency method is one too.
        dataset: as it is to be looked at: without augmentation. See :func:`as_tested`.
        store: where to; images are named by their path inside ``dataset.data_root``.
        layer: the layer of the store.
        batch_size: images at once.
        num_workers: that read images.
        fraction: maps are kept at this share of the image's height and width.
        bits: 8 or 16 bits a pixel.
        flips: of ``'h'``, ``'v'``, ``'hv'``, by which trust is measured, at a pass for each that the method does not
            average over; none for no trust.
        threads: of each process on a CPU. Sums depend on it in their last bits; several processes use more cores.
        fit_on: whose good images the source may learn from; by default those of ``dataset``.
    """
    source = as_source(source)
    rank, world = get_dist_info()
    check_settings(batch_size, num_workers, fraction, bits, threads)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    if not infos or any('img_path' not in info for info in infos):
        raise UsageError(f'{type(dataset).__name__}: priors need images that are files, and it has none')
    paths = [info['img_path'] for info in infos]
    keys = keys_of(paths, dataset.data_root)
    classes = dataset.metainfo.get('classes')
    has_good = not classes or classes[0] == 'good'
    if not has_good and getattr(source, 'target', None) == 'defect':
        print_log(
            f'Warning: the maps show what speaks against class 0, {classes[0]!r}: if that is no good class, '
            "choose target='predicted'.",
            logger='current',
            level=logging.WARNING,
        )
    with steady(threads):
        if source.learns:
            source.fit(dataset if fit_on is None else fit_on)
        first, sample = inputs_of(source.model, pseudo_collate([dataset[0]]))
        source.prepare(first)
        if layer not in store.layers():
            with naming_images(sample):
                source.explain(first, sample)  # what is wrong with it shows before there is a store of it
        made_of = source_of(source, dataset, paths, flips)
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
        store.begin(layer, made_of, bits=bits, fraction=fraction)
        states = [_state(store, layer, key, path, digest) for key, path in zip(keys, paths, strict=True)]
        barrier()  # nobody writes before all have seen the same
        if rank == 0:
            _say_what_is_there(store, Counter(states))
        batches = [range(start, min(start + batch_size, len(keys))) for start in range(0, len(keys), batch_size)]
        mine = [batch for batch in batches if any(states[i] in TO_DO for i in batch)][rank::world]
        loader = loaded(dataset, mine, num_workers)
        for indices, batch in zip(mine, _progress(loader) if rank == 0 else loader, strict=True):
            images, samples = inputs_of(source.model, batch)
            with naming_images(samples):
                found = source.explain(images, samples, flips)
            maps, evidence = found.maps.float().cpu().numpy(), found.evidence.tolist()
            broken = [keys[index] for place, index in enumerate(indices) if not np.isfinite(maps[place]).all()]
            if broken:
                raise UsageError(f'{broken[0]}: its map is not finite; the training may have diverged')
            views = _views(found, source, flips)
            trusts = None if views is None else trust(views.float().cpu().numpy())
            for place, index in enumerate(indices):
                if states[index] not in TO_DO:
                    continue
                facts = dict(image=hash_of(paths[index]), source=digest, evidence=evidence[place])
                if trusts is not None:
                    facts['trust'] = round(float(trusts[place]), 4)
                height, width = (samples[place].get('img_shape') or maps[place].shape)[:2]
                prior = maps[place, :height, :width]  # without what the preprocessor added
                facts |= _facts(prior, samples[place], has_good)
                size = samples[place].get('ori_shape') or prior.shape
                store.write(keys[index], prior, layer=layer, image_size=tuple(size[:2]), **facts)
    barrier()
    if rank == 0:
        store.compact()
    barrier()
    store = PriorStore(store.root)  # with what the others wrote
    entries = [store.entry(key, layer) for key in keys]
    if rank == 0:
        print_log(f'{store.root}: {summary(entries)}.', logger='current')
        for warning in warnings_of(entries):
            print_log(f'Warning: {warning}.', logger='current', level=logging.WARNING)
        write_atomically(Path(store.root, SHEET), contact_sheet(store, layer, infos, entries))
    barrier()
    return entries


def check_settings(
    batch_size: int = 4, num_workers: int = 0, fraction: float = 0.5, bits: int = 16, threads: int = 1, **_others
) -> None:
    """Refuse what :func:`generate` would refuse, before there is a model to generate with."""
    check_number(1, whole=True, batch_size=batch_size, threads=threads)
    check_number(0, whole=True, num_workers=num_workers)
    check_number(0, 1, above=True, fraction=fraction)
    check_choice((8, 16), bits=bits)


def keys_of(paths: Sequence[str], data_root: str | None) -> list[str]:
    """The keys of images: their paths inside the root of the data set, or inside the folder that holds them all.

    >>> keys_of(['data/a/1.png', 'data/b/2.png'], 'data')
    ['a/1.png', 'b/2.png']
    """
    root = root_of(paths, data_root)
    return [Path(os.path.abspath(path)).relative_to(root).as_posix() for path in paths]  # noqa: PTH100


def root_of(paths: Sequence[str], data_root: str | None) -> str:
    """The folder that keys start from."""
    absolute = [os.path.abspath(path) for path in paths]  # noqa: PTH100 (no link is followed)
    root = os.path.abspath(data_root) if data_root else ''  # noqa: PTH100
    if not root or any(not path.startswith(root + os.sep) for path in absolute):
        root = os.path.commonpath([os.path.dirname(path) for path in absolute])  # noqa: PTH120
    return root


def source_of(source: PriorSource, dataset: BaseDataset, paths: Sequence[str], flips: Sequence[str]) -> dict:
    """What maps are made of: where it differs, they do.

    Of the folder of the images its name alone, so that a data set may be moved, but train/ and test/ do not meet.
    """
    pipeline = [
        f'{type(t).__name__} {sorted(vars(t).items())}' if type(t).__repr__ is object.__repr__ else str(t)
        for t in dataset.pipeline.transforms
    ]
    data = dict(type=type(dataset).__name__, folder=Path(root_of(paths, dataset.data_root)).name)
    taken = source.taken_from(dataset)
    return dict(
        **(dict(taken=taken) if taken else {}),
        method=source.settings(),
        model=source.weights(),
        data=dict(data, pipeline=[without_addresses(text) for text in pipeline]),
        trust=list(flips if source.can_flip else ()),
    )


def as_tested(dataset: BaseDataset, pipeline: list) -> BaseDataset:
    """The same images, seen through another pipeline: that of the test, which moves nothing at random."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    if not hasattr(dataset, 'pipeline'):
        raise UsageError(
            f'{type(dataset).__name__}: priors are made for one data set at a time, not for several in one'
        )
    names = [step['type'] if isinstance(step, dict) else type(step).__name__ for step in pipeline]
    cropping = [name for name in names if any(word in str(name) for word in ('Crop', 'Pad', 'Random'))]
    if cropping:
        raise UsageError(
            f'{cropping[0]}: the maps would not show the whole image as it is; pass a pipeline of a test that only '
            "resizes, such as pipeline=[dict(type='LoadImageFromFile'), dict(type='kgl_mm.Resize', scale=(224, 224)), "
            "dict(type='PackInputs')]"
        )
    dataset.full_init()
    seen = copy.copy(dataset)
    seen.pipeline = Compose(pipeline)
    seen.test_mode = True
    seen._cache = None  # of the other pipeline
    return seen


def contact_sheet(store: PriorStore, layer: str, infos: Sequence[dict], entries: Sequence[dict]) -> bytes:
    """The first maps, the strongest and the weakest, over their images."""
    by_peak = sorted(range(len(entries)), key=lambda index: entries[index]['peak'])
    rows = {
        'first': range(min(COLUMNS, len(entries))),
        'strongest': by_peak[: -COLUMNS - 1 : -1],
        'weakest': by_peak[:COLUMNS],
    }
    return draw_contact_sheet(
        {title: [_tile(store, layer, infos[i], entries[i]) for i in chosen] for title, chosen in rows.items()}
    )


def _tile(store: PriorStore, layer: str, info: dict, entry: dict) -> dict:
    mask = info.get('mask_path')
    kind = {0: 'good', 1: 'defect'}.get(entry.get('label'), '')
    return dict(
        image=info['img_path'],
        prior=store.read(entry['key'], layer),
        mask=read_mask(mask) if mask else None,
        caption=f'{kind} {entry["peak"]:.2g}'.strip(),
    )


def _state(store: PriorStore, layer: str, key: str, path: str, source: str) -> str:
    """Whether a map is there, and whether it is still that of its image and of this source."""
    if (key, layer) not in store:
        return 'missing'
    try:
        entry = store.entry(key, layer)
    except UsageError:
        return 'damaged'
    if entry.get('edited'):
        return 'edited' if entry.get('image', '') in ('', hash_of(path)) else 'outdated'
    if entry.get('source') != source:
        return 'foreign'
    return 'there' if entry.get('image') == hash_of(path) else 'changed'


def _say_what_is_there(store: PriorStore, states: Counter) -> None:
    sentences = dict(
        there='are there already',
        edited='were edited by hand and stay as they are',
        outdated='were painted over images that have changed since, and stay until they are reverted',
        changed='belong to images that have changed since, and are made anew',
        foreign='were made by something else, and are made anew',
        damaged='are damaged and are made anew',
    )
    found = [f'{states[state]} {sentence}' for state, sentence in sentences.items() if states[state]]
    if found:
        print_log(f'{store.root}: of {states.total()} maps {"; ".join(found)}.', logger='current')


def _views(found: Explanation, source: PriorSource, flips: Sequence[str]) -> torch.Tensor | None:
    """The raw maps of the images and of these flips alone; None where there are no others to compare with."""
    if not flips or not source.can_flip:
        return None
    order = list(dict.fromkeys((*source.flips, *flips)))
    return found.views[[0, *(1 + order.index(flip) for flip in flips)]]


def _facts(prior: np.ndarray, sample, has_good: bool) -> dict:
    """What is told of a map: a label of 1 for a defective image, and its quality where it has a mask."""
    facts = dict(constant=bool(prior.min() == prior.max()))
    if 'gt_label' in sample:
        facts['label'] = int(not has_good or bool(torch.as_tensor(sample.gt_label).flatten()[0]))
    if facts.get('label') and 'mask' in sample and sample.mask.any():  # nobody can hit an empty one
        scores = quality(prior, sample.mask[0].cpu().numpy(), binarize(prior))
        facts['quality'] = {name: round(value, 4) for name, value in scores.items()}
    return facts


def _progress(loader: DataLoader):
    console = Console(stderr=True)
    return track(loader, 'writing priors', total=len(loader), console=console, disable=not console.is_terminal)

from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
from mmcv.transforms import BaseTransform

from kgl_mm.errors import UsageError, check_choice
from kgl_mm.priors import PriorStore
from kgl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadPrior(BaseTransform):
    """Loads the prior of an image, whoever wrote it, at the size that the image has by now.

    It belongs behind what loads and resizes the whole image, and before what crops, flips or turns it; that then moves
    the prior as well. An image is found in the store by its path: the longest end of it that is a key.

    **Required keys:** ``img``, ``img_path``. **Added keys:** ``prior`` (float32 H x W in [0, 1]);
    ``prior_is_edited``, whether a person made it or painted over it; ``prior_is_mask``, whether that is a mask, as
    :meth:`PriorStore.is_mask <kgl_mm.priors.PriorStore.is_mask>` has it.

    Args:
        store: the folder of the store, or several, of which the first that has the image counts. A run of several
            stages gives the one that an earlier stage wrote.
        layer: of the store.
        missing: ``'error'``, or ``'empty'``: an image without a map has an empty one.
        wrong: every image gets the map of another one of its label: a control, which shows whether the content of
            priors matters.
        geometric: names of transforms of your own that move the image, so that the prior must follow.
        photometric: names of transforms of your own that leave places alone.
    """

    loads_prior = True

    def __init__(
        self,
        store: str | list[str] | None = None,
        layer: str = 'evidence',
        missing: str = 'error',
        wrong: bool = False,
        geometric: tuple[str, ...] = (),
        photometric: tuple[str, ...] = (),
    ) -> None:
        check_choice(('error', 'empty'), missing=missing)
        check_choice((True, False), wrong=wrong)
        stores = store if isinstance(store, list | tuple) else [store or '']
        if not all(isinstance(root, str | Path) for root in stores):
            raise UsageError(f'store={store!r}: not a folder or a list of folders')
        if isinstance(geometric, str) or isinstance(photometric, str):
            raise UsageError(f'geometric={geometric!r}, photometric={photometric!r}: both are lists of names')
        self.store = store
        self.layer = layer
        self.missing = missing
        self.wrong = wrong
        self.geometric = geometric
        self.photometric = photometric
        self.muted = False  # by GuidanceHook, where the source has learned nothing
        # once it is bound to a data set: images without a map, and whether a person made or edited one
        self.lacks, self.painted = 0, False

    def transform(self, results: dict) -> dict:
        size = results['img'].shape[:2]
        found = self.find(results['img_path'])
        if found is None:
            if self.missing == 'error':
                raise UsageError(self.sentence_on_missing([results['img_path']], 1))
            return results | dict(prior=np.zeros(size, np.float32))
        store, key = found
        edited = store.is_edited(key, self.layer)
        if self.muted and not edited:
            return results | dict(prior=np.zeros(size, np.float32))
        scale = 1.0 if edited else self.scale  # a person's white is 1, however strong the other maps are
        prior = (store.read(key, self.layer, size) / scale).clip(0, 1)
        return results | dict(prior=prior, prior_is_edited=edited, prior_is_mask=store.is_mask(key, self.layer))

    def find(self, img_path: str) -> tuple[PriorStore, str] | None:
        """The store that has a map for an image, and its key there."""
        parts = PurePath(img_path).parts
        for store, keys in self._stores:
            for start in range(len(parts)):
                key = '/'.join(parts[start:])
                if key in keys:
                    return store, keys[key]
        return None

    def sentence_on_missing(self, paths: list[str], of: int) -> str:
        there = sum(len(keys) for _, keys in self._stores)
        if len(paths) == of and of > 1:
            return (
                f'{self._names}: it is the store of another data set: none of the {of} images has one of its {there} '
                f'maps of {self.layer}; write priors for this one, or pass the right --priors'
            )
        return (
            f'{self._names}: {len(paths)} of {of} images have no map of {self.layer}, such as {paths[0]}: write them '
            "(tools/generate_priors.py goes on where it stopped), or set LoadPrior's missing='empty'; maps that were "
            'put there by hand are known after PriorStore(...).compact()'
        )

    @property
    def _names(self) -> str:
        return ', '.join(str(store.root) for store, _ in self._stores)

    @cached_property
    def _stores(self) -> list[tuple[PriorStore, dict[str, str]]]:
        """Each store, and the key of the map that an image of this key gets."""
        roots = [self.store] if isinstance(self.store, str | Path) else self.store
        if not roots:
            raise UsageError(
                'LoadPrior has no store: pass store=, or --priors, or let a stage before this one write priors '
                '(kgl_mm.PriorGenerationHook)'
            )
        stores = []
        for root in roots:
            store = PriorStore(root)
            keys = store.keys(self.layer)
            stores.append(
                (store, _of_another(store, keys, self.layer) if self.wrong else dict(zip(keys, keys, strict=True)))
            )
        return stores

    @cached_property
    def scale(self) -> float:
        """1, unless the maps of a store go beyond: then its largest value is 1."""
        peaks = (store.entry(key, self.layer)['peak'] for store, keys in self._stores for key in keys)
        return max(1.0, max(peaks, default=1.0))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(store={self.store!r}, layer={self.layer!r}, wrong={self.wrong})'


def _of_another(store: PriorStore, keys: list[str], layer: str) -> dict[str, str]:
    """To each key the key of another image of its label, far from it in the order, as neighbours show the same part."""
    by_label = {}
    for key in keys:
        by_label.setdefault(store.entry(key, layer).get('label'), []).append(key)
    if alone := [group[0] for group in by_label.values() if len(group) == 1]:
        raise UsageError(f'wrong=True: there is no other map of its label for {alone[0]}')
    return {
        key: group[(place + max(1, len(group) // 2)) % len(group)]
        for group in by_label.values()
        for place, key in enumerate(group)
    }

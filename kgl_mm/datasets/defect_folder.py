import csv
import io
import logging
import re
from pathlib import Path

from mmengine.logging import print_log

from kgl_mm.errors import UsageError, check_number
from kgl_mm.files import locked, write_atomically
from kgl_mm.image_files import HIDDEN, SUFFIXES, find_images
from kgl_mm.registry import DATASETS

from .checks import file_faults, refuse, some
from .defect_dataset import SPLITS, DefectDataset, Sample
from .splits import cut_by_unit, deal_by_unit

MASKS = 'masks'
LOSSLESS = ('.png', '.bmp', '.tif', '.tiff')


@DATASETS.register_module()
class DefectFolder(DefectDataset):
    """A folder as an engineer has it: ``good/`` beside any number of folders of defects.

    ::

        ROOT/good/*.png  ROOT/scratch/*.png  ROOT/dent/*.png  ROOT/masks/scratch/NAME.png (where there are masks)

    The folders may stand in ``train/``, ``val/`` and ``test/``; such a part is used as it is, and a missing one is
    cut from training. Otherwise 60, 20 and 20 % are drawn by class and unit. What was drawn is written to
    ``split.csv`` on first use and kept: new images join (a known unit keeps its split), vanished ones are an error.

    With ``folds=5`` all images are dealt out into five parts instead, once for all seeds, kept in ``folds_5.csv``. Part
    ``fold`` is for the test, the next one for validation, the others are for training; so in the course of all folds
    every image is tested once.

    Args:
        data_root: the folder.
        labels: ``'binary'``, or ``'kind'`` for one class a folder of defects.
        good: the name of the folder of good images.
        unit: a regular expression searched in the file's stem; its first group, or all of the match, names the unit.
        split_file: where the split is kept; by default ``split.csv``, or ``folds_5.csv``, in ``data_root``.
        folds: into how many parts images are dealt out, at least three; None draws one split.
        fold: the part for the test, from 0.
        **kwargs: as for :class:`DefectDataset`.
    """

    NAME = 'folder'
    MISSING = 'pass the folder that holds good/ and the folders of defects: --data DIR, or data_root='

    def __init__(
        self,
        data_root: str | None = None,
        labels: str = 'binary',
        good: str = 'good',
        unit: str = r'.+',
        split_file: str | None = None,
        folds: int | None = None,
        fold: int = 0,
        **kwargs,
    ) -> None:
        if labels not in ('binary', 'kind'):
            raise UsageError(f"labels={labels!r}: not one of 'binary', 'kind'")
        try:
            self.unit = re.compile(unit)
        except re.error as error:
            raise UsageError(f'unit={unit!r}: not a regular expression ({error})') from None
        check_number(3, whole=True, none='one split', folds=folds)
        check_number(0, whole=True, fold=fold)
        if fold not in range(folds or 1):
            allowed = f'with folds={folds} it is 0 to {folds - 1}' if folds else 'set folds=5 (say)'
            raise UsageError(f'fold={fold!r}: {allowed}')
        self.labels = labels
        self.good = good
        self.split_file = split_file
        self.folds = folds
        self.fold = fold
        self.column = 'part' if folds else 'split'
        super().__init__(data_root, **kwargs)

    def find_samples(self) -> list[Sample]:
        root = Path(self.data_root)
        given = [split for split in SPLITS if (root / split).is_dir()]
        if given and 'train' not in given:
            raise UsageError(f'{root}: has {", ".join(given)} but no train/')
        parts = given or ['.']
        found = {}  # path inside the root -> (kind, split that its folder gives)
        for part in parts:
            for kind in self._kinds(root / part):
                paths = find_images(root / part / kind)
                found |= {self._inside(path): (kind, part if given else None) for path in paths}
        if not found:
            raise UsageError(f'{root}: no images ({", ".join(SUFFIXES)}) in its folders')
        kinds = [self.good, *sorted(set().union(*(self._kinds(root / part) for part in parts)) - {self.good})]
        if self.labels == 'kind':
            self._metainfo['classes'] = ('good', *kinds[1:])
        units = {path: self._unit_of(path) for path in found}
        masks = self._masks({path for path, (kind, _) in found.items() if kind != self.good}, given)
        splits = self._splits(found, units, masks, given)
        if self.split not in splits.values() and not (self.split == 'val' and self.val_fraction):
            raise UsageError(
                f'{root}: its {len(set(units.values()))} units have no {self.split} part; '
                'training, validation and test need one good unit each, at the least'
            )
        samples = []
        for path, (kind, _) in found.items():
            label = kinds.index(kind) if self.labels == 'kind' else int(kind != self.good)
            samples.append(Sample(f'{root}/{path}', label, masks.get(path), units[path], splits[path]))
        return samples

    def _kinds(self, part: Path) -> list[str]:
        kinds = sorted(
            path.name
            for path in part.iterdir()
            if path.is_dir() and path.name not in (MASKS, *SPLITS) and not path.name.startswith(HIDDEN)
        )
        if self.good not in kinds:
            if not kinds:
                raise UsageError(f'{part}: holds no folders; {self.MISSING}')
            there = ', '.join(kinds)
            if part.name in SPLITS and part.name != 'train' and part != Path(self.data_root):
                raise UsageError(
                    f'{part}: no folder {self.good!r} but {there}; where there are no good parts, an empty one'
                )
            raise UsageError(
                f'{part}: no folder {self.good!r} but {there}; name the good one: --data-options good=NAME'
            )
        return kinds

    def _inside(self, path: str) -> str:
        return path.removeprefix(f'{Path(self.data_root).as_posix()}/')

    def _unit_of(self, path: str) -> str:
        match = self.unit.search(path.rpartition('/')[2].rpartition('.')[0])
        unit = match and match[min(1, self.unit.groups)]
        if not unit:
            raise UsageError(f'{path}: its name does not match unit={self.unit.pattern!r}')
        return unit

    def _masks(self, defective: set[str], given: list[str]) -> dict[str, str]:
        """The masks of images: ``masks/KIND/`` is laid out as ``KIND/``, beside ``train/`` and the like or inside."""
        root = Path(self.data_root)
        there = {}
        for part in ('', *given):
            there |= {self._inside(path).rpartition('.')[0]: path for path in find_images(root / part / MASKS)}
        found = {}
        for path in defective:
            stem = path.rpartition('.')[0]
            part, _, inside = stem.partition('/') if given else ('', '', stem)
            for place in (f'{part}/{MASKS}/{inside}', f'{MASKS}/{inside}'):
                if place in there:
                    found.setdefault(path, there[place])
        owners = {}
        for path, mask in found.items():
            if owners.setdefault(mask, path) != path:
                where = f'{MASKS}/ of each part' if given else 'folders of their own, or give the images other names'
                raise UsageError(
                    f'{root}: {owners[mask]} and {path} would both get the mask {mask}; put masks into {where}'
                )
        if lossy := sorted(path for path in found.values() if not path.lower().endswith(LOSSLESS)):
            raise UsageError(f'{some(lossy, most=3)}: compression blurs a mask; save it as {", ".join(LOSSLESS)}')
        if orphans := sorted(set(there.values()) - set(found.values())):
            print_log(
                f'Warning: {len(orphans)} masks belong to no defective image: {some(orphans, most=3)}.',
                logger='current',
                level=logging.WARNING,
            )
        return found

    def _splits(self, found: dict, units: dict, masks: dict, given: list[str]) -> dict[str, str]:
        """The split of every image: as its folder says, as it was drawn before, or drawn now."""
        if self.folds and given:
            raise UsageError(
                f'folds={self.folds}: {self.data_root} has {", ".join(given)} already, so no folds are drawn'
            )
        if len(given) == len(SPLITS):
            return {path: split for path, (_, split) in found.items()}
        name = f'folds_{self.folds}.csv' if self.folds else 'split.csv'
        file = Path(self.split_file or Path(self.data_root, name))
        fixed = {path: split for path, (_, split) in found.items() if split not in (None, 'train')}
        free = [path for path in found if path not in fixed]
        splits = self._kept(file, found)
        if not splits.keys() >= set(free):
            with locked(self.data_root):
                splits = self._kept(file, found)  # which another process may have written meanwhile, of another seed
                splits = self._drawn(file, splits, free, found, units, masks, given)
        of_unit = {units[path]: split for path, split in splits.items()}
        if torn := sorted({units[path] for path, split in splits.items() if of_unit[units[path]] != split}):
            print_log(
                f'Warning: {len(torn)} units stand in more than one split of {file} ({some(torn, most=3)}); '
                'remove it to draw a new one.',
                logger='current',
                level=logging.WARNING,
            )
        if self.folds:
            self._refuse_gaps(splits, found)
            roles = {str(self.fold): 'test', str((self.fold + 1) % self.folds): 'val'}
            splits = {path: roles.get(part, 'train') for path, part in splits.items()}
        return splits | fixed

    def _drawn(
        self, file: Path, splits: dict, free: list, found: dict, units: dict, masks: dict, given: list
    ) -> dict[str, str]:
        """With the images that are new: those of a known unit join it, the others are drawn."""
        new = [path for path in free if path not in splits]
        if not new:
            return splits
        # what is wrong is mended first, since a file that has gone since would be missed
        refuse(self, file_faults((f'{self.data_root}/{path}', masks.get(path)) for path in new))
        of_unit = {units[path]: split for path, split in splits.items()}
        splits |= {path: of_unit[units[path]] for path in new if units[path] in of_unit}
        kinds = sorted({kind for kind, _ in found.values()}, key=lambda kind: (kind != self.good, kind))
        labels = {path: kinds.index(found[path][0]) for path in free}
        if self.folds:
            splits = self._dealt(free, units, labels, of_unit) | splits
            self._refuse_gaps(splits, found)
        else:
            drawn = [path for path in new if path not in splits]
            shares = {split: 0.2 for split in ('val', 'test') if split not in given}
            shares = dict(train=1 - sum(shares.values()), **shares)
            places = cut_by_unit([units[path] for path in drawn], [labels[path] for path in drawn], shares, self.seed)
            splits |= dict(zip(drawn, places, strict=True))
        _write(file, self.column, [(path, found[path][0], units[path], splits[path]) for path in free])
        print_log(f'{len(new)} images were added to {file}.', logger='current', level=logging.INFO)
        return splits

    def _dealt(self, paths: list, units: dict, labels: dict, of_unit: dict[str, str]) -> dict[str, str]:
        """The part of every image, whatever the seed; units that have one stay there."""
        parts = {unit: int(part) for unit, part in of_unit.items()}
        dealt = deal_by_unit([units[path] for path in paths], [labels[path] for path in paths], self.folds, 0, parts)
        return dict(zip(paths, map(str, dealt), strict=True))

    def _refuse_gaps(self, parts: dict[str, str], found: dict) -> None:
        """A part without defects, or without anything else, has no figures to be averaged."""
        good = {path: kind == self.good for path, (kind, _) in found.items()}
        for kind in set(good.values()):
            there = {part for path, part in parts.items() if good[path] is kind}
            if gaps := sorted(set(map(str, range(self.folds))) - there):
                raise UsageError(
                    f'folds={self.folds}: {self.data_root} has no {"good" if kind else "defective"} image for part '
                    f'{", ".join(gaps)}; its units do for fewer folds'
                )

    def _kept(self, file: Path, found: dict) -> dict[str, str]:
        if not file.exists():
            return {}
        try:
            with file.open(newline='', encoding='utf-8-sig', errors='surrogateescape') as text:
                rows = list(csv.DictReader(text))
        except (OSError, csv.Error) as error:
            raise UsageError(f'{file}: cannot be read ({getattr(error, "strerror", error)})') from None
        column = self.column
        names = tuple(map(str, range(self.folds))) if self.folds else SPLITS
        if not rows or not {'path', column} <= set(rows[0]) or any(row[column] not in names for row in rows):
            raise UsageError(
                f'{file}: not a table with columns path and {column} of {", ".join(names)}, in UTF-8 and separated by '
                'commas'
            )
        vanished = [row['path'] for row in rows if row['path'] not in found]
        if vanished:
            raise UsageError(
                f'{file}: {len(vanished)} of its {len(rows)} images are gone ({some(vanished)}); put them back, '
                'take their lines out, or remove the file to draw a new split'
            )
        return {row['path']: row[column] for row in rows}


def _write(file: Path, column: str, rows: list[tuple[str, str, str, str]]) -> None:
    text = io.StringIO(newline='')
    writer = csv.writer(text)
    writer.writerow(['path', 'kind', 'unit', column])
    writer.writerows(sorted(rows))
    try:
        write_atomically(file, text.getvalue().encode('utf-8', errors='surrogateescape'))
    except OSError as error:
        reason = f'cannot be written ({error.strerror}); pass split_file= to keep the split elsewhere'
        raise UsageError(f'{file}: {reason}') from None

"""The maps of a store over their images, in the order in which a person should look at them; saving what is painted.

Whoever paints, a person in the page or masks in a benchmark, saves by :meth:`Gallery.save`.
"""

import math
import shlex
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

import kgl_mm
from kgl_mm.datasets.binding import has_good_class
from kgl_mm.datasets.masks import decode, read_mask
from kgl_mm.datasets.transforms import LoadPrior
from kgl_mm.engine.config import innermost, set_data
from kgl_mm.engine.stages import ALONE, READER, writer
from kgl_mm.errors import UsageError, check_choice, check_number, first_line
from kgl_mm.priors import PriorStore, binarize, painted_mask, png
from kgl_mm.report.data import Run, Stage, read_run
from kgl_mm.report.pictures import shrunk

SIDE = 1600
"""Pixels of the longer side at which a person sees and paints an image; a smaller one is as it is."""
MOST_PIXELS = 64 * 10**6
PROPORTION = 0.02
"""A mask may differ this much from its image in height over width."""


@dataclass
class Place:
    """A map, and the image that it belongs to."""

    store: PriorStore
    key: str
    layer: str
    path: str
    defective: bool
    mask_path: str | None = None

    @property
    def trust(self) -> float | None:
        """How far the map that the source wrote is to be trusted, where that is known."""
        entry = self.store.entry(self.key, self.layer)
        return entry.get('source_trust', entry.get('trust'))

    @property
    def edited(self) -> bool:
        return self.store.is_edited(self.key, self.layer)

    def doubt(self) -> tuple:
        """Smaller for what a person should look at earlier: defective images, as only these teach, least trusted first.

        Where no trust is known the faintest maps come first.
        """
        trust = self.trust
        entry = self.store.entry(self.key, self.layer)
        return not self.defective, math.inf if trust is None else trust, entry['peak'], self.key


@dataclass
class Gallery:
    """Maps by number, the most doubtful first.

    Args:
        places: the maps, in any order.
        target: options by which a training makes targets of maps: ``dilation`` and ``max_area``.
        title: where they are.
        command: trains with them.
    """

    places: list[Place]
    target: dict = field(default_factory=dict)
    title: str = ''
    command: str = ''

    def __post_init__(self) -> None:
        self.places.sort(key=Place.doubt)
        self._last = (None, None)

    def __len__(self) -> int:
        return len(self.places)

    def place(self, number: int) -> Place:
        if not 0 <= number < len(self.places):
            raise UsageError(f'map {number}: there are {len(self.places)}')
        return self.places[number]

    def facts(self, number: int) -> dict:
        """What a list says of a map."""
        place = self.place(number)
        return dict(
            number=number,
            name=place.key,
            defective=place.defective,
            trust=place.trust,
            edited=place.edited,
            revertible=place.edited and place.store.can_revert(place.key, place.layer),
        )

    def image(self, number: int) -> np.ndarray:
        """The image, BGR or gray, as large as it is painted on."""
        path = self.place(number).path
        if self._last[0] != path:
            image = decode(path)
            if image is None:
                raise UsageError(f'{path}: cannot be read as an image')
            self._last = path, shrunk(image, SIDE)
        return self._last[1]

    def heat(self, number: int) -> np.ndarray:
        """The map of the source, relative to its own peak, at that size; zeros where a person made the only one."""
        place, size = self.place(number), self.image(number).shape[:2]
        heat = place.store.read_before(place.key, place.layer, size) if place.edited else None
        if heat is None:
            heat = place.store.read(place.key, place.layer, size)
            if self._is_mask(place):
                return np.zeros_like(heat)
        peak = heat.max()
        return heat / peak if peak > 0 else heat

    def mask(self, number: int) -> np.ndarray:
        """What a training takes for the defect, uint8 of 0 and 1, at that size; a good image has nothing."""
        place, size = self.place(number), self.image(number).shape[:2]
        if self._is_mask(place):
            return painted_mask(place.store.read(place.key, place.layer, size))
        if not place.defective:
            return np.zeros(size, np.uint8)
        return binarize(place.store.read(place.key, place.layer, size), **self.target)

    @staticmethod
    def _is_mask(place: Place) -> bool:
        return place.store.is_mask(place.key, place.layer)

    def save(self, number: int, content: bytes) -> dict:
        """Put a mask in place of a map; returns its new facts.

        Args:
            number: of the map.
            content: a PNG file of the whole image, of any size; what is lighter than half is inside.
        """
        place = self.place(number)
        mask = _read(content)
        rows, columns = place.store.entry(place.key, place.layer)['size']
        height, width = mask.shape
        if abs(rows * width - columns * height) > PROPORTION * rows * width + max(rows, columns, width, height):
            raise UsageError(f'a mask of {width} x {height} pixels for an image of {columns} x {rows}')
        place.store.paint(place.key, mask, place.layer)
        return self.facts(number)

    def revert(self, number: int) -> dict:
        """Put back the map that the first mask replaced."""
        place = self.place(number)
        place.store.revert(place.key, place.layer)
        return self.facts(number)

    def copy_to(self, out: str | Path) -> 'Gallery':
        """The same of a copy of the store, which leaves this one as it is."""
        roots = {place.store.root for place in self.places}
        if len(roots) > 1:
            raise UsageError(f'{self.title}: {len(roots)} stores, of cross-fitted parts, and one can be copied')
        if Path(out).exists():
            raise UsageError(f'{out}: is there already')
        shutil.copytree(*roots, out)
        store = PriorStore(out)
        return Gallery([replace(place, store=store) for place in self.places], self.target, str(out))


def paint_masks(gallery: Gallery, number: int, order: str = 'doubtful', seed: int = 0) -> list[str]:
    """Let masks of the data set replace maps, as a person would who paints them; returns the keys.

    Args:
        gallery: of a run, whose data set has masks.
        number: of maps, of defective images.
        order: ``'doubtful'``, the least trusted first, or ``'random'``. The first three are among the first five.
        seed: of the random order.
    """
    check_choice(('doubtful', 'random'), order=order)
    check_number(0, whole=True, number=number)
    marked = [i for i, place in enumerate(gallery.places) if place.defective and place.mask_path]
    if number > len(marked):
        raise UsageError(f'number={number}: {len(marked)} defective images have a mask')
    if order == 'random':
        marked = sorted(marked, key=lambda i: gallery.places[i].key)
        marked = [marked[i] for i in np.random.default_rng(seed).permutation(len(marked))]
    for i in marked[:number]:
        gallery.save(i, cv2.imencode('.png', read_mask(gallery.places[i].mask_path) * np.uint8(255))[1].tobytes())
    return [gallery.places[i].key for i in marked[:number]]


def _read(content: bytes) -> np.ndarray:
    try:
        png.describe(content)  # whether it is whole
        width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
        if not 0 < width * height <= MOST_PIXELS:
            raise UsageError(f'a mask of {width} x {height} pixels: 1 to {MOST_PIXELS // 10**6} million can be saved')
        pixels = png.decode(content)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f'not a mask as a PNG file ({error})') from None
    return pixels > np.iinfo(pixels.dtype).max // 2


def open_gallery(target: str | Path, data: str | Path | None = None) -> Gallery:
    """The maps that a run reads for its guidance.

    Args:
        target: the work directory of a run, the directory of a stage that wrote priors, or the folder of a store.
        data: where the images lie, if the run does not say it, or they have moved: keys are paths inside it.
    """
    target = Path(target)
    if data is not None and not Path(data).is_dir():
        raise UsageError(f'--data {data}: no such folder')
    if not target.is_dir():
        raise UsageError(f'{target}: no such work directory or store')
    run, roots = _find(target)
    stage = _reader(run) if run else None
    steps = _steps(stage) if stage else []
    step = next((step for step in steps if step.get('type') == READER), {})
    options = next((step for step in steps if step.get('type') == 'kgl_mm.BinarizePrior'), {})
    stores = [PriorStore(root) for root in roots]
    layer = _layer(stores[0], step.get('layer', 'evidence'))
    if stage:
        infos, has_good = _images(stage.config, data)
        loader = LoadPrior([str(root) for root in roots], layer)
        pairs = [(loader.find(info['img_path']), info) for info in infos]
        places = [
            Place(*found, layer, info['img_path'], bool(info['gt_label']) or not has_good, info.get('mask_path'))
            for found, info in pairs
            if found
        ]
    elif data is None:
        raise UsageError(f'{target}: it lies in no run, so say where its images are: --data DIR')
    else:
        places = [
            Place(store, key, layer, str(Path(data, key)), bool(store.entry(key, layer).get('label', 1)))
            for store in stores
            for key in store.keys(layer)
            if Path(data, key).is_file()
        ]
    if not places:
        number = sum(len(store.keys(layer)) for store in stores)
        where = f'--data {data}' if data else 'the data set of the run'
        raise UsageError(f'{target}: none of the {number} maps of {layer} belongs to an image of {where}')
    allowed = {name: options[name] for name in ('dilation', 'max_area') if name in options}
    return Gallery(places, allowed, str(target), _command(run, stage, roots, data))


def _find(target: Path) -> tuple[Run | None, list[Path]]:
    """The run, where there is one, and the stores to be painted."""
    is_store = (target / 'store.json').is_file()
    homes = [target.absolute().parent.parent] if is_store else [target, target.absolute().parent]
    home = next(
        (home for home in homes if any((home / name).is_file() for name in ('state.json', 'metrics.json'))), None
    )
    run = read_run(home) if home else None
    if is_store:
        return run, [target]
    if run is None:
        raise UsageError(f'{target}: neither the work directory of a run or of a stage, nor a store of priors')
    here = [stage for stage in run.stages if stage.folder.resolve() == target.resolve() and _stores_of(stage)]
    first = [stage for stage in run.stages if not _reads(stage) and _stores_of(stage)]
    parts = [stage for stage in first if stage.left_out]
    roots = [root for stage in here or parts or first for root in _stores_of(stage)]
    reader = _reader(run)
    if not roots and reader is not None:
        given = next((step for step in _steps(reader) if step.get('type') == READER), {}).get('store') or []
        roots = [Path(root) for root in ([given] if isinstance(given, str) else given) if Path(root).is_dir()]
    if not roots:
        raise UsageError(f'{target}: no priors of a run in it (tools/generate_priors.py writes some)')
    return run, roots


def _stores_of(stage: Stage) -> list[Path]:
    """What the stage itself wrote, whatever copies of it lie beside."""
    found = sorted(path.parent for path in stage.folder.glob('*/store.json'))
    own = stage.folder / (writer(stage.config or {}) or {}).get('out', 'priors')
    return [own] if own in found else found


def _steps(stage: Stage) -> list[dict]:
    loader = (stage.config or {}).get('train_dataloader')
    return innermost(loader.dataset).get('pipeline', []) if loader else []


def _reads(stage: Stage) -> bool:
    return any(step.get('type') == READER for step in _steps(stage))


def _reader(run: Run) -> Stage | None:
    """The first stage that is taught by priors, else any whose config is there."""
    stages = [stage for stage in run.stages if (stage.config or {}).get('train_dataloader')]
    stages.sort(key=lambda stage: stage.name.endswith(ALONE))  # which reads them and ignores them
    return next(filter(_reads, stages), stages[-1] if stages else None)


def _layer(store: PriorStore, wanted: str) -> str:
    there = store.layers()
    return there[0] if len(there) == 1 else wanted


def _images(cfg: Config, data: str | Path | None) -> tuple[list[dict], bool]:
    """The training images of a config, and whether class 0 is good."""
    if data:
        set_data(cfg, data_root=str(data))
    settings = dict(innermost(cfg.train_dataloader.dataset), pipeline=[])
    settings.update({name: None for name in ('cache',) if name in settings})
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
            dataset = DATASETS.build(settings)
            dataset.full_init()
            infos = [dataset.get_data_info(index) for index in range(len(dataset))]
            return [dict(info, gt_label=info.get('gt_label', 1)) for info in infos], has_good_class(dataset)
    except (KeyError, TypeError, ValueError, OSError, AttributeError) as error:
        raise UsageError(f'the images of the run: {first_line(error)}; --data DIR says where they are now') from error


def _command(run: Run | None, stage: Stage | None, roots: list[Path], data: str | Path | None) -> str:
    """What trains with these maps; of a run without a guided stage, what trains that of another config."""
    words, last = ['python', 'tools/train.py', 'CONFIG'], '2'
    if stage and _reads(stage):
        last = stage.name
        left = sorted(stage.folder.glob('*.py'), key=lambda path: path.stat().st_mtime)
        name = left[-1].name if left else 'CONFIG'  # as the run called it
        there = Path(kgl_mm.__file__).parents[1] / 'configs' / name
        words[2] = f'configs/{name}' if there.is_file() else name
        data = data or innermost(stage.config.train_dataloader.dataset).get('data_root')
    if len(roots) == 1:  # of all stages that read priors, among which validation data may choose
        words += ['--priors', str(roots[0])]
        words += ['--work-dir', f'{run.root}_repainted'] if run else []
    elif run:  # those of cross-fitted parts, which stage 2 finds itself
        words += ['--stage', last, '--work-dir', str(run.root)]
    if data:
        words += ['--data', str(data)]
    return shlex.join(words)

"""What a study consists of: cells, the tasks that they share, and keys that say what computed a result."""

import copy
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from kgl_mm.engine.config import config_hash, innermost, set_data
from kgl_mm.engine.stages import readers, stages_of, stores_for
from kgl_mm.errors import UsageError, first_line
from kgl_mm.files import hash_of

from .code import code_hash, components

_FOLDER = 'kgl_mm.DefectFolder'


class Cell(NamedTuple):
    """One run of the whole config: a fold (None where the data set has none), a seed, and the varied fields."""

    fold: int | None
    seed: int
    settings: dict[str, Any]


class Task(NamedTuple):
    """Stages that are run together in ``runs/KEY``, after the tasks whose stages they read.

    ``linked`` are those stages: by name, the key of the task that has each.
    """

    key: str
    cfg: Config
    stages: list[str]
    linked: dict[str, str]


def cells_of(cfg: Config, folds: Sequence[int] | None, seeds: Sequence[int], vary: dict[str, list]) -> list[Cell]:
    """All combinations; where no folds are named, those that the data set has."""
    dataset = innermost(cfg.train_dataloader.dataset)
    if varied := {'data.fold', 'data.folds'} & vary.keys():
        raise UsageError(f'--set {varied.pop()}: folds are no setting to compare; --folds, or --data-options folds=5')
    drawn = dataset.get('folds')
    there = range(drawn) if isinstance(drawn, int) else range(3) if 'fold' in dataset else ()
    if folds and not there:
        remedy = 'add --data-options folds=5 (say)' if dataset.type == _FOLDER else 'leave --folds out'
        raise UsageError(f'--folds {" ".join(map(str, folds))}: {dataset.type} has no folds here; {remedy}')
    chosen = folds or there or (None,)
    combinations = [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]
    return [Cell(fold, seed, settings) for settings in combinations for seed in seeds for fold in chosen]


def remark_on(cells: Sequence[Cell], cfg: Config) -> str:
    """What an interval over runs of a user's own images leaves out, if it does."""
    dataset = innermost(cfg.train_dataloader.dataset)
    if dataset.type != _FOLDER or dataset.get('folds') or len({cell.seed for cell in cells}) < 2:
        return ''
    return (
        'All runs test on the same images, so the intervals do not say what other images would give; '
        '--data-options folds=5 tests every image once.'
    )


def config_of(cfg: Config, cell: Cell) -> Config:
    """The config of a cell.

    Fields that begin with ``data.`` are settings of the data sets of all splits; ``variant`` names an entry of the
    config's ``variants``, a dict of fields, where ``only`` names the one stage that is run. The seed is that of
    everything: of the training, of the choice of defective images, and of the validation part.
    """
    cfg = copy.deepcopy(cfg)
    fields = {}
    for key, value in cell.settings.items():
        fields |= _variant(cfg, value) if key == 'variant' else {key: value}
    data = {key.removeprefix('data.'): fields.pop(key) for key in list(fields) if key.startswith('data.')}
    only = fields.pop('only', None)
    try:
        cfg.merge_from_dict(fields)
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        raise UsageError(f'--set {" ".join(cell.settings)}: {first_line(error)}') from error
    fold = {} if cell.fold is None else dict(fold=cell.fold)
    set_data(cfg, **fold, **_seed_of(cfg, cell.seed), **data)
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=cell.seed)
    if only:
        cfg.stages = {only: cfg.stages[only]}
    # the copies of the config that runs leave are not laid out, which would take longer than a short stage
    object.__setattr__(cfg, '_format_python_code', False)
    return cfg


def base_hash(cfg: Config) -> str:
    """A hash of what all cells of a study share: the config without its variants, and the folder of the images.

    Behind it, where the config has several, that of its stages: older tables lack that part.
    """
    stages = stages_of(cfg).values() if cfg.get('stages') else ()
    behind = [_hash(*(part for stage in stages for part in (config_hash(stage), *_roots(stage))))] if stages else []
    return '-'.join([_hash(config_hash(cfg), *_roots(cfg)), *behind])


def _variant(cfg: Config, name: str) -> dict:
    variants = cfg.get('variants') or {}
    if name not in variants:
        known = ', '.join(variants) or 'none: give it a dict(NAME=dict(FIELD=VALUE), ...)'
        raise UsageError(f'--set variant={name}: the variants of this config are {known}')
    return dict(variants[name])


def _seed_of(cfg: Config, seed: int) -> dict:
    """Data sets of other projects have no seed."""
    return dict(seed=seed) if innermost(cfg.train_dataloader.dataset).type.startswith('kgl_mm.') else {}


def tasks_of(cfg: Config) -> list[Task]:
    """The tasks of one cell, in order; cells that need the same stage have a task of the same key for it.

    A stage that reads no priors is a task of its own, so that it is run once for all. The others of a cell are one
    task, which finds those of the first kind by links.
    """
    stages = stages_of(cfg)
    keys = {name: origin.key for name, origin in origins(stages).items()}
    reading = [name for name in stages if _priors_of(name, stages)]
    alone = [Task(keys[name], cfg, [name], {}) for name in stages if name not in reading]
    if not reading:
        return alone
    linked = {task.stages[0]: task.key for task in alone}
    return [*alone, Task(_hash(*keys.values()), cfg, reading, linked)]


class Origin(NamedTuple):
    """What a stage's result comes from: ``key`` is a hash of all that shapes it, ``uses`` the components among that."""

    key: str
    uses: str


def origins(stages: dict[str, Config]) -> dict[str, Origin]:
    """Of each stage its config, the code and the weights that this needs, and the stages whose priors it reads."""
    found = {}
    for name, cfg in stages.items():
        sources = sorted({place.parent.name for place in _priors_of(name, stages)})
        uses = ' '.join(
            sorted({*components(cfg).split(), *(use for source in sources for use in found[source].uses.split())})
        )
        read = [*(found[source].key for source in sources), *map(hash_of, _weights(cfg._cfg_dict)), *_roots(cfg)]
        found[name] = Origin(_hash(config_hash(cfg), code_hash(uses), *read), uses)
    return found


def _roots(cfg: Config) -> list[str]:
    """The folders of images that a config names: a config of anybody's folder is another one for each."""
    loaders = [cfg.get(f'{split}_dataloader') for split in ('train', 'val', 'test')]
    roots = [innermost(loader.dataset).get('data_root') for loader in loaders if loader]
    # however they are written; a link stays what it is called
    return sorted({os.path.abspath(Path(root).expanduser()) for root in roots if root})  # noqa: PTH100


def _weights(value: Any) -> Iterator[str]:
    """The files here that a network of a config begins with."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if key in ('checkpoint', 'load_from') and isinstance(part, str) and Path(part).is_file():
            yield part
        elif isinstance(part, dict | list | tuple):
            yield from _weights(part)


def _priors_of(name: str, stages: dict[str, Config]) -> list[Path]:
    """Where a stage finds its priors, if it reads any."""
    return stores_for(name, stages, Path()) if readers(stages[name]) else []


def _hash(*parts: str) -> str:
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:12]

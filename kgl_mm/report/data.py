"""What a work directory holds, as plain values; what is missing or cannot be read is absent, and said in words."""

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config

from kgl_mm.engine.config import load_config
from kgl_mm.engine.stages import is_part, latest_checkpoint, stores_read
from kgl_mm.engine.work_dir import configs_in
from kgl_mm.errors import UsageError, first_line
from kgl_mm.files import read_json


@dataclass
class Scores:
    """One split of one stage by image; ``scores`` is None where there is no good class."""

    paths: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    scores: np.ndarray | None
    log_odds: np.ndarray | None

    @property
    def both_classes(self) -> bool:
        """Whether there is something to rank."""
        return self.scores is not None and 0 < int(np.count_nonzero(self.labels)) < len(self.labels)


@dataclass
class Stage:
    """What one stage left."""

    name: str
    folder: Path
    metrics: dict[str, dict] = field(default_factory=dict)
    test: Scores | None = None
    curves: dict[str, dict[float, float]] = field(default_factory=dict)
    config: Config | None = None
    tested: Config | None = None
    config_text: str = ''
    checkpoint: Path | None = None
    trust: float | None = None
    priors: str | None = None

    @property
    def left_out(self) -> bool:
        """Whether it is one of the parts of a cross-fitted run, which had not seen the images that it wrote maps of."""
        return bool(self.config) and is_part(self.config)


@dataclass
class Run:
    """A work directory."""

    root: Path
    stages: list[Stage]
    best: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def shown(self) -> Stage | None:
        """The stage whose errors are shown: the best round, else the last one with scores."""
        scored = [stage for stage in self.stages if stage.test and stage.test.scores is not None]
        return next((stage for stage in scored if stage.name == self.best), scored[-1] if scored else None)


def read_run(root: str | Path) -> Run:
    """Read a work directory of ``tools/train.py`` or ``tools/test.py``."""
    root = Path(root)
    run = Run(root, [])
    metrics, state = _record(root / 'metrics.json', run.notes), _record(root / 'state.json', run.notes)
    known = state.get('stages', {})
    names = {*metrics, *known}
    if not names:
        raise UsageError(f'{root}: not the work directory of a run, since it has neither metrics.json nor state.json')
    run.best = state.get('best')
    for name in sorted(names, key=lambda name: (_began(root / name), name)):
        facts = known.get(name, {})
        stage = Stage(name, root / name, metrics.get(name, {}), trust=facts.get('trust'), priors=facts.get('priors'))
        stage.test = _guarded(lambda stage=stage: read_scores(stage.folder / 'test_scores.csv'), run.notes, stage)
        stage.curves = read_curves(stage.folder)
        _guarded(lambda stage=stage: _read_configs(stage), run.notes, stage)
        stage.checkpoint = _checkpoint(stage, root / facts['checkpoint'] if 'checkpoint' in facts else None)
        run.stages.append(stage)
    return run


def read_scores(path: Path) -> Scores | None:
    """What ``RecordHook`` wrote of each image; None where it wrote nothing."""
    if not path.is_file():
        return None
    with path.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return None
    columns = [name for name in rows[0] if name[:1] == 'p' and name[1:].isdigit()]
    scores, odds = (
        np.array([float(row[name]) for row in rows]) if name in rows[0] else None for name in ('score', 'log_odds')
    )
    return Scores(
        [row['img_path'] for row in rows],
        np.array([int(row['label']) for row in rows]),
        np.array([[float(row[name]) for name in columns] for row in rows]),
        scores,
        odds,
    )


def read_curves(folder: Path) -> dict[str, dict[float, float]]:
    """What a training logged: ``{name: {epoch: mean}}``, or by iteration where it counts no epochs.

    Later logs win where a resumed training did an epoch again; lines that a kill cut short are left out.
    """
    found: dict[str, dict[float, dict[float, float]]] = {}
    for log in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in log.read_text(errors='replace').splitlines():
            try:
                row = json.loads(line)
                at, step = float(row.get('epoch', row['step'])), float(row['step'])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            for name, value in row.items():
                if name in ('epoch', 'iter', 'step', 'time', 'data_time', 'memory') or name.endswith('/time'):
                    continue
                if isinstance(value, int | float) and math.isfinite(value):
                    found.setdefault(name, {}).setdefault(at, {})[step] = value
    return {
        name: {at: sum(steps.values()) / len(steps) for at, steps in sorted(by_epoch.items())}
        for name, by_epoch in found.items()
    }


def stores_of(run: Run) -> list[tuple[Path, Stage | None]]:
    """The stores of priors that the run made or read, each with the stage that made it."""
    found = {}
    for stage in run.stages:
        for index in sorted(stage.folder.glob('*/store.json')):
            found.setdefault(index.parent.resolve(), (index.parent, stage))
    for place in _stores_read(run.stages):
        if (place / 'store.json').is_file():
            found.setdefault(place.resolve(), (place, None))
    return list(found.values())


def read_by(run: Run, place: Path) -> list[Stage]:
    """The stages that read a store."""
    return [stage for stage in run.stages if place.resolve() in {path.resolve() for path in _stores_read([stage])}]


def _stores_read(stages: Iterable[Stage]) -> list[Path]:
    places = []
    for stage in stages:
        for place in map(Path, stores_read(stage.config) if stage.config else []):
            # a config names them from where the command was given, and a run may have been moved or copied since
            here = stage.folder.parent.joinpath(*place.parts[-2:])
            places.append(here if (here.exists() and not stage.priors) or not place.exists() else place)
        places += [Path(stage.priors)] if stage.priors else []
    return places


def _read_configs(stage: Stage) -> None:
    """The newest config that trains, and the newest one: that of a later test lacks the training."""
    for file in reversed(configs_in(stage.folder)):
        config = load_config(file)
        stage.tested = stage.tested or config
        if stage.config is None or config.get('train_dataloader'):
            stage.config, stage.config_text = config, file.read_text(errors='replace')
        if config.get('train_dataloader'):
            return


def _checkpoint(stage: Stage, of_state: Path | None) -> Path | None:
    """What was tested last."""
    tested = stage.tested or {}
    named = Path(tested['load_from']) if tested.get('load_from') and not tested.get('train_dataloader') else None
    found = [path for path in (named, of_state, latest_checkpoint(stage.folder)) if path and path.is_file()]
    return found[0] if found else None


def _began(folder: Path) -> str:
    """When the first command of a stage began; ``~`` stands behind all digits."""
    return min((path.name for path in folder.glob('[0-9]*_[0-9]*') if path.is_dir()), default='~')


def _record(path: Path, notes: list[str]) -> dict:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        notes.append(f'{path.name} cannot be read: {first_line(error)}.')
        return {}
    return found if isinstance(found, dict) else {}


def _guarded(read, notes: list[str], stage: Stage):
    try:
        return read()
    except Exception as error:  # a config is a Python file, and a table may have been edited
        notes.append(f'Of {stage.name} something cannot be read: {type(error).__name__}, {first_line(error)}.')
        return None

"""Which config and which checkpoint a finished run left, found by its work directory, a stage's, or a file."""

from pathlib import Path

from mmengine.config import Config

from kgl_mm.engine.config import innermost, load_config
from kgl_mm.engine.stages import READER, find_checkpoint, latest_checkpoint
from kgl_mm.errors import UsageError
from kgl_mm.files import read_json


def find_run(target: str | Path | Config, checkpoint: str | Path | None = None) -> tuple[Config, Path]:
    """The config of a stage, and its checkpoint.

    Args:
        target: a run's work directory, of which the last stage counts, or the best round; a stage's directory; one of
            its checkpoints; or a config, as a file or read.
        checkpoint: a file or one of these directories; a config needs it.
    """
    if isinstance(target, Config) or not (Path(target).is_dir() or Path(target).suffix == '.pth'):
        cfg = target if isinstance(target, Config) else load_config(target)
        if checkpoint is None:
            raise UsageError(
                f'{cfg.filename or "a config"}: has no weights; pass a checkpoint too, or the work directory of a run'
            )
        path = checkpoint_of(Path(checkpoint))
        return find_checkpoint(cfg, path)[2], path
    home = checkpoint_of(Path(target))
    path = home if checkpoint is None else checkpoint_of(Path(checkpoint))
    return _config_in(path.parent) or _config_of(home.parent), path


def checkpoint_of(path: Path) -> Path:
    """Of a stage's directory the checkpoint that was tested, else the newest; of a run's that of its last stage."""
    if not path.exists():
        raise UsageError(f'{path}: no such {"checkpoint" if path.suffix else "work directory"}')
    if path.is_file():
        return path
    if newest := latest_checkpoint(path):
        return _finished(path.parent).get(path.name, newest)
    found = _finished(path)
    if not found:
        folders = (folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith('previous-'))
        found = {folder.name: newest for folder in folders if (newest := latest_checkpoint(folder))}
    if not found:
        raise UsageError(f'{path}: no checkpoint of a run in it')
    best = read_json(path / 'state.json').get('best')
    if best in found:
        return found[best]
    read = {name for checkpoint in found.values() for name in _read_by(checkpoint.parent)}
    left = [checkpoint for name, checkpoint in found.items() if name not in read]
    return max(left or found.values(), key=lambda checkpoint: (checkpoint.stat().st_mtime, checkpoint))


def _finished(root: Path) -> dict[str, Path]:
    stages = read_json(root / 'state.json').get('stages', {})
    paths = {name: root / done['checkpoint'] for name, done in stages.items() if done.get('done')}
    return {name: path for name, path in paths.items() if path.is_file()}


def _read_by(folder: Path) -> set[str]:
    """The stages whose priors a stage read, which therefore came before it."""
    loader = (_config_in(folder) or {}).get('train_dataloader')
    steps = innermost(loader.dataset).get('pipeline', []) if loader else []
    stores = [step.get('store') or [] for step in steps if step.get('type') == READER]
    return {Path(path).parent.name for store in stores for path in ([store] if isinstance(store, str) else store)}


def _config_in(folder: Path) -> Config | None:
    """The config that a training, and each test since, left in the directory of a stage."""
    found = sorted(folder.glob('*.py'), key=lambda path: path.stat().st_mtime)
    return load_config(found[-1].absolute()) if found else None


def _config_of(folder: Path) -> Config:
    cfg = _config_in(folder)
    if cfg is None:
        raise UsageError(f'{folder}: the run left no config in it; pass its config and a checkpoint')
    return cfg

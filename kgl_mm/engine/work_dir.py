"""Which config and which checkpoint a finished run left, found by its work directory, a stage's, or a file."""

from pathlib import Path

from mmengine.config import Config

from kgl_mm.engine.config import load_config
from kgl_mm.engine.stages import find_checkpoint, finished, latest_checkpoint, stage_checkpoint, stores_read
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
    found = configs_in(path.parent) or configs_in(home.parent)
    if not found:
        raise UsageError(f'{home.parent}: the run left no config in it; pass its config and a checkpoint')
    return load_config(found[-1]), path


def first_is_better(metrics: dict[str, dict], best: str | None = None) -> str:
    """A sentence where validation data find the first stage better than all that came after it, else nothing.

    Args:
        metrics: what ``metrics.json`` holds, in the order of the stages.
        best: the stage that a run chose of its last ones; it needs no other advice.

    >>> first_is_better({'stage1': {'val': {'AP': 0.95}}, 'stage2': {'val': {'AP': 0.8}}})
    'On validation data stage1 is better (AP 0.950) than what came after it (0.800).'
    >>> first_is_better({'stage1': {'val': {'AP': 0.8}}, 'stage2': {'val': {'AP': 0.8}}})
    ''
    """
    for name in ('AP', 'macro_AP'):
        scores = {stage: found['val'][name] for stage, found in metrics.items() if name in found.get('val', {})}
        first, *later = scores or ['']
        if later and first != best and scores[first] > (most := max(scores[stage] for stage in later)):
            said = f'On validation data {first} is better ({name} {scores[first]:.3f})'
            return f'{said} than what came after it ({most:.3f}).'
    return ''


def checkpoint_of(path: Path) -> Path:
    """Of a stage's directory the checkpoint that was tested, else the newest; of a run's that of its last stage."""
    if not path.exists():
        raise UsageError(f'{path}: no such {"checkpoint" if path.suffix else "work directory"}')
    if path.is_file():
        return path
    if tested := stage_checkpoint(path):
        return tested
    found = finished(path)
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


def _read_by(folder: Path) -> set[str]:
    """The stages whose priors a stage read, which therefore came before it."""
    found = configs_in(folder)
    return {Path(path).parent.name for path in stores_read(load_config(found[-1]))} if found else set()


def configs_in(folder: Path) -> list[Path]:
    """The configs that a training, and each test since, left in the directory of a stage, the newest last."""
    files = sorted(folder.glob('*/vis_data/config.py')) or sorted(folder.glob('*.py'), key=lambda f: f.stat().st_mtime)
    return [file.absolute() for file in files]

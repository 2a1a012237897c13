"""Checkpoints as plain types and tensors, loaded without running what is in them."""

import copy
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from kgl_mm.engine.stages import best_checkpoint, latest_checkpoint
from kgl_mm.errors import UsageError, first_line


@contextmanager
def tested_weights(runner: Runner, model: nn.Module) -> Iterator[Path | None]:
    """A model that was trained, with the weights of the checkpoint that will be tested; afterwards it is as it was.

    Those are of the best checkpoint where one is kept, else of the last one, else the model's own.
    """
    kept = copy.deepcopy(model.state_dict())
    path = best_checkpoint(runner) or latest_checkpoint(Path(runner.work_dir))
    try:
        if path:
            model.load_state_dict(load_from_file(str(path), map_location='cpu')['state_dict'])
        yield path
    finally:
        model.load_state_dict(kept)


_HISTORY = ('log_history', 'count_history', 'max_length')


def to_plain(value: Any) -> Any:
    """The same value from dicts, lists, tuples, strings, numbers and tensors alone.

    >>> to_plain({'a': np.float32(0.5), 'b': [np.arange(2)], 'c': Path('x')})
    {'a': 0.5, 'b': [tensor([0, 1])], 'c': 'x'}
    """
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(zip(_HISTORY, (torch.tensor(log), torch.tensor(count), value.max_length), strict=True))
    if isinstance(value, dict):
        return {to_plain(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_plain(v) for v in value) if type(value) in (list, tuple) else [to_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def histories_from_plain(scalars: dict) -> dict:
    """The reverse of what :func:`to_plain` does to the log histories of a message hub."""
    return {
        key: HistoryBuffer(value['log_history'].tolist(), value['count_history'].tolist(), value['max_length'])
        if isinstance(value, dict) and set(value) == set(_HISTORY)
        else value
        for key, value in scalars.items()
    }


def _history_attribute(owner: Any, name: str) -> Any:
    """Stands in for ``getattr``, which mmengine's pickled histories ask for: these four methods and nothing else."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'a checkpoint may not read attribute {name!r}')


def _allowed() -> list:
    """What checkpoints of mmengine contain beside tensors."""
    kinds = {type(np.dtype(kind)) for kind in '?bhilqBHILQefd'}
    arrays = [np._core.multiarray._reconstruct, np._core.multiarray.scalar, np.ndarray, np.dtype]
    renamed = [(f, f'numpy.core.multiarray.{f.__name__}') for f in arrays[:2]]
    return [HistoryBuffer, (_history_attribute, 'builtins.getattr'), *arrays, *renamed, *kinds]


def load_from_file(filename: str, map_location: Any = None) -> Any:
    """``torch.load`` with ``weights_only`` and the allow-list; what is wrong with a file is said in one sentence."""
    path = Path(filename)
    if not path.is_file():
        raise UsageError(f'{filename}: no such checkpoint')
    try:
        with torch.serialization.safe_globals(_allowed()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if asked := re.search(r'GLOBAL (\S+)', str(error)):
            what = asked[1].strip('.')
            raise UsageError(f'{filename}: refused, since it asks for code beyond tensors ({what})') from error
        raise UsageError(f'{filename}: not a checkpoint, or damaged') from error
    except (EOFError, RuntimeError, ValueError, KeyError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f'{filename}: not a checkpoint, or damaged ({first_line(error)})') from error
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        # Runner.resume would run this text as a Python file
        checkpoint['meta'].pop('config', None)
    return checkpoint


def use_safe_loading() -> None:
    """Make every checkpoint that mm code loads in this process go through :func:`load_from_file`.

    Files fetched from the web are loaded by torch.hub, for which the environment variable does the same.
    """
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_file, force=True)

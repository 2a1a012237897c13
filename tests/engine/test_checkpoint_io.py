import os
import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

from kgl_mm.engine import checkpoint_io
from kgl_mm.engine.checkpoint_io import histories_from_plain, load_from_file, to_plain, use_safe_loading
from kgl_mm.engine.stages import best_checkpoint
from kgl_mm.errors import UsageError


class Crafted:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.fixture
def crafted(tmp_path):
    path = tmp_path / 'crafted.pth'
    torch.save(dict(meta=dict(epoch=1), state_dict=Crafted(tmp_path / 'ran')), path)
    with pytest.raises(TypeError):  # without the guard, the file does run code (os.system's status is no dict)
        torch.load(path, weights_only=False)['state_dict']['x']
    assert (tmp_path / 'ran').exists()
    (tmp_path / 'ran').unlink()
    return path


@pytest.fixture
def safe_loading(monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    monkeypatch.setattr(CheckpointLoader, '_schemes', OrderedDict(CheckpointLoader._schemes))
    use_safe_loading()


def test_plain_values_load_with_an_empty_allow_list(tmp_path):
    history = HistoryBuffer([1.0, 0.5], [1, 2], max_length=10)
    state = dict(
        log_scalars=OrderedDict(loss=history),
        runtime_info=dict(best=np.float64(0.5), names=('a', Path('b')), array=np.arange(3)),
    )
    torch.save(to_plain(state), tmp_path / 'x.pth')
    loaded = torch.load(tmp_path / 'x.pth', weights_only=True)
    assert loaded['runtime_info']['names'] == ('a', 'b')
    back = histories_from_plain(loaded['log_scalars'])['loss']
    assert isinstance(back, HistoryBuffer)
    np.testing.assert_array_equal(back.data[0], history.data[0])
    np.testing.assert_array_equal(back.data[1], history.data[1])
    assert back.mean() == history.mean()
    back.update(0.25)


def test_stock_mm_checkpoint_loads_although_it_pickles_histories(tmp_path):
    history = HistoryBuffer([1.0, 0.5], [1, 2])
    torch.save(dict(meta={}, message_hub=dict(log_scalars=dict(loss=history), value=np.float32(2))), tmp_path / 'x.pth')
    loaded = load_from_file(str(tmp_path / 'x.pth'))
    assert loaded['message_hub']['log_scalars']['loss'].mean() == history.mean()
    assert loaded['message_hub']['value'] == 2


def test_crafted_file_is_refused_and_runs_nothing(crafted, tmp_path):
    with pytest.raises(UsageError, match='asks for code beyond tensors'):
        load_from_file(str(crafted))
    assert not (tmp_path / 'ran').exists()


def test_every_way_of_mmengine_refuses_it_too(crafted, safe_loading, tmp_path):
    with pytest.raises(UsageError):
        CheckpointLoader.load_checkpoint(str(crafted))
    with pytest.raises(pickle.UnpicklingError):  # what torch.hub does with files from the web
        torch.load(crafted, weights_only=False)
    assert not (tmp_path / 'ran').exists()


class GetAttribute:
    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def test_getattr_is_allowed_for_the_statistics_of_a_history_and_nothing_else(tmp_path):
    torch.save(GetAttribute(), tmp_path / 'x.pth')
    with pytest.raises(UsageError):
        load_from_file(str(tmp_path / 'x.pth'))


def test_config_text_that_resume_would_run_is_dropped(tmp_path):
    torch.save(dict(meta=dict(config='import os', epoch=1)), tmp_path / 'x.pth')
    assert load_from_file(str(tmp_path / 'x.pth'))['meta'] == dict(epoch=1)


@pytest.mark.parametrize('content', [b'', b'no checkpoint', b'PK\x03\x04 half a zip'])
def test_what_is_no_checkpoint_is_said_with_its_name(tmp_path, content):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r'x\.pth: not a checkpoint, or damaged'):
        load_from_file(str(path))


def test_truncated_and_missing_files(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save(torch.zeros(1000), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match='damaged'):
        load_from_file(str(path))
    with pytest.raises(UsageError, match='no such checkpoint'):
        load_from_file(str(tmp_path / 'y.pth'))


def test_files_from_the_web_are_loaded_safely_too(monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
    use_safe_loading()
    assert os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] == '1'


def test_the_best_checkpoint_comes_before_the_last_one_and_is_found_where_the_run_is_now(tmp_path):
    for name in ('best_AP_epoch_1', 'epoch_2'):
        torch.save(dict(state_dict=torch.nn.Linear(1, 1).state_dict()), tmp_path / f'{name}.pth')
    hub = SimpleNamespace(runtime_info=dict(best_ckpt_AP='/moved/from/elsewhere/best_AP_epoch_1.pth'))
    run = SimpleNamespace(work_dir=str(tmp_path), message_hub=hub)
    assert best_checkpoint(run) == tmp_path / 'best_AP_epoch_1.pth'
    with checkpoint_io.tested_weights(run, torch.nn.Linear(1, 1)) as path:
        assert path == tmp_path / 'best_AP_epoch_1.pth'

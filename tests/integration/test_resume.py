"""A run that was killed and resumed equals one that was left alone, bit for bit."""

import json
import os
import signal
import time

import pytest
import torch

from kgl_mm.files import alone_in


def final_state(work_dir):
    checkpoint = torch.load(work_dir / 'stage1' / 'epoch_3.pth', weights_only=True)
    metrics = json.loads((work_dir / 'metrics.json').read_text())['stage1']['test']
    return checkpoint['state_dict'], checkpoint['optimizer'], metrics


def assert_same(one, other):
    for a, b in zip(one[:2], other[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert one[2] == other[2]


def kill_when(process, seen, how=signal.SIGKILL):
    """Send the whole group of a started tool a signal as soon as ``seen()`` is true; its end."""
    deadline = time.monotonic() + 120
    while not seen():
        assert process.status() is None, f'the run ended before it could be killed: {process.end().stderr[-2000:]}'
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, how)
    return process.end(timeout=60)


# a killer inside the run hits the exact moment: in an epoch, or between the bytes and the rename of a checkpoint
KILLER = """
custom_imports = dict(imports=['killer'])
custom_hooks = [dict(type='Killer')]
"""
KILLER_MODULE = """
import os, signal
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Killer(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        where = os.environ.get('KILL')
        if where == 'epoch' and runner.iter == len(runner.train_dataloader) + 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_save_checkpoint(self, runner, checkpoint):
        if os.environ.get('KILL') == 'write' and checkpoint['meta']['epoch'] == 2:
            Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ('workers', 'where'),
    [
        (0, 'epoch'),
        (2, 'write'),
        pytest.param(0, 'write', marks=pytest.mark.slow),
        pytest.param(2, 'epoch', marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_equals_undisturbed(tool, write_config, tmp_path, workers, where):
    (tmp_path / 'killer.py').write_text(KILLER_MODULE)
    extra = KILLER + f'train_dataloader["num_workers"] = {workers}\n'
    if workers:
        extra += 'train_dataloader["persistent_workers"] = True\n'
    config = write_config(extra=extra)
    paths = dict(EXTRA_PATH=str(tmp_path))
    undisturbed = write_config('straight.py')  # no workers, no killer
    tool('train.py', undisturbed, '--work-dir', 'a')
    killed = tool('train.py', config, '--work-dir', 'b', env=dict(paths, KILL=where), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / 'b/stage1/epoch_3.pth').exists()
    tool('train.py', config, '--work-dir', 'b', '--resume', env=paths)
    one, other = final_state(tmp_path / 'a'), final_state(tmp_path / 'b')
    one[2].pop('config'), other[2].pop('config')  # the killer is in one of the configs
    assert_same(one, other)
    assert not list((tmp_path / 'b').rglob('.*.tmp'))


@pytest.mark.slow
def test_two_processes_killed_and_resumed(tool, start, write_config, tmp_path):
    config = write_config()
    tool('dist_train.sh', config, 2, '--work-dir', 'a')
    process = start('dist_train.sh', config, 2, '--work-dir', 'b')
    kill_when(process, (tmp_path / 'b/stage1/epoch_1.pth').exists)  # those that train are in groups of their own
    assert not (tmp_path / 'b/stage1/epoch_3.pth').exists()
    tool('dist_train.sh', config, 2, '--work-dir', 'b', '--resume')
    assert_same(final_state(tmp_path / 'a'), final_state(tmp_path / 'b'))


def test_workers_and_cache_change_nothing(tool, write_config, tmp_path):
    config = write_config()
    tool('train.py', config, '--work-dir', 'a')
    options = ['train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True']
    tool('train.py', config, '--work-dir', 'b', '--data-options', 'cache=memory', '--cfg-options', *options)
    tool('train.py', config, '--work-dir', 'c', '--data-options', f'cache={tmp_path / "cache"}')
    reference = final_state(tmp_path / 'a')
    assert_same(reference, final_state(tmp_path / 'b'))
    assert_same(reference, final_state(tmp_path / 'c'))


def test_two_runs_do_not_meet_in_a_work_directory(tool, write_config, tmp_path):
    config = write_config()
    with alone_in(tmp_path / 'a'):  # as a run of this process would be
        for words in ([], ['--resume'], ['--resume', 'a/stage1/epoch_1.pth']):
            refused = tool('train.py', config, '--work-dir', 'a', *words, check=False)
            assert refused.returncode == 2
            assert f'error: a: process {os.getpid()} is at work in it' in refused.stderr
        assert [path.name for path in (tmp_path / 'a').iterdir()] == ['.lock']
    tool('train.py', config, '--work-dir', 'a')


def test_resume_of_a_finished_run_does_nothing_and_a_new_run_puts_the_old_aside(tool, write_config, tmp_path):
    config = write_config()
    first = tool('train.py', config, '--work-dir', 'a')
    assert 'stage1 test AP' in first.stdout
    checkpoint = tmp_path / 'a/stage1/epoch_3.pth'
    before = checkpoint.stat().st_mtime_ns
    again = tool('train.py', config, '--work-dir', 'a', '--resume')
    assert 'stage1 test AP' in again.stdout
    assert checkpoint.stat().st_mtime_ns == before
    one = final_state(tmp_path / 'a')
    tool('train.py', config, '--work-dir', 'a')
    (previous,) = (tmp_path / 'a').glob('previous-*')
    assert_same(one, final_state(previous))
    assert_same(one, final_state(tmp_path / 'a'))

import logging
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections import OrderedDict
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.runner.checkpoint import CheckpointLoader

REPOSITORY = Path(__file__).parents[2]

CONFIG = """
_base_ = {base!r}
data_preprocessor = dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1), norm_cfg={norm}),
    neck=dict(type='kgl_mm.GlobalPooling', mode='max_avg'),
    head=dict(type='StackedLinearClsHead', num_classes=2, in_channels=16, mid_channels=[8], dropout_rate={dropout},
              topk=(1,)),
)
load = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.LoadMask'), dict(type='Resize', scale=(32, 64))]
augment = [dict(type='RandomFlip', prob=0.5), dict(type='ColorJitter', brightness=0.3, contrast=0.3)]
pack = [dict(type='kgl_mm.PackDefect')]
data = dict(type='kgl_mm.KolektorSDD', data_root={data_root!r}, fold=0)
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='kgl_mm.BalancedSampler'),
    dataset=dict(**data, split='train', pipeline=[*load, *augment, *pack]))
test_dataloader = dict(
    batch_size=5, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**data, split='test', pipeline=[*load, *pack]))
test_evaluator = dict(type='kgl_mm.DefectMetric')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.02, momentum=0.9))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=3, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=3)
test_cfg = dict()
"""


@pytest.fixture(scope='session')
def surfaces(tmp_path_factory):
    """A small data set in the layout of KolektorSDD: noise, with a dark stroke on one part in three."""
    root = tmp_path_factory.mktemp('data') / 'KolektorSDD'
    random = np.random.default_rng(0)
    for unit in range(1, 51):
        folder = root / f'kos{unit:02d}'
        folder.mkdir(parents=True)
        for part in range(3):
            image = random.integers(90, 160, (64, 32), np.uint8)
            mask = np.zeros_like(image)
            if part == unit % 3 and unit % 2:
                row = int(random.integers(8, 56))
                cv2.line(mask, (4, row), (28, row + 4), 255, 2)
                image[mask > 0] //= 3
            cv2.imwrite(str(folder / f'Part{part}.png'), image)
            cv2.imwrite(str(folder / f'Part{part}_label.bmp'), mask)
    return root


@pytest.fixture
def write_config(tmp_path, surfaces):
    """A function that writes a small config and gives its path."""

    def write(name='tiny.py', norm="dict(type='BN')", dropout=0.3, extra=''):
        base = str(REPOSITORY / 'configs/_base_/default_runtime.py')
        path = tmp_path / name
        text = CONFIG.format(base=base, norm=norm, dropout=dropout, data_root=str(surfaces))
        path.write_text(text + extra)
        return path

    return write


def tool_environment(EXTRA_PATH='', **more):  # noqa: N803
    """The environment of a tool: this checkout, whatever family of mm packages the tests run with, one thread."""
    paths = [EXTRA_PATH, os.environ.get('PYTHONPATH'), str(REPOSITORY)]
    path = os.pathsep.join(filter(None, paths))
    return dict(os.environ, PYTHONPATH=path, PYTHON=sys.executable, OMP_NUM_THREADS='1') | more


class Started:
    """A tool at work, in a session of its own; what tests use of a ``Popen``, whichever way it was started."""

    def __init__(self, command, cwd, environment, fork=None):
        self.command = command
        self.outputs = [str(Path(cwd, f'{name}.of.{os.urandom(4).hex()}')) for name in ('stdout', 'stderr')]
        if fork:
            self.process = fork(command, str(cwd), environment, self.outputs)
            self.process.start()
        else:
            with Path(self.outputs[0]).open('w') as out, Path(self.outputs[1]).open('w') as errors:
                self.process = subprocess.Popen(
                    command, cwd=cwd, env=environment, start_new_session=True, stdout=out, stderr=errors,
                    # a shell starts what runs in the background with interrupts ignored
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                )  # fmt: skip
        self.pid = self.process.pid

    def status(self):
        """None while it runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    def end(self, timeout=600):
        """Wait for the end; status and streams."""
        end = time.monotonic() + timeout
        while self.status() is None and time.monotonic() < end:
            time.sleep(0.01)
        if self.status() is None:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f'{self.command} did not end in {timeout} s')
        said = [Path(path).read_text() if Path(path).exists() else '' for path in self.outputs]
        return subprocess.CompletedProcess(self.command, self.status(), *said)


@pytest.fixture(scope='session')
def fork():
    """A function that prepares a process of a tool that need not import anything, which takes most of its time.

    It is a fork of one that has only imported, so nothing of a test is in it; but all have one seed of hashes.
    """
    here = str(Path(__file__).parent)
    context = multiprocessing.get_context('forkserver')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(here)
        warm = import_module('warm')
        # asking for GPUs in another way would bar its forks from using them
        for name, value in tool_environment(here, PYTORCH_NVML_BASED_CUDA_CHECK='1').items():
            patch.setenv(name, value)
        context.set_forkserver_preload(warm.PRELOAD)
        forkserver.ensure_running()
    return lambda *args: context.Process(target=warm.run, args=args)


@pytest.fixture
def start(tmp_path, fork):
    """A function that starts a tool of the project as a user would, in an empty directory.

    ``fresh`` starts Python anew instead of forking a process that has imported what the tool needs.
    """

    def start(name, *words, env=None, fresh=False):
        command = [str(REPOSITORY / 'tools' / name), *map(str, words)]
        fresh = fresh or name.endswith('.sh')
        if fresh:
            command.insert(0, 'bash' if name.endswith('.sh') else sys.executable)
        return Started(command, tmp_path, tool_environment(**(env or {})), None if fresh else fork)

    return start


def successful(done):
    if done.returncode:
        raise AssertionError(f'{done.args}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}')
    return done


@pytest.fixture
def tool(start):
    """A function that runs a tool to its end."""

    def run(*words, check=True, **kwargs):
        done = start(*words, **kwargs).end()
        return successful(done) if check else done

    return run


@pytest.fixture
def two_processes(start):
    """A function that runs a tool in two processes, whose environment is as torchrun sets it."""

    def run(*words, env=None):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = str(free.getsockname()[1])
        group = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, WORLD_SIZE='2', LOCAL_WORLD_SIZE='2', **(env or {}))
        ranks = [dict(group, RANK=rank, LOCAL_RANK=rank) for rank in '01']
        started = [start(*words, '--launcher', 'pytorch', env=rank) for rank in ranks]
        return [successful(process.end(timeout=300)) for process in started]

    return run


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """A function that runs a tool inside this process, which is quick, and gives its status and what it said."""

    def run(name, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')  # put back at the end, whatever the tool sets
        monkeypatch.setattr(CheckpointLoader, '_schemes', OrderedDict(CheckpointLoader._schemes))
        monkeypatch.setattr(logging, 'raiseExceptions', False)  # loggers of earlier runs have lost their stream
        monkeypatch.setattr(sys, 'argv', [name, *words])
        status = 0
        try:
            runpy.run_path(str(REPOSITORY / 'tools' / name), run_name='__main__')
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().err

    return run


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The folder of a training that other tests share, once there is one."""
    return tmp_path_factory.mktemp('trained')


@pytest.fixture
def generator(run_here, tool, trained):
    """A function that trains a config and gives one that runs ``generate_priors.py`` in this process, RUN being that
    training: status and errors.
    """

    def generator(config):
        if not (trained / 'stage1/epoch_1.pth').exists():
            tool('train.py', config, '--work-dir', trained, '--cfg-options', 'train_cfg.max_epochs=1')

        def run(*words):
            words = [str(trained / 'stage1') if word == 'RUN' else str(word) for word in words]
            return run_here('generate_priors.py', str(config), *words)

        return run

    return generator


GUIDED = """
load.append(dict(type='kgl_mm.LoadPrior'))
stages = dict(
    stage1=dict(
        model=dict(neck=dict(model['neck'], _delete_=True), head=dict(model['head'], _delete_=True)),
        train_dataloader=dict(dataset=dict(pipeline=train_dataloader['dataset']['pipeline'])),
        custom_hooks=[dict(type='kgl_mm.PriorGenerationHook', batch_size=8{writes})],
    ),
    stage2=dict(),
)
head = dict(type='kgl_mm.KnowledgeInjectionHead', num_classes=2, in_channels=8, hidden=(8,), branch=(8,),
            channel='dropout')
model = dict(model, neck=None, head=head)
train_dataloader['dataset']['pipeline'] = [*load, dict(type='kgl_mm.BinarizePrior'), *augment, *pack]
custom_hooks = [dict(type='kgl_mm.GuidanceHook', insist=True)]
"""


@pytest.fixture
def write_guided(write_config):
    """A function that writes a small config of two stages and gives its path."""

    def write(name='guided.py', extra='', writes='', **kwargs):
        return write_config(name, extra=GUIDED.format(writes=writes) + extra, **kwargs)

    return write

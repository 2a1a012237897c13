"""What only a GPU can show: the same maps, mixed precision, compiled models, NCCL, runs that share the card."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from kgl_mm.saliency import FullGrad, GradCAM, LayerCAM, SaliencyProduct

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(tmp_path):
    """A function that runs a tool to its end, in a process that has touched no GPU yet."""

    def run(*words):
        environment = dict(os.environ, PYTHON=sys.executable, OMP_NUM_THREADS='1')
        start = ['bash' if str(words[0]).endswith('.sh') else sys.executable, str(ROOT / 'tools' / words[0])]
        done = subprocess.run(
            [*start, *map(str, words[1:])], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f'{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
        return done

    return run


def metrics_in(folder):
    return json.loads((folder / 'metrics.json').read_text())


@pytest.mark.parametrize('method', [GradCAM, LayerCAM, FullGrad, SaliencyProduct])
def test_maps_are_those_of_the_cpu(method):
    """In float64: in float32 near ties of a maximum go either way, and the gradient with them."""
    torch.manual_seed(0)
    backbone = dict(type='VGG', depth=11, norm_cfg=dict(type='BN'), act_cfg=dict(type='LeakyReLU'))
    head = dict(type='LinearClsHead', num_classes=2, in_channels=512, topk=(1,))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = (
            MODELS.build(
                dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)
            )
            .eval()
            .double()
        )
    images = torch.randn(2, 3, 96, 128, dtype=torch.float64)
    there = method(model)(images)
    here = method(model.cuda())(images.cuda())
    top = there.flatten(1).amax(1)
    assert (top > 0).all()
    assert (here.cpu() - there).flatten(1).abs().amax(1).div(top).max() < 1e-9


def test_both_stages_in_mixed_precision(command, write_guided, tmp_path):
    command('train.py', write_guided(), '--work-dir', tmp_path / 'run', '--amp')
    assert {'stage1', 'stage2'} <= metrics_in(tmp_path / 'run').keys()
    assert all(0 <= stage['test']['AP'] <= 1 for stage in metrics_in(tmp_path / 'run').values())


@pytest.mark.parametrize(
    'extra', ['compile = True', "default_hooks = dict(channels_last=dict(type='kgl_mm.ChannelsLastHook'))"]
)
def test_compiled_or_channels_last_learns_the_same(command, write_config, tmp_path, extra):
    """The order of sums differs, so losses agree to some digits."""
    for name, text in dict(plain='', other=f'\n{extra}\n').items():
        command('train.py', write_config(f'{name}.py', dropout=0, extra=text), '--work-dir', tmp_path / name)
    found = [metrics_in(tmp_path / name)['stage1']['test'] for name in ('plain', 'other')]
    assert found[0]['AP'] == pytest.approx(found[1]['AP'], abs=0.1)


def test_one_process_with_nccl_finds_what_none_finds(command, write_guided, tmp_path):
    config = write_guided(dropout=0)
    command('dist_train.sh', config, 1, '--work-dir', tmp_path / 'nccl')
    command('train.py', config, '--work-dir', tmp_path / 'alone')
    found = [metrics_in(tmp_path / name)['stage2']['test']['AP'] for name in ('nccl', 'alone')]
    assert found[0] == pytest.approx(found[1], abs=0.1)
    assert 'nccl' in next((tmp_path / 'nccl/stage1').glob('*/*.log')).read_text()


def test_a_resumed_run_goes_on_where_it_was(command, write_guided, tmp_path):
    extra = 'randomness = dict(seed=0, deterministic=True)\n'
    config = write_guided(extra=extra)
    command('train.py', config, '--work-dir', tmp_path / 'whole')
    command(
        'train.py',
        config,
        '--work-dir',
        tmp_path / 'parts',
        '--cfg-options',
        'default_hooks.checkpoint.max_keep_ckpts=9',
    )
    for name in ('epoch_3.pth', 'last_checkpoint'):
        (tmp_path / 'parts/stage2' / name).unlink()
    state = json.loads((tmp_path / 'parts/state.json').read_text())
    del state['stages']['stage2']['done']
    (tmp_path / 'parts/state.json').write_text(json.dumps(state))
    command('train.py', config, '--work-dir', tmp_path / 'parts', '--resume')
    whole, parts = (
        torch.load(tmp_path / name / 'stage2/epoch_3.pth', weights_only=True) for name in ('whole', 'parts')
    )
    for name, value in whole['state_dict'].items():
        assert torch.equal(value, parts['state_dict'][name]), name


def test_runs_of_a_study_share_the_card(command, write_guided, tmp_path):
    command(
        'cross_validate.py',
        write_guided(),
        '--work-dir',
        tmp_path / 'study',
        '--folds',
        0,
        '--seeds',
        0,
        1,
        '--jobs',
        2,
    )
    rows = list(csv.DictReader((tmp_path / 'study/results.csv').open()))
    assert [row['status'] for row in rows] == ['done'] * 4
    assert {row['machine'] for row in rows} == {torch.cuda.get_device_name()}

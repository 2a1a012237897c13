"""The tools as a user calls them: what they leave behind, and what they say when something is wrong."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from .test_resume import kill_when


def test_train_and_test_agree_and_leave_everything_in_its_place(tool, write_config, tmp_path):
    config = write_config()
    tool('train.py', config, fresh=True)
    work_dir = tmp_path / 'work_dirs/tiny'
    names = {str(path.relative_to(work_dir)) for path in work_dir.rglob('*') if path.is_file()}
    assert {'state.json', 'metrics.json', 'stage1/epoch_3.pth', 'stage1/test.png', 'stage1/test_scores.csv'} <= names
    assert 'stage1/epoch_1.pth' not in names  # two are kept
    facts = json.loads((work_dir / 'metrics.json').read_text())['stage1']['test']
    assert {'AP', 'AUROC', 'num_images', 'seed', 'config', 'versions'} <= set(facts)
    tool('test.py', config, work_dir / 'stage1/epoch_3.pth', '--work-dir', 'other', fresh=True)
    again = json.loads((tmp_path / 'other/metrics.json').read_text())['stage1']['test']
    assert again == facts
    torch.load(work_dir / 'stage1/epoch_3.pth', weights_only=True)


def test_threshold_of_the_validation_part_travels_with_the_weights(tool, write_config, tmp_path):
    config = write_config()
    tool('train.py', config, '--work-dir', 'a', '--data-options', 'val_fraction=0.3')
    metrics = json.loads((tmp_path / 'a/metrics.json').read_text())['stage1']
    chosen = metrics['val']['chosen_threshold']
    assert metrics['test']['threshold'] == chosen
    tool('test.py', config, 'a/stage1', '--work-dir', 'b')
    assert json.loads((tmp_path / 'b/metrics.json').read_text())['stage1']['test']['threshold'] == chosen
    tool('train.py', config, '--work-dir', 'c', '--data-options', 'val_fraction=0.3', '--no-validate')
    metrics = json.loads((tmp_path / 'c/metrics.json').read_text())['stage1']
    assert list(metrics) == ['test']
    assert metrics['test']['threshold'] == 0.5


def test_bfloat16_and_best_checkpoint(tool, write_config, tmp_path):
    config = write_config(extra="default_hooks = dict(checkpoint=dict(save_best='AP', rule='greater'))\n")
    tool('train.py', config, '--amp', '--work-dir', 'a', '--data-options', 'val_fraction=0.3')
    (best,) = (tmp_path / 'a/stage1').glob('best_AP_epoch_*.pth')
    assert (
        json.loads((tmp_path / 'a/state.json').read_text())['stages']['stage1']['checkpoint'] == f'stage1/{best.name}'
    )


def test_averaged_weights_are_tested_after_a_resume_as_without(tool, write_config, tmp_path):
    config = write_config(
        extra="custom_hooks = [dict(type='EMAHook', momentum=0.5)]\n"
        "default_hooks = dict(checkpoint=dict(save_best='AP', rule='greater'))\n"
    )
    data = ['--data-options', 'val_fraction=0.3']
    tool('train.py', config, '--work-dir', 'a', *data)
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    tool('train.py', config, '--work-dir', 'b', *data, '--resume', 'b/stage1/epoch_2.pth')
    metrics = [json.loads((tmp_path / run / 'metrics.json').read_text()) for run in 'ab']
    assert metrics[0] == metrics[1]


def test_what_is_written_of_validation_is_of_the_checkpoint_that_was_tested(tool, write_config, tmp_path):
    config = write_config(extra="default_hooks = dict(checkpoint=dict(save_best='AP', rule='greater'))\n")
    data = ['--data-options', 'val_fraction=0.3']
    tool('train.py', config, '--work-dir', 'a', *data)
    (scalars,) = (tmp_path / 'a/stage1').glob('*/vis_data/scalars.json')
    rows = list(map(json.loads, scalars.read_text().splitlines()))
    chosen = [row['chosen_threshold'] for row in rows if 'chosen_threshold' in row]
    assert len(chosen) == 3  # the curve has the epochs alone
    assert (tmp_path / 'a/stage1/best_AP_epoch_1.pth').exists()  # all have an AP of 1
    metrics = json.loads((tmp_path / 'a/metrics.json').read_text())['stage1']
    assert metrics['val']['chosen_threshold'] == pytest.approx(chosen[0]) != pytest.approx(chosen[-1])
    assert metrics['test']['threshold'] == metrics['val']['chosen_threshold']
    tool('test.py', config, 'a/stage1', '--work-dir', 'b', *data)  # of the directory it is the same one
    assert json.loads((tmp_path / 'b/metrics.json').read_text())['stage1']['test'] == metrics['test']


def test_stages_run_in_order_and_only_what_is_missing_is_done(tool, write_config, tmp_path):
    stages = 'stages = dict(stage1=dict(train_cfg=dict(max_epochs=1)), stage2=dict())\n'
    config = write_config(extra=stages)
    tool('train.py', config, '--work-dir', 'a')
    assert list(json.loads((tmp_path / 'a/metrics.json').read_text())) == ['stage1', 'stage2']
    assert (tmp_path / 'a/stage1/epoch_1.pth').exists()
    assert (tmp_path / 'a/stage2/epoch_3.pth').exists()
    state = json.loads((tmp_path / 'a/state.json').read_text())
    del state['stages']['stage2']
    (tmp_path / 'a/state.json').write_text(json.dumps(state))
    before = (tmp_path / 'a/stage1/epoch_1.pth').stat().st_mtime_ns
    result = tool('train.py', config, '--work-dir', 'a', '--resume')
    assert 'stage1 is done already' in result.stdout + result.stderr
    assert (tmp_path / 'a/stage1/epoch_1.pth').stat().st_mtime_ns == before


class Crafted:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ('touch ran',)


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['train.py', 'absent.py'], 'absent.py: no such config'),
        (['train.py', 'broken.py'], 'not a valid config'),
        (['train.py', 'tiny.py', '--data', 'absent'], '--data absent: no such folder'),
        (['train.py', 'tiny.py', '--data-options', 'fold'], 'not of the form KEY=VALUE'),
        (['train.py', 'tiny.py', '--data-options', 'fold=7'], 'fold'),
        (['train.py', 'tiny.py', '--data-options', 'colour=7'], 'colour'),
        (['train.py', 'tiny.py', '--cfg-options', 'model.backbone.type=NoSuchNet'], 'NoSuchNet'),
        (['train.py', 'tiny.py', '--device', 'tpu'], '--device tpu'),
        (['train.py', 'tiny.py', '--device', 'cuda:77'], 'CUDA devices'),
        (['train.py', 'tiny.py', '--launcher', 'pytorch'], 'dist_train.sh'),
        (['train.py', 'tiny.py', '--resume', 'absent.pth'], 'absent.pth: no such checkpoint'),
        (['test.py', 'tiny.py', 'absent.pth'], 'absent.pth: no such checkpoint'),
        (['test.py', 'tiny.py', 'text.pth'], 'text.pth: not a checkpoint'),
        (['test.py', 'tiny.py', 'crafted.pth'], 'asks for code beyond tensors'),
        (['train.py', 'tiny.py', '--cfg-options', 'load_from=crafted.pth'], 'asks for code beyond tensors'),
    ],
)
def test_bad_input_gets_one_sentence(run_here, write_config, tmp_path, words, sentence):
    write_config()
    (tmp_path / 'broken.py').write_text('model = dict(')
    (tmp_path / 'text.pth').write_text('hello')
    torch.save(dict(state_dict=Crafted()), tmp_path / 'crafted.pth')
    status, errors = run_here(*words)
    assert status == 2
    (error,) = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert sentence in error
    assert 'Traceback' not in errors
    assert not (tmp_path / 'ran').exists()


def test_a_key_that_is_nearly_one_of_the_config_is_asked_about(run_here, write_config):
    write_config()
    _, errors = run_here('train.py', 'tiny.py', '--data', 'absent', '--cfg-options', 'optim_wraper.x=3', 'rounds=2')
    (note,) = [line for line in errors.splitlines() if line.startswith('note: ')]
    assert note == 'note: --cfg-options optim_wraper: did you mean optim_wrapper?'


SCRIPTS = {
    'dist_train.sh': ['CONFIG'],
    'dist_test.sh': ['CONFIG', 'CHECKPOINT'],
    'dist_generate.sh': ['CONFIG', 'STAGE'],
}


@pytest.mark.parametrize('script', SCRIPTS)
def test_dist_scripts_want_a_number_of_processes(tool, script):
    result = tool(script, *SCRIPTS[script], check=False)
    assert result.returncode == 2
    assert 'number of processes' in result.stderr


@pytest.mark.parametrize('script', SCRIPTS)
def test_dist_scripts_start_torchrun(tool, tmp_path, script):
    """With these words, of which the training of two processes in ``test_distributed.py`` shows that they are right."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    said = tool(script, *SCRIPTS[script], 3, '--work-dir', 'a b', env=dict(PYTHON=str(python))).stdout.splitlines()
    name = {'dist_generate.sh': 'generate_priors.py'}.get(script, f'{script[5:-3]}.py')
    path = said.pop(5)
    assert said == [
        *['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '3'],
        *[*SCRIPTS[script], '--launcher', 'pytorch', '--work-dir', 'a b'],
    ]
    assert path == str(Path(__file__).parents[2] / 'tools' / name)


def test_interrupt_names_the_checkpoint(start, write_config, tmp_path):
    config = write_config(extra='train_cfg = dict(by_epoch=True, max_epochs=1000)\n')
    process = start('train.py', config, '--work-dir', 'a')
    done = kill_when(process, (tmp_path / 'a/stage1/last_checkpoint').exists, signal.SIGINT)
    assert done.returncode == 130
    assert '--resume goes on from a/stage1/epoch_' in done.stderr
    assert 'Traceback' not in done.stderr


def test_repository_configs_are_found_from_any_directory(run_here, tmp_path):
    status, errors = run_here('train.py', 'configs/vgg16_ksdd.py', '--data', str(tmp_path))
    assert status == 2
    assert 'kolektorsdd' in errors.lower()  # the config was found, the data set was not


def test_an_option_that_a_stage_overrules_is_said(run_here):
    words = ('train.py', 'configs/kgl_demo.py', '--stage', '9', '--cfg-options')
    status, said = run_here(*words, 'train_cfg.max_epochs=1', 'model.head.num_classes=2', 'custom_hooks.0.insist=True')
    assert status == 2
    (note,) = [line for line in said.splitlines() if line.startswith('note: ')]
    assert note.startswith('note: --cfg-options train_cfg.max_epochs ')
    assert note.endswith(' stages.stage1.train_cfg.max_epochs=40')
    assert 'note' not in run_here(*words, 'train_cfg.max_epochs=1', 'stages.stage1.train_cfg.max_epochs=1')[1]

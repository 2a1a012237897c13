"""Priors as a user makes them: by a hook at the end of a training, by a tool, by several processes, after a kill."""

import json
import signal
import subprocess

import pytest
import torch

from kgl_mm.priors import PriorStore

from .test_resume import kill_when

HOOK = """
custom_hooks = [dict(type='kgl_mm.PriorGenerationHook', method=dict(type='kgl_mm.GradCAM', normalize='evidence'),
                     batch_size=2, fraction=1.0)]
"""


def files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.glob('evidence/**/*.png'))}


def test_hook_tool_and_two_processes_write_the_same_bytes(tool, two_processes, write_config, tmp_path):
    config = write_config(extra=HOOK)
    done = tool('train.py', config, '--work-dir', 'a')
    by_hook = tmp_path / 'a/stage1/priors'
    assert len(files(by_hook)) == 99  # the training part
    assert 'a/stage1/priors/contact_sheet.png' in done.stdout
    said = done.stdout + done.stderr
    assert '99 maps' in said
    assert 'with a mask; trust' in said
    assert list((tmp_path / 'a/stage1').rglob('vis_data/**/priors*.png'))  # by the visualizer
    alone = tool('generate_priors.py', config, 'a/stage1', '--out', 'alone')
    assert 'alone/contact_sheet.png' in alone.stdout
    assert files(tmp_path / 'alone') == files(by_hook)
    two_processes('generate_priors.py', config, 'a/stage1/epoch_3.pth', '--out', 'two')
    assert files(tmp_path / 'two') == files(by_hook)
    for name in ('a/stage1/priors', 'alone', 'two'):
        store = PriorStore(tmp_path / name)
        assert str(store.verify()) == '99 as written'
        assert store.source() == PriorStore(by_hook).source()


def test_the_hook_uses_the_best_checkpoint_and_leaves_the_model_as_it_was(tool, write_config, tmp_path):
    best = "default_hooks = dict(checkpoint=dict(save_best='AP', rule='greater'))\n"
    config = write_config(extra=HOOK + best)
    tool('train.py', config, '--work-dir', 'a', '--data-options', 'val_fraction=0.3')
    (checkpoint,) = (tmp_path / 'a/stage1').glob('best_AP_epoch_*.pth')
    tool('generate_priors.py', config, checkpoint, '--out', 'best', '--data-options', 'val_fraction=0.3')
    model = PriorStore(tmp_path / 'best').source()['model']
    assert PriorStore(tmp_path / 'a/stage1/priors').source()['model'] == model
    plain = write_config('plain.py', extra=best)
    tool('train.py', plain, '--work-dir', 'b', '--data-options', 'val_fraction=0.3')
    states = [torch.load(tmp_path / run / 'stage1/epoch_3.pth', weights_only=True)['state_dict'] for run in 'ab']
    torch.testing.assert_close(*states, rtol=0, atol=0)
    metrics = [json.loads((tmp_path / run / 'metrics.json').read_text())['stage1']['test']['AP'] for run in 'ab']
    assert metrics[0] == metrics[1]


def test_a_training_killed_while_it_writes_priors_goes_on_there(tool, start, write_config, tmp_path):
    config = write_config(extra=HOOK)
    tool('train.py', config, '--work-dir', 'a')
    maps = tmp_path / 'b/stage1/priors/evidence'
    kill_when(start('train.py', config, '--work-dir', 'b'), lambda: len(list(maps.rglob('*.png'))) >= 5)
    there = len(list(maps.rglob('*.png')))
    assert there < 99
    checkpoint = tmp_path / 'b/stage1/epoch_3.pth'
    before = checkpoint.stat().st_mtime_ns
    done = tool('train.py', config, '--work-dir', 'b', '--resume')
    assert f'of 99 maps {there} are there already' in done.stdout + done.stderr
    assert checkpoint.stat().st_mtime_ns == before
    assert files(tmp_path / 'b/stage1/priors') == files(tmp_path / 'a/stage1/priors')
    metrics = [json.loads((tmp_path / run / 'metrics.json').read_text())['stage1']['test'] for run in 'ab']
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_two_processes_killed_while_they_write_priors(tool, start, write_config, tmp_path):
    config = write_config(extra=HOOK)
    tool('train.py', config, '--work-dir', 'a')
    maps = tmp_path / 'two/evidence'
    process = start('dist_generate.sh', config, 'a/stage1', 2, '--out', 'two')
    kill_when(process, lambda: len(list(maps.rglob('*.png'))) >= 5)
    tool('dist_generate.sh', config, 'a/stage1', 2, '--out', 'two')
    assert files(tmp_path / 'two') == files(tmp_path / 'a/stage1/priors')
    assert str(PriorStore(tmp_path / 'two').verify()) == '99 as written'


@pytest.fixture
def generate_here(generator, write_config):
    """``generate_priors.py`` in this process, RUN being a trained stage."""
    return generator(write_config())


def test_what_belongs_together_shares_a_store(generate_here, tmp_path):
    """The test part joins the store; another method does not, but may have a layer of its own."""
    assert generate_here('RUN', '--out', 'p')[0] == 0
    assert generate_here('RUN', '--out', 'p', '--split', 'test')[0] == 0
    assert len(files(tmp_path / 'p')) == 99 + 51
    status, errors = generate_here('RUN', '--out', 'p', '--method', 'GradCAM')
    assert status == 2
    assert 'stale' in errors
    assert 'method.type' in errors
    options = ['--method-options', 'layers=[backbone.stages.1]', 'fuse=mean', '--batch-size', '8', '--fraction', '0.25']
    assert generate_here('RUN', '--out', 'p', '--method', 'LayerCAM', '--layer', 'mean', *options)[0] == 0
    store = PriorStore(tmp_path / 'p')
    assert store.source('mean')['method']['layers'] == ['backbone.stages.1']
    assert len(store.keys('mean')) == 99


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['absent.pth'], 'absent.pth: no such checkpoint'),
        (['other.pth'], 'not a checkpoint of this model'),
        (['RUN', '--method', 'RiseCAM'], 'method RiseCAM: not one of '),
        (['RUN', '--method-options', 'colour=red'], 'colour'),
        (['RUN', '--method-options', 'layers=[backbone.layer9]'], 'no such layer as backbone.layer9'),
        (['RUN', '--method-options', 'normalize=minmax'], 'normalize='),
        (['RUN', '--layer', '../up'], 'layer'),
        (['RUN', '--fraction', '2'], 'fraction'),
        (['RUN', '--out', 'taken.txt'], 'taken.txt'),
        (['RUN', '--split', 'val'], 'no validation part'),
    ],
)
def test_bad_input_gets_one_sentence(generate_here, tmp_path, words, sentence):
    torch.save(dict(state_dict=dict(weight=torch.zeros(1))), tmp_path / 'other.pth')
    (tmp_path / 'taken.txt').write_text('here')
    status, errors = generate_here(*words)
    assert status == 2, errors[-2000:]
    (error,) = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert sentence in error
    assert 'Traceback' not in errors
    assert (tmp_path / 'taken.txt').read_text() == 'here'


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 100 kB, and a function that changes its mount options."""
    disk = tmp_path / 'disk'
    disk.mkdir()

    def mount(*options):
        return subprocess.run(['mount', *options, str(disk)], capture_output=True, check=False).returncode

    if mount('-t', 'tmpfs', '-o', 'size=100k', 'tmpfs'):
        pytest.skip('mounting a small disk is not allowed here')
    yield disk, mount
    subprocess.run(['umount', '-l', str(disk)], check=False)


def test_a_full_and_a_read_only_disk(generate_here, small_disk):
    disk, mount = small_disk
    status, errors = generate_here('RUN', '--out', disk / 'store', '--fraction', '1')
    assert status == 2
    assert 'it cannot be written (No space left on device)' in errors
    report = PriorStore(disk / 'store').verify()
    assert report.ok > 5
    assert not report.damaged
    mount('-o', 'remount,ro,size=20m')
    status, errors = generate_here('RUN', '--out', disk / 'store', '--fraction', '1')
    assert status == 2
    assert 'cannot be written (Read-only file system)' in errors
    mount('-o', 'remount,rw,size=20m')
    assert generate_here('RUN', '--out', disk / 'store', '--fraction', '1')[0] == 0
    assert str(PriorStore(disk / 'store').verify()) == '99 as written'


def test_an_interrupt_loses_nothing(start, write_config, tmp_path, trained, generate_here):
    words = [write_config(), trained / 'stage1', '--batch-size', '1', '--out', 'p']
    maps = tmp_path / 'p/evidence'
    process = start('generate_priors.py', *words, fresh=True)
    done = kill_when(process, lambda: len(list(maps.rglob('*.png'))) >= 5, signal.SIGINT)
    assert done.returncode == 130
    assert 'Traceback' not in done.stderr
    assert not PriorStore(tmp_path / 'p').verify().damaged

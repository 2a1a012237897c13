"""Priors by CLIP as a user writes them: at the end of a training, by the tool, without a checkpoint."""

import pytest

from kgl_mm.priors import PriorStore

from .test_priors import files

HOOK = """
train_cfg = dict(by_epoch=True, max_epochs=1)
custom_hooks = [dict(type='kgl_mm.PriorGenerationHook', batch_size=8, flips=[], method=dict(
    type='kgl_mm.ClipSource', network={network!r}, descriptions=['plate with a crack'], object='plate', layers=[2, 4],
    vv_blocks=3, k=2, compare=4))]
"""


@pytest.fixture
def config(write_config, small_clip):
    return write_config(extra=HOOK.format(network=f'local-dir:{small_clip}'))


def test_hook_tool_and_two_processes_write_the_same_maps(tool, run_here, two_processes, config, tmp_path):
    tool('train.py', config, '--work-dir', 'a')
    by_hook = files(tmp_path / 'a/stage1/priors')
    assert len(by_hook) == 99
    two_processes('generate_priors.py', config, '--out', 'two')
    assert files(tmp_path / 'two') == by_hook
    zero_shot = ['--split', 'test', '--out', 'zero', '--method', 'ClipSource', '--method-options']
    status, errors = run_here(
        'generate_priors.py', str(config), *zero_shot, 'k=0', 'quantile=None', 'object=steel_plate'
    )
    assert status == 0, errors[-2000:]
    store = PriorStore(tmp_path / 'zero')
    assert len(store.keys()) == 51
    method = store.source()['method']
    assert (method['k'], method['quantile'], method['object'], method['layers']) == (0, None, 'steel plate', [2, 4])


@pytest.mark.parametrize(
    ('option', 'sentence'),
    [
        ('network=ViT-Z', "network='ViT-Z': open_clip has no such network"),
        ('colour=red', 'colour'),
        ('descriptions=absent.yaml', 'absent.yaml'),
        ('k=few', "k='few': not a whole number"),
    ],
)
def test_bad_input_gets_one_sentence(run_here, config, option, sentence):
    status, errors = run_here('generate_priors.py', str(config), '--method-options', option)
    assert status == 2, errors[-2000:]
    (error,) = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert sentence in error
    assert 'Traceback' not in errors

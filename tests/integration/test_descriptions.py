"""Descriptions as a user has them: on a sheet, as a source of priors, and in the pipeline of a guided training."""

import json

import cv2
import pytest

from kgl_mm.priors import PriorStore

from .test_priors import files
from .test_resume import kill_when

GUIDED = """
source = dict(type='kgl_mm.DescriptionSource', steps=2, batch_size=2, width=4, descriptions=[
    'plate with crack defect, it appears as a clear dark thin line'])
stages['stage1']['custom_hooks'] = [dict(type='kgl_mm.PriorGenerationHook', method=source, batch_size=8)]
train_dataloader['dataset']['pipeline'] = [
    *load, dict(type='kgl_mm.BinarizePrior'), dict(type='kgl_mm.SynthesizeDefect', prob=0.5), *augment, *pack]
train_cfg['max_epochs'] = 1
"""
DRAWN_ALONE = """
train_dataloader['dataset'].update(num_positives=0, pipeline=[
    *load[:-1], dict(type='kgl_mm.SynthesizeDefect', prob=0.5), *augment, *pack])
train_dataloader['sampler'] = dict(type='DefaultSampler', shuffle=True)
head['channel'] = 'none'
del stages
train_cfg['max_epochs'] = 1
"""


def test_guided_by_descriptions(tool, two_processes, start, write_guided, tmp_path):
    config = write_guided(extra=GUIDED)
    tool('train.py', config, '--work-dir', 'a')
    by_hook = files(tmp_path / 'a/stage1/priors')
    assert len(by_hook) == 99
    made_of = PriorStore(tmp_path / 'a/stage1/priors').source()
    assert made_of['method']['descriptions'][0]['kind'] == 'crack'
    assert {'stage1', 'stage2'} == json.loads((tmp_path / 'a/metrics.json').read_text()).keys()
    two_processes('generate_priors.py', config, '--out', 'two')  # which needs no checkpoint
    assert files(tmp_path / 'two') == by_hook
    maps = tmp_path / 'killed/evidence'
    words = ['generate_priors.py', config, '--out', 'killed']
    kill_when(start(*words), lambda: len(list(maps.rglob('*.png'))) >= 5)
    assert len(files(tmp_path / 'killed')) < 99
    tool(*words)
    assert files(tmp_path / 'killed') == by_hook


def test_good_images_and_drawn_defects_are_enough(tool, write_guided, tmp_path):
    tool('train.py', write_guided(extra=DRAWN_ALONE), '--work-dir', 'a')
    assert 'AP' in next(iter(json.loads((tmp_path / 'a/metrics.json').read_text()).values()))['test']


def test_the_sheet(run_here, tool, surfaces, tmp_path):
    sentence = 'steel plate with crack defect, it appears as a purple thin dark line'
    done = tool('draw_descriptions.py', sentence, 'metal', '--columns', '2', '--out', 'own/sheet.png')
    assert 'not understood: purple' in done.stdout
    assert 'width        (0.007, 0.02)' in done.stdout
    assert cv2.imread(str(tmp_path / 'own/sheet.png')) is not None
    (tmp_path / 'own.yaml').write_text('- {object: plate, kind: dent, contrast: 0.5}\n')
    status, _ = run_here('draw_descriptions.py', 'own.yaml', '--images', str(surfaces), '--columns', '1')
    assert status == 0
    assert (
        cv2.imread(str(tmp_path / 'descriptions.png')).shape[0] < cv2.imread(str(tmp_path / 'own/sheet.png')).shape[0]
    )


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['lorem ipsum dolor'], 'no word of it says what the defect looks like'),
        (['absent.yaml'], 'absent.yaml: cannot be read'),
        (['--images', 'absent'], '--images absent: no such folder'),
        (['--images', '.'], '--images .: holds no images'),
        (['--columns', '0'], 'columns=0'),
        (['--columns', '1000'], 'columns=1000'),
        (['--out', 'sheet.jpg'], '--out sheet.jpg: not the name of a PNG file'),
    ],
)
def test_bad_input_gets_one_sentence(run_here, words, sentence):
    status, errors = run_here('draw_descriptions.py', *words)
    assert status == 2
    assert errors.startswith('error: ')
    assert sentence in errors
    assert errors.count('\n') == 1

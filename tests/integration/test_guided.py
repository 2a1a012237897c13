"""Both stages in one command: what it leaves, how it is stopped and goes on, and what it refuses."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kgl_mm.engine.work_dir import checkpoint_of
from kgl_mm.priors import PriorStore

from .test_resume import kill_when

GUIDED_STAGES = ('stage1', 'stage2')
KILLER = """
custom_imports = dict(imports=['killer'])
custom_hooks.append(dict(type='Killer'))
stages['stage1']['custom_hooks'].append(dict(type='Killer'))
"""
KILLER_MODULE = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from kgl_mm.engine.work_dir import checkpoint_of
from kgl_mm.priors import PriorStore

place = os.environ.get('KILL', '')

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

@HOOKS.register_module()
class Killer(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if place == f'{os.path.basename(runner.work_dir)}-epoch' and runner.iter == len(runner.train_dataloader) + 2:
            die()

    def before_train(self, runner):
        if place == f'{os.path.basename(runner.work_dir)}-begin':
            die()

if place == 'priors':
    write = PriorStore.write

    def write_some(self, key, *args, **kwargs):
        if key.startswith('kos2'):
            die()
        write(self, key, *args, **kwargs)

    PriorStore.write = write_some
"""


def metrics_of(work_dir):
    return json.loads((work_dir / 'metrics.json').read_text())


def weights(work_dir, stage='stage2', epoch=3):
    return torch.load(work_dir / stage / f'epoch_{epoch}.pth', weights_only=True)


def assert_same(one, other):
    for stage in GUIDED_STAGES:
        a, b = weights(one, stage), weights(other, stage)
        torch.testing.assert_close(a['state_dict'], b['state_dict'], rtol=0, atol=0)
        torch.testing.assert_close(a['optimizer'], b['optimizer'], rtol=0, atol=0)
    maps = [{path.name: path.read_bytes() for path in run.rglob('priors/evidence/**/*.png')} for run in (one, other)]
    assert maps[0] == maps[1] != {}
    for found in (a := metrics_of(one)), (b := metrics_of(other)):
        for stage in GUIDED_STAGES:
            found[stage]['test'].pop('config')  # a killer is in one of the configs
    assert a == b


def test_one_command_leaves_both_stages_side_by_side(tool, write_guided, tmp_path):
    config = write_guided()
    said = tool('train.py', config, '--work-dir', 'a').stdout
    a = tmp_path / 'a'
    for name in (
        'stage1/epoch_3.pth',
        'stage2/epoch_3.pth',
        'stage1/priors/store.json',
        'stage1/test.png',
        'stage2/test.png',
    ):
        assert (a / name).is_file()
    metrics = metrics_of(a)
    assert list(metrics) == ['stage1', 'stage2']
    assert metrics['stage1']['test']['config'] != metrics['stage2']['test']['config']
    picture = cv2.imread(str(a / 'guided.png'))
    assert min(picture.shape[:2]) > 200
    assert 'stage1 test AP' in said
    assert 'stage2 test AP' in said
    assert 'guided.png' in said
    (log,) = (a / 'stage2').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    by_epoch = {row['epoch']: row['lambda'] for row in rows if 'lambda' in row}
    assert [round(value, 6) for value in by_epoch.values()] == [1.0, round(2 / 3, 6), round(1 / 3, 6)]
    assert all({'loss_cls', 'loss_seg'} <= row.keys() for row in rows if 'lambda' in row)
    assert len(PriorStore(a / 'stage1/priors')) == 99

    tool('test.py', config, 'a/stage2', '--work-dir', 'b')
    assert metrics_of(tmp_path / 'b')['stage2']['test'] == metrics['stage2']['test']

    # stage 2 alone again, with the priors that are there, and with a copy of them
    before = (a / 'stage1/epoch_3.pth').stat().st_mtime_ns
    shutil.copytree(a / 'stage1/priors', tmp_path / 'painted')
    for words in (('--stage', '2'), ('--priors', 'painted')):
        tool('train.py', config, '--work-dir', 'a', *words)
        assert (a / 'stage1/epoch_3.pth').stat().st_mtime_ns == before
        again = metrics_of(a)
        again['stage2']['test']['config'] = metrics['stage2']['test']['config']
        assert again == metrics
    assert all((path / 'stage2/epoch_3.pth').is_file() for path in a.glob('previous-*'))


def test_killed_everywhere_and_resumed_equals_undisturbed(tool, write_guided, tmp_path):
    (tmp_path / 'killer.py').write_text(KILLER_MODULE)
    config = write_guided(extra=KILLER)
    tool('train.py', write_guided('straight.py'), '--work-dir', 'a')
    for place in ('stage1-epoch', 'priors', 'stage2-begin', 'stage2-epoch'):
        env = dict(EXTRA_PATH=str(tmp_path), KILL=place)
        killed = tool('train.py', config, '--work-dir', 'b', '--resume', env=env, check=False)
        assert killed.returncode == -signal.SIGKILL, place
    assert not (tmp_path / 'b/stage2/epoch_3.pth').exists()
    # a process of its own, whose seed of hashes is another one
    tool('train.py', config, '--work-dir', 'b', '--resume', env=dict(EXTRA_PATH=str(tmp_path)), fresh=True)
    assert_same(tmp_path / 'a', tmp_path / 'b')
    assert not list((tmp_path / 'b').rglob('.*.tmp'))


def test_several_processes_run_both_stages(tool, two_processes, write_guided, tmp_path):
    plain = dict(norm='None', dropout=0.0)
    quiet = 'model["head"]["channel"] = "none"\nmodel["head"]["norm_cfg"] = None\n'
    one = write_guided('one.py', extra=quiet, **plain)
    two = write_guided('two.py', extra=quiet + 'train_dataloader["batch_size"] = 2\n', **plain)
    tool('train.py', one, '--work-dir', 'one')
    two_processes('train.py', two, '--work-dir', 'two')
    assert (tmp_path / 'two/guided.png').is_file()
    for stage in GUIDED_STAGES:
        states = [weights(tmp_path / run, stage)['state_dict'] for run in ('one', 'two')]
        torch.testing.assert_close(*states, rtol=1e-3, atol=1e-5)


def test_to_resume_from_an_earlier_checkpoint_makes_anew_what_came_of_it(tool, write_guided, tmp_path):
    config = write_guided()
    tool('train.py', config, '--work-dir', 'a')
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    tool('train.py', config, '--work-dir', 'b', '--resume', 'b/stage1/epoch_2.pth')
    assert_same(tmp_path / 'a', tmp_path / 'b')
    (previous,) = (tmp_path / 'b').glob('previous-*')
    assert {path.name for path in previous.rglob('*') if path.is_dir()} >= {'stage2', 'priors'}


def test_rounds_and_cross_fitting(run_here, write_guided, tmp_path):
    config = write_guided(writes=', fraction=0.5')
    status, said = run_here(
        'train.py', str(config), '--work-dir', 'a', '--data-options', 'val_fraction=0.3',
        '--cfg-options', 'rounds=3', 'crossfit=2', 'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.lr=0.0',
    )  # fmt: skip
    assert not status, said
    a = tmp_path / 'a'
    # without learning, the second round is no better than the first, so there is no third
    assert list(metrics_of(a)) == ['stage1', 'stage2', 'stage2_round2']
    assert json.loads((a / 'state.json').read_text())['best'] == 'stage2'
    parts = [set(PriorStore(a / f'stage1_part{part}/priors').keys()) for part in (1, 2)]
    assert parts[0] | parts[1] == set(PriorStore(a / 'stage1/priors').keys())
    assert not parts[0] & parts[1]
    store = PriorStore(a / 'stage2/priors')
    assert store.source()['method']['type'] == 'SegmentationMap'
    assert set(store.keys()) == parts[0] | parts[1]
    step = next(iter((a / 'stage2_round2').glob('*.py'))).read_text()
    assert 'max_area=0.1' in step
    assert f"store='{a.relative_to(tmp_path)}/stage2/priors'" in step


def test_validation_data_choose_between_guidance_and_none(run_here, write_guided, surfaces, tmp_path, monkeypatch):
    """Without guidance the stage is what a run with a weight of 0 makes of it, and the better one is the run's."""
    config = str(write_guided())
    data = ('--data-options', 'val_fraction=0.3', '--cfg-options')
    alone = ('--work-dir', 'd', '--no-validate', *data, 'unguided=True')
    status, said = run_here('train.py', config, *alone)
    assert status == 2
    assert '--cfg-options unguided=False' in said
    assert not (tmp_path / 'd/stage1').exists()
    status, said = run_here('train.py', config, *alone, '--stage', '1')  # nothing to choose between
    assert not status, said
    status, said = run_here('train.py', config, '--work-dir', 'a', *data, 'unguided=True')
    assert not status, said
    weight = (
        'model.head.loss.type=kgl_mm.KnowledgeGuidedLoss',
        'model.head.loss.seg_weight=0',
        'model.head.channel=none',
    )
    status, said = run_here('train.py', config, '--work-dir', 'b', *data, *weight)
    assert not status, said
    found, control = metrics_of(tmp_path / 'a'), metrics_of(tmp_path / 'b')
    assert found.keys() == {'stage1', 'stage2_unguided', 'stage2'}
    for split in ('val', 'test'):
        same = [
            {k: v for k, v in m.items() if k != 'config'}
            for m in (found['stage2_unguided'][split], control['stage2'][split])
        ]
        assert same[0] == same[1]
    scores = {name: found[name]['val']['AP'] for name in ('stage2_unguided', 'stage2')}
    best = max(scores, key=scores.get)
    assert json.loads((tmp_path / 'a/state.json').read_text())['best'] == best
    assert checkpoint_of(tmp_path / 'a').parent.name == best
    other, drawn = 'stage2' if best == 'stage2_unguided' else 'stage2_unguided', []
    monkeypatch.setattr('kgl_mm.apis.compare.draw_comparison', lambda *given: drawn.append(given[-1]) or b'')
    status, said = run_here('train.py', config, '--work-dir', 'a', *data, 'unguided=True', '--resume', '--stage', other)
    assert not status, said
    assert checkpoint_of(tmp_path / 'a').parent.name == best
    assert drawn == [['stage1', 'guided' if best == 'stage2' else 'unguided']]
    priors = ('--work-dir', 'c', *data, 'unguided=True', '--priors', 'a/stage1/priors')
    status, said = run_here('train.py', config, *priors)
    assert not status, said
    assert drawn[1:] == [['unguided', 'guided']]
    assert 'what came after it' not in said
    shutil.copytree(surfaces, tmp_path / 'moved')  # there is no image of the scores among these
    moved = ('--data', 'moved', '--data-options', 'val_fraction=0.3', '--cfg-options', 'unguided=True', '--resume')
    status, said = run_here('train.py', config, '--work-dir', 'c', *moved, '--priors', 'a/stage1/priors')
    assert not status, said
    assert len(drawn) == 2
    words = 'stage1 is better' if found['stage1']['val']['AP'] > scores[best] else f'the best is {best}.'
    assert f'On validation data {words}' in (tmp_path / 'a/report.html').read_text()


@pytest.fixture
def painted(tmp_path, surfaces):
    """A function that fills a store for the training images, as another tool might."""

    def write(name='painted', keep=lambda key: True, shape=(64, 32)):
        store = PriorStore(tmp_path / name)
        for path in sorted(surfaces.rglob('*.png')):
            key = path.relative_to(surfaces).as_posix()
            if keep(key):
                store.write(key, np.eye(*shape, dtype=np.float32))
        if len(store):
            store.compact()
        return tmp_path / name

    return write


RAND_AUGMENT = "augment[0].update(type='RandAugment', policies='timm_increasing', num_policies=2, magnitude_level=9)"
MIXUP = "model['train_cfg'] = dict(augments=[dict(type='Mixup', alpha=1.0)])"


@pytest.mark.parametrize(
    ('options', 'words', 'sentence'),
    [
        ([], ['--stage', '2'], 'reads the priors of stage1'),
        (['model.head.channel=always'], [], 'not one of none, dropout'),
        (['train_dataloader.dataset.pipeline.4.num_priors=999'], [], 'num_priors=999'),
        ([MIXUP], [], 'Mixup'),
        (['rounds=two'], [], 'rounds=two'),
        ([], ['--stage', '7'], 'the stages of this config are stage1, stage2'),
        ([], ['--priors', 'nothing'], 'there is no store of priors'),
        ([], ['--priors', 'half'], 'have no map'),
        ([], ['--priors', 'square'], 'for an image of 48 x 48'),
        ([], ['--priors', 'other'], 'another data set'),
        ([], ['--priors', 'whole', '--stage', '1'], 'stage1 reads no priors'),
        (['train_dataloader.dataset.pipeline.4.num_priors=999'], ['--priors', 'whole'], 'num_priors=999'),
        (['train_dataloader.dataset.pipeline.4.num_masks=999'], ['--priors', 'whole'], 'num_masks=999'),
        (['augment[0].clear()', RAND_AUGMENT], ['--priors', 'whole'], 'RandAugment'),
        (['train_dataloader.dataset.pipeline.5.type=Mine'], ['--priors', 'whole'], 'geometric='),
        ([MIXUP], ['--priors', 'whole'], 'Mixup'),
        (['rounds=0'], [], 'rounds=0'),
        (['crossfit=1'], [], 'crossfit=1'),
        (['unguided=True'], [], 'unguided=True: validation data choose, and there are none'),
    ],
)
def test_what_is_wrong_is_said_before_the_training(run_here, write_guided, painted, tmp_path, options, words, sentence):
    extra = """
from mmcv.transforms import TRANSFORMS, RandomFlip
class Mine(RandomFlip):
    def transform(self, results):
        return super().transform(results)
if TRANSFORMS.get('Mine') is None:
    TRANSFORMS.register_module(module=Mine)
del Mine, TRANSFORMS, RandomFlip
"""
    lines = [option for option in options if option.startswith(('augment', 'model['))]
    options = [option for option in options if option not in lines]
    extra += ''.join(f'{line}\n' for line in lines)
    config = write_guided(extra=extra)
    painted('whole')
    painted('half', keep=lambda key: key < 'kos25')
    painted('square', shape=(48, 48))
    painted('other', keep=lambda key: False)
    PriorStore(tmp_path / 'other').write('another/1.png', np.eye(4))
    status, said = run_here('train.py', str(config), '--work-dir', 'a', *words, '--cfg-options', *options, 'work_dir=a')
    assert status == 2, said
    assert sentence in said
    assert said.count('error:') == 1
    assert not list((tmp_path / 'a').rglob('*.pth'))


@pytest.mark.parametrize('kinds', [1, 2])
def test_from_a_folder_of_pictures_to_two_stages_with_a_threshold(run_here, tmp_path, kinds):
    random = np.random.default_rng(0)
    for kind in ('good', 'scratch', 'spot')[: kinds + 1]:
        folder = tmp_path / 'parts' / kind
        folder.mkdir(parents=True)
        for index in range(16):
            image = random.integers(90, 160, (40, 40, 3), np.uint8)
            if kind != 'good':
                cv2.circle(image, (10 + index, 20), 4, (10, 10, 10), -1 if kind == 'spot' else 1)
            cv2.imwrite(str(folder / f'{index}.png'), image)
    scale = [f'{loader}_dataloader.dataset.pipeline.2.scale=(32,32)' for loader in ('train', 'val', 'test')]
    scale.append('stages.stage1.train_dataloader.dataset.pipeline.2.scale=(32,32)')
    labels = ['--data-options', 'labels=kind'] if kinds > 1 else []
    status, said = run_here(
        'train.py', 'configs/kgl_folder.py', '--data', str(tmp_path / 'parts'), '--work-dir', 'a', *labels,
        '--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0',
        'test_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
        'val_dataloader.persistent_workers=False', 'test_dataloader.persistent_workers=False', *scale,
    )  # fmt: skip
    assert not status, said
    metrics = metrics_of(tmp_path / 'a')
    for stage in GUIDED_STAGES:
        assert metrics[stage]['test']['threshold_calibrated']
        assert metrics[stage]['test']['threshold'] == metrics[stage]['val']['chosen_threshold']
    assert weights(tmp_path / 'a', epoch=1)['state_dict']['head.fc.weight'].shape[0] == kinds + 1
    assert (tmp_path / 'a/guided.png').is_file()


@pytest.mark.slow
@pytest.mark.parametrize('moment', range(12))
def test_killed_at_any_moment_and_resumed_equals_undisturbed(tool, start, write_guided, tmp_path, moment):
    config = write_guided()
    begun = time.monotonic()
    tool('train.py', config, '--work-dir', 'a')
    lasts = time.monotonic() - begun
    random = np.random.default_rng(moment)
    for _ in range(2):
        stop = time.monotonic() + random.uniform(0, 0.9 * lasts)
        process = start('train.py', config, '--work-dir', 'b', '--resume')
        try:
            kill_when(process, lambda stop=stop: time.monotonic() > stop)
        except AssertionError:
            break  # it was done before
    tool('train.py', config, '--work-dir', 'b', '--resume')
    assert_same(Path(tmp_path / 'a'), Path(tmp_path / 'b'))
    assert os.path.getsize(tmp_path / 'b/guided.png')  # noqa: PTH202


GIVEN = """
_base_ = {demo!r}
pipeline = [*_base_.load, dict(type='kgl_mm.LoadPrior', store='maps'), *_base_.pack]
loads = dict(dataset=dict(pipeline=pipeline))
stages = dict(stage2=dict(model=dict(head=dict(channel='given')), val_dataloader=loads, test_dataloader=loads))
"""


def test_a_prior_is_given_at_inference_where_a_config_asks_for_it(run_here, tmp_path):
    """As docs/method.md has it, with a validation part."""
    (tmp_path / 'given.py').write_text(GIVEN.format(demo=str(Path(__file__).parents[2] / 'configs/kgl_demo.py')))
    data = ['num_train=(20,20)', 'num_test=(6,6)', 'num_positives=8', 'val_fraction=0.3']
    settings = ['train_cfg.max_epochs=1', 'stages.stage1.train_cfg.max_epochs=1', 'custom_hooks.0.insist=True']

    def run(name, *words):
        status, said = run_here(name, 'given.py', *words, '--data-options', *data, '--cfg-options', *settings)
        assert not status, said

    run('train.py', '--work-dir', 'a', '--stage', '1')
    for split in ('test', 'val'):
        run('generate_priors.py', 'a/stage1', '--split', split, '--out', 'maps')
    run('train.py', '--work-dir', 'a', '--stage', '2')
    run('test.py', 'a/stage2', '--work-dir', 'b')
    trained, tested = (metrics_of(tmp_path / work)['stage2']['test'] for work in 'ab')
    assert tested == trained
    store = PriorStore(tmp_path / 'maps')
    for key in store.keys():  # noqa: SIM118
        store.write(key, np.eye(64, 128))
    run('test.py', 'a/stage2', '--work-dir', 'c')
    tables = [(tmp_path / f'{work}/stage2/test_scores.csv').read_text() for work in 'abc']
    assert tables[0] == tables[1] != tables[2]
    run('train.py', '--work-dir', 'a', '--resume')  # what is left is the picture of both stages
    assert (tmp_path / 'a/guided.png').is_file()


@pytest.mark.parametrize(
    ('option', 'sentence'),
    [
        ('train_dataloader.dataset.type=kgl_mm.Typo', 'kgl_mm.Typo is not in the'),
        ('model.head.branch=x', "branch='x': not a list of whole numbers"),
        ('model.head.seg_gradient=open', "seg_gradient='open': not a number from 0 to 1"),
        ('model.head.pooling=typo', "pooling='typo': not one of avg, max, max_avg"),
        ('model.head.loss.decay=typo', "decay='typo': not one of linear, constant"),
        ('model.head.channel=given', "channel='given': stage2 needs the priors of the test images too"),
        ('train_dataloader.dataset.pipeline.4.num_priors=five', "num_priors='five': not a whole number of 0 or more"),
        ('train_dataloader.dataset.pipeline.3.layer=typo', "layer='typo': LoadPrior of stage2 reads what"),
        ('stages.stage1.custom_hooks.0.fraction=x', "fraction='x': not a number above 0, up to 1"),
        ('model.head.in_channels=9', 'needs feature maps B x 9 x h x w but was given shape'),
        ('model.head.num_classes=3', 'has 2 classes (good, defect), the head 3'),
        ('custom_hooks.0.typo=1', "unexpected keyword argument 'typo'"),
        ('crossfit=x', 'crossfit=x: not a whole number of 2 or more'),
        ('crossfit=50', 'parts, no more'),
    ],
)
def test_options_of_a_wrong_kind_are_said_before_the_training(run_here, write_guided, tmp_path, option, sentence):
    options = ['model.head.loss.type=kgl_mm.KnowledgeGuidedLoss', option]
    status, said = run_here('train.py', str(write_guided()), '--work-dir', 'a', '--cfg-options', *options)
    assert status == 2, said
    assert sentence in said
    assert said.count('error:') == 1
    assert not list((tmp_path / 'a').rglob('*.pth'))

"""The study of a small config: what it finds is what single runs find, whatever happens on the way."""

import csv
import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools/cross_validate.py'
VARIANTS = """
variants = dict(
    plain=dict(only='stage1'),
    guided={},
    head={'model.head.inject': False},
    diverging={'optim_wrapper.optimizer.lr': 1e30},
)
"""


@pytest.fixture
def config(write_guided):
    return write_guided(extra=VARIANTS)


def rows_in(folder):
    with (folder / 'results.csv').open() as file:
        return {(row.get('variant'), row['fold'], row['seed'], row['stage']): row for row in csv.DictReader(file)}


def figures(row):
    return {name: value for name, value in row.items() if name.startswith(('test_', 'val_')) or name == 'trust'}


def test_a_study_finds_what_single_runs_find(tool, config, tmp_path):
    words = ('--folds', 0, 1, '--seeds', 0, 1, '--set', 'variant=guided,head', '--compare', 'head', 'guided')
    done = tool('cross_validate.py', config, '--work-dir', 'study', *words, '--jobs', 2)
    rows = rows_in(tmp_path / 'study')
    assert len(rows) == 16
    assert {row['status'] for row in rows.values()} == {'done'}
    assert len(list((tmp_path / 'study/runs').iterdir())) == 4 + 8  # the first stage is trained once
    assert 'guided - head' in done.stdout
    assert (tmp_path / 'study/summary.png').read_bytes().startswith(b'\x89PNG')

    options = ('--data-options', 'fold=1', 'seed=1', '--seed', 1)
    tool('train.py', config, '--work-dir', 'alone', *options, '--cfg-options', 'model.head.inject=False')
    alone = json.loads((tmp_path / 'alone/metrics.json').read_text())
    for stage in ('stage1', 'stage2'):
        row = rows['head', '1', '1', stage]
        assert float(row['test_AP']) == alone[stage]['test']['AP']
        assert float(row['test_threshold']) == alone[stage]['test']['threshold']

    said = tool('benchmarks/study_maps.py', 'study', '--where', 'variant=guided', 'seed=1').stdout
    with (tmp_path / 'study/maps.csv').open() as file:
        maps = list(csv.DictReader(file))
    seen = {(row['variant'], row['fold'], row['stage'], row['map']) for row in maps}
    # two folds; its priors beside stage 1, the segmentation in stage 2
    assert len(seen) == len(maps) == 2 * (5 + 1 + 6)
    assert {row['variant'] for row in maps if row['stage'] == 'stage2'} == {'guided'}
    assert all(0 <= float(row[name]) <= 1 for row in maps for name in ('pointing', 'energy', 'iou', 'area'))
    assert '| guided | stage2 | segmentation | 2 |' in said


def test_killed_and_resumed_it_finds_the_same(tool, start, config, tmp_path):
    words = (config, '--folds', 0, '--seeds', 0, 1, '--set', 'variant=guided,head', '--jobs', 1)
    tool('cross_validate.py', *words, '--work-dir', 'whole', '--data-options', 'cache=memory')
    began = start('cross_validate.py', *words, '--work-dir', 'parts')
    deadline = time.monotonic() + 120
    while not (tmp_path / 'parts/results.csv').exists() or len(rows_in(tmp_path / 'parts')) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(began.pid, signal.SIGKILL)
    began.end()
    there = rows_in(tmp_path / 'parts')
    assert len(there) < 8

    refused = tool('cross_validate.py', *words, '--work-dir', 'parts', check=False)
    assert refused.returncode == 2
    assert 'add --resume' in refused.stderr

    tool('cross_validate.py', *words, '--work-dir', 'parts', '--resume')
    whole, parts = rows_in(tmp_path / 'whole'), rows_in(tmp_path / 'parts')
    assert {key: figures(row) for key, row in whole.items()} == {key: figures(row) for key, row in parts.items()}
    assert {key: parts[key]['seconds'] for key in there} == {key: row['seconds'] for key, row in there.items()}


def test_a_failed_run_is_a_row(tool, run_here, config, tmp_path):
    done = tool('cross_validate.py', config, '--work-dir', 'study', '--folds', 0, '--set', 'variant=head,diverging')
    rows = rows_in(tmp_path / 'study')
    failed = rows['diverging', '0', '0', 'stage1']
    assert (failed['status'], failed['test_AP']) == ('failed', '')
    assert 'diverged' in failed['error']
    assert rows['diverging', '0', '0', 'stage2']['error'].startswith('a stage before it failed')
    assert rows['head', '0', '0', 'stage2']['status'] == 'done'
    assert '1 of 1 runs failed' in done.stdout
    said = tool('summarise.py', 'study/results.csv', '--where', 'variant=head', 'stage=stage2', '--out', 'again').stdout
    assert (
        said.strip()
        .splitlines()[-1]
        .startswith(f'| head | 1 | {float(rows["head", "0", "0", "stage2"]["test_AP"]):.3f}')
    )
    assert (tmp_path / 'again.png').is_file()
    pairs = ('--compare', 'head stage1', 'head', '--metric', 'AUROC')
    said = tool('summarise.py', 'study/results.csv', '--where', 'variant=head', *pairs).stdout
    first, second = (float(rows['head', '0', '0', stage]['test_AUROC']) for stage in ('stage1', 'stage2'))
    assert f'| head - head stage1 | AUROC | 1 | {second - first:+.3f} (one pair) |' in said
    status, said = run_here('summarise.py', *['study/results.csv'] * 2)
    assert (status, 'in several of the tables' in said) == (2, True)


def test_each_run_can_count_for_itself(run_here, tmp_path):
    """Seed 1 lacks a fold, so it counts for nothing in the mean over seeds."""
    runs = {(0, 0): 0.5, (0, 1): 0.7, (1, 0): 0.9}
    rows = [f'head,{seed},{fold},stage2,done,{ap},1,{seed}{fold}' for (seed, fold), ap in runs.items()]
    (tmp_path / 'a.csv').write_text('\n'.join(['variant,seed,fold,stage,status,test_AP,seconds,key', *rows, '']))
    for words, expected in {
        (): '| head | 1 | 0.600 (one seed) |  | 0.600 | 1 | 3 rows of older code, 1 seed lacks folds |',
        ('--by-run',): '| head | 3 | 0.700 (0.203 to 1.000) | 0.200 | 0.500 | 1 | 3 rows of older code |',
    }.items():
        assert run_here('summarise.py', 'a.csv', *words)[0] == 0
        said = (tmp_path / 'summary.md').read_text()
        assert expected in said
        assert ('Each run counts for itself' in said) is bool(words)


def test_tables_of_the_same_runs_are_told_apart(run_here, tmp_path):
    for name, values in {'short': (0.5, 0.7), 'study/results': (0.75, 0.75)}.items():
        rows = [f'head,{seed},0,stage2,done,{ap},1,{name}{seed}' for seed, ap in enumerate(values)]
        (tmp_path / f'{name}.csv').parent.mkdir(exist_ok=True)
        (tmp_path / f'{name}.csv').write_text(
            '\n'.join(['variant,seed,fold,stage,status,test_AP,seconds,key', *rows, ''])
        )
    words = ('short.csv', 'study/results.csv', '--compare', 'short', 'study')
    status, said = run_here('summarise.py', *words, '--by-table', '--metric', 'AUROC')
    assert (status, '--metric AUROC: no row has it' in said) == (2, True)
    assert run_here('summarise.py', *words, '--by-table')[0] == 0
    said = (tmp_path / 'summary.md').read_text()
    assert '| study - short | AP | 2 | +0.150 (+0.050 to +0.250) | 2 |' in said
    status, said = run_here('summarise.py', *words)
    assert (status, 'in several of the tables' in said) == (2, True)


def test_rows_of_another_config_are_in_no_mean(tool, config, tmp_path):
    words = (config, '--work-dir', 'study', '--folds', 0, '--set', 'variant=plain')
    tool('cross_validate.py', *words)
    other = ('--resume', '--seeds', 1, '--cfg-options', 'optim_wrapper.optimizer.lr=0.003')
    assert '1 rows of another config' in tool('cross_validate.py', *words, *other).stdout
    assert {seed for _, _, seed, _ in rows_in(tmp_path / 'study')} == {'0', '1'}
    with (tmp_path / 'study/summary.csv').open() as file:
        assert [row['runs'] for row in csv.DictReader(file)] == ['1']


@pytest.mark.parametrize(('asked', 'seen', 'left'), [('cuda:1', '2,5', '5'), ('cuda', '2,5', '2,5'), ('cpu', '', '')])
def test_one_gpu_is_chosen_without_asking_cuda(monkeypatch, asked, seen, left):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', seen)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    spec = importlib.util.spec_from_file_location('cross_validate', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module._only(asked) == (asked if asked == 'cpu' else None)
    assert os.environ['CUDA_VISIBLE_DEVICES'] == left


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (('--device', 'cuda:9'), '--device cuda:9: there are '),
        (('--set', 'variant=hed'), 'variant=hed: the variants of this config are plain, guided, head, diverging'),
        (('--set', 'a'), '--set a: not of the form KEY=VALUE,VALUE'),
        (('--seed', '1'), '--seed: a study has several, --seeds 0 1 2'),
        (('--jobs', '0'), '--jobs 0: it takes one or more'),
        (('--folds', '3'), 'fold=3: not one of 0, 1, 2'),
        (('--set', 'model.head.pooling=max,mean'), "pooling='mean': not one of"),
        (('--set', 'variant=head,guided', '--compare', 'head', 'gided'), '--compare gided: not among '),
    ],
)
def test_what_is_wrong_is_said_before_the_first_run(run_here, config, tmp_path, words, sentence):
    status, said = run_here('cross_validate.py', str(config), '--work-dir', str(tmp_path / 'study'), *words)
    assert status == 2
    assert sentence in said
    assert not (tmp_path / 'study/runs').exists()

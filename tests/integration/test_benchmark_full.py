"""What `make benchmark-full` does: parts in order, on from where it was, and what is missing."""

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools/benchmarks/full.py'


@pytest.fixture
def full(monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    spec = importlib.util.spec_from_file_location('benchmark_full', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines(said):
    return [line.split('python tools')[0].split() for line in said.splitlines() if 'cross_validate.py' in line]


def test_what_is_left_and_what_cannot_be_measured(full, monkeypatch, write_guided, tmp_path, capfd):
    config = write_guided(extra='variants = dict(plain=dict(only="stage1"), guided={})')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/Here').mkdir(parents=True)
    monkeypatch.delenv('KGL_DATA_ROOT', raising=False)
    words = f'{config} --folds 0 --set variant=plain,guided'
    parts = [full.Part(1, 'first', 'Here', words), full.Part(6, 'other', 'NotHere', words)]
    monkeypatch.setattr(full, 'FULL', parts)

    def run(*options):
        monkeypatch.setattr(sys, 'argv', ['full.py', '--jobs', '2', *options])
        full.main()
        return capfd.readouterr().out

    missing = ['6', 'other', 'not', 'measured:', 'no', 'NotHere', 'here']
    assert lines(run('--list')) == [['1', 'first', '2', '0'], missing]
    assert not (tmp_path / 'work_dirs/benchmark_full/first/runs').exists()
    assert lines(run())[1:] == [['1', 'first', '0', '0'], missing]
    assert (tmp_path / 'work_dirs/benchmark_full/first/summary.md').is_file()
    assert '0 runs' in run('--only', 'first')
    assert not (tmp_path / 'work_dirs/benchmark_full/other').exists()


def test_an_unknown_part_is_said(full, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['full.py', '--only', 'firs'])
    with pytest.raises(full.UsageError, match=r'--only firs: the parts are paper-clean, '):
        full.main()


@pytest.mark.parametrize('which', ['FULL', 'REDUCED'])
def test_every_part_that_is_shipped_can_be_planned(full, which, tmp_path):
    """With one seed, and one fold of those data sets that have folds."""
    seen = set()
    for part in getattr(full, which):
        seen.add(part.name)
        folds = '--folds 0' if part.data == 'KolektorSDD' else ''
        words = part.words.replace(full.FIVE, '').replace(full.THREE, '')
        assert full._study(part._replace(words=f'{words} {folds}'), tmp_path).tasks()
    assert len(seen) == len(getattr(full, which))  # each has a folder of its own

"""What `make benchmark-full` does: parts in order, on from where it was, and what is missing."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kgl_mm.errors import UsageError

TOOL = Path(__file__).parents[2] / 'tools/benchmarks/full.py'


@pytest.fixture
def full(monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    spec = importlib.util.spec_from_file_location('benchmark_full', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines(said):
    return [line.split('python tools')[0].split() for line in said.splitlines() if 'python tools' in line]


def test_what_is_left_and_what_cannot_be_measured(full, monkeypatch, write_guided, tmp_path, capfd):
    config = write_guided(extra='variants = dict(plain=dict(only="stage1"), guided={})')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/Here').mkdir(parents=True)
    monkeypatch.delenv('KGL_DATA_ROOT', raising=False)
    words = f'{config} --folds 0 --set variant=plain,guided'
    parts = [
        full.Part(1, 'first', 'Here', words),
        full.Part(2, 'again', 'Here', words),
        full.Part(6, 'other', 'NotHere', words),
        full.Look(5, 'maps', 'Here', '{study} --where variant=guided', 'study_maps.py', 'first'),
        full.Look(7, 'refused', '', '{run}/absent', 'inference.py', 'first'),
    ]
    monkeypatch.setattr(full, 'FULL', parts)

    def run(*options):
        monkeypatch.setattr(sys, 'argv', ['full.py', '--jobs', '2', *options])
        full.main()
        return capfd.readouterr().out

    def begun():
        return {path: path.read_text() for path in root.glob('runs/*/run.json')}

    root = tmp_path / 'work_dirs/benchmark_full'
    missing = ['6', 'other', 'not', 'measured:', 'no', 'NotHere', 'here']
    later = ['not', 'measured:', 'no', 'guided', 'run', 'of', 'first', 'yet']
    assert lines(run('--list')) == [
        ['1', 'first', '2', '0'], ['2', 'again', '2', '0'], missing, ['5', 'maps', *later], ['7', 'refused', *later]
    ]  # fmt: skip
    assert not root.exists()
    assert lines(run('--only', 'first'))[1:] == [['1', 'first', '0', '0']]
    assert (root / 'first/summary.md').is_file()
    first = begun()
    assert len(first) == 2
    done = [
        ['1', 'first', '0', '0'],
        ['2', 'again', '0', '0'],
        missing,
        ['5', 'maps', '0', '0'],
        ['7', 'refused', '1', '1'],
    ]
    assert lines(run())[-5:] == done
    assert begun() == first  # the other part took what was there
    assert 'segmentation' in (root / 'maps.txt').read_text()
    assert lines(run('--list')) == done
    seen = (root / 'maps.txt').stat().st_mtime_ns
    assert '0 runs' in run('--only', 'first', 'maps')
    assert (root / 'maps.txt').stat().st_mtime_ns == seen
    assert not (root / 'other').exists()


def test_a_part_that_cannot_begin_does_not_stop_the_others(full, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    parts = [full.Part(1, 'broken', '', 'kgl_folder.py --data absent'), full.Look(7, 'quick', '', '--help', 'gain.py')]
    monkeypatch.setattr(full, 'FULL', parts)
    monkeypatch.setattr(sys, 'argv', ['full.py'])
    with pytest.raises(UsageError, match='broken: --data absent: no such folder'):
        full.main()
    assert 'usage: gain.py' in (tmp_path / 'work_dirs/benchmark_full/quick.txt').read_text()
    assert '--data absent: no such folder' in capfd.readouterr().out


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
        if isinstance(part, full.Look):
            assert TOOL.with_name(part.tool).is_file()
            assert not part.of or part.of in seen
        else:
            assert replace(part, words=f'{words} {folds}').state(tmp_path)[0]
    assert len(seen) == len(getattr(full, which))  # each has a folder of its own

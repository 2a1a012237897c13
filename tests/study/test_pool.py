import os
import signal
import time

import pytest
from mmengine.config import Config

from kgl_mm.engine.config import load_config
from kgl_mm.files import read_json, write_json
from kgl_mm.study import pool as module
from kgl_mm.study.plan import Task
from kgl_mm.study.pool import Pool, visible_gpus
from kgl_mm.study.work import _workers_change_nothing


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A function that runs tasks, each a function of its folder, in real processes; gives what was reported."""

    def run(jobs=2, /, needs=None, **works):
        def perform(task, runs, device, alone):
            folder = runs / task.key
            folder.mkdir(exist_ok=True)
            write_json(folder / 'run.json', dict(error=works[task.key](folder) or ''))

        monkeypatch.setattr(module, 'perform', perform)
        reported = {}
        needs = needs or {}
        tasks = [Task(key, Config(), ['stage'], {'before': needs[key]} if key in needs else {}) for key in works]
        Pool(tmp_path, jobs, lambda task, error: reported.update({task.key: error})).run(tasks)
        return reported

    return run


def test_all_are_run_and_what_went_wrong_is_said(pool):
    assert pool(a=lambda _: '', b=lambda _: 'no data', c=lambda _: '') == dict(a='', b='no data', c='')


def test_one_follows_what_it_needs(pool, tmp_path):
    def later(folder):
        return '' if (tmp_path / 'a' / 'there').exists() else 'too early'

    def first(folder):
        time.sleep(0.3)
        (folder / 'there').touch()

    assert pool(needs=dict(b='a'), b=later, a=first) == dict(a='', b='')


def test_what_needs_a_failed_one_fails_with_its_reason(pool, tmp_path):
    reported = pool(needs=dict(b='a'), a=lambda _: 'no data', b=lambda _: '')
    assert reported['b'] == 'a stage before it failed: no data'
    assert not (tmp_path / 'b').exists()


def test_a_killed_process_is_a_failure(pool):
    reported = pool(a=lambda _: os.kill(os.getpid(), signal.SIGKILL), b=lambda _: '')
    assert reported == dict(a='its process was killed (signal 9)', b='')


def test_an_old_word_is_not_taken_for_a_new_one(pool, tmp_path):
    write_json(tmp_path / 'a/run.json', dict(error='of another time'))
    assert pool(a=lambda _: '') == dict(a='')


def test_as_many_side_by_side_as_asked_for(pool, tmp_path):
    def work(folder):
        (folder / 'running').touch()
        time.sleep(0.3)
        together = len(list(tmp_path.glob('*/running')))
        (folder / 'running').unlink()
        return f'{together} together' if together > 2 else ''

    reported = pool(2, **dict.fromkeys('abcde', work))
    assert set(reported.values()) == {''}


def test_where_memory_does_not_do_fewer_run_and_it_is_tried_again(pool, tmp_path):
    """The card holds two of these."""

    def work(folder):
        (folder / 'running').touch()
        time.sleep(0.3)
        full = len(list(tmp_path.glob('*/running'))) > 2
        time.sleep(0.3)
        (folder / 'running').unlink()
        return 'tiny.py: CUDA out of memory. Tried to allocate 2 GiB' if full else ''

    assert set(pool(3, **dict.fromkeys('abcd', work)).values()) == {''}


def test_one_that_never_fits_fails(pool):
    assert 'out of memory' in pool(a=lambda _: 'OutOfMemoryError: CUDA out of memory')['a']


def test_runs_are_spread_over_the_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,5')
    assert visible_gpus() == ['2', '5']

    def perform(task, runs, device, alone):
        time.sleep(0.3)
        write_json(runs / task.key / 'run.json', dict(device=device))

    monkeypatch.setattr(module, 'perform', perform)
    Pool(tmp_path, 4, lambda *_: None).run([Task(key, Config(), ['stage'], {}) for key in 'abcd'])
    assert sorted(read_json(tmp_path / key / 'run.json')['device'] for key in 'abcd') == ['2', '2', '5', '5']


def test_data_have_workers_only_where_these_change_no_result():
    cfg = load_config('studies/ksdd_avg.py')
    assert _workers_change_nothing(cfg)
    cfg.train_cfg.by_epoch = False
    assert not _workers_change_nothing(cfg)
    del cfg.default_hooks.randomness
    cfg.train_cfg.by_epoch = True
    assert not _workers_change_nothing(cfg)


def test_fewer_run_at_a_time_once_memory_did_not_do(pool, tmp_path):
    def work(folder):
        (folder / 'running').touch()
        time.sleep(0.3)
        together = len(list(tmp_path.glob('*/running')))
        with (tmp_path / 'log').open('a') as log:
            log.write(f'{together}\n')
        time.sleep(0.3)
        (folder / 'running').unlink()
        return 'CUDA out of memory' if together > 2 else ''

    assert set(pool(3, **dict.fromkeys('abcdefgh', work)).values()) == {''}
    assert (tmp_path / 'log').read_text().split().count('3') == 3  # never again

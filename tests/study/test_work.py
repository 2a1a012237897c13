import multiprocessing
import os
import signal
import time

from mmengine.config import Config

from kgl_mm.files import read_json
from kgl_mm.study import work as module
from kgl_mm.study.plan import Task


def test_the_seconds_of_a_killed_attempt_count(tmp_path, monkeypatch):
    def attempt(work):
        monkeypatch.setattr(module, 'run_stages', work)
        task = Task('key', Config(), ['stage1'], {})
        work = dict(target=module.perform, args=(task, tmp_path, None, False), daemon=True)
        process = multiprocessing.get_context('fork').Process(**work)
        process.start()
        process.join(60)
        return process.exitcode

    def killed(*_, **__):
        time.sleep(0.5)
        os.write(1, b'at work')  # which is its log
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)

    assert [attempt(killed), attempt(killed), attempt(lambda *_, **__: None)] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    run = read_json(tmp_path / 'key/run.json')
    assert run['seconds'] >= 0.9
    assert run['error'] == ''
    assert 'begun' not in run

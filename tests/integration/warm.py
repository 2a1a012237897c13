"""What the warm process imports, and what a fork of it does; ``conftest.py`` starts both."""

import gc
import os
import runpy
import signal
import sys

PRELOAD = ['kgl_mm.apis.train', 'kgl_mm.apis.evaluate', 'kgl_mm.apis.generate', 'mmpretrain.models', 'warm']


def run(command: list[str], cwd: str, environment: dict[str, str], outputs: tuple[str, str]) -> None:
    """Run a tool as ``python TOOL ARG ...`` would: its own session, directory, environment, path and streams."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    assert 'mmpretrain.models' in sys.modules, 'the warm process is cold'
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = [os.path.dirname(command[0]), *environment['PYTHONPATH'].split(os.pathsep)]  # noqa: PTH120
    sys.argv = command
    _say_less()
    gc.freeze()  # as there
    runpy.run_path(command[0], run_name='__main__')


def _say_less() -> None:
    """As ``tests/conftest.py`` does it for runners in the process of the tests."""
    from mmengine.config import config
    from mmengine.runner import runner
    from yapf.yapflib import yapf_api

    runner.collect_env = dict
    for module in (config, yapf_api):
        module.FormatCode = lambda text, **_: (text, True)

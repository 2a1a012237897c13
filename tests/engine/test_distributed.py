import os
import subprocess
import sys
import time
from pathlib import Path

CHILD = """
import sys, time
from kgl_mm.engine.distributed import end_with_parent
end_with_parent()
print('ready', flush=True)
time.sleep(600)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE, start_new_session=True)
while child.stdout.readline() != b'ready\\n':
    pass
print(child.pid, flush=True)
time.sleep(600)
"""


def runs(pid):
    try:
        # Z is one that has ended, and that nobody has asked for its status
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')')[-1].split()[0] != 'Z'
    except OSError:
        return False


def test_a_process_of_torchrun_ends_with_it_however_it_ends():
    """In a session of its own, as torchrun starts them, so that no signal to the group of its parent reaches it."""
    parent = subprocess.Popen([sys.executable, '-c', PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    try:
        assert runs(child)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 60
        while runs(child):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        parent.kill()
        if runs(child):
            os.kill(child, 9)

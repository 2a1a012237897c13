import os
import signal
import stat
import subprocess
import sys

import pytest

from kgl_mm.errors import UsageError
from kgl_mm.files import alone_in, hash_of, read_json, write_atomically, write_json


def test_write_replaces_whole_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / 'deep' / 'file'
    write_atomically(path, b'old')
    write_atomically(path, b'new')
    assert path.read_bytes() == b'new'
    assert [p.name for p in path.parent.iterdir()] == ['file']


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'file'
    write_atomically(path, b'old')
    monkeypatch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(OSError, match='No space'):
        write_atomically(path, b'new')
    assert path.read_bytes() == b'old'
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_what_cannot_be_written_is_named_as_it_was_meant(tmp_path):
    (tmp_path / 'file').touch()
    for path, error in ((tmp_path, IsADirectoryError), (tmp_path / 'file/x', FileExistsError)):
        with pytest.raises(error) as raised:
            write_atomically(path, b'')
        assert raised.value.filename == str(path)
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_json_round_trip_and_absence(tmp_path):
    assert read_json(tmp_path / 'a.json') == {}
    write_json(tmp_path / 'a.json', {'b': [1, 2.5, None]})
    assert read_json(tmp_path / 'a.json') == {'b': [1, 2.5, None]}


def test_kill_during_writes_leaves_one_whole_version(tmp_path):
    """A process that writes two versions in turn is killed at ten moments; the file is always one of the two."""
    path = tmp_path / 'file'
    code = (
        'import sys\n'
        'from kgl_mm.files import write_atomically\n'
        'write_atomically(sys.argv[1], b"a" * 3_000_000)\n'
        'print("ready", flush=True)\n'
        'while True:\n'
        '    for letter in (b"b", b"a"):\n'
        '        write_atomically(sys.argv[1], letter * 3_000_000)\n'
    )
    process = subprocess.Popen([sys.executable, '-c', code, str(path)], stdout=subprocess.PIPE)
    assert any(line == b'ready\n' for line in iter(process.stdout.readline, b''))
    for _ in range(10):
        for _ in range(20):
            content = path.read_bytes()
            assert len(content) == 3_000_000
            assert len(set(content[::1000])) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    content = path.read_bytes()
    assert len(content) == 3_000_000
    assert set(content) in ({ord('a')}, {ord('b')})


def test_the_hash_of_a_file(tmp_path):
    (tmp_path / 'abc').write_bytes(b'abc')
    # of FIPS 180-2, appendix B.1
    assert hash_of(tmp_path / 'abc') == 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'


def test_a_second_process_in_a_folder_is_told_and_none_where_the_first_is_gone(tmp_path):
    """The first one has a child, as data workers are, that outlives it."""
    code = (
        'import os, sys, time\n'
        'from kgl_mm.files import alone_in\n'
        'with alone_in(sys.argv[1]):\n'
        '    child = os.fork()\n'
        '    if child:\n'
        '        print(child, flush=True)\n'
        '    time.sleep(600)\n'
    )
    folder = tmp_path / 'run'
    process = subprocess.Popen([sys.executable, '-c', code, str(folder)], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        with pytest.raises(UsageError, match=f'run: process {process.pid} is at work in it'), alone_in(folder):
            pass
        process.kill()
        process.wait()
        os.kill(child, 0)  # it is there yet
        for _ in range(2):
            with alone_in(folder):
                assert (folder / '.lock').read_text().strip() == str(os.getpid())
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    path, seen, fsync = tmp_path / 'file', [], os.fsync

    def spy(descriptor):
        status = os.fstat(descriptor)
        seen.append((None if stat.S_ISDIR(status.st_mode) else status.st_size, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, 'fsync', spy)
    write_atomically(path, b'new')
    assert seen == [(3, False), (None, True)]


def test_two_processes_that_write_one_file_have_temporary_ones_of_their_own(tmp_path, monkeypatch):
    path, fsync = tmp_path / 'file', os.fsync

    def another_one_writes(descriptor):
        with monkeypatch.context() as patch:
            patch.setattr(os, 'fsync', fsync)
            patch.setattr(os, 'getpid', lambda: 1)
            write_atomically(path, b'theirs')
        monkeypatch.setattr(os, 'fsync', fsync)

    monkeypatch.setattr(os, 'fsync', another_one_writes)
    write_atomically(path, b'mine')
    assert path.read_bytes() == b'mine'

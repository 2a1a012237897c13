import contextlib
import errno
import functools
import http.server
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.fileio.backends.registry_utils import backends, prefix_to_backends

from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore

from .conftest import filled, some_map


def files(root):
    return sorted(str(path.relative_to(root)) for path in Path(root).rglob('*') if path.is_file())


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(st.sampled_from('ab./\\\0\n ~ü\ud800') | st.characters(), max_size=8), min_size=2, max_size=2))
@example(['a.png', 'a'])
@example(['a', 'A/../a'])
@example(['/etc/x', '../x'])
@example(['x' * 239, 'ü' * 119])
@example(['.a.png.1.tmp', 'a'])
@example(['evidence/a', 'journal/a'])
def test_a_key_is_refused_or_has_a_file_of_its_own_within_the_root(keys):
    with tempfile.TemporaryDirectory() as folder:
        store = PriorStore(f'{folder}/store')
        written = {}
        for i, key in enumerate(dict.fromkeys(keys)):
            try:
                store.write(key, [[i + 1]])
                written[key] = i + 1
            except UsageError as error:
                message = str(error)
                assert message.startswith(('key ', f'{folder}/store/evidence/'))  # refused, or a folder is in the way
                with pytest.raises(UsageError):
                    store.read(key)
        assert all(store.read(key) == value for key, value in written.items())
        assert len([name for name in files(folder) if name.endswith('.png')]) == len(written)
        assert all(name.startswith('store/') for name in files(folder))
        assert PriorStore(f'{folder}/store').keys() == sorted(written) if written else True


@pytest.mark.parametrize(
    'key',
    ['', '/a', 'a/', 'a//b', '.', '..', './a', 'a/..', '../a', 'a\\b', 'a\0b', 'a\nb', 'a\x7f', '\ud800', 3, None],
)
def test_a_bad_key_gets_one_sentence(key, tmp_path):
    store = filled(tmp_path)
    for call in (store.read, store.entry, store.is_edited, store.__contains__, lambda key: store.write(key, [[1]])):
        with pytest.raises(UsageError, match='key'):
            call(key)


def test_names_that_are_too_long_or_odd(tmp_path):
    store = PriorStore(tmp_path)
    for key in ('x' * 238, 'ü' * 119, '...', '.hidden/..x', 'Köln 1/ß', 'a:b', '-', '%2e%2e'):
        store.write(key, [[1]])
        assert store.read(key) == 1
    for key in ('x' * 239, 'ü' * 120):
        with pytest.raises(UsageError, match='longer than the 238 bytes'):
            store.write(key, [[1]])
    with pytest.raises(UsageError, match='too long'):
        store.write('/'.join(['x' * 200] * 30), [[1]])
    for layer in ('', 'journal', '..', 'a/b', 'ü', 'a.b', None, 'x' * 201):
        for call in (lambda x: store.write('a', [[1]], x), lambda x: store.read('a', x), lambda x: store.begin(x, {})):
            with pytest.raises(UsageError, match='layer'):
                call(layer)


def test_a_link_out_of_the_store_is_refused_and_one_within_is_not(tmp_path):
    (tmp_path / 'outside').mkdir()
    filled(tmp_path / 'store')
    evidence = tmp_path / 'store/evidence'
    (evidence / 'out').symlink_to(tmp_path / 'outside')
    (evidence / 'in').symlink_to('kos01')
    store = PriorStore(tmp_path / 'store')
    for call in (lambda key: store.write(key, [[1]]), store.read, store.__contains__, store.entry):
        for key in ('out/a', 'out/deep/a'):
            with pytest.raises(UsageError, match='leads out of the store'):
                call(key)
    assert not list((tmp_path / 'outside').iterdir())
    np.testing.assert_array_equal(store.read('in/Part5.jpg'), store.read('kos01/Part5.jpg'))
    (tmp_path / 'link').symlink_to('store')
    assert PriorStore(tmp_path / 'link').verify().ok == 3


@pytest.mark.parametrize('where', ['write_bytes', 'replace'])
def test_no_room_for_a_map(where, tmp_path, monkeypatch):
    store = filled(tmp_path)
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, where, lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'No space left on device')))
        with pytest.raises(UsageError, match=r'a\.jpg\.png: it cannot be written \(No space left'):
            store.write('a.jpg', some_map(5))
    np.testing.assert_allclose(store.read('a.jpg'), some_map(0), atol=1e-4)
    assert files(tmp_path) == before
    store.write('a.jpg', some_map(5))


@contextlib.contextmanager
def mounted(path, options):
    path.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f'a small file system cannot be mounted here: {done.stderr.strip()}')
    try:
        yield path
    finally:
        subprocess.run(['umount', str(path)], check=True)


@pytest.mark.skipif(not shutil.which('mount'), reason='there is no mount here')
def test_a_disk_that_is_full_or_read_only(tmp_path):
    with mounted(tmp_path / 'disk', 'size=64k') as disk:
        store = PriorStore(disk)
        for key in map(str, range(1000)):
            try:
                store.write(key, some_map(int(key)))
            except UsageError as error:
                assert str(error).endswith('cannot be written (No space left on device).')  # noqa: PT017
                break
        assert PriorStore(disk).verify() in ((int(key), [], [], []), (int(key) + 1, [], [], []))
        assert not [name for name in files(disk) if name.endswith('.tmp')]
        subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
        store = PriorStore(disk)
        for call in (lambda: store.write('x', [[1]]), store.compact, store.rebuild, lambda: store.begin('x', {})):
            with pytest.raises(UsageError, match=r'cannot be written \(Read-only file system\)'):
                call()
        np.testing.assert_allclose(store.read('0'), some_map(0), atol=1e-4)


@pytest.fixture
def served(tmp_path):
    """The address of a folder behind a web server."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Handler, directory=str(tmp_path / 'served'))
    )
    threading.Thread(target=server.serve_forever, args=(0.02,)).start()
    yield f'http://127.0.0.1:{server.server_port}/store/'
    server.shutdown()
    server.server_close()


def test_a_store_behind_a_web_server(served, tmp_path):
    local = filled(tmp_path / 'served/store')
    assert len(PriorStore(served)) == 0
    local.compact()
    cv2.imwrite(str(tmp_path / 'served/store/evidence/a.jpg.png'), np.full((3, 3), 255, np.uint8))
    store = PriorStore(served)
    assert store.keys() == local.keys()
    for key in local.keys()[1:]:
        np.testing.assert_array_equal(store.read(key), local.read(key))
        assert store.entry(key) == local.entry(key)
    assert store.read('a.jpg').tolist() == np.ones((6, 5)).tolist()
    assert store.verify() == (2, ['evidence/a.jpg'], [], [])
    assert 'a.jpg' in store
    assert 'b.jpg' not in store
    with pytest.raises(UsageError, match=r"none of the 3 maps of evidence is 'b.jpg'"):
        store.read('b.jpg')
    for call in (lambda: store.write('x', [[1]]), lambda: store.begin('x', {}), store.compact, store.rebuild):
        with pytest.raises(UsageError, match='written to local folders only'):
            call()
    (tmp_path / 'served/store/evidence/a.jpg.png').unlink()
    assert PriorStore(served).verify() == (2, [], [], ['evidence/a.jpg'])


def test_a_backend_that_lists_knows_the_journals_too(tmp_path):
    class Fake(BaseStorageBackend):
        def __init__(self, folder):
            self.folder = folder

        def get(self, path):
            return memoryview({f'fake://x/{name}': (tmp_path / name).read_bytes() for name in files(tmp_path)}[path])

        def get_text(self, path):
            raise AssertionError

        def join_path(self, *parts):
            return '/'.join(parts)

        def list_dir_or_file(self, path, list_dir, suffix):
            assert (path, self.folder) == ('fake://x/journal', 'y')
            return (p.name for p in (tmp_path / 'journal').iterdir())

    register_backend('fake', Fake, prefixes='fake')
    try:
        local = filled(tmp_path)
        store = PriorStore('fake://x', backend_args={'folder': 'y'})
        assert store.keys() == local.keys()
        assert store.verify() == (3, [], [], [])
        np.testing.assert_array_equal(store.read('kos01/ü 2.jpg'), local.read('kos01/ü 2.jpg'))
    finally:
        del backends['fake'], prefix_to_backends['fake']

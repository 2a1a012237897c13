import os

import pytest
from mmengine.fileio import get_file_backend

import kgl_mm.engine  # noqa: F401 - registers the backend


def test_removals_wait_for_the_end_of_the_block_and_are_dropped_after_an_error(tmp_path):
    backend = get_file_backend(backend_args=dict(backend='kgl_atomic'))
    path = tmp_path / 'file'
    path.write_text('x')

    def fails_after_a_removal():
        with backend.removals_last():
            backend.remove(path)
            backend.get(tmp_path / 'absent')

    with pytest.raises(FileNotFoundError):
        fails_after_a_removal()
    assert path.exists()
    with backend.removals_last():
        with backend.removals_last():
            backend.remove(path)
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize('write', ['put', 'put_text'])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, write):
    backend, path = get_file_backend(backend_args=dict(backend='kgl_atomic')), tmp_path / 'file'
    path.write_bytes(b'old')
    monkeypatch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(OSError, match='No space'):
        getattr(backend, write)(b'new' if write == 'put' else 'new', path)
    assert path.read_bytes() == b'old'

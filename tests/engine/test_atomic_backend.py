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

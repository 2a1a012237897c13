"""``tools/export.py`` behind a training: the file says what the test said, or there is none."""

import csv
import shutil
from importlib.util import find_spec

import numpy as np
import pytest

from kgl_mm.apis import DefectInspector
from kgl_mm.export import check


@pytest.fixture
def trained(tool, write_guided, tmp_path):
    """A work directory of two short stages."""
    config = write_guided(extra='train_cfg = dict(by_epoch=True, max_epochs=1)\n')
    config.write_text(config.read_text().replace("dict(type='Resize'", "dict(type='kgl_mm.Resize'"))
    tool('train.py', config, '--work-dir', 'run')
    return tmp_path / 'run'


def test_a_file_is_as_the_test_or_is_not_written(trained, tool, run_here, monkeypatch, surfaces):
    monkeypatch.setattr(check, 'SCORES', -1.0)
    status, errors = run_here('export.py', 'run')
    assert status == 2
    assert 'run.onnx: not the same as the original on' in errors
    assert 'scores differ by' in errors
    assert not list((trained / 'export').iterdir())
    monkeypatch.setattr(check, 'SCORES', 1e-4)

    done = tool('export.py', 'run', '--int8')
    assert 'Compared on 51 test images: scores within' in done.stdout
    assert 'INT8 on 51 test images: AP' in done.stdout
    assert sorted(path.name for path in (trained / 'export').iterdir()) == ['run.int8.onnx', 'run.onnx']
    with (trained / 'stage2/test_scores.csv').open(newline='') as file:
        tested = list(csv.DictReader(file))
    exact, small = (DefectInspector(trained / 'export' / name) for name in ('run.onnx', 'run.int8.onnx'))
    found = exact([row['img_path'] for row in tested])
    np.testing.assert_allclose([r.score for r in found], [float(row['score']) for row in tested], atol=1e-5)
    assert small.network.facts['precision'] == 'int8'
    assert small.classes == exact.classes
    assert small.threshold == exact.threshold

    monkeypatch.setattr('kgl_mm.apis.export.LOSS', -2.0)
    status, errors = run_here('export.py', 'run', '--int8', '--out', 'other/a.onnx')
    assert status == 2
    assert 'a.int8.onnx: not written, since in INT8 it loses too much: AP' in errors
    assert [path.name for path in (trained.parent / 'other').iterdir()] == ['a.onnx']
    tool('export.py', 'run')
    assert [path.name for path in (trained / 'export').iterdir()] == ['run.onnx']  # one of INT8 would be of before
    monkeypatch.setattr(check, 'SCORES', -1.0)
    status, errors = run_here('export.py', 'run')
    assert status == 2
    assert 'run.onnx is of an export before' in errors

    monkeypatch.setattr(check, 'SCORES', 1e-4)
    moved = trained.parent / 'moved'
    shutil.copytree(surfaces, moved)
    done = tool('export.py', 'run', '--data', moved, '--out', 'other/b.onnx')
    assert 'Compared on 51 test images' in done.stdout
    status, errors = run_here('export.py', 'run', '--data', 'absent')
    assert status == 2
    assert '--data absent: no such folder' in errors

    done = tool('predict.py', trained / 'export/run.onnx', surfaces / 'kos01')
    assert '6 images: ' in done.stdout

    for words, sentence in {
        ('run', '--out', 'a.xml'): '--out a.xml: the name of a file for onnx ends in .onnx',
        ('nowhere',): 'nowhere',
    }.items():
        status, errors = run_here('export.py', *words)
        assert status == 2
        assert sentence in errors

    if not find_spec('openvino'):
        return
    done = tool('export.py', 'run/stage1', '--format', 'openvino')
    assert 'Compared on 51 test images: scores within' in done.stdout
    assert sorted(path.name for path in (trained / 'stage1/export').iterdir()) == ['stage1.bin', 'stage1.xml']
    original, exported = (DefectInspector(trained / path) for path in ('stage1', 'stage1/export/stage1.xml'))
    for mine, other in zip(original(surfaces / 'kos01'), exported(surfaces / 'kos01'), strict=True):
        assert mine.score == pytest.approx(other.score, abs=1e-4)
        assert mine.label == other.label
    assert exported.classes == original.classes
    assert exported.threshold == original.threshold

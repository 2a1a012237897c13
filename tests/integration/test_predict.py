"""``tools/predict.py`` behind a training: it says what the test says, of any files."""

import csv
import os
import shutil

import cv2
import numpy as np
import pytest

from kgl_mm.apis import DefectInspector


def rows_of(path):
    with path.open(newline='', errors='surrogateescape') as file:
        return list(csv.DictReader(file))


@pytest.fixture
def trained(tool, write_guided, tmp_path):
    """A work directory of two short stages with a validation part."""
    config = write_guided(extra='train_cfg = dict(by_epoch=True, max_epochs=1)\n')
    tool('train.py', config, '--work-dir', 'run', '--data-options', 'val_fraction=0.3')
    return tmp_path / 'run'


def test_a_run_inspects_as_it_was_tested_whatever_else_lies_there(trained, tool, run_here, tmp_path, surfaces):
    for stage in ('stage1', 'stage2'):
        tested = rows_of(trained / stage / 'test_scores.csv')
        inspector = DefectInspector(trained / stage, device='cpu')
        found = inspector([row['img_path'] for row in tested])
        np.testing.assert_allclose([r.score for r in found], [float(row['score']) for row in tested], atol=1e-6)
        assert inspector.threshold.calibrated

    folder = tmp_path / 'parts'
    (folder / 'sub').mkdir(parents=True)
    (folder / 'kos01').mkdir()
    for name in ('kos01/Part0.png', 'kos01/Part1.png'):
        shutil.copy(surfaces / name, folder / name)
    shutil.copy(surfaces / 'kos01/Part2.png', folder / 'sub/Part0.jpg')
    (folder / 'empty.png').write_bytes(b'')
    (folder / 'evil\n\x1b[31m.png').write_text('no image')
    (folder / os.fsdecode(b'\xff.png')).write_text('no image')
    (folder / 'notes.txt').write_text('left alone')
    long = 'x' * 251 + '.png'
    shutil.copy(surfaces / 'kos01/Part1.png', folder / long)
    (folder / 'cut.png').write_bytes((folder / 'kos01/Part0.png').read_bytes()[:900])
    words = ['predict.py', 'run', 'parts', '--out', 'out', '--csv', 'tables/a.csv', '--device', 'cpu']
    status, errors = run_here(*words)
    assert status == 0
    assert '4 could not be read:' in errors
    assert 'cut.png: the file is truncated' in errors
    assert '\x1b' not in errors
    rows = rows_of(tmp_path / 'tables/a.csv')
    names = [long, 'kos01/Part0.png', 'kos01/Part1.png', 'sub/Part0.jpg']
    assert [row['image'] for row in rows[:4]] == names
    assert len(rows) == 8
    assert all(row['error'] for row in rows[4:])
    expected = DefectInspector(trained, device='cpu')([folder / name for name in names])
    for row, result in zip(rows, expected, strict=False):
        assert row['label'] == result.label
        assert float(row['score']) == pytest.approx(result.score, abs=1e-6)
        assert float(row['threshold']) == result.threshold.value
        assert row['calibrated'] == 'True'
    pictures = {path.relative_to(tmp_path / 'out').as_posix() for path in (tmp_path / 'out').rglob('*.*')}
    assert pictures == {f'{name}.jpg' for name in ['x' * 200, *names[1:]]}
    assert all(cv2.imread(str(tmp_path / 'out' / name)) is not None for name in pictures)

    (tmp_path / 'full').write_text('a file')
    status, errors = run_here('predict.py', 'run', 'parts', '--out', 'full', '--csv', 'b.csv', '--device', 'cpu')
    assert status == 0
    assert '4 could not be read:' in errors
    assert '4 have no picture:' in errors
    assert len(rows_of(tmp_path / 'b.csv')) == 8

    for words, sentence in {
        ('run', 'parts/empty.png', '--device', 'cpu'): 'none of the 1 images could be read',
        ('run', 'parts', '--out', 'parts/out'): '--out parts/out: lies in parts',
        ('run', 'parts', '--csv', 'parts'): '--csv parts: cannot be written',
        ('run', 'parts', '--threshold', '7'): 'threshold=7.0: not a number from 0 to 1',
        ('run', 'parts', '--batch-size', '0'): 'batch_size=0',
        ('run', 'parts', '--device', 'tpu'): '--device tpu',
        ('parts', 'parts'): 'no checkpoint of a run',
        ('guided.py', 'parts'): 'has no weights',
        ('run', 'tables'): 'no images in it',
    }.items():
        status, errors = run_here('predict.py', *words)
        assert status == 2, words
        assert sentence in errors
        assert 'Traceback' not in errors

    image = surfaces / 'kos01/Part0.png'
    words = ['predict.py', 'guided.py', image, image, '--checkpoint', trained / 'stage1', '--threshold', '0.25']
    done = tool(*words, '--out', 'two')
    assert done.stdout.count(f'{image}: ') == 2
    assert 'at threshold 0.250 (given, not calibrated)' in done.stdout
    assert sorted(path.name for path in (tmp_path / 'two').iterdir()) == ['Part0.png-2.jpg', 'Part0.png.jpg']

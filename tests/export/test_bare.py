"""An exported file runs with onnxruntime, numpy and OpenCV alone."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kgl_mm.image_files import image_size

ROOT = Path(__file__).parents[2]
FORBID = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {names}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name.split('.')[0])

sys.meta_path.insert(0, Finder())
"""
NAMES = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', 'PIL', 'rich', 'onnx', 'scipy', 'matplotlib')
INSPECT = """
import json
from kgl_mm.apis import DefectInspector
inspector = DefectInspector(sys.argv[1])
results = inspector(sys.argv[2])
for result in results:
    result.save(result.path.parent.parent / 'pictures' / (result.path.name + '.jpg'))
print(json.dumps([[r.name, r.size, r.probabilities, float(r.map.sum()), r.label] for r in results]))
print(sorted(set(sys.modules) & set({names})), file=sys.stderr)
"""


def bare(code, *words):
    """Python in which nothing else can be imported."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, [os.environ.get('PYTHONPATH'), str(ROOT)])))
    command = [sys.executable, '-c', (FORBID + code).format(names=NAMES), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert not done.returncode, done.stderr
    return done


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Files of all kinds."""
    folder = tmp_path_factory.mktemp('bare') / 'files'
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, shape, kind in (
        ('gray.png', (40, 50), np.uint8),
        ('colour.jpg', (60, 30, 3), np.uint8),
        ('alpha.png', (33, 47, 4), np.uint8),
        ('deep.png', (40, 50), np.uint16),
        ('deep.tif', (50, 40, 3), np.uint16),
        ('colour.bmp', (32, 48, 3), np.uint8),
        ('colour.webp', (64, 64, 3), np.uint8),
    ):
        cv2.imwrite(str(folder / name), random.integers(0, np.iinfo(kind).max, shape, kind))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random.integers(0, 255, (50, 30, 3), np.uint8)).save(folder / 'turned.jpg', exif=exif)
    return folder


@pytest.fixture(scope='module')
def model(export):
    return export(guided=True, extra=", channel='self'")


def test_an_inspector_says_what_the_one_of_torch_says(model, folder):
    done = bare(INSPECT, model[1].network.path, folder)
    assert done.stderr.strip().splitlines()[-1] == '[]'
    found = json.loads(done.stdout)
    expected = model[0](folder)
    assert [row[0] for row in found] == [result.name for result in expected]
    for (_, size, probabilities, total, label), result in zip(found, expected, strict=True):
        assert tuple(size) == result.size
        np.testing.assert_allclose(probabilities, result.probabilities, atol=1e-5)
        assert total == pytest.approx(float(result.map.sum()), rel=1e-4)
        assert label == result.label
    assert len(list((folder.parent / 'pictures').iterdir())) == len(expected)


def test_the_command_inspects_too(model, folder, tmp_path):
    words = [model[1].network.path, folder, '--out', tmp_path / 'out', '--csv', tmp_path / 'a.csv']
    tool = ROOT / 'tools/predict.py'
    done = bare(f"sys.argv[0] = {str(tool)!r}; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')", *words)
    assert done.stdout.count('\n') == 9
    assert len((tmp_path / 'a.csv').read_text().splitlines()) == 9
    assert len(list((tmp_path / 'out').iterdir())) == 8


def test_the_consumer_of_the_documentation_needs_nothing_of_ours(model, folder, capsys, monkeypatch, tmp_path):
    consumer = ROOT / 'docs/consume_onnx.py'
    assert len(consumer.read_text().splitlines()) <= 30
    assert consumer.read_text() in (ROOT / 'docs/export.md').read_text()
    assert 'kgl_mm' not in consumer.read_text()
    paths = []
    for path in sorted(folder.iterdir()):
        paths.append(str(tmp_path / path.name))
        Path(paths[-1]).write_bytes(path.read_bytes())
    (tmp_path / 'maps').mkdir()
    monkeypatch.chdir(tmp_path / 'maps')
    monkeypatch.setattr(sys, 'argv', ['consume_onnx.py', str(model[1].network.path), *paths])
    runpy.run_path(str(consumer))
    lines = capsys.readouterr().out.splitlines()
    for line, result in zip(lines, model[0](paths), strict=True):
        label, score = re.fullmatch(rf'{re.escape(result.name)}: (\w+) ([\d.]+)', line).groups()
        assert label == result.label
        assert float(score) == pytest.approx(result.score, abs=6e-5)
        assert cv2.imread(f'{Path(result.name).name}.map.png').shape[1::-1] == result.size


def test_sizes_are_read_without_pillow(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / f'cut-{path.name}').write_bytes(path.read_bytes()[: len(path.read_bytes()) * 2 // 3])
    code = """
from pathlib import Path
from kgl_mm.errors import UsageError
from kgl_mm.image_files import image_size
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        print(path.name, *image_size(path))
    except UsageError as error:
        print(path.name, 'refused' if str(path) in str(error) else error)
"""
    found = dict(line.split(' ', 1) for line in bare(code, tmp_path).stdout.splitlines())
    for path in folder.iterdir():
        assert found[path.name] == '{} {}'.format(*image_size(path))
        if path.suffix != '.webp':
            assert found[f'cut-{path.name}'] == 'refused', path.name

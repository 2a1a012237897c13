"""``tools/serve.py`` behind a training: the page of a run, and repainted maps that teach."""

import json
import os
import re
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from kgl_mm.apis import DefectInspector
from kgl_mm.priors import PriorStore
from kgl_mm.serve import open_gallery


@pytest.fixture
def trained(tool, write_guided, tmp_path):
    """A work directory of two short stages."""
    config = write_guided(extra='train_cfg = dict(by_epoch=True, max_epochs=1)\n')
    tool('train.py', config, '--work-dir', 'run')
    return tmp_path / 'run'


@pytest.fixture
def serving(start):
    """A function that starts the tool, and gives it with its address."""
    running = []

    def serving(*words):
        process = start('serve.py', *words, '--no-browser', '--port', '0')
        running.append(process)
        end = time.monotonic() + 120
        while not (found := re.search(r'(http://\S+) \(Ctrl-C', said_by(process))):
            assert process.status() is None, process.end()
            assert time.monotonic() < end
            time.sleep(0.05)
        return process, found[1]

    yield serving
    for process in running:
        if process.status() is None:
            os.killpg(process.pid, signal.SIGKILL)


def said_by(process):
    path = Path(process.outputs[0])
    return path.read_text() if path.exists() else ''


def ask(url, data=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def as_png(mask):
    return cv2.imencode('.png', mask * np.uint8(255))[1].tobytes()


def test_the_page_says_of_images_what_an_inspector_says(trained, serving, surfaces):
    process, url = serving('run', '--device', 'cpu', '--threshold', '0.25')
    assert url.startswith('http://127.0.0.1:')
    status, model = ask(f'{url}/api/model')
    assert (status, model['classes'], model['threshold']['value']) == (200, ['good', 'defect'], 0.25)
    inspector = DefectInspector(trained, device='cpu')
    inspector.threshold = 0.25
    for name in ('kos01/Part0.png', 'kos01/Part1.png', 'kos02/Part0.png'):
        path = surfaces / name
        (expected,) = inspector([path])
        status, found = ask(f'{url}/api/inspect?name={name}', path.read_bytes())
        assert status == 200
        assert found['image'] == name
        assert found['score'] == pytest.approx(expected.score, abs=1e-6)
        assert found['pred_class'] == expected.label
        assert [region['box'] for region in found['regions']] == [list(region.box) for region in expected.regions]
    assert ask(f'{url}/api/inspect', b'no image')[0] == 400
    os.kill(process.pid, signal.SIGINT)
    done = process.end(timeout=30)
    assert done.returncode == 0
    assert 'Traceback' not in done.stderr


def test_repainted_maps_teach_the_next_second_stage(trained, serving, tool, run_here, tmp_path):
    _, url = serving('run', '--priors')
    maps = ask(f'{url}/api/maps')[1]
    assert maps['maps'][0]['defective']
    trusts = [one['trust'] for one in maps['maps'] if one['defective']]
    assert trusts == sorted(trusts)
    assert 'guided.py --priors run/stage1/priors --work-dir run_repainted --data ' in maps['command']
    mask = np.zeros((64, 32), np.uint8)
    mask[10:20, 5:15] = 1
    names = [one['name'] for one in maps['maps'][:3]]
    for number in range(3):
        assert ask(f'{url}/api/maps/{number}', as_png(mask))[0] == 200
    store = PriorStore(trained / 'stage1/priors')
    assert sorted(store.verify().edited) == sorted(f'evidence/{name}' for name in names)
    shutil.copytree(trained / 'stage1/priors', trained / 'stage1/another')
    for target in ('run', 'run/stage1', 'run/stage2', 'run/stage1/priors', 'run/stage1/another'):
        gallery = open_gallery(tmp_path / target)
        root = target if target.count('/') == 2 else 'run/stage1/priors'
        assert gallery.place(0).store.root == str(tmp_path / root)
        assert [gallery.place(number).key for number in range(3)] == names
        assert all(gallery.facts(number)['edited'] for number in range(3))
        np.testing.assert_array_equal(gallery.mask(0), mask)
    words = ['guided.py', '--stage', '2', '--priors', 'run/stage1/priors', '--work-dir', 'again']
    options = ['--cfg-options', 'train_dataloader.dataset.pipeline.4.num_priors=0']
    tool('train.py', *words, *options)
    found = (tmp_path / 'again/stage2').glob('*/*.log')
    log = next(found).read_text()
    assert float(log.split('loss_seg: ')[-1].split()[0]) > 0  # the three teach, though num_priors chooses none
    assert (tmp_path / 'again/metrics.json').is_file()

    for words, sentence in {
        ('nowhere', '--priors'): 'no such work directory or store',
        ('run/stage1/priors', '--priors', '--data', 'nowhere'): '--data nowhere: no such folder',
        ('run', '--port', '99999999'): 'port=99999999',
        ('run', '--host', 'no.such.invalid'): '--host no.such.invalid',
        ('run', '--threshold', '7'): 'threshold=7.0',
        ('nowhere',): 'nowhere',
        ('run', '--data', 'run'): '--data: says nothing without --priors',
        ('run', '--priors', '--threshold', '0.5'): '--threshold: says nothing with --priors',
    }.items():
        status, errors = run_here('serve.py', *words, '--no-browser')
        assert status == 2, words
        assert sentence in errors
        assert 'Traceback' not in errors


def test_all_parts_of_a_cross_fitted_run_are_opened_at_once(write_guided, tool, tmp_path):
    config = write_guided(extra='train_cfg = dict(by_epoch=True, max_epochs=1)\n')
    tool('train.py', config, '--work-dir', 'run', '--cfg-options', 'crossfit=2')
    gallery = open_gallery(tmp_path / 'run')
    assert len(gallery) == len(open_gallery(tmp_path / 'run/stage1'))
    assert {Path(place.store.root).parent.name for place in gallery.places} == {'stage1_part1', 'stage1_part2'}
    assert '--priors' not in gallery.command


def test_without_the_library_one_sentence_says_what_to_install(run_here, monkeypatch):
    for name in [name for name in sys.modules if name.startswith('kgl_mm.serve')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'uvicorn', None)
    status, errors = run_here('serve.py', 'run')
    assert status == 2
    assert "the pages need it: pip install 'kgl_mm[serve]'" in errors

"""What the page is told of images."""

import base64
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from kgl_mm.errors import UsageError
from kgl_mm.inspection.exported_network import ExportedNetwork
from kgl_mm.serve import inspect, inspect_app

from .conftest import Network, client, picture


def test_an_image_gets_its_verdict(inspector):
    page = client(inspect_app(inspector(), 'my run', ['localhost']))
    model = page.get('/api/model').json()
    assert model['classes'] == ['good', 'defect']
    assert model['title'] == 'my run'
    assert model['has_good']
    assert model['threshold'] == dict(value=0.5, calibrated=False, aim=None, text='0.500 (not calibrated)')
    bad = page.post('/api/inspect?name=a/b.png', content=picture(dark=200)).json()
    assert (bad['image'], bad['pred_class'], bad['defective'], bad['size']) == ('a/b.png', 'defect', True, [60, 40])
    assert bad['score'] == pytest.approx(200 / 255, abs=1e-6)
    assert bad['regions'][0]['box'] == [10, 8, 30, 16]
    assert not {'picture', 'heat', 'places'} & bad.keys()
    good = page.post('/api/inspect', content=picture(dark=60)).json()
    assert (good['image'], good['pred_class'], good['regions']) == ('image', 'good', [])


def test_the_page_gets_pictures_and_regions_whatever_the_threshold(inspector):
    page = client(inspect_app(inspector(), '', ['localhost']))
    found = page.post('/api/inspect?pictures=1', content=picture(dark=60, shape=(1000, 1500))).json()
    assert found['regions'] == []
    assert found['places']
    shown = {}
    for name in ('picture', 'heat'):
        data = base64.b64decode(found[name].partition('base64,')[2])
        shown[name] = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown['picture'].shape == (667, 1000, 3)
    assert shown['heat'].shape == (267, 400, 4)
    assert shown['heat'][..., 3].max() == pytest.approx(60, abs=2)


def test_a_model_without_a_good_class_has_no_threshold(inspector):
    kinds = tuple('abcdef')
    page = client(inspect_app(inspector(kinds, False), '', ['localhost']))
    assert page.get('/api/model').json()['has_good'] is False
    found = page.post('/api/inspect?pictures=1', content=picture()).json()
    assert (found['pred_class'], found['defective'], found['threshold']) == ('f', None, None)
    assert len(found['pred_scores']) == 6
    assert found['regions'] == found['places'] != []


def test_a_model_without_maps(inspector):
    blind = inspector()
    run = blind.network.run
    blind.network.run = lambda *args: [(probabilities, None) for probabilities, _ in run(*args)]
    found = client(inspect_app(blind, '', ['localhost'])).post('/api/inspect?pictures=1', content=picture()).json()
    assert found['heat'] is None
    assert found['places'] == found['regions'] == []


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.tif', '.webp'])
def test_a_file_is_what_it_holds_whatever_its_name(inspector, suffix):
    page = client(inspect_app(inspector(), '', ['localhost']))
    found = page.post('/api/inspect?name=a.gif', content=picture(suffix=suffix))
    assert found.status_code == 200
    assert found.json()['pred_class'] == 'defect'


def test_names_are_shortened_and_cleaned(inspector):
    page = client(inspect_app(inspector(), '', ['localhost']))
    for name in (
        '\x1b[31mred\n',
        'x' * 5000,
        '<script>',
        '../../etc/passwd',
        '=cmd()',
        '\udcff'.encode('utf-8', 'surrogateescape'),
    ):
        found = page.post('/api/inspect', params=dict(name=name), content=picture())
        assert found.status_code == 200
        assert len(found.json()['image']) <= 200
        assert found.json()['image'].isprintable()


def test_too_large_for_the_server_or_for_the_network(inspector, monkeypatch):
    page = client(inspect_app(inspector(), '', ['localhost']))
    monkeypatch.setattr(inspect, 'MOST_SEEN', 2399)
    assert (
        'the network would be shown 0.0 million pixels' in page.post('/api/inspect', content=picture()).json()['error']
    )
    monkeypatch.setattr(inspect, 'MOST_PIXELS', 2399)
    assert page.post('/api/inspect', content=picture()).json()['error'].startswith('60 x 40 pixels, more than')


class Exported(Network, ExportedNetwork):
    """The same as a file, which shrinks images to ``size`` or takes them as they are."""

    def __init__(self, judge, size):
        super().__init__(judge)
        self.facts = dict(size=size)


@pytest.mark.parametrize(('size', 'status'), [('[48, 32]', 200), ('null', 400)])
def test_an_export_that_shrinks_nothing_is_given_no_more_than_its_original(inspector, monkeypatch, size, status):
    found = inspector()
    found.network = Exported(found.judge, size)
    page = client(inspect_app(found, '', ['localhost']))
    monkeypatch.setattr(inspect, 'MOST_SEEN', 2399)
    assert page.post('/api/inspect', content=picture()).status_code == status


def test_nothing_of_an_image_is_kept(inspector, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    page = client(inspect_app(inspector(), '', ['localhost']))
    for content in (picture(), b'none'):
        page.post('/api/inspect', content=content)
    assert list(tmp_path.iterdir()) == []


def test_whatever_a_network_makes_of_an_image_is_said(inspector):
    for error in (UsageError('image: too odd'), MemoryError(), KeyError('x'), ZeroDivisionError()):
        odd = inspector()

        def fail(*_, error=error):
            raise error

        odd.network.run = fail
        found = client(inspect_app(odd, '', ['localhost'])).post('/api/inspect', content=picture())
        assert found.status_code == 400
        assert found.json()['error'] in ('too odd', f'cannot be inspected ({type(error).__name__})')


def test_an_exported_model_is_served_without_torch():
    hidden = ('torch', 'mmengine', 'mmcv', 'mmpretrain')
    code = f"""
import sys
sys.modules.update(dict.fromkeys({hidden}))
from kgl_mm.serve import inspect_app
from kgl_mm.apis import DefectInspector
inspector = DefectInspector.__new__(DefectInspector)
inspector.network = None
print(len(inspect_app(inspector).routes))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == '6\n', done.stderr


def test_the_page_needs_nothing_from_elsewhere():
    folder = Path(inspect.__file__).with_name('template')
    for path in folder.iterdir():
        text = path.read_text().replace('http://www.w3.org/2000/svg', '')
        assert '://' not in text, path

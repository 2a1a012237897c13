"""Who may ask, how much may be sent, and that everything is answered in one sentence."""

import socket
import struct
import urllib.request
import zlib

import cv2
import numpy as np
import pytest

from kgl_mm.errors import UsageError
from kgl_mm.serve import app, inspect, inspect_app
from kgl_mm.serve.app import bind, names_of

from .conftest import client, picture


@pytest.fixture
def page(inspector):
    return client(inspect_app(inspector(), 'run', names_of('127.0.0.1')))


@pytest.mark.parametrize('host', ['localhost:8000', '127.0.0.1:1', '127.0.0.9', '[::1]:8000', 'LOCALHOST'])
def test_names_of_this_machine(page, host):
    assert page.get('/api/model', headers=dict(host=host)).status_code == 200


@pytest.mark.parametrize(
    'host', ['evil.example', '192.168.0.7:8000', '', '[', 'localhost.evil.example', '127.0.0.1.nip.io']
)
def test_another_name_that_leads_here_is_refused(page, host):
    for path in ('/', '/api/model', '/style.css'):
        found = page.get(path, headers=dict(host=host))
        assert found.status_code == 403
        assert 'this server is not called' in found.json()['error']


@pytest.mark.parametrize(
    ('headers', 'status'),
    [
        ({}, 200),
        (dict(origin='http://localhost:8000'), 200),
        ({'origin': 'http://localhost:8000', 'sec-fetch-site': 'same-origin'}, 200),
        (dict(origin='http://localhost:9000'), 403),
        (dict(origin='http://evil.example'), 403),
        (dict(origin='null'), 403),
        ({'sec-fetch-site': 'cross-site'}, 403),
        ({'sec-fetch-site': 'same-site'}, 403),
    ],
)
def test_only_its_own_page_may_send(page, headers, status):
    found = page.post('/api/inspect', content=picture(), headers=headers)
    assert found.status_code == status
    assert ('another origin' in found.json().get('error', '')) == (status == 403)


def test_what_is_bound_to_others_may_be_called_by_address(inspector):
    page = client(inspect_app(inspector(), '', names_of('0.0.0.0')))
    for host, status in {'192.168.0.7:8000': 200, socket.gethostname(): 200, 'evil.example': 403}.items():
        assert page.get('/api/model', headers=dict(host=host)).status_code == status


def test_answers_stay_with_their_page(page):
    for path in ('/', '/api/model', '/nothing'):
        headers = page.get(path).headers
        assert "default-src 'none'" in headers['content-security-policy']
        assert headers['cross-origin-resource-policy'] == 'same-origin'
        assert headers['x-content-type-options'] == 'nosniff'
        assert 'access-control-allow-origin' not in headers


@pytest.mark.parametrize(
    'path', ['/nothing', '/../setup.py', '/%2e%2e/setup.py', '/template/inspect.js', '/api', '//etc/x']
)
def test_nothing_else_is_served(page, path):
    found = page.get(path)
    assert found.status_code == 404
    assert found.json()['error']


def test_other_methods_are_refused(page):
    assert page.get('/api/inspect').status_code == 405
    assert page.put('/api/inspect', content=b'').status_code == 405
    assert page.post('/').status_code == 405


def test_a_body_is_limited_while_it_comes(page, monkeypatch):
    monkeypatch.setattr(inspect, 'MOST_BYTES', 10_000)
    sent = []

    def endless():
        for _ in range(50):
            sent.append(1)
            yield bytes(1000)

    for content in (bytes(10_001), endless()):
        found = page.post('/api/inspect', content=content)
        assert found.status_code == 413
        assert 'larger than' in found.json()['error']
    assert len(sent) == 50  # it was listened to, so that the answer is heard
    monkeypatch.setattr(app, 'SWALLOWED', 20_000)
    assert page.post('/api/inspect', content=endless()).status_code == 413
    assert page.post('/api/inspect', content=bytes(30_000)).status_code == 413


def test_a_form_is_told_how_to_send(page):
    found = page.post('/api/inspect', files=dict(image=picture()))
    assert found.status_code == 415
    assert '--data-binary' in found.json()['error']


def test_too_many_at_once(page, monkeypatch):
    monkeypatch.setattr(app, 'AT_ONCE', 0)
    found = page.post('/api/inspect', content=picture())
    assert found.status_code == 503
    assert found.headers['retry-after'] == '1'


def test_a_fault_of_the_server_is_answered(inspector, capsys):
    broken = inspector()
    broken.network.run = None
    found = client(inspect_app(broken, '', ['localhost'])).post('/api/inspect', content=picture())
    assert found.status_code == 500
    assert found.json() == {'error': 'the server failed (TypeError)'}
    assert 'Traceback' in capsys.readouterr().err


def test_where_it_is_bound(monkeypatch):
    with bind('127.0.0.1', 0) as one:
        port = one.getsockname()[1]
        with pytest.raises(UsageError, match=f'--port {port}: cannot be served at'):
            bind('127.0.0.1', port)
        monkeypatch.setattr(app, 'PORT', port)
        with bind('127.0.0.1') as other:  # any that is free
            assert other.getsockname()[0] == '127.0.0.1'
            assert other.getsockname()[1] != port
    for host in ('no.such.host.invalid', '8.8.8.8'):
        with pytest.raises(UsageError, match='--host'):
            bind(host, 0)
    with pytest.raises(UsageError, match='port=70000'):
        bind('127.0.0.1', 70000)


def test_a_client_that_sends_too_much_or_leaves_hears_of_it_and_harms_nobody(served, inspector, monkeypatch):
    url = served(inspect_app(inspector(), '', ['localhost']))
    monkeypatch.setattr(inspect, 'MOST_BYTES', 2**20)
    request = urllib.request.Request(f'{url}/api/inspect', data=bytes(2**24), method='POST')
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 413
    address = url.removeprefix('http://').split(':')
    with socket.create_connection((address[0], int(address[1]))) as left:
        left.sendall(b'POST /api/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf')
    with urllib.request.urlopen(urllib.request.Request(f'{url}/api/inspect?name=a', data=picture())) as found:
        assert b'"image":"a"' in found.read()


def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def bomb(width, height):
    """A small PNG file that says that it is huge."""
    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10**6))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')


HOSTILE = {
    'empty': b'',
    'text': b'no image at all',
    'page': b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    'cut': picture()[:-30],
    'cut jpeg': picture(suffix='.jpg')[:300],
    'zeros': bytes(5000),
    'bomb': bomb(100_000, 100_000),
    'lie': bomb(7000, 7000),
    'negative': b'BM' + b'\xff' * 60,
    'gif': b'GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00'
    b'\x01\x00\x01\x00\x00\x02\x02D\x01\x00;',
    'postscript': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(r) file\n',
    'tiff': b'II*\x00\x08\x00\x00\x00\xff\xff' + b'\xff' * 400,
    'noise': np.random.default_rng(0).bytes(3000),
    'header': picture()[:40],
    'long chunk': picture()[:33] + struct.pack('>I', 2**31 - 1) + b'IDAT',
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_files_that_are_no_images_get_a_clear_answer(page, kind):
    found = page.post('/api/inspect?pictures=1', params=dict(name='part.png'), content=HOSTILE[kind])
    assert found.status_code == 400
    sentence = found.json()['error']
    assert sentence
    assert '/tmp' not in sentence
    assert 'kgl_mm-' not in sentence
    assert '\n' not in sentence


def test_whoever_has_been_answered_is_no_longer_on_the_way(page, monkeypatch):
    monkeypatch.setattr(app, 'AT_ONCE', 2)
    for content in [picture(), b'none'] * 4:
        assert page.post('/api/inspect', content=content).status_code in (200, 400)


def test_what_is_too_much_is_not_kept_on_the_disk(page, monkeypatch, tmp_path):
    monkeypatch.setattr(inspect, 'MOST_BYTES', 10_000)
    kept, receive = [], app._receive

    async def spy(request, file, most):
        try:
            await receive(request, file, most)
        finally:
            kept.append(file.tell())

    monkeypatch.setattr(app, '_receive', spy)
    assert page.post('/api/inspect', content=bytes(100_000)).status_code == 413
    assert kept[0] <= 10_000


def test_who_sends_too_slowly_hears_of_it(served, inspector, monkeypatch):
    monkeypatch.setattr(app, 'PATIENCE', 0.2)
    host, port = served(inspect_app(inspector(), '', ['localhost'])).removeprefix('http://').split(':')
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(b'POST /api/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf')
        assert b' 408 ' in slow.recv(1000)


def test_answers_are_kept_nowhere(page):
    assert page.get('/api/model').headers['cache-control'] == 'no-store'


def test_the_page_gets_no_more_regions_than_it_can_show(page):
    image = np.full((60, 60), 240, np.uint8)
    image[::4, ::4] = 40
    found = page.post('/api/inspect?pictures=1', content=cv2.imencode('.png', image)[1].tobytes()).json()
    assert len(found['places']) == 100 < len(found['regions'])

"""The downloader against a server on this machine: whole, interrupted, wrong and hostile archives."""

import hashlib
import http.server
import io
import re
import struct
import threading
import zipfile
import zlib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parent.parent / 'tools/download_data.py'
spec = spec_from_file_location('download_data', SCRIPT)
download_data = module_from_spec(spec)
spec.loader.exec_module(download_data)


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` at any address, and hangs up after ``stop_after`` bytes; ``asked`` keeps the Range headers."""

    content, stop_after, ranges = b'', None, True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.asked = []
        self.url = f'http://127.0.0.1:{self.server_port}/archive'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers['Range']
        self.server.asked.append(wanted)
        if self.server.content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix('bytes=').rstrip('-')) if wanted and self.server.ranges else 0
        content = self.server.content[start:]
        if start and not content:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.stop_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def picture(suffix: str, defect: bool) -> bytes:
    # noise, so that the archive is longer than what a server that hangs up has sent
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    if suffix != '.jpg':
        pixels[:] = 0
        pixels[7:9, 5] = 255 * defect
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, {'.jpg': 'jpeg', '.png': 'png', '.bmp': 'bmp'}[suffix])
    return out.getvalue()


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return out.getvalue()


def ksdd(around: str = '') -> bytes:
    files = {}
    for unit in range(3):
        for part in range(4):
            stem = f'{around}kos{unit:02}/Part{part}'
            files[f'{stem}.jpg'] = picture('.jpg', False)
            files[f'{stem}_label.bmp'] = picture('.bmp', part == unit)
    return archive(files)


@pytest.fixture
def small(server):
    """The specification of a KolektorSDD of 12 images at the server, 3 of them defective."""
    server.content = ksdd()
    digest = hashlib.sha256(server.content).hexdigest()
    parts = {'all': ('kos*/Part?.jpg', 12, 3)}
    return download_data.DATA_SETS['ksdd']._replace(url=server.url, sha256=digest, parts=parts)


def leftovers(dest: Path) -> list[str]:
    return sorted(path.name for path in dest.iterdir())


def test_fetches_checks_and_unpacks_once(server, small, tmp_path):
    target = download_data.download(small, tmp_path / 'new')
    assert len(list(target.glob('kos*/Part?_label.bmp'))) == 12
    assert leftovers(tmp_path / 'new') == ['KolektorSDD']
    download_data.download(small, tmp_path / 'new')
    assert len(server.asked) == 1


@pytest.mark.parametrize('ranges', [True, False])
def test_an_interrupted_transfer_goes_on(server, small, tmp_path, ranges):
    server.stop_after, server.ranges = 5000, ranges
    with pytest.raises(download_data.DownloadError, match=rf'stopped at 5000 of {len(server.content)} bytes; run it'):
        download_data.download(small, tmp_path)
    assert leftovers(tmp_path) == ['KolektorSDD.zip.part']
    server.stop_after = None
    download_data.download(small, tmp_path)
    assert server.asked == [None, 'bytes=5000-']
    assert leftovers(tmp_path) == ['KolektorSDD']


def test_a_whole_part_file_is_not_fetched_again(server, small, tmp_path):
    (tmp_path / 'KolektorSDD.zip.part').write_bytes(server.content)
    download_data.download(small, tmp_path)
    assert server.asked == []


@pytest.mark.parametrize('beyond', [b'', b'?'], ids=['same length', 'too long'])
def test_a_damaged_part_file_is_removed(server, small, tmp_path, beyond):
    (tmp_path / 'KolektorSDD.zip.part').write_bytes(b'?' + server.content[1:] + beyond)
    with pytest.raises(download_data.DownloadError, match='SHA-256 differs'):
        download_data.download(small, tmp_path)
    assert leftovers(tmp_path) == []
    download_data.download(small, tmp_path)


def test_a_wrong_archive_is_removed(server, small, tmp_path):
    with pytest.raises(download_data.DownloadError, match='SHA-256 differs'):
        download_data.download(small._replace(sha256='0' * 64), tmp_path)
    assert leftovers(tmp_path) == []


def test_another_size_is_refused_before_the_transfer(server, small, tmp_path):
    with pytest.raises(download_data.DownloadError, match=f'offers {len(server.content)} bytes and not the 99 of'):
        download_data.download(small._replace(size=99), tmp_path)
    assert leftovers(tmp_path) == []


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo('kos00')
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    'name', ['../out.jpg', 'kos00/../../out.jpg', '/out.jpg', '..\\out.jpg', 'C:\\out.jpg', link()]
)
def test_a_hostile_archive_unpacks_nothing(server, small, tmp_path, name):
    server.content = archive({'kos00/Part0.jpg': b'', name: b'/etc'})
    hostile = small._replace(sha256=hashlib.sha256(server.content).hexdigest())
    with pytest.raises(download_data.DownloadError, match=r'refused, since its member .* leads outside'):
        download_data.download(hostile, tmp_path / 'data')
    assert leftovers(tmp_path / 'data') == ['KolektorSDD.zip.part']
    assert leftovers(tmp_path) == ['data']


def test_an_archive_may_name_its_own_folder(tmp_path):
    (tmp_path / 'a.zip').write_bytes(archive({'./': b'', 'kos00/Part0.jpg': b'x'}))
    download_data.unpack(tmp_path / 'a.zip', tmp_path / 'here')
    assert (tmp_path / 'here/kos00/Part0.jpg').read_bytes() == b'x'


def test_content_other_than_expected_is_refused(small, tmp_path):
    with pytest.raises(download_data.DownloadError, match='12 images, 3 of them defective, instead of 12 and 4'):
        download_data.download(small._replace(parts={'all': ('kos*/Part?.jpg', 12, 4)}), tmp_path)
    assert not (tmp_path / 'KolektorSDD').exists()


def test_an_incomplete_folder_is_left_to_the_user(server, small, tmp_path):
    (tmp_path / 'KolektorSDD/kos00').mkdir(parents=True)
    with pytest.raises(download_data.DownloadError, match='incomplete; move it away'):
        download_data.download(small, tmp_path)
    assert server.asked == []


def test_ksdd2_with_a_folder_around_it(server, tmp_path):
    files = {}
    for part, count, defective in (('train', 5, 2), ('test', 4, 1)):
        for i in range(count):
            files[f'KolektorSDD2/{part}/{20000 + i}.png'] = picture('.png', False)
            files[f'KolektorSDD2/{part}/{20000 + i}_GT.png'] = picture('.png', i < defective)
    server.content = archive(files)
    parts = {'train': ('train/*[0-9].png', 5, 2), 'test': ('test/*[0-9].png', 4, 1)}
    digest = hashlib.sha256(server.content).hexdigest()
    spec = download_data.DATA_SETS['ksdd2']._replace(
        url=server.url, size=len(server.content), sha256=digest, parts=parts
    )
    target = download_data.download(spec, tmp_path)
    assert (target / 'train/20000_GT.png').exists()
    assert leftovers(tmp_path) == ['KolektorSDD2']


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'I;16'])
@pytest.mark.parametrize('where', [(0, 0), (6, 4), None])
def test_a_single_pixel_makes_a_mask_defective(tmp_path, mode, where):
    mask = Image.new(mode, (7, 5))
    if where:
        mask.putpixel(where, (0, 0, 1) if mode == 'RGB' else 1)
    mask.save(tmp_path / 'mask.png')
    assert download_data.holds_defect(tmp_path / 'mask.png') == (where is not None)
    if mode in 'LRGB':
        mask.save(tmp_path / 'mask.bmp')
        assert download_data.holds_defect(tmp_path / 'mask.bmp') == (where is not None)


@pytest.mark.parametrize('kind', range(5))
def test_the_filter_of_a_row_is_not_a_defect(tmp_path, kind):
    header = struct.pack('>IIBBBBB', 3, 2, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes([kind, 0, 0, 0]) * 2)
    chunks = ((b'IHDR', header), (b'IDAT', rows[:5]), (b'IDAT', rows[5:]), (b'IEND', b''))
    parts = (struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / 'mask.png').write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(parts))
    assert not np.asarray(Image.open(tmp_path / 'mask.png')).any()
    assert not download_data.holds_defect(tmp_path / 'mask.png')


def test_the_command_says_where_and_under_which_licence(server, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(download_data.DATA_SETS, 'ksdd', small._replace(url='http://127.0.0.1:1/gone'))
    download_data.main(['ksdd', '--dest', str(tmp_path), '--url', server.url, '--sha256', small.sha256.upper()])
    said = capsys.readouterr().out
    assert said.startswith(f'{tmp_path / "KolektorSDD"} (all: 12 images, 3 defective)')
    assert 'CC BY-NC-SA 4.0' in said


@pytest.mark.parametrize(
    'url', ['http://127.0.0.1:1/gone', 'ftp://host/archive', 'archive.zip', 'http://a b/x', 'http://[::1/x']
)
def test_the_command_ends_with_one_sentence(small, tmp_path, url):
    with pytest.raises(SystemExit, match=rf'^{re.escape(url)}: [^\n]*$'):
        download_data.main(['ksdd', '--dest', str(tmp_path), '--url', url])


def test_a_server_that_does_not_have_it(server, small, tmp_path):
    server.content = None
    with pytest.raises(download_data.DownloadError, match='answers 404 Not Found'):
        download_data.download(small, tmp_path)
    assert leftovers(tmp_path) == []

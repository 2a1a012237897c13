import random

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kgl_mm.datasets.checks import file_faults, image_size, some, twins
from kgl_mm.errors import UsageError

SUFFIXES = ['.jpg', '.png', '.bmp', '.tif', '.webp']


@pytest.fixture(params=SUFFIXES)
def file(request, tmp_path, picture):
    return picture(tmp_path / f'a{request.param}', size=(37, 53))


def test_the_size(file):
    assert image_size(file) == image_size(str(file)) == (53, 37)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('part', [0.05, 0.5, 0.99])
def test_a_truncated_file(tmp_path, picture, suffix, part):
    path = picture(tmp_path / f'a{suffix}', size=(90, 120))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(UsageError, match=rf'a{suffix}: .*(truncated|not a readable image)'):
        image_size(path)


@pytest.mark.parametrize('settings', [dict(progressive=True), dict(comment=b'c' * 9000), dict(exif=Image.Exif())])
def test_a_jpeg_out_of_the_ordinary(tmp_path, settings):
    path = tmp_path / 'a.jpg'
    Image.new('L', (53, 37)).save(path, **settings)
    assert image_size(path) == (53, 37)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_what_a_camera_put_behind_an_image_does_no_harm(tmp_path, picture, suffix):
    path = picture(tmp_path / f'a{suffix}', size=(37, 53))
    path.write_bytes(path.read_bytes() + bytes(range(256)) * 40)
    assert image_size(path) == (53, 37)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_photograph_has_the_size_that_opencv_gives_it(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f'a{suffix}'
    Image.new('RGB', (53, 37)).save(path, exif=exif)
    assert image_size(path) == cv2.imread(str(path)).shape[1::-1]


@pytest.mark.parametrize('content', [b'', b'\0', b'image, but in words\n' * 9, b'\xff\xd8\xff\xd9', b'BM'])
@pytest.mark.parametrize('suffix', SUFFIXES)
def test_what_is_no_image(tmp_path, content, suffix):
    path = tmp_path / f'a{suffix}'
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f'a{suffix}: not a readable image file'):
        image_size(path)


@pytest.mark.filterwarnings('ignore')
def test_a_damaged_header_never_ends_in_a_traceback(file):
    data, chance, refused = file.read_bytes(), random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(min(len(data), 200))] = chance.randrange(256)
        file.write_bytes(damaged[: chance.randrange(1, len(data))] if chance.random() < 0.3 else damaged)
        try:
            width, height = image_size(file)
        except UsageError:
            refused += 1
        else:
            assert width >= 0 <= height
    assert refused


@pytest.mark.filterwarnings('error')
def test_what_a_line_camera_takes_has_a_size(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.tif'), np.zeros((13000, 14000), np.uint8))
    assert image_size(tmp_path / 'a.tif') == (14000, 13000)


@pytest.mark.parametrize('make', [lambda path: None, lambda path: path.mkdir()], ids=['nothing', 'folder'])
def test_no_file_at_all(tmp_path, make):
    make(tmp_path / 'a.png')
    with pytest.raises(UsageError, match=r'a\.png: (no such file|not a readable)'):
        image_size(tmp_path / 'a.png')


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'LA', 'RGB', 'RGBA', 'I;16'])
def test_all_depths_are_images(tmp_path, mode):
    picture = Image.fromarray(np.full((37, 53), 300, np.uint16)) if mode == 'I;16' else Image.new(mode, (53, 37))
    picture.save(tmp_path / 'a.png')
    assert file_faults([(str(tmp_path / 'a.png'), str(tmp_path / 'a.png'))]) == []


def test_each_fault_is_named_once(tmp_path, picture):
    good = str(picture(tmp_path / 'good.png'))
    mask = str(picture(tmp_path / 'mask.png', mark=1))
    large = str(picture(tmp_path / 'large.png', size=(12, 9), mark=1))
    (tmp_path / 'empty.png').touch()
    pairs = [(good, None), (good, mask), (good, large), (str(tmp_path / 'empty.png'), mask), (good, 'no/such.png')]
    faults = file_faults(pairs)
    assert [fault.partition(': ')[0] for fault in faults] == [large, str(tmp_path / 'empty.png'), 'no/such.png']
    assert '9x12 and 8x12' in faults[0]


contents = st.lists(st.tuples(st.binary(max_size=2), st.sampled_from(['train', 'val', 'test'])), max_size=25)


@given(contents)
def test_twins_are_equal_files_of_different_splits(tmp_path_factory, contents):
    root = tmp_path_factory.mktemp('twins')
    by_content = {}
    for number, (content, split) in enumerate(contents):
        # longer than what is read from the middle, and different at the end alone
        (root / str(number)).write_bytes(bytes(20000) + content)
        by_content.setdefault(content, []).append((str(root / str(number)), split))
    expected = [sorted(p for p, _ in group) for group in by_content.values() if len({s for _, s in group}) > 1]
    paths = [str(root / str(i)) for i in range(len(contents))]
    assert sorted(twins(paths, [split for _, split in contents])) == sorted(expected)


def test_only_what_could_be_equal_is_read(tmp_path, monkeypatch):
    (tmp_path / 'a').write_bytes(bytes(10))
    (tmp_path / 'b').write_bytes(bytes(11))
    (tmp_path / 'c').write_bytes(bytes(10))
    monkeypatch.setattr('kgl_mm.datasets.checks.hash_of', lambda path: pytest.fail(f'{path} was read'))
    assert twins([str(tmp_path / name) for name in 'abc'], ['train', 'test', 'train']) == []


def test_some():
    assert some([]) == ''
    assert some('abcde') == 'a; b; c; d; e'
    assert some('abcdefg') == 'a; b; c; d; e; and 2 more'


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA'])
@pytest.mark.parametrize('from_the_top', [False, True])
def test_a_bitmap(tmp_path, mode, from_the_top):
    path = tmp_path / 'a.bmp'
    Image.new(mode, (53, 37)).save(path)
    data = bytearray(path.read_bytes())
    if from_the_top:
        data[22:26] = (-37).to_bytes(4, 'little', signed=True)
    path.write_bytes(data)
    assert image_size(path) == cv2.imread(str(path)).shape[1::-1] == (53, 37)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match='truncated'):
        image_size(path)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp'])
def test_ordinary_files_need_no_pillow(tmp_path, picture, monkeypatch, suffix):
    path = picture(tmp_path / f'a{suffix}', size=(37, 53))
    monkeypatch.setattr(Image, 'open', None)
    assert image_size(path) == (53, 37)

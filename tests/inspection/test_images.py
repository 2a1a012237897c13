import os
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from kgl_mm.errors import UsageError
from kgl_mm.image_files import find_images, image_size
from kgl_mm.inspection import Source, sources
from kgl_mm.inspection.images import read_file, to_bgr

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4])
)


@given(st.sampled_from([np.uint8, np.uint16]).flatmap(lambda kind: arrays.arrays(kind, SHAPES)))
def test_an_array_is_what_a_file_of_it_would_be(image):
    coded = cv2.imencode('.png', image)[1]
    np.testing.assert_array_equal(to_bgr(image), cv2.imdecode(coded, cv2.IMREAD_COLOR))


@pytest.mark.parametrize(
    'image', [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)]
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(UsageError, match='image 0: an array of'):
        next(sources(image)).read()


def test_a_photograph_is_turned_upright(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / 'a.jpg', exif=exif)
    assert read_file(tmp_path / 'a.jpg').shape == (30, 20, 3)


def test_folders_lists_and_generators_keep_their_order_and_are_read_lazily(tmp_path):
    image = np.zeros((4, 4), np.uint8)
    (tmp_path / 'b').mkdir()
    for name in ('a.png', 'b/c.png', '.hidden.png', 'notes.txt'):
        (tmp_path / name).write_bytes(b'')
    found = list(sources([tmp_path, str(tmp_path / 'x.png'), image]))
    assert [source.name for source in found] == ['a.png', 'b/c.png', str(tmp_path / 'x.png'), 'image 3']
    assert list(sources(found)) == found
    both = sources([tmp_path, str(tmp_path / 'b')])
    assert [source.name for source in both] == [f'{tmp_path.name}/a.png', f'{tmp_path.name}/b/c.png', 'b/c.png']
    for day in ('b/1', 'b/2'):
        (tmp_path / day / 'cam').mkdir(parents=True)
        (tmp_path / day / 'cam/x.png').write_bytes(b'')
    alike = [str(tmp_path / day / 'cam') for day in ('b/1', 'b/2')]
    assert [source.name for source in sources(alike)] == ['1/cam/x.png', '2/cam/x.png']

    def endless():
        while True:
            yield image

    lazy = sources(endless())
    assert [next(lazy).name for _ in range(3)] == ['image 0', 'image 1', 'image 2']


@pytest.mark.parametrize('images', [None, 3, b'a.png', {'a': 1}, [None]])
def test_what_holds_no_images_is_refused(images):
    with pytest.raises(UsageError, match='is no image'):
        list(sources(images))


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UsageError, match='no images in it'):
        list(sources(tmp_path))


def huge_png(side):
    """A file of some bytes that says it has ``side`` x ``side`` pixels."""
    head = struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
    parts = [(b'IHDR', head), (b'IDAT', zlib.compress(bytes(1000))), (b'IEND', b'')]
    chunks = [struct.pack('>I', len(d)) + n + d + struct.pack('>I', zlib.crc32(n + d)) for n, d in parts]
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


def test_hostile_files_get_one_sentence_each(tmp_path):
    good = cv2.imencode('.png', np.zeros((40, 40), np.uint8))[1].tobytes()
    contents = {
        'empty': b'',
        'text': b'hello',
        'cut': good[:50],
        'huge': huge_png(30000),
        'lie': huge_png(10000),
        'noise': os.urandom(5000),
    }
    for name, content in contents.items():
        (tmp_path / f'{name}.png').write_bytes(content)
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'device.png').symlink_to('/dev/zero')
    (tmp_path / 'dangling.png').symlink_to('nowhere')
    with (tmp_path / 'sparse.png').open('wb') as file:
        file.truncate(2**30 + 1)
    said = {}
    for source in sources(tmp_path):
        with pytest.raises(UsageError) as caught:
            source.read()
        said[source.name] = str(caught.value)
    assert all(text.startswith(f'{name}: ') and '\n' not in text for name, text in said.items())
    assert said['empty.png'] == 'empty.png: the file is empty'
    assert said['huge.png'] == 'huge.png: 30000 x 30000 pixels, more than 268 million'
    assert said['lie.png'].endswith('bytes, which cannot be')
    assert said['pipe.png'] == 'pipe.png: not a file'
    assert said['sparse.png'] == 'sparse.png: larger than 1 GiB'
    assert len(said) == 10


def test_a_part_of_a_file_that_says_it_is_huge_takes_no_memory(tmp_path):
    content = bytearray(cv2.imencode('.png', np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8))[1])
    content[content.index(b'IDAT') - 4] = 0x7F  # two gigabytes
    (tmp_path / 'a.png').write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match='cannot be read as an image'):
        read_file(tmp_path / 'a.png')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100e3


def test_a_picture_that_packs_well_is_read(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((3000, 3000), np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert read_file(tmp_path / 'a.png').shape == (3000, 3000, 3)


def test_an_image_with_another_ending_is_read_by_its_content(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    (tmp_path / 'a.jpg').write_bytes(cv2.imencode('.png', image)[1].tobytes())
    np.testing.assert_array_equal(read_file(tmp_path / 'a.jpg'), image)
    assert Source(tmp_path / 'a.jpg', 'a').content() == (tmp_path / 'a.jpg').read_bytes()


def test_images_of_hidden_folders_are_not_the_users(tmp_path):
    for folder in ('a', '.thumbs', '__MACOSX/a', '@eaDir'):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / '1.png').touch()
    assert find_images(tmp_path) == [f'{tmp_path}/a/1.png']


def test_the_limit_of_pillow_is_that_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 123)
    Image.new('L', (40, 30)).save(tmp_path / 'a.webp')
    assert image_size(tmp_path / 'a.webp') == (40, 30)
    assert Image.MAX_IMAGE_PIXELS == 123

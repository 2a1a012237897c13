import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from kgl_mm.errors import UsageError
from kgl_mm.priors import painted_mask, png

ENTRY = {'size': [2, 3], 'white': 1.0, 'scale': 1 / 65535, 'peak': 1.0, 'key': 'Köln 1.jpg'}
PIXELS = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9000


def test_a_file_describes_itself_and_is_an_ordinary_png(tmp_path):
    data, entry = png.encode(PIXELS, ENTRY)
    assert png.describe(data) == entry == ENTRY | {'pixels': entry['pixels']}
    np.testing.assert_array_equal(png.decode(data), PIXELS)
    (tmp_path / 'map.png').write_bytes(data)
    with Image.open(tmp_path / 'map.png') as image:  # Pillow tests the checksum of every chunk that it reads
        np.testing.assert_array_equal(np.asarray(image), PIXELS)
        assert image.text['kgl_mm'].startswith('{"size": [2, 3]')


def test_the_description_is_void_once_the_pixels_are_others():
    data, _ = png.encode(PIXELS, ENTRY)
    other, _ = png.encode(PIXELS + 1, ENTRY)
    text = data[png.HEADER_END : data.index(b'IDAT') - 4]
    bare = cv2.imencode('.png', PIXELS + 1)[1].tobytes()
    assert png.describe(bare) is None
    assert png.describe(other) is not None
    assert png.describe(bare[: png.HEADER_END] + text + bare[png.HEADER_END :]) is None


def test_every_cut_and_every_changed_byte_is_noticed():
    data, entry = png.encode(PIXELS, ENTRY)
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r'it is cut|it is no PNG'):
            png.describe(data[:end])
    for i in range(len(data)):
        changed = data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]
        with pytest.raises(ValueError, match=r'cut|checksum|no PNG'):
            png.describe(changed)
    assert png.describe(data + b'more') == entry


@pytest.mark.parametrize('text', [b'', b'{', b'[]', b'1', b'{"size": [1, 1]}', b'\xff', b'null'])
def test_a_text_that_is_no_description_is_none(text):
    body = b'tEXt' + png.PREFIX + text
    chunk = struct.pack('>I', len(body) - 4) + body + struct.pack('>I', zlib.crc32(body))
    bare = cv2.imencode('.png', PIXELS)[1].tobytes()
    assert png.describe(bare[: png.HEADER_END] + chunk + bare[png.HEADER_END :]) is None


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(0, 1, width=32)),
    st.floats(1e-8, 1e6),
    st.sampled_from([8, 16]),
)
def test_quantize_is_off_by_half_a_step_at_most(map, factor, bits):
    map = map * np.float32(factor)
    pixels, white = png.quantize(map, bits)
    assert pixels.dtype == f'uint{bits}'
    step = white / (2**bits - 1)
    assert np.abs(pixels * step - map).max() <= step * 0.5001
    assert white == 1 or (white == map.max() and pixels.max() == 2**bits - 1)
    assert white != 1 or map.max() == 0 or pixels.max() >= 64


def test_white_is_one_as_long_as_64_shades_are_left():
    for bits, top in ((8, 255), (16, 65535)):
        for peak, white in ((64.0001 / top, 1), (63.999 / top, 63.999 / top), (1, 1), (1.01, 1.01), (0, 1)):
            assert png.quantize(np.array([[0, peak]]), bits)[1] == white


def test_colour_is_the_brightest_channel_and_alpha_is_nothing():
    assert png.decode(cv2.imencode('.png', np.uint8([[[1, 2, 3, 255], [9, 8, 7, 0]]]))[1].tobytes()).tolist() == [
        [3, 9]
    ]
    assert png.decode(cv2.imencode('.png', np.uint16([[[1, 2, 60000]]]))[1].tobytes()).tolist() == [[60000]]


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'])
def test_whatever_mode_an_editor_writes(mode, tmp_path):
    gray = np.uint8([[0, 255], [255, 0]])
    image = Image.fromarray(gray * np.uint16(257)) if mode == 'I;16' else Image.fromarray(gray).convert(mode)
    image.save(tmp_path / 'map.png')
    pixels = png.decode((tmp_path / 'map.png').read_bytes())
    np.testing.assert_array_equal(pixels / np.iinfo(pixels.dtype).max, gray / 255)


def test_what_is_no_image():
    header = struct.pack('>IIBBBBB', 10**6, 10**6, 16, 0, 0, 0, 0)
    bomb = png.SIGNATURE + b''.join(
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in ((b'IHDR', header), (b'IDAT', b''), (b'IEND', b''))
    )
    assert png.describe(bomb) is None
    for data in (bomb, b'', b'text'):
        with pytest.raises(ValueError, match='cannot be decoded'):
            png.decode(data)


@pytest.mark.parametrize(
    ('map', 'message'),
    [
        (np.zeros((2, 2, 1)), '2-D array'),
        (np.zeros((0, 2)), '2-D array'),
        ('text', '2-D array'),
        (np.zeros((2, 2), complex), '2-D array'),
        ([[np.nan, 1]], 'finite'),
        ([[np.inf, 1]], 'finite'),
        ([[1e39]], 'finite'),
        ([[-1e-9]], 'negative'),
    ],
)
def test_what_is_no_map(map, message):
    with pytest.raises(UsageError, match=message):
        png.as_map(map)


def test_resize_averages_down_interpolates_up_and_names_a_wrong_size():
    map = np.float32([[0, 1], [2, 3]])
    assert png.resize(map, (1, 1)).tolist() == [[1.5]]
    assert png.resize(map, [2, 2]) is map
    grown = png.resize(map, (np.int64(4), 4))
    np.testing.assert_array_equal(grown, cv2.resize(map, (4, 4), interpolation=cv2.INTER_LINEAR))
    for size in ((0, 1), (2,), (2, 2, 2), (1.5, 2), 'ab', 3, None):
        with pytest.raises(UsageError, match=r'\(height, width\)'):
            png.resize(map, size)


def test_resize_stays_within_the_values_of_the_map():
    rng = np.random.default_rng(0)
    for _ in range(300):
        map = np.full(rng.integers(1, 60, 2), rng.random(), np.float32)
        found = png.resize(map, rng.integers(1, 60, 2))
        assert map.min() <= found.min() <= found.max() <= map.max()


@pytest.mark.parametrize('size', [(512, 512), (224, 224), (320, 320), (1408, 512)])
def test_a_mask_that_is_white_all_over_stays_one_at_any_size(size):
    for height, width in ((1200, 1600), (2000, 2000), (1000, 1000)):
        assert painted_mask(png.resize(np.ones((height, width), np.float32), size)).all()

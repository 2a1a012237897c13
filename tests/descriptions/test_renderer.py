import hashlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgl_mm.descriptions import Description, load_descriptions, render, renderer
from kgl_mm.descriptions.shapes import noise
from kgl_mm.errors import UsageError

METAL = load_descriptions('metal')
LINE = Description('plate', 'line', shape='line', length=0.6, width=0.05, orientation=0, contrast=0.5)


def ground(size, dtype=np.uint8, seed=0, channels=None):
    """A surface of some texture in the range of its type."""
    shape = size if channels is None else (*size, channels)
    image = np.random.default_rng(seed).integers(80, 120, shape)
    if np.dtype(dtype).kind == 'f':
        return (image / 255 - seed % 2).astype(dtype)  # some are normalised
    return (image * (np.iinfo(dtype).max // 255)).astype(dtype)


def size_of(map):
    """Length and width of what is marked, by the smallest rectangle around it."""
    return sorted(cv2.minAreaRect(np.argwhere(map > 0.5).astype(np.float32)[:, ::-1])[1], reverse=True)


@settings(max_examples=120, deadline=None, database=None)
@given(
    record=st.sampled_from(METAL),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    channels=st.sampled_from([None, 1, 2, 3, 4]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float16, np.float32, np.float64]),
    seed=st.integers(0, 2**20),
)
def test_the_map_is_exactly_where_the_image_changed(record, size, channels, dtype, seed):
    image = ground(size, dtype, seed, channels)
    before = image.copy()
    drawn, map = render(image, record, seed)
    assert np.array_equal(image, before)
    assert (drawn.shape, drawn.dtype) == (image.shape, image.dtype)
    assert (map.shape, map.dtype) == (size, np.float32)
    assert map.min() >= 0
    assert map.max() == 1
    assert np.array_equal(drawn[map == 0], image[map == 0])
    if channels in (2, 4):
        assert np.array_equal(drawn[..., -1], image[..., -1])
    assert np.isfinite(drawn.astype(np.float64)).all()
    again, same = render(image, record, seed)
    assert np.array_equal(again, drawn)
    assert np.array_equal(same, map)


@pytest.mark.parametrize('tone', ['dark', 'bright'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float64])
def test_the_image_is_mixed_with_the_map(tone, dtype):
    """On an even ground the paint is a multiple of the ground's level, about 1 -/+ the contrast."""
    level = dict(u=np.iinfo(dtype).max // 3 if np.dtype(dtype).kind == 'u' else 0, f=0.4)[np.dtype(dtype).kind]
    record = Description('plate', 'spot', tone=tone, contrast=0.4, length=0.5, edge='soft', texture='smooth')
    drawn, map = render(np.full((60, 80), level, dtype), record, 3)
    change = (drawn.astype(np.float64) - level) / level * (1 if tone == 'bright' else -1)
    strength = change[map > 0.2] / map[map > 0.2]
    assert 0.3 < strength.min() < strength.max() < 0.5  # 15 % of texture on 0.4
    assert (change[map > 0.05] > 0).all()


def test_light_and_dark():
    drawn, map = render(np.full((60, 80), 100, np.uint8), Description('plate', 'dent', tone='mixed', length=0.6), 1)
    assert drawn[map > 0.5].min() < 90
    assert drawn[map > 0.5].max() > 110


def test_contrast_is_never_lost_in_texture_or_black():
    noisy = np.random.default_rng(0).integers(0, 256, (80, 80)).astype(np.uint8)
    drawn, map = render(noisy, Description('plate', 'spot', tone='bright', contrast=0.5, length=0.4), 0)
    assert drawn[map == 1].mean() - noisy[map == 1].mean() > 60
    for dtype, white in [(np.uint8, 255), (np.float32, 1)]:
        drawn, map = render(np.zeros((40, 40), dtype), Description('plate', 'spot', tone='bright', contrast=0.5), 0)
        assert drawn[map == 1].max() > 0.03 * white


def test_twelve_bits_in_sixteen_and_normalised_floats_keep_their_range():
    image = np.random.default_rng(0).integers(1500, 3500, (60, 60)).astype(np.uint16)
    assert render(image, Description('plate', 'spot', tone='bright', contrast=1, length=0.5), 0)[0].max() <= 4095
    normal = np.random.default_rng(0).standard_normal((60, 60)).astype(np.float32)
    drawn, map = render(normal, Description('plate', 'spot', tone='dark', contrast=1, length=0.5), 0)
    assert -20 < drawn[map == 1].mean() < -3


@pytest.mark.parametrize('white', [1, 255])
def test_a_pixel_above_white_does_not_stretch_the_range(white):
    image = np.random.default_rng(0).uniform(0.3, 0.6, (60, 60)).astype(np.float32) * white
    image[0, 0] = 1.01 * white
    drawn, map = render(image, Description('plate', 'spot', tone='bright', contrast=1, length=0.5), 0)
    assert 0.8 * white < drawn[map == 1].mean() <= 1.01 * white
    assert drawn.max() <= image.max()


def test_half_a_number_of_bits_stays_finite():
    image = np.full((30, 30), np.finfo(np.float16).max, np.float16)
    for seed, record in enumerate(load_descriptions('metal')):
        assert np.isfinite(render(image, record, seed)[0]).all()


def test_many_defects_do_not_add_up_in_images_without_white():
    image = np.random.default_rng(0).standard_normal((40, 40))
    drawn, _ = render(image, Description('plate', 'spot', tone='bright', contrast=1, length=0.7, count=200), 0)
    assert drawn.max() <= 2 * image.max() - image.min()


def test_colours_keep_their_proportions():
    image = np.full((50, 50, 3), (40, 80, 160), np.uint8)
    drawn, map = render(image, Description('plate', 'spot', contrast=0.5, length=0.5), 0)
    change = (image.astype(float) - drawn)[map == 1].mean(0)
    assert change[2] / change[1] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ('shape', 'length', 'width', 'tolerance'),
    [
        ('line', 0.6, 0.03, 0.25),
        ('blob', 0.5, 0.2, 0.3),
        ('patch', 0.6, 0.4, 0.45),
        ('band', 0.8, 0.1, 0.2),
        ('ring', 0.5, 0.04, 0.2),
    ],
)
def test_length_and_width_are_shares_of_the_shorter_side(shape, length, width, tolerance):
    for seed in range(4):
        record = Description('plate', 'x', shape=shape, length=length, width=width)
        map = whole(record, (200, 300), seed)
        found = size_of(map)
        assert found[0] == pytest.approx(length * 200, rel=tolerance)
        if shape in ('blob', 'patch', 'band'):
            assert found[1] == pytest.approx(width * 200, rel=tolerance)
        else:
            assert (map > 0.5).sum() < 8 * length * width * 200**2


def whole(record, size, seed):
    """The map of a defect that the border does not cut."""
    for more in range(20):
        map = render(np.full(size, 100, np.uint8), record, (seed, more))[1]
        border = np.concatenate([map[0], map[-1], map[:, 0], map[:, -1]])
        if not border.any():
            return map
    raise AssertionError(record)


@pytest.mark.parametrize('angle', [0, 30, 90, 135, -45])
@pytest.mark.parametrize('shape', ['line', 'band', 'blob'])
def test_orientation_is_counterclockwise_from_the_horizontal(shape, angle):
    record = Description('plate', 'x', shape=shape, length=0.6, width=0.08, orientation=angle)
    rows, columns = np.nonzero(whole(record, (200, 220), 0) > 0.5)
    axes = np.linalg.svd(np.stack([columns - columns.mean(), rows.mean() - rows]), full_matrices=False)[0]
    found = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
    assert abs((found - angle + 90) % 180 - 90) < 12


def test_count():
    record = Description('plate', 'pit', length=0.03, count=(5, 9), edge='sharp')
    numbers = set()
    for seed in range(12):
        map = render(np.full((300, 300), 100, np.uint8), record, seed)[1]
        numbers.add(cv2.connectedComponents((map > 0).astype(np.uint8))[0] - 1)
    assert max(numbers) <= 9
    assert len(numbers) > 2
    assert max(numbers) >= 6


def test_edges_and_textures():
    sharp, soft = (whole(Description('p', 'x', length=0.3, edge=edge), (200, 200), 1) for edge in ('sharp', 'soft'))
    between = [((map > 0.1) & (map < 0.9)).sum() / (map > 0).sum() for map in (sharp, soft)]
    assert between[0] < 0.15 < 0.3 < between[1]
    parts = {}
    for texture in ('smooth', 'rough', 'speckled'):
        map = whole(Description('p', 'x', shape='patch', length=0.7, texture=texture), (150, 150), 2)
        parts[texture] = cv2.connectedComponents((map > 0.5).astype(np.uint8))[0] - 1
    assert parts['smooth'] <= parts['rough'] < parts['speckled']
    bend = {}
    for texture in ('smooth', 'rough'):
        record = Description('p', 'x', shape='line', length=0.7, width=0.01, orientation=0, texture=texture)
        rows = [np.nonzero(column > 0.3)[0].mean() for column in whole(record, (200, 200), 0).T if (column > 0.3).any()]
        bend[texture] = np.abs(np.diff(rows, 2)).mean()
    assert bend['smooth'] < bend['rough'] / 2


def test_seeds_differ_and_threads_do_not():
    image = ground((90, 110))
    maps = {seed: render(image, METAL[0], seed)[1].tobytes() for seed in (0, 1, (0, 1))}
    assert len(set(maps.values())) == 3
    before = cv2.getNumThreads()
    big = ground((600, 700))
    try:
        found = []
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            found.append([hashlib.sha256(render(big, record, 5)[0]).hexdigest() for record in METAL])
    finally:
        cv2.setNumThreads(before)
    assert found[0] == found[1]


def test_the_global_states_of_chance_are_left_alone():
    np.random.seed(0)
    expected = np.random.random_sample()
    np.random.seed(0)
    render(ground((20, 20)), METAL[3], 0)
    assert np.random.random_sample() == expected


def test_what_covers_no_pixel_gets_one(monkeypatch):
    monkeypatch.setattr(
        renderer, 'fill', lambda shape, box, blur: np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
    )
    for record in METAL:
        if record.texture != 'speckled' and record.shape != 'patch' and record.count == (1, 1):
            assert render(ground((20, 30)), record, 0)[1].sum() == 1


def test_noise_is_even():
    values = noise(np.random.default_rng(0), (400, 300), 7)
    assert values.shape == (400, 300)
    assert abs(values.mean() - 127.5) < 3
    assert noise(np.random.default_rng(0), (1, 1), 50).shape == (1, 1)


@pytest.mark.parametrize(
    ('image', 'record', 'seed', 'sentence'),
    [
        (np.zeros((0, 5), np.uint8), LINE, 0, r'shape \(0, 5\)'),
        (np.zeros(5, np.uint8), LINE, 0, 'give H x W or H x W x C'),
        (np.zeros((5, 5, 5), np.uint8), LINE, 0, 'it has 5 channels'),
        (np.zeros((5, 5), np.int64), LINE, 0, 'int64: give uint8, uint16 or floats'),
        (np.zeros((5, 5), np.uint32), LINE, 0, 'uint32: give'),
        (np.zeros((5, 5), bool), LINE, 0, 'bool: give'),
        (np.full((5, 5), np.nan), LINE, 0, 'not finite'),
        ('image', LINE, 0, 'nothing can be drawn on it'),
        (np.zeros((5, 5), np.uint8), 'a line', 0, "'a line': not a Description"),
        (np.zeros((5, 5), np.uint8), LINE, -1, 'seed=-1'),
        (np.zeros((5, 5), np.uint8), LINE, None, 'seed=None'),
        (np.zeros((5, 5), np.uint8), LINE, 'x', "seed='x'"),
    ],
)
def test_what_cannot_be_drawn(image, record, seed, sentence):
    with pytest.raises(UsageError, match=sentence):
        render(image, record, seed)

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgl_mm.descriptions import Description, parse
from kgl_mm.descriptions.vocabulary import EDGES, SHAPES, TEXTURES, TONES
from kgl_mm.errors import UsageError

NAMES = st.sampled_from(['steel plate', 'Lötstelle', 'weld-seam 3', "plate's rim", 'x'])
KINDS = st.sampled_from(['crack', 'Kratzer', 'rolled-in scale', 'odd mark', 'band', 'not dark'])


def ranges(low, high):
    ends = st.tuples(*[st.floats(low, high)] * 2)
    return ends.map(lambda pair: (min(pair), max(pair)))


DESCRIPTIONS = st.builds(
    Description,
    object=NAMES,
    kind=KINDS,
    tone=st.sampled_from(TONES),
    contrast=ranges(0.001, 1),
    shape=st.sampled_from(SHAPES),
    length=ranges(0.0001, 2),
    width=ranges(0.0001, 2),
    orientation=st.just('any') | ranges(-90, 180),
    edge=st.sampled_from(EDGES),
    texture=st.sampled_from(TEXTURES),
    count=st.tuples(st.integers(1, 40), st.integers(0, 40)).map(lambda pair: (pair[0], sum(pair))),
)


def test_the_sentence():
    record = Description('steel plate', 'crack', tone='mixed', shape='patch', length=0.5, orientation=90, count=3)
    assert record.sentence() == (
        'steel plate with crack defect, it appears as three clear dark and bright patches, large and oval, vertical, '
        'with sharp edges and a smooth texture'
    )
    assert record.sentence().endswith(record.features())


def test_what_is_not_said_is_usual():
    blob, band = Description('plate', 'spot'), Description('plate', 'mark', shape='band')
    assert blob.shape == 'blob'
    assert blob.length == blob.width == (0.03, 0.1)
    assert band.width == (0.05, 0.15)
    assert Description('plate', 'spot', shape='patch', length=0.5).width == (0.3, 0.3)
    for length, width in [(0.1, 0.3), (0.3, 0.1)]:
        assert 'elongated' in Description('plate', 'spot', length=length, width=width).features()


def test_one_number_stands_for_both_ends():
    record = Description('plate', 'line', length=1, width=[0.1, 1], count=2)
    assert record.length == (1.0, 1.0)
    assert record.count == (2, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.count = 3


@settings(max_examples=150, deadline=None, database=None)
@given(DESCRIPTIONS)
def test_a_sentence_gives_a_record_of_the_same_words(record):
    again, left = parse(record.sentence())
    assert left == []
    assert again.sentence() == record.sentence()
    for name in ('object', 'kind', 'tone', 'shape', 'edge', 'texture'):
        assert getattr(again, name) == getattr(record, name)
    # what is made of words alone is the same record, not only one of the same words
    assert parse(again.sentence()) == (again, [])


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(object=''), "object='': not a name in plain words"),
        (dict(object=None), 'object=None: not a name'),
        (dict(kind='a crack'), "kind='a crack': leave out a, at which"),
        (dict(kind='crack, deep'), 'kind='),
        (dict(object='plate with holes'), 'leave out with'),
        (dict(object='what is it'), 'leave out is, it'),
        (dict(tone='red'), "tone='red': not one of dark, bright, mixed"),
        (dict(shape='square'), 'not one of line, blob, patch, band, ring'),
        (dict(edge='rough'), 'not one of sharp, soft'),
        (dict(texture=1), 'texture=1: not one of smooth, rough, speckled'),
        (dict(contrast=0), r'contrast=0: not a number from 0.001 to 1'),
        (dict(contrast=[0.1, 1.5]), r'contrast=1.5'),
        (dict(length=[0.5, 0.1]), r'length=\[0.5, 0.1\]: the first of the two'),
        (dict(length=[0.1, 0.2, 0.3]), 'not a number nor a pair'),
        (dict(length='long'), "length='long': not a number nor a pair"),
        (dict(width=math.nan), 'width=nan'),
        (dict(width=math.inf), 'width=inf'),
        (dict(width=True), 'width=True'),
        (dict(orientation='across'), "orientation='across': not a range of degrees, nor 'any'"),
        (dict(orientation=[0, 270]), 'orientation=270: not a number from -180 to 180'),
        (dict(count=0), 'count=0: not a whole number from 1 to 200'),
        (dict(count=[1, 2.5]), 'count=2.5: not a whole number'),
    ],
)
def test_a_mistake_is_named(change, sentence):
    with pytest.raises(UsageError, match=sentence) as error:
        Description(**dict(dict(object='plate', kind='crack'), **change))
    assert '\n' not in str(error.value)

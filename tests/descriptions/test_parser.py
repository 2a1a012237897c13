import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgl_mm.descriptions import Description, load_descriptions, parse, parser, suggestions
from kgl_mm.descriptions.vocabulary import FILLING, NOT, SCALES, STRONGER, WEAKER, table
from kgl_mm.errors import UsageError

DOCS = Path(__file__).parents[2] / 'docs/descriptions.md'
EXPECTED = Description(
    'steel plate',
    'flaw',
    tone='bright',
    contrast=(0.08, 0.18),
    shape='line',
    length=(0.7, 1.5),
    width=(0.007, 0.02),
    orientation=(80, 100),
    edge='soft',
    texture='rough',
    count=(4, 8),
)


def test_all_fields():
    sentence = (
        'steel plate with flaw defect, it appears as several slightly bright lines, very long and thin, vertical, with '
        'soft edges and a rough texture'
    )
    assert parse(sentence) == (EXPECTED, [])


WORDS = ['slightly bright', 'lines', 'very long', 'thin', 'vertical', 'soft edges', 'a rough texture', 'several']
NAMED = 'A steel plate with a flaw defect'


@settings(max_examples=40, deadline=None, database=None)
@given(st.permutations(WORDS), st.sampled_from([' ', ', ', ' and ', '; ']), st.sampled_from(['first', 'last']))
def test_in_any_order(words, separator, place):
    features = separator.join(words)
    parts = [NAMED, f'it appears as {features}']
    assert parse(', '.join(parts if place == 'first' else parts[::-1])) == (EXPECTED, [])
    assert parse(f'It looks like {features} on steel plate, with flaw defect'.upper().lower())[0].shape == 'line'


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ('dark line', dict(tone='dark', shape='line')),
        ('darker streaks', dict(tone='dark', shape='line', count=(4, 8))),
        ('a few dark spots', dict(shape='blob', count=(2, 4))),
        ('a black stripe', dict(tone='dark', shape='band', count=(1, 1))),
        ('dark and bright halo', dict(tone='mixed', shape='ring')),
        ('light and dark stains', dict(tone='mixed', shape='patch')),
        ('very dark spot', dict(tone='dark', contrast=(0.4, 0.7))),
        ('slightly dark spot', dict(tone='dark', contrast=(0.08, 0.18))),
        ('low-contrast bright spot', dict(tone='bright', contrast=(0.08, 0.18))),
        ('very faint spot', dict(contrast=(0.04, 0.08))),
        ('very strong spot', dict(contrast=(0.7, 0.95))),
        ('hair-thin line', dict(width=(0.003, 0.007))),
        ('very thin line', dict(width=(0.003, 0.007))),
        ('slightly thin line', dict(width=(0.007, 0.02))),
        ('very broad band', dict(width=(0.15, 0.4))),
        ('very small spot', dict(length=(0.01, 0.03), width=(0.01, 0.03))),
        ('large elongated spot', dict(length=(0.3, 0.7), width=(0.3 * 0.3, 0.3 * 0.7))),
        ('thin large spot', dict(length=(0.3, 0.7), width=(0.3 * 0.3, 0.3 * 0.7))),
        ('12 dots', dict(shape='blob', count=(12, 12))),
        ('two dots', dict(count=(2, 2))),
        ('very many dots', dict(count=(20, 50))),
        ('diagonal line', dict(orientation=(35, 55))),
        ('smooth edges', dict(edge='soft', texture='smooth')),
        ('smooth', dict(edge='sharp', texture='smooth')),
        ('ragged edge', dict(edge='sharp', texture='rough')),
        ('grainy patch', dict(texture='speckled')),
    ],
)
def test_words(words, expected):
    record, left = parse(f'plate with oddity defect, it appears as {words}')
    assert left == []
    for name, value in expected.items():
        assert getattr(record, name) == pytest.approx(value), name


@pytest.mark.parametrize(
    ('sentence', 'left'),
    [
        ('plate with oddity defect, a purple dark line of doom', ['purple', 'doom']),
        ('plate with oddity defect, a dark line that is not bright', ['not', 'bright']),
        ('plate with oddity defect, a line without very sharp edges', ['without', 'very', 'sharp', 'edges']),
        ('plate with oddity defect, long short line', ['short']),
        ('plate with oddity defect, a very sharp line', ['very']),
        ('plate with oddity defect, dark line, very', ['very']),
        ('plate with oddity defect, very 3 dark lines', ['very']),
        ('plate with oddity defect, dark bend', ['bend']),
        ('plate with oddity defect, 7000 dark lines', ['7000']),
        ('plate with oddity defect, line ünbekannt 漢字', ['ünbekannt', '漢字']),
        ('plate with scratch defect, 30 % darker', ['30 %']),
        ('plate with scratch defect, 0.5 mm wide', ['0.5 mm']),
        ('plate with scratch defect, 3mm long and 2,5 wide', ['3mm', '2,5']),
        ('plate with scratch defect, a line at 45° and 2" long', ['45°', '2"']),
        ('plate with scratch defect, 45-degree angles, 10 microns wide', ['45 degree', 'angles', '10 microns']),
        ('plate with oddity defect, very foo sharp line, not qux dark', ['very', 'foo', 'not', 'qux', 'dark']),
        (f'plate with scratch defect, {"9" * 500}', ['9' * 500]),
    ],
)
def test_what_is_not_understood_is_left_over_in_order(sentence, left):
    assert parse(sentence)[1] == left


@pytest.mark.parametrize(
    ('wrong', 'right'),
    [
        ('brigth', 'bright'), ('brght', 'bright'), ('brightt', 'bright'), ('birght', 'bright'), ('drak', 'dark'),
        ('lnie', 'line'), ('smoot', 'smooth'), ('horizontel', 'horizontal'), ('speckeld', 'speckled'),
    ],
)  # fmt: skip
def test_a_slip_is_understood(wrong, right):
    assert parse(f'plate with oddity defect, a {wrong}') == parse(f'plate with oddity defect, a {right}')


@pytest.mark.parametrize(
    'word',
    [
        'shart',
        'longe',
        'sport',
        'bond',
        'drkk',
        'sm',
        'drik',
        'right',
        'night',
        'track',
        'pitch',
        'match',
        'share',
        'blank',
        'found',
        'grain',
        'thing',
        'board',
        'course',
        'plane',
        'whole',
        'smell',
        'wire',
        'fire',
    ],
)
def test_what_may_be_two_words_or_is_short_is_not_guessed(word):
    assert parse(f'plate with oddity defect, dark spot {word}')[1] == [word]


def test_every_word_is_understood():
    for phrase, (field, name) in table().items():
        record, left = parse(f'plate with oddity defect, {phrase}')
        assert left == [], phrase
        if field in ('shape', 'tone', 'edge', 'texture'):
            assert getattr(record, field) == name
    assert parse('plate with oddity defect, dark ' + ' '.join(FILLING))[1] == []


def test_a_known_kind_is_the_start():
    shipped = {record.kind: record for record in load_descriptions('metal')}
    record, left = parse('brass with pitting defect, it appears as bright')
    assert left == []
    assert record.count == shipped['pitting'].count
    assert record.length == shipped['pitting'].length
    assert (record.object, record.tone) == ('brass', 'bright')
    record, _ = parse('brass with pitting defect, large')
    assert record.length == (0.3, 0.7)
    assert record.width == (0.3, 0.7)  # as round as it was
    record, _ = parse('brass with scratch defect, it appears as a ring')
    assert record.length == (0.1, 0.3)  # that of a ring, since a scratch's does not fit


@pytest.mark.parametrize(
    'sentence',
    [
        'brass with scratch defect', 'brass with scratch defects.', 'Scratches on brass', 'a scratch on the brass',
        'brass with scrathc defect', 'with scratch defect on brass', 'on brass, a scratch', 'it has scratches on brass',
    ],
)  # fmt: skip
def test_a_kind_and_its_object_in_other_words(sentence):
    expected = next(record for record in load_descriptions('metal') if record.kind == 'scratch')
    record, left = parse(sentence)
    assert left == []
    assert (record.object, record.kind) == ('brass', 'scratch')
    assert record.length == expected.length


@pytest.mark.parametrize(
    ('kind', 'features', 'expected'),
    [
        ('longitudinal crack', 'thin', dict(shape='line')),
        ('edge cracks', 'dark', dict(shape='line', count=(4, 8))),
        ('deep scratch', '', dict(shape='line', contrast=(0.4, 0.7))),
        ('oil stain', '', dict(shape='patch')),
        ('pit', '', dict(shape='blob')),
        ('thin dark line', '', dict(shape='line', width=(0.007, 0.02))),
        ('white spot', 'dark', dict(shape='blob', tone='dark')),
    ],
)
def test_the_words_of_a_kind_are_a_start_too(kind, features, expected):
    record, left = parse(f'weld with {kind} defect, {features}')
    assert (record.kind, left) == (kind, [])
    for name, value in expected.items():
        assert getattr(record, name) == value, name


def test_a_kind_of_several_words_begins_with_the_shipped_one():
    for sentence in ('steel with longitudinal crack defect', 'longitudinal crack on steel'):
        record = parse(sentence)[0]
        assert (record.length, record.contrast, record.texture) == ((0.2, 0.9), (0.25, 0.7), 'rough')
    assert parse('steel with deep scratch defect')[0].tone == 'bright'


def test_a_patch_is_a_shape_and_patches_are_a_kind():
    patch, region = (parse(f'a dark {word} on steel')[0] for word in ('patch', 'region'))
    assert patch == replace(region, kind='patch')
    assert parse('patches on steel')[0].tone == 'mixed'
    assert parse('a patchy line on glass')[1] == ['patchy']


def test_no_sentence_has_thousands_of_letters():
    with pytest.raises(UsageError, match='it has 10005 letters, of 1000 at most'):
        parse('dark ' + 'with ' * 2000)


def test_nonsense_does_not_take_cubic_time(monkeypatch):
    monkeypatch.setattr(parser, 'MOST_LETTERS', 10_000)

    def seconds(number):
        start = time.process_time()
        parse('with ' * number + 'dark')
        return time.process_time() - start

    short, long = (min(seconds(number) for _ in range(3)) for number in (200, 800))
    assert long < 35 * short  # four times as long: 16 times is quadratic, 64 cubic


def test_names_stay_as_they_are_written():
    record, left = parse('KolektorSDD commutator with Haarriss defect, it appears as a thin line')
    assert left == []
    assert (record.object, record.kind) == ('KolektorSDD commutator', 'Haarriss')
    assert parse('a dark band')[0].object == 'surface'
    assert parse('rolled-in scale on steel')[0].kind == 'rolled-in scale'
    assert parse('steel with flaw defect, it appears as water marks')[0].shape == 'ring'


@pytest.mark.parametrize(
    'sentence', ['', '  ', None, 7, 'lorem ipsum dolor', 'steel with flaw defect', '!!!', 'very', 'not dark',
                 'it is as', '\U0001df1f' * 60, 'asdf with qwer defect, it appears as zxcv', 'defect']
)  # fmt: skip
def test_a_senseless_sentence_is_refused(sentence):
    with pytest.raises(UsageError, match=r'such as "steel plate|write, for example, "steel plate') as error:
        parse(sentence)
    assert '\n' not in str(error.value)
    assert len(str(error.value)) < 250


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.lists(
        st.sampled_from(
            [*table(), *STRONGER, *WEAKER, *NOT, *sorted(FILLING), 'with crack defect', ',', 'xyz', 'on', '3']
        )
    ).map(' '.join)
    | st.text(max_size=60)
)
def test_whatever_is_said_gives_a_record_or_one_sentence(sentence):
    try:
        record, left = parse(sentence)
    except UsageError as error:
        said = str(error)
        assert '\n' not in said.strip() and len(said) < 250, said  # noqa: PT018
        return
    assert parse(record.sentence()) == (parse(record.sentence())[0], [])
    assert parse(record.sentence())[0].sentence() == record.sentence()
    assert ' '.join(left).split() == [word for part in left for word in part.split()]
    assert all(part in sentence.replace('-', ' ') for part in left)


def test_suggestions():
    assert suggestions(['stripey', 'xyz']) == 'stripey (stripe?), xyz'


def test_every_word_is_in_the_docs():
    text = DOCS.read_text()
    told = {
        word.strip()
        for line in text.splitlines()
        if line.startswith('|')
        for cell in line.split('|')
        for word in cell.split(',')
    }
    for word in [*table(), *STRONGER, *WEAKER, *NOT]:
        assert word in told, word
    for scale in SCALES.values():
        for name in scale:
            assert name in told, name

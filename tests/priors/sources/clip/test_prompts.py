import pytest

from kgl_mm.descriptions import load_descriptions, parse
from kgl_mm.errors import UsageError
from kgl_mm.priors.sources.clip import prompts, wordings
from kgl_mm.priors.sources.clip.prompts import DEFECTIVE, GOOD, PICTURES


def test_each_state_is_in_each_picture():
    good, defective, nothing = prompts('steel {tube}', ['crack', 'dent'], ['a tube, bent.'])
    assert len(good) == (len(GOOD) + 2) * len(PICTURES)
    assert len(defective) == (len(DEFECTIVE) + 1) * len(PICTURES)
    assert len(nothing) == len(PICTURES)
    for group in (good, defective, nothing):
        assert len(set(group)) == len(group)
    assert all('steel {tube}' in text for text in good)
    assert 'a photo of the steel {tube} free of any dent.' in good
    assert 'a photo of the a tube, bent.' in defective
    assert not any('tube' in text for text in nothing)
    assert [len(group) // len(PICTURES) for group in prompts('tube')] == [len(GOOD), len(DEFECTIVE), 1]


def test_descriptions_are_about_the_object():
    records = load_descriptions('metal')
    kinds, sentences = wordings('metal', 'brass tube')
    assert kinds == list(dict.fromkeys(record.kind for record in records))
    for sentence, record in zip(sentences, records, strict=True):
        again, left = parse(sentence)
        assert (again.object, again.kind, left) == ('brass tube', record.kind, [])


def test_a_file_of_descriptions_and_records(tmp_path):
    path = tmp_path / 'own.yaml'
    path.write_text('- plate with dent defect, it appears as a round dark spot\n- dent on plate\n')
    kinds, sentences = wordings(path, 'tube')
    assert kinds == ['dent']
    assert all(sentence.startswith('tube with dent defect, it appears as ') for sentence in sentences)
    assert wordings(str(path), 'tube') == wordings(load_descriptions(path), 'tube') == (kinds, sentences)
    assert wordings([dict(object='plate', kind='crack', shape='line')], 'tube')[0] == ['crack']


def test_sentences_are_taken_as_they_are():
    sentences = ['it looks odd', 'plate with crack defect, it appears as a wiggly line', 'scratch on plate']
    assert wordings(sentences, 'tube') == (['crack', 'scratch'], sentences)
    assert wordings(['scratch_on_plate '], 'tube') == (['scratch'], ['scratch on plate'])
    assert wordings(None, 'tube') == wordings([], 'tube') == ([], [])


@pytest.mark.parametrize(
    ('given', 'sentence'),
    [
        (['a dent', 5], 'entry 2: 5 is no sentence'),
        ([' '], 'entry 1'),
        (['acrack'], "entry 1: 'acrack' is no sentence; in a command write _ for spaces"),
        ('absent', 'absent'),
    ],
)
def test_what_describes_nothing_is_refused(given, sentence):
    with pytest.raises(UsageError, match=sentence):
        wordings(given, 'tube')

from dataclasses import replace

import pytest

from kgl_mm.descriptions import Description, as_descriptions, files, load_descriptions, parse
from kgl_mm.descriptions.files import SHIPPED
from kgl_mm.errors import UsageError

RECORD = '- {object: plate, kind: crack, shape: line, length: [0.1, 0.5], count: 3}\n'
SENTENCE = '- plate with crack defect, it appears as a thin dark line\n'


@pytest.fixture
def write(tmp_path):
    def write(text, name='own.yaml'):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def test_records_and_sentences_in_one_file(write):
    expected = [
        Description('plate', 'crack', shape='line', length=(0.1, 0.5), count=3),
        parse('plate with crack defect, it appears as a thin dark line')[0],
    ]
    path = write(RECORD + SENTENCE)
    assert load_descriptions(path) == load_descriptions(str(path)) == as_descriptions(path) == expected


def test_a_dozen_are_shipped():
    records = load_descriptions('metal')
    assert len(records) >= 12
    assert len({record.kind for record in records}) == len(records)
    assert {record.shape for record in records} == {'line', 'blob', 'patch', 'band', 'ring'}
    assert {record.tone for record in records} == {'dark', 'bright', 'mixed'}
    for record in records:
        assert parse(record.sentence())[1] == []


def test_an_own_file_comes_before_the_shipped_one(write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'metal').mkdir()
    assert load_descriptions('metal') == load_descriptions(SHIPPED / 'metal.yaml')  # not what may be a store
    (tmp_path / 'metal').rmdir()
    write(RECORD, 'metal')
    assert len(load_descriptions('metal')) == 1
    files.shipped_kinds.cache_clear()
    assert len(files.shipped_kinds()) >= 12  # what the parser knows is the package's


def test_as_options_of_configs_have_them(tmp_path):
    record = Description('plate', 'crack', shape='line')
    as_dict = dict(object='plate', kind='crack', shape='line')
    sentence = 'plate with crack defect, it appears as a thin dark line'
    assert as_descriptions([record, as_dict, sentence]) == [record, record, parse(sentence)[0]]
    assert as_descriptions(sentence) == [parse(sentence)[0]]
    assert as_descriptions(record) == [record]
    assert as_descriptions('metal') == load_descriptions('metal')
    own = tmp_path / 'my own.yaml'
    own.write_text(f'- {sentence}\n- &base {{object: plate, kind: crack, shape: line}}\n- {{<<: *base, kind: dent}}\n')
    found = as_descriptions(str(own))
    assert found[:2] == [parse(sentence)[0], record]
    assert found[2] == replace(record, kind='dent')
    with pytest.raises(UsageError, match='descriptions: there is none'):
        as_descriptions([])
    with pytest.raises(UsageError, match=r'descriptions, entry 2: neither a record'):
        as_descriptions([record, 3])


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('', 'own.yaml: not a list of descriptions'),
        ('object: plate\nkind: crack\n', 'own.yaml: not a list of descriptions'),
        ('- {object: plate', r'own.yaml, line \d: not YAML'),
        (b'\xff\xfe\x00', 'own.yaml: cannot be read'),
        (RECORD + '- 3\n', 'own.yaml, entry 2: neither a record'),
        (RECORD + '- kind: crack\n', r'own.yaml, entry 2 \(crack\): object is missing'),
        (
            '- {object: plate, kind: crack, lenght: 1}',
            r'entry 1 \(crack\): lenght: no such field, meant is length; there',
        ),
        ('- {object: plate, kind: crack, 7: 1}', r'entry 1 \(crack\): 7: no such field; there are object, kind'),
        ('- {object: plate, kind: crack, tone: red}', r"entry 1 \(crack\): tone='red': not one of dark, bright, mixed"),
        ('- {object: plate, kind: crack, tone:}', r'entry 1 \(crack\): tone has no value'),
        ('- {object: plate, kind: no}', r'entry 1: kind=False: not a name'),
        ('- {object: plate, kind: crack, length: long}', r"length='long'"),
        ('- {object: plate, kind: crack, length: 2024-99-99}', r'own.yaml: not YAML \(month must be'),
        ('[' * 3000, 'own.yaml: not YAML'),
        ('- {object: plate, kind: crack, kind: dent}', r'own.yaml, line 1: not YAML \(kind is given twice\)'),
        ('- plate with crack defect, it appears as purpel line', r"entry 1: not understood in 'plate with .*': purpel"),
        ('- lorem ipsum', "entry 1: 'lorem ipsum': no word of it"),
        ('- !!python/object/apply:os.getcwd []', 'not YAML'),
    ],
)
def test_a_mistake_is_said_with_its_place(write, text, sentence):
    with pytest.raises(UsageError, match=sentence) as error:
        load_descriptions(write(text))
    assert '\n' not in str(error.value)


def test_a_file_that_is_not_there():
    with pytest.raises(UsageError, match=r'absent.yaml: cannot be read .*, or the name of shipped ones: metal$'):
        load_descriptions('absent.yaml')
    with pytest.raises(UsageError, match=r'dark spots.yml: cannot be read'):
        as_descriptions('dark spots.yml')

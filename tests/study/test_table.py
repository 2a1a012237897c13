import pytest

from kgl_mm.errors import UsageError
from kgl_mm.files import write_json
from kgl_mm.study import table as module
from kgl_mm.study.plan import Cell, Origin
from kgl_mm.study.summary import groups_of, summarise
from kgl_mm.study.table import Table, read_table

KEY = Origin('key', 'SlimVGG')
CELL = Cell(0, 1, {'model.head.channel': 'none'})


@pytest.fixture
def folder(tmp_path):
    write_json(tmp_path / 'run.json', dict(seconds=3.5, commit='abc', machine='a', versions=dict(torch='2.15')))
    write_json(tmp_path / 'metrics.json', dict(stage2=dict(test=dict(AP=0.75, FN=2, num_images=9), val=dict(AP=0.5))))
    write_json(tmp_path / 'state.json', dict(stages=dict(stage2=dict(done=True, trust=0.5))))
    return tmp_path


def test_what_was_written_is_read_again(folder, tmp_path):
    table = Table(tmp_path / 'results.csv', ['model.head.channel'])
    table.add(CELL, 'stage2', KEY, folder)
    table.write()
    row = Table(tmp_path / 'results.csv', ['model.head.channel']).find(CELL, 'stage2')
    assert (row['test_AP'], row['test_FN'], row['val_AP'], row['trust']) == ('0.75', '2', '0.5', '0.5')
    assert (row['status'], row['key'], row['commit'], row['seconds'], row['stale']) == ('done', 'key', 'abc', '3.5', '')
    assert row['versions'] == 'torch=2.15'
    assert row['run'] == folder.name


def test_a_failed_run_is_a_row_that_says_so(folder, tmp_path):
    table = Table(tmp_path / 'results.csv', ['model.head.channel'])
    table.add(CELL, 'stage2', KEY, folder, error='a, "b"')
    table.write()
    row = Table(tmp_path / 'results.csv', ['model.head.channel']).find(CELL, 'stage2')
    assert (row['status'], row['error'], row.get('test_AP', '')) == ('failed', 'a, "b"', '')


def test_rows_of_older_code_are_marked(folder, tmp_path, monkeypatch):
    table = Table(tmp_path / 'results.csv', ['model.head.channel'])
    table.add(CELL, 'stage2', KEY, folder)
    table.write()
    monkeypatch.setattr(module, 'code_hash', lambda uses: 'newer')
    assert Table(tmp_path / 'results.csv', ['model.head.channel']).find(CELL, 'stage2')['stale'] == 'yes'
    assert [row['stale'] for row in read_table(tmp_path / 'results.csv')] == ['yes']


def test_rows_of_another_config_are_known(folder, tmp_path):
    table = Table(tmp_path / 'results.csv', ['model.head.channel'], config='one')
    table.add(CELL, 'stage2', KEY, folder)
    table.write()
    for config, other in (('one', False), ('two', True)):
        again = Table(tmp_path / 'results.csv', ['model.head.channel'], config=config)
        (row,) = again.rows.values()
        assert again.is_of_another(row) is other
        assert again.find(CELL, 'stage2') == (None if other else row)
    again.add(CELL, 'stage2', KEY, folder)
    again.write()
    assert [row['config'] for row in read_table(tmp_path / 'results.csv')] == ['two', 'one']  # nothing is lost
    Table(tmp_path / 'results.csv', ['model.head.channel'], config='one').write()
    assert {row['config'] for row in read_table(tmp_path / 'results.csv')} == {'one', 'two'}
    (tmp_path / 'results.csv').unlink()
    table.write()
    again = Table(tmp_path / 'results.csv', ['model.head.channel'], config='one-stages')
    assert not again.is_of_another(again.find(CELL, 'stage2'))  # of a time when stages were not told apart
    assert again.is_of_another(dict(config='one-others'))
    assert not again.is_of_another(dict(key='of a time when this was not noted'))


def test_a_table_of_other_fields_is_not_added_to(folder, tmp_path):
    table = Table(tmp_path / 'results.csv', ['model.head.channel'])
    table.add(CELL, 'stage2', KEY, folder)
    table.write()
    with pytest.raises(UsageError, match=r'model\.head\.channel was varied; give another --work-dir'):
        Table(tmp_path / 'results.csv', ['data.num_positives'])


def test_what_was_found_of_pixels_is_in_the_row_and_in_the_summary(folder, tmp_path):
    found = dict(AP=0.75, pixel_AUROC=0.5, pixel_AP=0.25, AUPRO=0.125)
    write_json(tmp_path / 'metrics.json', dict(stage2=dict(test=found, val=found)))
    table = Table(tmp_path / 'results.csv', ['model.head.channel'])
    table.add(CELL, 'stage2', KEY, folder)
    table.write()
    rows = read_table(tmp_path / 'results.csv')
    assert [rows[0][f'{split}_{name}'] for split in ('test', 'val') for name in found] == 2 * [
        '0.75', '0.5', '0.25', '0.125'
    ]  # fmt: skip
    assert [summarise(groups_of(rows))[0][name] for name in found] == [0.75, 0.5, 0.25, 0.125]

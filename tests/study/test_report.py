import pytest

from kgl_mm.errors import UsageError
from kgl_mm.study.report import choose, refuse_mixed, report


def test_runs_that_validation_data_cannot_choose_from_are_reported(rows, tmp_path):
    """A validation part without defects ends no study after hours of training."""
    members = [row for stage in ('stage1', 'stage2', 'stage2_unguided') for row in rows({0: [0.5], 1: [0.6]}, stage)]
    text = report(members, tmp_path / 'summary', remark='It is said.')
    assert text.endswith('\nIt is said.\n')
    assert 'There is no "stage2_unguided or stage2": some of these runs have no AP of validation data.' in text
    assert (tmp_path / 'summary.md').read_text() == text
    assert (tmp_path / 'summary.png').is_file()


def test_a_setting_that_failed_everywhere_costs_no_summary(rows, tmp_path):
    members = rows({0: [0.5]}, variant='a') + rows({0: [None]}, variant='b')
    text = report(members, tmp_path / 'summary', [('a', 'b')])
    assert '--compare a b: they have no run of the same fold and seed with AP.' in text
    assert (tmp_path / 'summary.md').read_text() == text
    with pytest.raises(UsageError, match='--compare c: not among a, b'):
        report(members, tmp_path / 'other', [('a', 'c')])
    assert not list(tmp_path.glob('other*'))


def test_no_mean_is_of_several_configs(rows):
    new, old = rows({0: [0.9]}, variant='a'), rows({1: [0.3]}, variant='a')
    other = rows({0: [0.3]}, variant='b')
    for row, config in zip(new + old + other, ('12-34', '12', '56'), strict=True):
        row['config'] = config
    refuse_mixed(new + old + other)  # the old row tells less of its config, which may be the same
    old[0]['config'] = '56'
    with pytest.raises(UsageError, match=r'a stage2: there are rows of several configs.*\(12-34, 56\)'):
        refuse_mixed(new + old)
    with pytest.raises(UsageError, match='several configs'):
        choose(new + old, {})
    assert choose(new + old, dict(config=['56'])) == old

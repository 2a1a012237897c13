from kgl_mm.study.report import report


def test_runs_that_validation_data_cannot_choose_from_are_reported(rows, tmp_path):
    """A validation part without defects ends no study after hours of training."""
    members = [row for stage in ('stage1', 'stage2', 'stage2_unguided') for row in rows({0: [0.5], 1: [0.6]}, stage)]
    text = report(members, tmp_path / 'summary')
    assert 'There is no "stage2_unguided or stage2": some of these runs have no AP of validation data.' in text
    assert (tmp_path / 'summary.md').read_text() == text
    assert (tmp_path / 'summary.png').is_file()

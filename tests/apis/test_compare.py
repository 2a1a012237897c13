import os

from kgl_mm.apis.compare import _table
from kgl_mm.engine.hooks.record_hook import _write_table
from kgl_mm.report.data import read_scores


def test_names_of_any_bytes_come_back_from_a_table_of_scores(tmp_path):
    name = os.fsdecode(b'Ri\xdf.png')
    rows = [dict(img_path=name, label=1, probabilities=[0.2, 0.8], score=0.8, log_odds=1.4)]
    _write_table(tmp_path / 'scores.csv', rows)
    assert _table(tmp_path / 'scores.csv')[0]['img_path'] == name
    assert read_scores(tmp_path / 'scores.csv').paths == [name]

import json

import pytest

from kgl_mm.errors import UsageError
from kgl_mm.report.data import read_curves, read_run, read_scores, stores_of


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UsageError, match='not the work directory of a run'):
        read_run(tmp_path)


def test_stages_come_in_the_order_in_which_they_were_run(write_run):
    root = write_run({'pupil': ([0.9, 0.1], [1, 0]), 'a_teacher': ([0.9, 0.1], [1, 0])})
    (root / 'pupil/20260101_000002').mkdir()
    (root / 'a_teacher/20260101_000001').mkdir()
    (root / 'a_teacher/20260101_000009').mkdir()  # tested again
    run = read_run(root)
    assert [stage.name for stage in run.stages] == ['a_teacher', 'pupil']
    assert run.shown.name == 'pupil'
    state = json.loads((root / 'state.json').read_text())
    (root / 'state.json').write_text(json.dumps(state | {'best': 'a_teacher'}))
    assert read_run(root).shown.name == 'a_teacher'


def test_what_is_broken_is_said_and_the_rest_is_read(write_run):
    root = write_run({'stage1': ([0.9, 0.1], [1, 0]), 'stage2': ([0.9, 0.1], [1, 0])})
    (root / 'stage1/test_scores.csv').write_text('sample_idx,img_path,label,score\n0,a.png,one,0.5\n')
    (root / 'stage2/20260101_000000/vis_data').mkdir(parents=True)
    (root / 'stage2/20260101_000000/vis_data/config.py').write_text('x = (')
    (root / 'state.json').write_text('{"stages"')
    run = read_run(root)
    assert {stage.name: stage.test is None for stage in run.stages} == {'stage1': True, 'stage2': False}
    assert len(run.notes) == 3
    assert 'state.json cannot be read' in run.notes[0]
    assert stores_of(run) == []


def test_scores_without_a_good_class(tmp_path):
    (tmp_path / 'a.csv').write_text('sample_idx,img_path,label,p0,p1,p2\n0,a.png,2,0.1,0.2,0.7\n')
    found = read_scores(tmp_path / 'a.csv')
    assert found.scores is None
    assert not found.both_classes
    assert found.probabilities.tolist() == [[0.1, 0.2, 0.7]]
    assert read_scores(tmp_path / 'b.csv') is None
    (tmp_path / 'c.csv').write_text('sample_idx,img_path,label,p0\n')
    assert read_scores(tmp_path / 'c.csv') is None


def test_curves_are_means_by_epoch_and_a_resumed_run_wins(tmp_path):
    def log(name, *rows):
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text('\n'.join(rows))

    log(
        '1',
        '{"loss": 4.0, "epoch": 1, "step": 1, "time": 1.0}',
        '{"loss": 2.0, "epoch": 1, "step": 2}',
        '{"AP": 0.5, "step": 1, "time": 1.0}',
        '{"loss": 9.0, "epoch": 2, "step": 3}',
        '{"loss": NaN, "epoch": 2, "step": 4}',
        '{"loss": 1.0, "ep',
    )
    log('2', '{"loss": 1.0, "epoch": 2, "step": 3}', '3')
    assert read_curves(tmp_path) == {'loss': {1: 3.0, 2: 1.0}, 'AP': {1: 0.5}}
    assert read_curves(tmp_path / 'none') == {}


def test_a_copy_of_a_run_shows_its_own_priors_and_a_given_store_is_the_one_that_was_given(write_run, tmp_path):
    root = write_run({'stage1': ([0.9, 0.1], [1, 0]), 'stage2': ([0.9, 0.1], [1, 0])})
    elsewhere = tmp_path / 'elsewhere/stage1/priors'
    for place in (elsewhere, root / 'stage1/priors'):
        place.mkdir(parents=True)
        (place / 'store.json').write_text('{}')
    step = f"dict(type='kgl_mm.LoadPrior', store={str(elsewhere)!r})"
    config = f"model = dict(type='X')\ntrain_dataloader = dict(dataset=dict(pipeline=[{step}]))\n"
    (root / 'stage2/config.py').write_text(config)
    assert [place for place, _ in stores_of(read_run(root))] == [root / 'stage1/priors']
    state = json.loads((root / 'state.json').read_text())
    state['stages']['stage2']['priors'] = str(elsewhere)
    (root / 'state.json').write_text(json.dumps(state))
    assert [place for place, _ in stores_of(read_run(root))] == [root / 'stage1/priors', elsewhere]

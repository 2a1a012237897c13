import json
import os

import pytest
from mmengine.config import Config

from kgl_mm.engine.work_dir import checkpoint_of, find_run
from kgl_mm.errors import UsageError

STAGE = "model = dict(type='ImageClassifier')\nname = {name!r}\n"
READS = (
    "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), "
    "dict(type='kgl_mm.LoadPrior', store={store!r})]))\n"
)


@pytest.fixture
def run(tmp_path):
    """A function that lays out a run: of each stage whether it is done, and whose priors it read."""

    def lay(best=None, **stages):
        state = {}
        for age, (name, (done, store)) in enumerate(stages.items()):
            folder = tmp_path / name
            folder.mkdir()
            for epoch in (1, 2):
                (folder / f'epoch_{epoch}.pth').write_bytes(b'')
            (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
            (folder / 'config.py').write_text(STAGE.format(name=name) + (READS.format(store=store) if store else ''))
            os.utime(folder / 'epoch_2.pth', (1e9 - age, 1e9 - age))  # copied in another order
            state[name] = dict(done=True, checkpoint=f'{name}/epoch_2.pth') if done else {}
        (tmp_path / 'state.json').write_text(json.dumps(dict(stages=state, **(dict(best=best) if best else {}))))
        return tmp_path

    return lay


def name_of(found):
    cfg, path = found
    assert cfg.name == path.parent.name
    return cfg.name


def test_of_a_run_the_last_stage_counts_which_no_other_read(run):
    root = run(stage1=(True, None), stage2=(True, 'work/stage1/priors'))
    assert name_of(find_run(root)) == 'stage2'


def test_parts_and_rounds_come_before_those_that_read_them(run):
    root = run(
        stage1=(True, None),
        stage1_part1=(True, None),
        stage2=(True, ['x/stage1/priors', 'x/stage1_part1/priors']),
        stage2_round2=(True, 'x/stage2/priors'),
    )
    assert name_of(find_run(root)) == 'stage2_round2'


def test_the_best_round_counts_where_it_is_known(run):
    root = run(
        stage1=(True, None), stage2=(True, 'stage1/priors'), stage2_round2=(True, 'stage2/priors'), best='stage2'
    )
    assert name_of(find_run(root)) == 'stage2'


def test_what_is_finished_comes_before_what_is_not(run):
    root = run(stage1=(True, None), stage2=(False, 'stage1/priors'))
    assert name_of(find_run(root)) == 'stage1'
    assert name_of(find_run(root / 'stage2')) == 'stage2'


def test_a_run_that_was_stopped_early_has_its_newest_checkpoint(run):
    assert name_of(find_run(run(stage1=(False, None)))) == 'stage1'


def test_a_stage_gives_what_was_tested_and_a_file_is_taken_as_it_is(run):
    root = run(stage1=(True, None))
    (root / 'stage1/best_AP.pth').write_bytes(b'')
    (root / 'state.json').write_text(
        json.dumps(dict(stages=dict(stage1=dict(done=True, checkpoint='stage1/best_AP.pth'))))
    )
    assert checkpoint_of(root / 'stage1').name == checkpoint_of(root).name == 'best_AP.pth'
    for found in (find_run(root / 'stage1/epoch_1.pth'), find_run(root, root / 'stage1/epoch_1.pth')):
        assert name_of(found) == 'stage1'
        assert found[1].name == 'epoch_1.pth'


def test_a_config_with_a_checkpoint_or_a_directory(run, tmp_path):
    root = run(stage1=(True, None), stage2=(True, 'stage1/priors'))
    config = tmp_path / 'mine.py'
    config.write_text("model = dict(type='A')\nstages = dict(stage1=dict(model=dict(type='B')), stage2=dict())\n")
    for given in (config, str(config), Config.fromfile(config)):
        assert find_run(given, root / 'stage1/epoch_1.pth')[0].model.type == 'B'
        assert find_run(given, root)[0].model.type == 'A'
        with pytest.raises(UsageError, match='has no weights'):
            find_run(given)


def test_a_checkpoint_elsewhere_has_the_config_of_the_directory(run, tmp_path):
    root = run(stage1=(True, None))
    (tmp_path / 'else').mkdir()
    (tmp_path / 'else/mine.pth').write_bytes(b'')
    assert find_run(root, tmp_path / 'else/mine.pth')[0].name == 'stage1'
    with pytest.raises(UsageError, match='left no config'):
        find_run(tmp_path / 'else/mine.pth')


def test_what_is_not_there_is_said(tmp_path):
    for target in ('absent', 'absent.py'):
        with pytest.raises(UsageError, match='no such config'):
            find_run(target)
    with pytest.raises(UsageError, match='no such checkpoint'):
        find_run('absent.pth')
    with pytest.raises(UsageError, match='no checkpoint of a run'):
        find_run(tmp_path)

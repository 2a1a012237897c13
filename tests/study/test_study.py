import csv
import multiprocessing
import time

import cv2
import numpy as np
import pytest

from kgl_mm.engine.config import load_config, set_data
from kgl_mm.errors import UsageError
from kgl_mm.files import alone_in, write_json
from kgl_mm.study import plan as plan_module
from kgl_mm.study import table as table_module
from kgl_mm.study.study import Study


@pytest.fixture
def study(tmp_path):
    """A function that plans one of a folder, with more options of the config."""
    random = np.random.default_rng(0)
    for kind, number in (('good', 20), ('dent', 10)):
        (tmp_path / 'parts' / kind).mkdir(parents=True)
        for i in range(number):
            cv2.imwrite(str(tmp_path / 'parts' / kind / f'{kind}{i}.png'), random.integers(0, 255, (8, 8), np.uint8))

    def plan(config, options=None, **kwargs):
        cfg = load_config(config, options)
        set_data(cfg, data_root=str(tmp_path / 'parts'))
        cfg.work_dir = str(tmp_path / 'study')
        return Study(cfg, **kwargs)

    return plan


def enter(study):
    """The rows of all runs, as if these had failed."""
    for cell, _, origin in study.cells:
        for name in origin:
            study.table.add(cell, name, origin[name], study.root, 'no run')
    study.table.write()


def test_a_folder_is_cut_before_the_first_run_where_no_stage_reads_priors(study, tmp_path):
    """Each run would else draw parts of its own seed and learn from what another one is tested with."""
    study('vgg16_folder.py', seeds=[1, 2])._rehearse()
    with (tmp_path / 'parts/split.csv').open() as file:
        assert len(list(csv.DictReader(file))) == 30


def test_of_what_is_partly_done_the_rest_is_rehearsed(study, monkeypatch):
    seen = []
    monkeypatch.setattr('kgl_mm.study.study.rehearse', lambda cfg: seen.append(cfg.randomness.seed))
    plan = study('vgg16_folder.py', seeds=[0, 1, 2])
    monkeypatch.setattr(plan, '_is_known', lambda cell, *_: cell.seed == 0)
    plan._rehearse()
    assert seen == [1]


def test_one_study_at_a_time_in_a_folder_and_none_loses_the_rows_of_another(study, monkeypatch):
    plan = study('vgg16_folder.py', seeds=[0])
    holder = multiprocessing.get_context('fork').Process(target=_hold, args=(plan.root,))
    holder.start()
    try:
        while not (plan.root / 'held').exists():
            time.sleep(0.01)
        with pytest.raises(UsageError, match=f'process {holder.pid} is at work in it'):
            plan.run()
    finally:
        holder.terminate()
        holder.join()
    enter(study('vgg16_folder.py', seeds=[1]))  # by another process, since this one was planned
    monkeypatch.setattr(plan, 'tasks', lambda: [])
    plan.run()
    assert [row['seed'] for row in plan.table.sorted()] == ['1']


def _hold(folder):
    with alone_in(folder):
        (folder / 'held').touch()
        time.sleep(60)


def test_rows_of_other_options_of_a_stage_are_in_no_mean(study):
    varied = dict(seeds=[0], vary={'stages.stage1.train_cfg.val_interval': [1, 2]})
    enter(study('kgl_folder.py', **varied))
    again = study('kgl_folder.py', resume=True, **varied)
    assert not any(again.table.is_of_another(row) for row in again.table.rows.values())
    other = study('kgl_folder.py', {'stages.stage1.train_cfg.max_epochs': 2}, resume=True, **varied)
    assert all(other.table.is_of_another(row) for row in other.table.rows.values())


def test_what_will_be_compared_is_known_before_the_first_run(study):
    varied = dict(vary={'data.num_positives': [3, 5]})
    plan = study('kgl_folder.py', **varied)
    chosen = 'num_positives=3 stage2_unguided or num_positives=3'
    plan.check([('num_positives=3', 'num_positives=5'), ('num_positives=5 stage1', chosen)])
    with pytest.raises(UsageError, match=r'--compare num_positives=4: not among .*num_positives=3, .*num_positives=5'):
        plan.check([('num_positives=3', 'num_positives=4')])
    assert not plan.table.rows
    enter(plan)  # failed ones are called the same
    study('kgl_folder.py', resume=True, **varied).check([('num_positives=3', chosen)])


def done(plan, code=None):
    """The rows of all runs, as if these had ended well."""
    for cell, _, origin in plan.cells:
        for name in origin:
            write_json(plan.root / 'runs/x/state.json', dict(stages={name: dict(done=True)}))
            write_json(plan.root / 'runs/x/metrics.json', {name: dict(test=dict(AP=0.5))})
            plan.table.add(cell, name, origin[name], plan.root / 'runs/x')
    plan.table.write()


def test_what_is_known_is_not_run_again_and_what_failed_or_is_of_older_code_is(study, monkeypatch):
    options = dict(seeds=[0], resume=True)
    plan = study('vgg16_folder.py', seeds=[0])
    enter(plan)
    assert len(study('vgg16_folder.py', **options).tasks()) == 1  # they have failed
    done(study('vgg16_folder.py', **options))
    assert not study('vgg16_folder.py', **options).tasks()
    for module in (plan_module, table_module):
        monkeypatch.setattr(module, 'code_hash', lambda uses: 'newer')
    assert len(study('vgg16_folder.py', **options).tasks()) == 1
    assert not study('vgg16_folder.py', keep_stale=True, **options).tasks()
    with pytest.raises(UsageError, match='add --resume'):
        study('vgg16_folder.py')


def test_results_of_other_settings_are_no_stale_ones(study):
    done(study('vgg16_folder.py', seeds=[0]))
    other = study('vgg16_folder.py', {'optim_wrapper.optimizer.lr': 0.5}, seeds=[0], resume=True, keep_stale=True)
    assert len(other.tasks()) == 1


def test_a_stage_that_is_known_but_gone_is_run_again_for_those_that_read_it(study):
    plan = study('kgl_folder.py', seeds=[0])
    cell, _, origin = plan.cells[0]
    write_json(plan.root / 'runs/x/state.json', dict(stages=dict(stage1=dict(done=True))))
    plan.table.add(cell, 'stage1', origin['stage1'], plan.root / 'runs/x')
    assert plan.tasks()[0].stages == ['stage1']

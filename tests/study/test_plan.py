import pytest
from mmengine.config import Config

from kgl_mm.engine.config import load_config, set_data
from kgl_mm.engine.stages import stages_of
from kgl_mm.errors import UsageError
from kgl_mm.study import plan as plan_module
from kgl_mm.study.plan import Cell, base_hash, cells_of, config_of, origins, remark_on, tasks_of


@pytest.fixture(scope='module')
def cfg():
    return load_config('studies/ksdd_avg.py')


def tasks(cfg, fold=0, seed=0, **settings):
    return tasks_of(config_of(cfg, Cell(fold, seed, settings)))


def test_cells_are_all_combinations(cfg):
    cells = cells_of(cfg, None, [0, 1], dict(variant=['head', 'guided'], rounds=[1]))
    assert len(cells) == len({str(cell) for cell in cells}) == 2 * 2 * 3
    assert cells_of(cfg, [2], [7], {}) == [Cell(2, 7, {})]


def test_a_data_set_without_folds_has_none():
    demo = load_config('kgl_demo.py')
    assert [cell.fold for cell in cells_of(demo, None, [0, 1], {})] == [None, None]
    with pytest.raises(UsageError, match=r'SyntheticSurface has no folds here; leave --folds out'):
        cells_of(demo, [0], [0], {})


def test_a_folder_has_the_folds_that_are_asked_for():
    folder = load_config('kgl_folder.py')
    assert cells_of(folder, None, [0], {}) == [Cell(None, 0, {})]
    with pytest.raises(UsageError, match=r'DefectFolder has no folds here; add --data-options folds=5'):
        cells_of(folder, [0], [0], {})
    assert 'All runs test on the same images' in remark_on(cells_of(folder, None, [0, 1], {}), folder)
    assert not remark_on(cells_of(folder, None, [0], {}), folder)
    set_data(folder, folds=4)
    cells = cells_of(folder, None, [0, 1], {})
    assert [(cell.seed, cell.fold) for cell in cells] == [(seed, fold) for seed in (0, 1) for fold in range(4)]
    assert not remark_on(cells, folder)
    assert config_of(folder, cells[3]).test_dataloader.dataset.fold == 3
    assert cells_of(folder, [2], [0], {}) == [Cell(2, 0, {})]
    for name in ('data.folds', 'data.fold'):
        with pytest.raises(UsageError, match=rf'--set {name}: folds are no setting to compare'):
            cells_of(folder, None, [0], {name: [1, 2]})


def test_fold_and_seed_reach_everything_random(cfg):
    config = config_of(cfg, Cell(2, 7, {'data.num_positives': 5}))
    for stage in stages_of(config).values():
        assert stage.randomness.seed == 7
        for split in ('train', 'test'):
            dataset = stage[f'{split}_dataloader'].dataset
            assert (dataset.fold, dataset.seed, dataset.num_positives) == (2, 7, 5)
    assert cfg.train_dataloader.dataset.fold == 0  # the config itself is as it was


def test_all_variants_of_a_fold_and_seed_share_the_first_stage(cfg):
    names = [name for name in cfg.variants if name != 'plain_long']
    first = {tasks(cfg, variant=name)[0].key for name in names}
    assert len(first) == 1
    rest = [tasks(cfg, variant=name)[-1].key for name in names]
    assert len(set(rest)) == len(names)
    others = {tasks(cfg, **where, variant='head')[0].key for where in (dict(fold=1), dict(seed=1))}
    assert len(others | first) == 3


def test_a_variant_may_be_the_first_stage_alone(cfg):
    (task,) = tasks(cfg, variant='plain')
    assert (task.stages, task.linked) == (['stage1'], {})
    assert task.key == tasks(cfg, variant='guided')[0].key


@pytest.mark.parametrize(
    'study',
    [
        'ablation',
        'from_agbp',
        'ksdd_avg',
        'ksdd_max_avg',
        'ksdd_full',
        'ksdd_full_recipe',
        'neu',
        'neu_boxes',
        'products',
        'search_avg',
        'search_max_avg',
        'sources',
        'ssp_kd_ksdd',
        'ssp_kd_surface',
        'surface_many',
        'surface_products',
        'surface_search',
        'surface_sources',
        'surface_targets',
    ],
)
def test_all_variants_that_are_shipped_can_be_planned(study):
    shipped = load_config(f'studies/{study}.py')
    fold = cells_of(shipped, None, [0], {})[0].fold
    for name in shipped.variants:
        assert tasks(shipped, fold=fold, variant=name)[0].stages == ['stage1'], name


def test_rounds_and_cross_fitted_parts_are_run_in_order(cfg):
    first, *parts, rest = tasks(cfg, crossfit=2, rounds=2)
    assert [task.stages for task in (first, *parts)] == [['stage1'], ['stage1_part1'], ['stage1_part2']]
    assert rest.stages == ['stage2', 'stage2_round2']
    assert rest.linked == {task.stages[0]: task.key for task in (first, *parts)}


def test_a_key_follows_what_is_read(cfg):
    """A second stage whose own config is the same is another one behind another first stage."""
    longer = {'stages.stage1.train_cfg': dict(max_epochs=7)}
    usual, other = (origins(stages_of(config_of(cfg, Cell(0, 0, settings)))) for settings in ({}, longer))
    assert usual['stage1'].key != other['stage1'].key
    assert usual['stage2'].key != other['stage2'].key


def test_what_all_cells_share_has_the_stages_too(cfg):
    shared = base_hash(cfg)
    assert base_hash(load_config('studies/ksdd_avg.py', {'stages.stage1.train_cfg.max_epochs': 2})) != shared
    assert base_hash(load_config('studies/ksdd_avg.py', {'variants.more': dict(rounds=2)})) == shared
    workers = {'stages.stage1.train_dataloader.num_workers': 7}
    assert base_hash(load_config('studies/ksdd_avg.py', workers)) == shared
    elsewhere = {'stages.stage1.train_dataloader.dataset.data_root': 'elsewhere'}
    assert base_hash(load_config('studies/ksdd_avg.py', elsewhere)) != shared


def test_a_folder_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    for root in (str(tmp_path / 'parts'), f'{tmp_path}/parts/', 'parts', './parts/', '../other'):
        config = load_config('kgl_folder.py')
        set_data(config, data_root=root)
        found.append((base_hash(config), [task.key for task in tasks(config, fold=None)]))
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][0] != found[4][0]
    assert not set(found[0][1]) & set(found[4][1])


def test_a_key_follows_the_weights_that_a_network_begins_with(cfg, tmp_path):
    file, keys = tmp_path / 'weights.pth', []
    path = {'model.backbone.init_cfg': dict(type='Pretrained', checkpoint=str(file), _delete_=True)}
    for content in (b'one', b'two', b'one'):
        file.write_bytes(content)
        keys.append(origins(stages_of(config_of(cfg, Cell(0, 0, path))))['stage2'].key)
    assert keys[0] == keys[2] != keys[1]


def test_what_shapes_no_result_is_in_no_key(cfg):
    config = Config(cfg.to_dict())
    config.work_dir = 'elsewhere'
    config.train_dataloader.num_workers = 7
    config.train_dataloader.dataset.cache = None
    config.pop('variants')
    assert [task.key for task in tasks(config)] == [task.key for task in tasks(cfg)]


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(variant='hed'), '--set variant=hed: the variants of this config are head, '),
        ({'model.head.loss.seg_weight.x': 1}, '--set model.head.loss.seg_weight.x'),
    ],
)
def test_a_wrong_field_is_said(cfg, settings, sentence):
    config = Config(cfg.to_dict())
    config.variants = dict(head={}, guided={})
    with pytest.raises(UsageError) as error:
        config_of(config, Cell(0, 0, settings))
    assert str(error.value).startswith(sentence)


def test_a_key_follows_the_code_that_the_stage_and_those_before_it_need(cfg, monkeypatch):
    stages = stages_of(config_of(cfg, Cell(0, 0, {})))
    before = origins(stages)
    assert set(before['stage1'].uses.split()) <= set(before['stage2'].uses.split())
    monkeypatch.setattr(plan_module, 'code_hash', lambda uses: 'newer')
    after = origins(stages)
    assert all(before[name].key != after[name].key for name in stages)

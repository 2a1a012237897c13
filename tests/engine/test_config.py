import copy

import pytest
from mmengine.config import Config

from kgl_mm.engine.config import config_hash, find_config, load_config, set_data, without_validation
from kgl_mm.engine.stages import stages_of
from kgl_mm.errors import UsageError


@pytest.fixture
def cfg():
    return load_config('vgg16_ksdd.py')


def test_configs_are_found_by_path_and_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config('configs/vgg16_ksdd.py') == find_config('vgg16_ksdd.py') == find_config('vgg16_ksdd')
    (tmp_path / 'vgg16_ksdd.py').write_text('')
    assert find_config('vgg16_ksdd.py').resolve() == tmp_path / 'vgg16_ksdd.py'  # what is here comes first
    with pytest.raises(UsageError, match='no such config'):
        find_config('absent.py')


def test_a_config_anywhere_inherits_those_of_the_package(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = ['kgl_mm::_base_/../kgl_folder.py']\ntrain_cfg = dict(max_epochs=7)\n")
    found, base = load_config(tmp_path / 'mine.py'), load_config('kgl_folder.py')
    assert found.train_cfg == base.train_cfg | dict(max_epochs=7)
    assert found.stages == base.stages


@pytest.mark.parametrize('name', ['ssp_kd_demo', 'ssp_kd_folder', 'ssp_kd_resnet18_ksdd', 'ssp_kd_vgg16_mvtec'])
def test_the_weights_of_a_file_replace_random_ones(tmp_path, name):
    weights = dict(type='Pretrained', checkpoint='a.pth', prefix='backbone.')
    options = {f'model.teacher.init_cfg.{key}': value for key, value in weights.items()}
    base = f"_base_ = ['kgl_mm::_base_/../{name}.py']"
    (tmp_path / 'mine.py').write_text(f'{base}\nmodel = dict(teacher=dict(init_cfg={weights}))\n')
    for cfg in (load_config(f'{name}.py', options), load_config(tmp_path / 'mine.py')):
        assert cfg.model.teacher.init_cfg == weights
        assert cfg.model.get('student') == load_config(f'{name}.py').model.get('student')


def test_settings_of_the_data_reach_all_splits_and_a_validation_part_makes_a_loop(cfg):
    set_data(cfg, fold=2, val_fraction=0.25)
    assert [cfg[f'{split}_dataloader'].dataset.fold for split in ('train', 'val', 'test')] == [2, 2, 2]
    assert cfg.val_dataloader.dataset.split == 'val'
    assert cfg.test_dataloader.dataset.split == 'test'
    assert cfg.val_evaluator.threshold_aim == 'f1'
    assert 'threshold_aim' not in cfg.test_evaluator
    without_validation(cfg)
    assert cfg.val_dataloader is None


def test_settings_that_a_data_set_or_a_config_has_no_use_for_are_said(cfg):
    with pytest.raises(UsageError, match=r'labels=kind: kgl_mm.KolektorSDD has no kinds \(.*labels'):
        set_data(cfg, labels='kind')
    without_test = load_config('agssp/agbp_demo.py')
    with pytest.raises(UsageError, match=r'val_fraction=0.2: this config has no test'):
        set_data(without_test, val_fraction=0.2)


@pytest.mark.parametrize('name', ['kgl_folder.py', 'kgl_slim_vgg_folder.py', 'ssp_kd_folder.py', 'kgl_vgg16_ksdd.py'])
@pytest.mark.parametrize(('scale', 'found'), [(300, (300, 300)), ([640, 480], (640, 480))])
def test_one_setting_is_the_size_of_images_in_all_stages_and_splits(name, scale, found):
    cfg = load_config(name)
    set_data(cfg, scale=scale, val_fraction=0 if 'folder' in name else 0.25)
    for stage in stages_of(cfg).values():
        for split in ('train', 'val', 'test'):
            dataset = stage[f'{split}_dataloader'].dataset
            assert [step.scale for step in dataset.pipeline if step.type == 'kgl_mm.Resize'] == [found]
            assert 'scale' not in dataset


@pytest.mark.parametrize(
    ('name', 'scale', 'message'),
    [
        ('kgl_folder.py', 0, 'scale=0: not WIDTH,HEIGHT in pixels'),
        ('kgl_folder.py', 'big', "scale='big': not WIDTH,HEIGHT"),
        ('kgl_folder.py', [1, 2, 3], r'scale=\[1, 2, 3\]: not WIDTH,HEIGHT'),
        ('kgl_folder.py', 0.5, 'scale=0.5: not WIDTH,HEIGHT'),
        ('kgl_demo.py', 64, 'scale=64: this config has no Resize'),
        ('agssp/agdp_demo.py', 64, 'scale=64: this config has no Resize'),  # but in a field that nothing uses
        ('studies/sources.py', 64, r'images of several sizes, \(192, 528\) and \(96, 264\): set each'),
    ],
)
def test_a_size_that_cannot_be_set(name, scale, message):
    with pytest.raises(UsageError, match=message):
        set_data(load_config(name), scale=scale)


def test_an_aim_of_the_command_line_is_that_of_the_validation_part():
    cfg = load_config('vgg16_ksdd.py', {'val_evaluator.threshold_aim': 'misses=0.02'})
    set_data(cfg, val_fraction=0.25)
    assert cfg.val_evaluator == dict(type='kgl_mm.DefectMetric', threshold_aim='misses=0.02')


def test_wrapped_data_sets_are_reached(cfg):
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset)
    set_data(cfg, fold=1)
    assert cfg.train_dataloader.dataset.dataset.fold == 1
    assert 'fold' not in cfg.train_dataloader.dataset


@pytest.mark.parametrize(
    ('key', 'value', 'same'),
    [
        ('work_dir', 'elsewhere', True),
        ('train_dataloader.num_workers', 7, True),
        ('train_dataloader.dataset.cache', 'memory', True),
        ('launcher', 'pytorch', True),
        ('train_dataloader.dataset.fold', 1, False),
        ('train_dataloader.batch_size', 7, False),
        ('randomness.seed', 1, False),
        ('model.neck.mode', 'max', False),
        ('train_cfg.max_epochs', 51, False),
    ],
)
def test_hash_knows_what_is_computed_and_ignores_where(cfg, key, value, same):
    other = copy.deepcopy(cfg)
    other.merge_from_dict({key: value})
    assert (config_hash(other) == config_hash(cfg)) is same
    assert config_hash(Config(cfg.to_dict())) == config_hash(cfg)

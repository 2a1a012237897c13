from pathlib import Path

import pytest
from mmengine.config import Config

from kgl_mm.engine.config import load_config, set_data
from kgl_mm.engine.run import Rounds
from kgl_mm.engine.stages import (
    candidates_of,
    latest_checkpoint,
    overruled,
    readers,
    refuse_empty_parts,
    stages_of,
    stores_for,
    warnings_of,
    writer,
    writers,
)
from kgl_mm.errors import UsageError
from kgl_mm.files import write_json


@pytest.fixture
def plain():
    return load_config('vgg16_ksdd.py')


@pytest.fixture
def guided():
    return load_config('kgl_vgg16_ksdd.py')


def test_stages_are_deltas_on_the_config(plain):
    assert list(stages_of(plain)) == ['stage1']
    plain.stages = dict(a=dict(train_cfg=dict(max_epochs=1)), b=dict())
    stages = stages_of(plain)
    assert stages['a'].train_cfg == dict(by_epoch=True, max_epochs=1)
    assert stages['b'].train_cfg.max_epochs == plain.train_cfg.max_epochs
    assert 'stages' not in stages['a']
    assert plain.stages['a'].train_cfg.max_epochs == 1  # what was given is not changed
    for wrong in ([dict(name='a')], dict(a='x')):
        plain.stages = wrong
        with pytest.raises(UsageError, match='write them as dict'):
            stages_of(plain)


def test_the_first_stage_is_the_plain_config_and_the_last_one_the_config_itself(plain, guided):
    stages = stages_of(guided)
    first = stages['stage1']
    assert first.model == plain.model
    assert first.train_dataloader == plain.train_dataloader
    assert first.test_dataloader == plain.test_dataloader
    assert stages['stage2'].model == guided.model
    assert guided.model.head.type == 'kgl_mm.KnowledgeInjectionHead'
    assert writer(first)
    assert not writer(stages['stage2'])
    assert len(readers(stages['stage2'])) == 1
    assert not readers(first)
    assert stores_for('stage2', stages, Path('run')) == [Path('run/stage1/priors')]


def test_settings_of_data_and_model_reach_both_stages(guided):
    set_data(guided, fold=2, num_positives=10)
    guided.merge_from_dict({'model.backbone.norm_cfg.type': 'GN', 'stages.stage1.model.neck.mode': 'max'})
    stages = stages_of(guided)
    for stage in stages.values():
        assert stage.train_dataloader.dataset.fold == 2
        assert stage.model.backbone.norm_cfg.type == 'GN'
    assert stages['stage1'].model.neck.mode == 'max'


def test_nothing_is_left_of_what_says_delete(guided):
    text = Config(dict(stages_of(guided)['stage1'])).pretty_text
    assert '_delete_' not in text


def test_cross_fitting_adds_a_stage_for_each_part(guided):
    guided.crossfit = 3
    stages = stages_of(guided)
    assert list(stages) == ['stage1', 'stage1_part1', 'stage1_part2', 'stage1_part3', 'stage2']
    assert stages['stage1_part2'].train_dataloader.dataset.leave_out == (1, 3)
    assert stages['stage1_part2'].test_dataloader is None
    assert 'leave_out' not in stages['stage1'].train_dataloader.dataset
    roots = [Path(f'run/stage1_part{part}/priors') for part in (1, 2, 3)]
    assert stores_for('stage2', stages, Path('run')) == roots


def test_a_round_reads_what_the_one_before_it_marks(guided):
    guided.rounds = 3
    guided.crossfit = 2
    stages = stages_of(guided)
    assert list(stages)[-3:] == ['stage2', 'stage2_round2', 'stage2_round3']
    assert writer(stages['stage2']).method == dict(type='kgl_mm.SegmentationMap')
    assert not writer(stages['stage2_round3'])
    assert stores_for('stage2_round2', stages, Path('run')) == [Path('run/stage2/priors')]
    assert stores_for('stage2_round3', stages, Path('run')) == [Path('run/stage2_round2/priors')]
    areas = [stages[name].train_dataloader.dataset.pipeline[4].get('max_area') for name in list(stages)[-3:]]
    assert areas == [None, 0.1, 0.1]


def test_the_last_stage_without_guidance_is_a_candidate(guided, plain):
    guided.unguided = True
    guided.rounds = 2
    guided.model.head.channel = 'dropout'
    stages = stages_of(guided)
    assert list(stages) == ['stage1', 'stage2_unguided', 'stage2', 'stage2_round2']
    assert candidates_of(guided) == ['stage2_unguided', 'stage2', 'stage2_round2']
    head, alone = (stages[name].model.head for name in ('stage2', 'stage2_unguided'))
    assert (alone.loss.seg_weight, alone.channel) == (0, 'none')
    assert head.loss.seg_weight > 0
    assert {**alone, 'loss': 0, 'channel': 0} == {**head, 'loss': 0, 'channel': 0}
    assert not writer(stages['stage2_unguided'])
    for name in ('stage2_unguided', 'stage2'):
        assert stores_for(name, stages, Path('run')) == [Path('run/stage1/priors')]
    guided.rounds, guided.train_dataloader.dataset.pipeline[3].store = 1, 'maps'  # made elsewhere
    assert 'stage2_unguided' in stages_of(guided)
    plain.unguided = True
    with pytest.raises(UsageError, match='unguided=True: stage1 has no KnowledgeInjectionHead'):
        stages_of(plain)


def test_parts_of_a_detector_are_calibrated_as_a_test_sees_them():
    config = load_config('kgl_resnet18_ksdd_from_good.py')
    config.crossfit = 2
    part = stages_of(config)['stage1_part1']
    (hook,) = [hook for hook in part.custom_hooks if hook['type'] == 'kgl_mm.CalibrationHook']
    assert hook['pipeline'] == config.test_dataloader.dataset.pipeline


@pytest.mark.parametrize('field', ['rounds', 'crossfit'])
@pytest.mark.parametrize('value', ['x', True, 1.5, -1])
def test_what_is_no_number_is_said(guided, field, value):
    guided[field] = value
    with pytest.raises(UsageError, match=f'^{field}={value}: not a whole number of [12] or more'):
        stages_of(guided)


@pytest.mark.parametrize(('field', 'value'), [('rounds', 0), ('crossfit', 1)])
def test_numbers_that_make_no_sense(guided, plain, field, value):
    guided[field] = value
    with pytest.raises(UsageError, match=f'{field}={value}'):
        stages_of(guided)
    plain[field] = 2
    with pytest.raises(UsageError, match=f'{field}=2'):
        stages_of(plain)


def test_more_parts_than_images_can_fill_are_refused_before_any_training(tmp_path):
    guided = load_config('kgl_demo.py')
    few = dict(num_train=(12, 12), num_test=(4, 4), num_positives=None)
    set_data(guided, data_root=str(tmp_path / 'drawn'), **few)
    refuse_empty_parts(stages_of(guided))
    guided.crossfit = 2
    refuse_empty_parts(stages_of(guided))
    guided.crossfit = 50
    with pytest.raises(UsageError, match=r'crossfit=50: .* no more'):
        refuse_empty_parts(stages_of(guided))
    guided.train_dataloader.dataset = dict(type='CustomDataset', data_root=str(tmp_path / 'drawn'))
    with pytest.raises(UsageError, match='crossfit: CustomDataset cannot leave a part out'):
        refuse_empty_parts(stages_of(guided))


def test_two_hooks_that_would_write_one_layer_are_refused_before_any_training(guided):
    hook = writer(stages_of(guided)['stage1'])
    guided.stages.stage1.custom_hooks = [hook, dict(hook, layer='other')]
    assert len(writers(stages_of(guided)['stage1'])) == 2
    guided.stages.stage1.custom_hooks = [hook, dict(hook, method=dict(type='kgl_mm.GradCAM'))]
    with pytest.raises(UsageError, match="stage1: several PriorGenerationHooks write 'evidence' into priors"):
        stages_of(guided)


def test_what_options_do_not_reach_in_a_stage_is_known_inside_lists_too(guided):
    step = 'train_dataloader.dataset.pipeline.2.scale'
    assert overruled(guided, {step: (64, 64)}) == {step: f'stages.stage1.{step}=(512, 1408)'}
    assert not overruled(guided, {'train_dataloader.dataset.pipeline.4.num_priors': 5})  # stage 1 has a flip there


def test_weights_of_a_file_for_one_stage_replace_random_ones(guided):
    guided.merge_from_dict({'model.backbone.init_cfg': dict(type='Kaiming', layer='Conv2d')})
    weights = dict(type='Pretrained', checkpoint='a.pth', prefix='backbone.')
    guided.merge_from_dict({'stages.stage2.model.backbone.init_cfg': weights})
    assert stages_of(guided)['stage2'].model.backbone.init_cfg == weights


def test_what_a_list_of_ones_own_has_lost_is_warned_of(guided):
    for cfg in (guided, load_config('ssp_kd_demo.py'), load_config('agssp/agbp_demo.py'), load_config('kgl_folder.py')):
        assert not [sentence for stage in stages_of(cfg).values() for sentence in warnings_of(stage)]
    guided.custom_hooks = [dict(type='EarlyStoppingHook', monitor='AP')]
    (sentence,) = warnings_of(stages_of(guided)['stage2'])
    assert sentence.startswith('there is no kgl_mm.GuidanceHook')
    detector = load_config('ssp_kd_demo.py', {'custom_hooks': []})
    assert 'kgl_mm.CalibrationHook' in warnings_of(stages_of(detector)['stage1'])[0]
    for same in ({'scale': 512}, {'scale': [512, 512]}, {'scale': None, 'scale_factor': 0.5}):
        folder = load_config('vgg16_folder.py', {f'test_dataloader.dataset.pipeline.2.{k}': v for k, v in same.items()})
        assert not warnings_of(stages_of(folder)['stage1'])
    folder = load_config('kgl_folder.py', {'test_dataloader.dataset.pipeline.2.scale': (256, 256)})
    assert 'are (512, 512) in training and (256, 256)' in warnings_of(stages_of(folder)['stage1'])[0]


def test_a_layer_that_nobody_writes_is_said(guided):
    readers(guided)[0].layer = 'typo'
    with pytest.raises(UsageError, match="layer='typo': LoadPrior of stage2 reads what stage1 writes, which is 'evid"):
        stores_for('stage2', stages_of(guided), Path('run'))
    del readers(guided)[0].layer
    guided.stages.stage1.custom_hooks[0].layer = 'other'
    with pytest.raises(UsageError, match="layer='evidence': LoadPrior of stage2 reads what stage1 writes, which is 'o"):
        stores_for('stage2', stages_of(guided), Path('run'))


def test_a_head_that_is_given_priors_is_given_them_in_the_test_too(guided):
    guided.model.head.channel = 'given'
    with pytest.raises(UsageError, match=r"channel='given': stage2 needs the priors of the test images"):
        stages_of(guided)
    pipeline = guided.test_dataloader.dataset.pipeline
    step = dict(type='kgl_mm.LoadPrior', store='maps')
    guided.stages.stage2 = dict(test_dataloader=dict(dataset=dict(pipeline=[*pipeline[:-1], step, pipeline[-1]])))
    assert len(stages_of(guided)['stage1'].test_dataloader.dataset.pipeline) == len(pipeline)
    guided.rounds = 2
    with pytest.raises(UsageError, match="channel='given': stage2 cannot write priors for another round"):
        stages_of(guided)


@pytest.mark.parametrize(
    ('scores', 'best', 'goes_on'),
    [
        ([0.5, 0.6, 0.7], 'c', True),
        ([0.5, 0.6, 0.6], 'b', False),
        ([0.5, 0.4], 'a', False),
        ([None, None], 'b', True),
    ],
)
def test_rounds_go_on_while_they_help(tmp_path, scores, best, goes_on):
    found = {name: dict(val=dict(AP=s) if s is not None else {}) for name, s in zip('abc', scores, strict=False)}
    write_json(tmp_path / 'metrics.json', found)
    rounds = Rounds(tmp_path)
    for name in found:
        assert rounds.goes_on
        rounds.add(name)
    assert (rounds.best, rounds.goes_on) == (best, goes_on)


def test_latest_checkpoint_follows_the_pointer_and_survives_a_bad_one(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for epoch in (2, 10, 9):
        (tmp_path / f'epoch_{epoch}.pth').touch()
    assert latest_checkpoint(tmp_path).name == 'epoch_10.pth'
    (tmp_path / 'last_checkpoint').write_text('/moved/from/elsewhere/epoch_9.pth')
    assert latest_checkpoint(tmp_path).name == 'epoch_9.pth'
    (tmp_path / 'last_checkpoint').write_text('')
    assert latest_checkpoint(tmp_path).name == 'epoch_10.pth'


def test_a_limit_of_ones_own_holds_in_later_rounds_too():
    cfg = load_config('kgl_vgg16_ksdd.py')
    cfg.rounds, cfg.train_dataloader.dataset.pipeline[4].max_area = 3, 0.05
    areas = [
        stage.train_dataloader.dataset.pipeline[4].max_area
        for name, stage in stages_of(cfg).items()
        if name != 'stage1'
    ]
    assert areas == [0.05] * 3

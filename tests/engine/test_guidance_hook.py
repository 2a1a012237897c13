"""The hook on real runners: lambda, trust, and what it refuses."""

import copy
import json
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, DefaultScope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from kgl_mm.datasets import LoadPrior
from kgl_mm.datasets.binding import bind_priors
from kgl_mm.engine.checkpoint_io import load_from_file, use_safe_loading
from kgl_mm.engine.hooks.guidance_hook import judge_source
from kgl_mm.errors import UsageError
from kgl_mm.files import write_json
from kgl_mm.priors import PriorStore


@HOOKS.register_module(force=True)
class SeesLambda(Hook):
    """Notes what guides each step."""

    seen: list

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        loss = runner.model.head.loss_module
        SeesLambda.seen.append((runner.epoch, runner.iter, loss.guidance))


@pytest.fixture(autouse=True)
def _scope():
    SeesLambda.seen = []
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return str(tmp_path_factory.mktemp('surfaces') / 'drawn')


@pytest.fixture
def store(tmp_path, drawn):
    """A function that writes a map for every image: of a source that knows the labels, or of one that guesses."""

    def write(knows=True, trust=0.9, name='stage1/priors', source=None):
        from mmengine.registry import DATASETS

        dataset = DATASETS.build(data(drawn, []))
        store, random = PriorStore(tmp_path / name), np.random.default_rng(0)
        if source:
            store.begin('evidence', dict(method=dict(type=source)))
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            evidence = info['gt_label'] * 2.0 - 1 if knows else -info['gt_label'] * 2.0
            key = info['img_path'].removeprefix(f'{drawn}/')
            store.write(key, random.random((64, 64)), evidence=evidence, trust=trust, label=info['gt_label'])
        store.compact()
        return store.root

    return write


def data(drawn, pipeline):
    return dict(
        type='kgl_mm.SyntheticSurface', data_root=drawn, num_train=(8, 8), num_test=(2, 2), size=(64, 64),
        pipeline=pipeline,
    )  # fmt: skip


def config(tmp_path, drawn, priors, **changes):
    pipeline = [
        dict(type='LoadImageFromFile'), dict(type='kgl_mm.LoadMask'), dict(type='kgl_mm.LoadPrior', store=str(priors)),
        dict(type='kgl_mm.BinarizePrior'), dict(type='RandomFlip', prob=0.5), dict(type='kgl_mm.PackDefect'),
    ]  # fmt: skip
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(tmp_path / 'stage2'),
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1)),
                head=dict(
                    type='kgl_mm.KnowledgeInjectionHead', num_classes=2, in_channels=8, channel='dropout',
                    loss=dict(type='kgl_mm.KnowledgeGuidedLoss'),
                ),
            ),
            train_dataloader=dict(
                batch_size=8, num_workers=0, dataset=data(drawn, pipeline), sampler=dict(type='DefaultSampler'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=4),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            custom_hooks=[dict(type='kgl_mm.GuidanceHook'), dict(type='SeesLambda', priority='LOWEST')],
            log_level='WARNING',
        )
    )  # fmt: skip
    cfg.merge_from_dict(copy.deepcopy(changes))
    return cfg


def train(cfg):
    runner = Runner.from_cfg(Config(cfg.to_dict()))
    runner.train()
    return runner


@pytest.fixture
def safe_loading(monkeypatch):
    """As the tools load checkpoints, and as it was afterwards."""
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
    monkeypatch.setattr(CheckpointLoader, '_schemes', OrderedDict(CheckpointLoader._schemes))
    use_safe_loading()


def test_lambda_falls_from_one_by_epochs_and_is_right_after_a_resume(tmp_path, drawn, store, safe_loading):
    hooks = {'default_hooks.checkpoint': dict(type='kgl_mm.SafeCheckpointHook', interval=1)}
    cfg = config(tmp_path, drawn, store(), **hooks)
    train(cfg)
    whole = list(SeesLambda.seen)
    assert [value for _, _, value in whole] == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    SeesLambda.seen.clear()
    cfg.resume, cfg.load_from = True, str(tmp_path / 'stage2/epoch_3.pth')
    runner = train(cfg)
    assert SeesLambda.seen == whole[6:]
    assert runner.message_hub.get_scalar('train/lambda').current() == 0.25


@pytest.mark.parametrize(('decay', 'expected'), [('linear', [1, 2 / 3, 1 / 3]), ('constant', [1, 1, 1])])
def test_lambda_by_iterations(tmp_path, drawn, store, decay, expected):
    loop = dict(_delete_=True, by_epoch=False, max_iters=3)
    cfg = config(tmp_path, drawn, store(), train_cfg=loop, **{'model.head.loss.decay': decay})
    cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    train(cfg)
    assert [value for _, _, value in SeesLambda.seen] == pytest.approx(expected)


@pytest.mark.parametrize('insist', [False, True])
def test_a_source_that_guesses_does_not_teach(tmp_path, drawn, store, insist, caplog):
    cfg = config(tmp_path, drawn, store(knows=False))
    cfg.custom_hooks[0].insist = insist
    runner = Runner.from_cfg(cfg)
    said = []
    runner.logger.warning = said.append
    runner.train()
    assert runner.message_hub.get_info('trust') == float(insist)
    assert {value for _, _, value in SeesLambda.seen[:2]} == {1.0}  # lambda knows nothing of trust
    samples = [runner.train_dataloader.dataset[i]['data_samples'] for i in range(16)]
    assert {s.prior_trust for s in samples if 'prior_mask' in s} == {float(insist)}
    sample = samples[15]
    assert bool(sample.prior.any()) is insist
    weak = [sentence for sentence in said if 'The source of the priors is weak' in sentence]
    assert len(weak) == (not insist)
    assert all('AUROC 0.00' in sentence and 'use --priors' in sentence for sentence in weak)


def test_validation_of_the_stage_that_wrote_them_counts(tmp_path, drawn, store):
    cfg = config(tmp_path, drawn, store(knows=False))
    found = dict(AUROC=0.5, AP=0.5, num_defects=4, num_images=8)
    write_json(tmp_path / 'metrics.json', dict(stage1=dict(val=found)))
    assert train(cfg).message_hub.get_info('trust') == 0
    write_json(tmp_path / 'metrics.json', dict(stage1=dict(val=dict(found, AUROC=1.0))))
    assert train(cfg).message_hub.get_info('trust') == 1


@pytest.mark.parametrize(
    ('source', 'trust'),
    [(name, 1) for name in ('AnomalyMap', 'PatchMemorySource', 'DescriptionSource', 'ClipSource')]
    + [('LayerCAM', 0), ('FolderSource', 0), ('OfOnesOwn', 0)],
)
def test_what_no_label_has_taught_teaches_though_it_ranks_badly(tmp_path, drawn, store, source, trust):
    cfg = config(tmp_path, drawn, store(knows=False, source=source), **{'train_cfg.max_epochs': 1})
    write_json(tmp_path / 'metrics.json', dict(stage1=dict(val=dict(AUROC=0.5, AP=0.5, num_defects=4, num_images=8))))
    assert train(cfg).message_hub.get_info('trust') == trust


def test_maps_that_hardly_agree_guide_a_little(tmp_path, drawn, store):
    runner = train(config(tmp_path, drawn, store(trust=0.15), **{'train_cfg.max_epochs': 1}))
    assert runner.message_hub.get_info('trust') == pytest.approx(0.25)
    samples = [runner.train_dataloader.dataset[i]['data_samples'] for i in range(16)]
    assert {s.prior_trust for s in samples} == {0.25}


@pytest.mark.parametrize('num_masks', [0, 3])
def test_masks_and_painted_maps_teach_whatever_the_source_has_learned(tmp_path, drawn, store, num_masks):
    root = Path(store(knows=False))
    written = PriorStore(root)
    key = next(key for key in written.keys() if written.entry(key)['label'])  # noqa: SIM118
    painted = np.zeros((64, 64), np.uint8)
    painted[20:30, 20:30] = 255
    cv2.imwrite(str(root / 'evidence' / f'{key}.png'), painted)
    cfg = config(tmp_path, drawn, root, **{'train_cfg.max_epochs': 1})
    cfg.train_dataloader.dataset.pipeline[3].num_masks = num_masks
    dataset = train(cfg).train_dataloader.dataset
    samples = [dataset[i]['data_samples'] for i in range(16)]
    trusts = [s.prior_trust for s in samples if 'prior_mask' in s and s.gt_label]
    assert trusts == [1.0] * len(trusts)
    assert len(trusts) in (max(num_masks, 1), num_masks + 1)  # the painted one may have a mask as well
    (edited,) = [s for s in samples if s.img_path.endswith(key)]
    assert edited.prior.max() == 1  # not emptied
    assert {s.prior_trust for s in samples if not s.gt_label} == {1.0}


def test_a_checkpoint_does_not_carry_what_the_epoch_says(tmp_path, drawn, store):
    train(config(tmp_path, drawn, store(), **{'train_cfg.max_epochs': 1}))
    saved = load_from_file(str(tmp_path / 'stage2/epoch_1.pth'), map_location='cpu')
    assert not [key for key in saved['state_dict'] if 'guidance' in key or 'lambda' in key]
    assert all('seg' in key for key in saved['state_dict'] if 'branch' in key)


def test_what_is_wrong_is_said_before_the_first_step(tmp_path, drawn, store):
    priors = store()
    plain = dict(_delete_=True, type='LinearClsHead', num_classes=2, in_channels=8, topk=(1,))
    neck = dict(type='GlobalAveragePooling')
    for changes, sentence in (
        ({'model.head': plain, 'model.neck': neck}, 'takes guidance'),
        ({'model.train_cfg': dict(augments=dict(type='CutMix', alpha=1.0))}, 'CutMix: mixes images'),
        ({'model.data_preprocessor': dict(pad_size_divisor=32)}, 'pads images, and not their priors'),
    ):
        with pytest.raises(UsageError, match=sentence):
            train(config(tmp_path, drawn, priors, **changes))
    assert SeesLambda.seen == []


def test_a_channel_that_is_empty_where_nobody_painted_is_refused(tmp_path, drawn, store):
    root = Path(store())
    lines = (root / 'manifest.jsonl').read_text().splitlines()
    for line in lines:
        if not json.loads(line)['label']:
            (root / 'evidence' / f'{json.loads(line)["key"]}.png').unlink()
    (root / 'manifest.jsonl').write_text('\n'.join(line for line in lines if json.loads(line)['label']) + '\n')
    cfg = config(tmp_path, drawn, root, **{'train_cfg.max_epochs': 1})
    cfg.train_dataloader.dataset.pipeline[2].missing = 'empty'
    with pytest.raises(UsageError, match='8 images have no map'):
        train(cfg)
    cfg.model.head.channel = 'none'
    train(cfg)


def test_priors_of_a_bound_data_set_are_bound_once(tmp_path, drawn, store):
    runner = Runner.from_cfg(config(tmp_path, drawn, store()))
    dataset = runner.train_dataloader.dataset
    before = list(dataset.pipeline.transforms)
    assert len(bind_priors(dataset)) == 1
    assert dataset.pipeline.transforms == before


def test_losses_of_several_decays_are_logged_by_their_names(tmp_path, drawn, store):
    model = {
        'model.type': 'kgl_mm.ConsistentClassifier',
        'model.consistency': dict(decay='constant'),
        'train_cfg.max_epochs': 2,
    }
    cfg = config(tmp_path, drawn, store(), experiment_name='several', **model)  # a log of its own
    hub = train(cfg).message_hub
    found = {key: hub.get_scalar(key).current() for key in hub.log_scalars if 'lambda' in key}
    assert found == {'train/lambda_head': 0.5, 'train/lambda_consistency': 1.0}
    cfg.model.consistency.decay = 'linear'  # one decay, one name
    cfg.experiment_name = 'alike'
    hub = train(cfg).message_hub
    found = {key: hub.get_scalar(key).current() for key in hub.log_scalars if 'lambda' in key}
    assert found == {'train/lambda': 0.5}


def given(tmp_path, drawn, priors, insist=False):
    """A head that is given priors in the test as well."""
    cfg = config(tmp_path, drawn, priors, **{'model.head.channel': 'given', 'train_cfg.max_epochs': 1})
    pipeline = [step for step in cfg.train_dataloader.dataset.pipeline if step['type'] != 'RandomFlip']
    cfg.test_dataloader = dict(
        batch_size=8, num_workers=0, dataset=data(drawn, pipeline), sampler=dict(type='DefaultSampler', shuffle=False),
    )  # fmt: skip
    cfg.test_evaluator, cfg.test_cfg = dict(type='kgl_mm.DefectMetric'), dict()
    cfg.custom_hooks[0].insist = insist
    cfg.default_hooks = dict(checkpoint=dict(type='kgl_mm.SafeCheckpointHook'))
    return cfg


@pytest.mark.parametrize(('knows', 'insist'), [(True, False), (False, False), (False, True)])
def test_priors_of_a_test_are_trusted_as_those_of_the_training(tmp_path, drawn, store, safe_loading, knows, insist):
    trained = Runner.from_cfg(given(tmp_path, drawn, store(knows=knows), insist))
    trained.train()
    cfg = given(tmp_path, drawn, tmp_path / 'stage1/priors', insist)
    cfg.load_from = str(tmp_path / 'stage2/epoch_1.pth')
    for part in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        cfg.pop(part)
    cfg.experiment_name = 'afterwards'
    tested = Runner.from_cfg(cfg)
    found = [runner.test() for runner in (trained, tested)]
    assert found[0] == found[1]
    for runner in (trained, tested):
        dataset = runner.test_dataloader.dataset
        assert any(dataset[i]['data_samples'].prior.any() for i in range(16)) is (knows or insist)


def test_a_training_does_not_inherit_the_trust_of_the_weights_it_starts_from(tmp_path, drawn, store, safe_loading):
    train(config(tmp_path, drawn, store(knows=False), **{'train_cfg.max_epochs': 1}))
    cfg = config(tmp_path, drawn, tmp_path / 'stage1/priors', **{'train_cfg.max_epochs': 1})
    cfg.load_from = str(tmp_path / 'stage2/epoch_1.pth')
    cfg.custom_hooks[0].insist = True
    cfg.experiment_name = 'again'
    assert train(cfg).message_hub.get_info('trust') == 1


@pytest.fixture
def uneven(tmp_path):
    """Pictures of two sizes, and a map for each."""
    store = PriorStore(tmp_path / 'uneven_maps')
    for kind in ('good', 'defect'):
        for index, shape in enumerate([(32, 32), (40, 48)] * 10):
            (tmp_path / 'uneven' / kind).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([index, kind == 'good']).integers(0, 255, (*shape, 3), np.uint8)
            cv2.imwrite(str(tmp_path / f'uneven/{kind}/{index}.png'), pixels)
            store.write(f'{kind}/{index}.png', np.eye(*shape), evidence=1.0 if kind == 'defect' else -1.0)
    store.compact()
    return tmp_path / 'uneven'


def test_images_that_cannot_be_stacked_are_said_before_the_first_step(tmp_path, drawn, uneven):
    cfg = config(tmp_path, drawn, tmp_path / 'uneven_maps', **{'train_cfg.max_epochs': 1})
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset = dict(type='kgl_mm.DefectFolder', data_root=str(uneven), pipeline=pipeline)
    train(cfg)  # they are padded
    SeesLambda.seen.clear()
    cfg.train_dataloader.collate_fn = dict(type='default_collate')
    with pytest.raises(UsageError, match=r"becomes 32 x 32 and .* becomes 40 x 48, .*'kgl_mm.Resize'.*pseudo_collate"):
        train(cfg)
    cfg.train_dataloader.dataset.pipeline.insert(2, dict(type='Resize', scale=(32, 32)))
    assert SeesLambda.seen == []
    train(cfg)


def test_what_insists_is_true_or_false(tmp_path):
    with pytest.raises(UsageError, match="insist='maybe': not one of True, False"):
        HOOKS.build(dict(type='kgl_mm.GuidanceHook', insist='maybe'))


class Two(BaseDataset):
    METAINFO = dict(classes=('good', 'defect'))

    def load_data_list(self):
        return [dict(img_path=f'{i:02d}.png', gt_label=int(i < 2)) for i in range(10)]


class Kinds(Two):
    METAINFO = dict(classes=('dent', 'scratch'))


def parts(tmp_path, source=None):
    """Two stores for ten images, of which two are defective; 12 of 16 pairs are in order, a skill of 0.5."""
    evidence = [7.5, 3.5, *range(8)]
    stores = [PriorStore(tmp_path / f'part{n}/priors') for n in (0, 1)]
    for i, value in enumerate(evidence):
        stores[i % 2].write(f'{i:02d}.png', [[0.0, 0.5]], evidence=value, label=int(i < 2))
    return [str(one.root) for one in stores]


def test_parts_of_a_cross_fitted_run_are_judged_by_images_that_they_have_not_seen(tmp_path):
    roots = parts(tmp_path)
    write_json(
        tmp_path / 'metrics.json',
        {f'part{n}': dict(val=dict(AUROC=1.0, AP=1.0, num_defects=1, num_images=2)) for n in (0, 1)},
    )
    found = judge_source(Two(), LoadPrior(roots))
    assert found.weight == 1
    assert 'on images left out' in found.reason
    assert 'validation' not in found.reason


def test_without_a_good_class_no_image_is_good(tmp_path):
    assert 'AUROC' not in judge_source(Kinds(), LoadPrior(parts(tmp_path))).reason


@HOOKS.register_module(force=True)
class SeesTrust(Hook):
    seen: list

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        SeesTrust.seen += [s.prior_trust for s in data_batch['data_samples'] if 'prior_mask' in s]


def test_workers_of_a_loop_of_iterations_know_how_far_priors_are_trusted(tmp_path, drawn, store):
    SeesTrust.seen = []
    loop = dict(_delete_=True, by_epoch=False, max_iters=2)
    cfg = config(tmp_path, drawn, store(knows=False), train_cfg=loop)
    cfg.train_dataloader.update(num_workers=1, persistent_workers=True, sampler=dict(type='InfiniteSampler'))
    cfg.custom_hooks = [dict(type='kgl_mm.GuidanceHook'), dict(type='SeesTrust', priority='LOWEST')]
    train(cfg)
    assert set(SeesTrust.seen) == {0.0}


@pytest.mark.parametrize('split', ['val', 'test'])
def test_priors_of_a_source_that_is_not_trusted_are_emptied_outside_of_the_training_too(drawn, store, split):
    from mmengine.registry import DATASETS

    from kgl_mm.engine.hooks import GuidanceHook

    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='kgl_mm.LoadPrior', store=store()),
        dict(type='kgl_mm.PackDefect'),
    ]
    dataset = DATASETS.build(data(drawn, steps))
    hook = GuidanceHook()
    hook.trust = 0.0
    getattr(hook, f'before_{split}')(SimpleNamespace(**{f'{split}_dataloader': SimpleNamespace(dataset=dataset)}))
    assert not any(dataset[i]['data_samples'].prior.any() for i in range(len(dataset)))

"""From maps to a backbone, and from there into other trainings; killed, resumed, shared out, and what is refused."""

import json
import signal

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from kgl_mm.priors import PriorStore

from .conftest import REPOSITORY
from .test_report import Page, check_alone

CONFIG = """
_base_ = {base!r}
data_preprocessor = dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True)
load = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.Resize', scale=(40, 40)), dict(type='kgl_mm.LoadPrior')]
crop = 64 if {task!r} == 'simmim' else 32
augment = [dict(type='RandomResizedCrop', scale=crop), dict(type='RandomFlip', prob=0.5),
           dict(type='ColorJitter', brightness=0.3)]
pack = [dict(type='kgl_mm.PackDefect')]
slim = dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1), out_indices=(0, 1), norm_cfg={norm})
swin = dict(type='SimMIMSwinTransformer', arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
            stage_cfgs=dict(block_cfgs=dict(window_size=2)), pad_small_map=True, drop_path_rate=0.2)
pixels = dict(type='PixelReconstructionLoss', criterion='L1', channel=3)
tasks = dict(
    none=dict(backbone=slim),
    categories=dict(
        backbone=slim, neck=dict(type='GlobalAveragePooling'), task_weight=0.1,
        head=dict(type='LinearClsHead', num_classes=2, in_channels=8, loss=dict(type='CrossEntropyLoss'), topk=(1,))),
    simmim=dict(
        backbone=swin, neck=dict(type='SimMIMLinearDecoder', in_channels=64, encoder_stride=32),
        head=dict(type='SimMIMHead', patch_size=4, loss=pixels)),
)
if {task!r} == 'simmim':
    augment.append(dict(type='SimMIMMaskGenerator', input_size=crop, mask_patch_size=8, model_patch_size=4))
model = dict(type='kgl_mm.AnomalyGuidedPretrainer', **tasks[{task!r}])
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='kgl_mm.CategoryFolder', data_root='parts', pipeline=[*load, *augment, *pack]))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.02, momentum=0.9))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=3, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=3)
custom_hooks = [dict(type='kgl_mm.BackboneHook')]
"""
KILLER = """
custom_imports = dict(imports=['killer'])
custom_hooks.append(dict(type='Killer'))
"""
KILLER_MODULE = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Killer(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if os.environ.get('KILL') == 'epoch' and runner.iter == len(runner.train_dataloader) + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_train(self, runner):
        if os.environ.get('KILL') == 'end':
            os.kill(os.getpid(), signal.SIGKILL)
"""


MINE = """
from mmcv.transforms import TRANSFORMS, RandomFlip
class Mine(RandomFlip):
    def transform(self, results):
        return super().transform(results)
if TRANSFORMS.get('Mine') is None:
    TRANSFORMS.register_module(module=Mine)
del Mine, TRANSFORMS, RandomFlip
"""


@pytest.fixture
def parts(tmp_path):
    """Sixteen images of two categories and a store of their maps, which are empty for every second one."""
    random = np.random.default_rng(0)
    store = PriorStore(tmp_path / 'maps')
    for index in range(16):
        key = f'{"metal" if index < 8 else "wood"}/{index}.png'
        image = random.integers(90, 160, (44, 48, 3), np.uint8)
        prior = np.zeros((44, 48), np.float32)
        if index % 2:
            cv2.circle(prior, (8 + 2 * index, 20), 9, 1.0, -1)
            image[prior > 0] //= 3
        (tmp_path / 'parts' / key).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / 'parts' / key), image)
        store.write(key, cv2.blur(prior, (5, 5)))
    return store


@pytest.fixture
def write(tmp_path, parts):
    """A function that writes a small config of a pretraining and gives its path."""

    def write(task='none', name='pretrain.py', norm="dict(type='BN')", extra=''):
        base = str(REPOSITORY / 'configs/_base_/default_runtime.py')
        (tmp_path / name).write_text(CONFIG.format(base=base, task=task, norm=norm) + extra)
        return str(tmp_path / name)

    return write


@pytest.fixture
def train(run_here):
    """A function that trains a config inside this process."""

    def train(config, work_dir, *words):
        status, said = run_here('train.py', config, '--work-dir', work_dir, '--priors', 'maps', *words)
        assert status == 0, said

    return train


def read(path):
    return torch.load(path, weights_only=True)


def logged(work_dir):
    (log,) = (work_dir / 'stage1').glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize(('task', 'epochs'), [('none', 12), ('categories', 1), ('simmim', 1)])
def test_a_backbone_comes_out_that_loads_in_any_config(write, train, tmp_path, task, epochs):
    train(write(task, extra=f'train_cfg["max_epochs"] = {epochs}\nparam_scheduler = None\n'), 'a')
    stage = tmp_path / 'a/stage1'
    weights, checkpoint = torch.load(stage / 'backbone.pth'), read(stage / f'epoch_{epochs}.pth')['state_dict']
    assert type(weights) is dict
    assert all(type(value) is torch.Tensor for value in weights.values())
    trained = {name: value for name, value in checkpoint.items() if name.startswith('backbone.')}
    dropped = trained.keys() - weights.keys()
    assert dropped == ({'backbone.mask_token'} if task == 'simmim' else set())
    torch.testing.assert_close(weights, {name: trained[name] for name in weights}, rtol=0, atol=0)

    init = dict(type='Pretrained', checkpoint=str(stage / 'backbone.pth'), prefix='backbone.')
    plain = dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1), out_indices=(1,), init_cfg=init)
    if task == 'simmim':
        arch = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
        plain = dict(type='SwinTransformer', arch=arch, stage_cfgs=dict(block_cfgs=dict(window_size=2)), init_cfg=init)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.manual_seed(1)
        classifier = MODELS.build(dict(type='ImageClassifier', backbone=plain))
        before = {name: value.clone() for name, value in classifier.backbone.state_dict().items()}
        classifier.init_weights()
    found = {f'backbone.{name}': value for name, value in classifier.backbone.state_dict().items()}
    torch.testing.assert_close(found, weights, rtol=0, atol=0)
    assert any(not torch.equal(before[name], value) for name, value in classifier.backbone.state_dict().items())

    rows = logged(tmp_path / 'a')
    assert len(rows) == epochs
    assert all(row['loss_distill'] > 0 for row in rows)
    assert task != 'none' or rows[-1]['loss_distill'] < 0.6 * rows[0]['loss_distill']
    assert all(('loss_task' in row) == (task != 'none') for row in rows)
    page = Page(tmp_path / 'a/report.html')
    check_alone(page)
    assert 'attention of stage1' in [image['alt'] for image in page.of('img')]
    assert 'could not be drawn' not in ''.join(page.text.values())
    height, width = cv2.imread(str(stage / 'attention.png')).shape[:2]
    assert min(height, width) > 200


def test_from_maps_to_a_backbone_to_stage_1_of_guided_learning(run_here, tmp_path):
    """The commands of docs/pretraining.md, on fewer images."""

    def run(*words):
        data = ['num_train=(16,16)', 'num_test=(6,6)']
        status, said = run_here(*map(str, words), '--data-options', *data)
        assert status == 0, said

    demo = 'configs/agssp/agbp_demo.py'
    run('generate_priors.py', demo, '--method', 'FolderSource', '--method-options', 'masks=True', '--out', 'maps')
    run('train.py', demo, '--priors', 'maps', '--work-dir', 'a', '--cfg-options', 'train_cfg.max_epochs=1')
    weights = read(tmp_path / 'a/stage1/backbone.pth')
    status, said = run_here(
        'train.py', 'configs/kgl_demo.py', '--stage', '1', '--work-dir', 'b',
        '--data-options', 'num_train=(16,16)', 'num_test=(6,6)', 'num_positives=8',
        '--cfg-options', 'load_from=a/stage1/backbone.pth', 'stages.stage1.train_cfg.max_epochs=2',
        'stages.stage1.optim_wrapper.optimizer.lr=0.0',
    )  # fmt: skip
    assert status == 0, said
    begun = read(tmp_path / 'b/stage1/epoch_2.pth')['state_dict']
    learned = [name for name in weights if not name.endswith(('running_mean', 'running_var', 'num_batches_tracked'))]
    assert len(learned) == len(weights) * 3 // 6
    for name in learned:  # with a rate of 0, what a training ends with is what it began with
        torch.testing.assert_close(begun[name], weights[name], rtol=0, atol=0)
    assert begun.keys() - weights.keys() == {'head.fc.weight', 'head.fc.bias'}


@pytest.mark.parametrize(('task', 'where'), [('categories', 'epoch'), ('simmim', 'end')])
def test_killed_and_resumed_equals_undisturbed(write, train, tool, tmp_path, task, where):
    (tmp_path / 'killer.py').write_text(KILLER_MODULE)
    train(write(task, 'straight.py'), 'a')
    config, env = write(task, extra=KILLER), dict(EXTRA_PATH=str(tmp_path))
    words = ('train.py', config, '--work-dir', 'b', '--priors', 'maps')
    workers = ('--cfg-options', 'train_dataloader.num_workers=2') if where == 'end' else ()
    killed = tool(*words, *workers, env=dict(env, KILL=where), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / 'b/stage1/epoch_3.pth').exists() == (where == 'end')
    assert not (tmp_path / 'b/stage1/backbone.pth').exists()
    tool(*words, '--resume', env=env)
    for name in ('epoch_3.pth', 'backbone.pth'):
        one, other = (read(tmp_path / run / 'stage1' / name) for run in 'ab')
        for key in ('state_dict', 'optimizer') if 'epoch' in name else one:
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=0)
    one, other = ((tmp_path / run / 'stage1/attention.png').read_bytes() for run in 'ab')
    assert one == other
    assert not list((tmp_path / 'b').rglob('.*.tmp'))


def test_two_processes_equal_one_at_the_same_global_batch(write, train, two_processes, tmp_path):
    """Where the images of one process have no map in a batch, it has a loss of 0."""
    train(write('categories', 'one.py', norm='None'), 'one')
    half = 'train_dataloader["batch_size"] = 2\n'
    two = write('categories', 'two.py', norm='None', extra=half)
    two_processes('train.py', two, '--work-dir', 'two', '--priors', 'maps')
    for name in ('epoch_3.pth', 'backbone.pth'):
        one, two = (read(tmp_path / run / 'stage1' / name) for run in ('one', 'two'))
        torch.testing.assert_close(two.get('state_dict', two), one.get('state_dict', one), rtol=1e-3, atol=1e-5)
    assert (tmp_path / 'two/report.html').is_file()


def test_maps_are_written_by_the_config_of_the_pretraining_and_of_all_images(run_here, write, tmp_path):
    drawn = tmp_path / 'drawn_elsewhere'
    for path in sorted((tmp_path / 'parts').rglob('*.png')):
        drawn.joinpath(path.parent.name).mkdir(parents=True, exist_ok=True)
        np.save(drawn / path.parent.name / f'{path.stem}.npy', np.full((5, 5), 3.0, np.float32))
    method = ('--method', 'FolderSource', '--method-options', f'folder={drawn}')
    status, said = run_here('generate_priors.py', write('categories'), *method, '--out', 'drawn')
    assert status == 0, said
    store = PriorStore(tmp_path / 'drawn')
    assert len(store) == 16
    entry = store.entry('wood/15.png')
    assert entry['size'] == [44, 48]
    assert entry['peak'] == pytest.approx(0.5, abs=0.01)  # what all images have is typical of good ones
    assert 'label' not in entry


SEVERAL = """
several = dict(
    metal=dict(type='kgl_mm.CategoryFolder', data_root='parts/metal', pipeline=[*load, *augment, *pack]),
    wood=dict(type='CustomDataset', data_root='parts/wood', with_label=False, pipeline=[*load, *augment, *pack]),
)
train_dataloader['dataset'] = dict(type='kgl_mm.Categories', datasets=several)
train_cfg['max_epochs'] = 1
"""


def test_data_sets_of_any_kind_are_categories_in_mixed_precision(write, train, tmp_path):
    train(write('categories', extra=SEVERAL), 'a', '--amp')
    (row,) = logged(tmp_path / 'a')
    assert 0 < row['loss_task'] < 0.2
    assert row['loss_distill'] > 0
    weights = read(tmp_path / 'a/stage1/backbone.pth').values()
    assert all(value.isfinite().all() for value in weights)
    assert (tmp_path / 'a/stage1/attention.png').is_file()
    assert 'maps' in Page(tmp_path / 'a/report.html').text['section', 'priors']


@pytest.mark.parametrize(
    ('options', 'words', 'sentence'),
    [
        ([], [], 'stage1 reads priors, and no stage before it writes any: pass --priors'),
        ([], ['--priors', 'nothing'], 'there is no store of priors'),
        ([], ['--priors', 'few'], '1 of 16 images have no map'),
        ([], ['--priors', 'other'], 'another data set'),
        (['model.head.num_classes=3'], ['--priors', 'maps'], 'has 2 classes (metal, wood), the head 3'),
        (['model.task_weight=x'], ['--priors', 'maps'], "task_weight='x'"),
        (['model.distill.loss_weight=-1'], ['--priors', 'maps'], 'loss_weight=-1'),
        (['model.distil.loss_weight=1'], ['--priors', 'maps'], "unexpected keyword argument 'distil'"),
        (['model.backbone.type=SlimVG'], ['--priors', 'maps'], 'SlimVG'),
        (['data_preprocessor.pad_size_divisor=32'], ['--priors', 'maps'], 'pad_size_divisor'),
        (['custom_hooks.0.typo=1'], ['--priors', 'maps'], 'BackboneHook() takes no arguments'),
        (['train_dataloader.dataset.pipeline.4.type=Mine'], ['--priors', 'maps'], 'geometric='),
        (['train_dataloader.dataset.data_root=nowhere'], ['--priors', 'maps'], 'nowhere'),
    ],
)
def test_what_is_wrong_is_said_before_the_training(run_here, write, parts, tmp_path, options, words, sentence):
    for name, kept in (('few', lambda key: key != 'wood/9.png'), ('other', lambda key: False)):
        store = PriorStore(tmp_path / name)
        store.write('stone/1.png', np.eye(4))
        for key in filter(kept, parts.keys()):
            store.write(key, parts.read(key))
    config = write('categories', extra=MINE)
    status, said = run_here('train.py', config, '--work-dir', 'a', *words, '--cfg-options', *options, 'work_dir=a')
    assert status == 2, said
    assert sentence in said
    assert said.count('error:') == 1
    assert not list((tmp_path / 'a').rglob('*.pth'))

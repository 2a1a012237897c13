import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from kgl_mm.apis import DefectInspector
from kgl_mm.export.files import build

CONFIG = """
default_scope = 'mmpretrain'
data_preprocessor = dict(mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], to_rgb=True)
model = {model}
pipeline = [dict(type='LoadImageFromFile'{load}), dict(type='kgl_mm.LoadMask'), {steps} dict(type='kgl_mm.PackDefect')]
test_dataloader = dict(dataset=dict(type='kgl_mm.DefectFolder', pipeline=pipeline))
test_evaluator = dict(type='kgl_mm.DefectMetric', good='ok')
"""
SLIM = "dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1))", 8
RESNET = "dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)", 64
REPVGG = (
    "dict(type='RepVGG', arch=dict(num_blocks=[1, 1, 1, 1], width_factor=[0.125] * 4, group_layer_map=None, "
    'se_cfg=None, stem_channels=8))',
    64,
)
DETECTOR = (
    "dict(type='kgl_mm.TeacherStudentDetector', ssp=dict(attention='simam'), "
    "head=dict(loss='{kind}', maps='{kind}'{extra}), "
    "teacher=dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1), out_indices=(0, 1)))"
)
RESIZE = "dict(type='kgl_mm.Resize', scale=(48, 32)),"
SIX = ('ok', 'dent', 'scratch', 'stain', 'hole', 'burr')


def write_run(
    folder,
    backbone=SLIM,
    guided=False,
    classes=('ok', 'defect'),
    steps=RESIZE,
    load='',
    extra='',
    threshold=None,
    detector=None,
):
    """What a run of a model with random weights leaves; ``detector`` is the kind of its loss and maps."""
    backbone, channels = backbone
    head = f'num_classes={len(classes)}, in_channels={channels}{extra}'
    if guided:
        head = f"head=dict(type='kgl_mm.KnowledgeInjectionHead', {head})"
    else:
        head = f"neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', {head})"
    model = f"dict(type='ImageClassifier', backbone={backbone}, {head})"
    if detector:
        model = DETECTOR.format(kind=detector, extra=extra)
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    (folder / 'config.py').write_text(CONFIG.format(model=model, steps=steps, load=load))
    cfg = Config.fromfile(folder / 'config.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after a training
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    for scale in getattr(model, 'scales', ()):  # as a teacher's are
        scale.set(torch.randn(scale.mean.numel()), torch.rand(scale.mean.numel()) + 0.5)
    for parameter in model.head.parameters():
        parameter.data.mul_(3)
    hub = dict(runtime_info=dict(threshold=threshold) if threshold else {})
    meta = dict(dataset_meta=dict(classes=list(classes)))
    torch.save(dict(state_dict=model.state_dict(), meta=meta, message_hub=hub), folder / 'epoch_1.pth')
    return folder


@pytest.fixture(scope='session')
def export(tmp_path_factory):
    """A function that exports a model of such a run once, and gives both inspectors."""
    made = {}

    def export(**settings):
        key = json.dumps(settings, sort_keys=True)
        if key not in made:
            run = write_run(tmp_path_factory.mktemp('export') / 'run', **settings)
            original = DefectInspector(run, device='cpu')
            with DefaultScope.overwrite_default_scope('mmpretrain'):
                build(original.network, run / 'model.onnx')
            made[key] = original, DefectInspector(run / 'model.onnx', device='cpu')
        return made[key]

    return export


@pytest.fixture(scope='session')
def images():
    """Of several sizes and kinds, as arrays."""
    random = np.random.default_rng(0)
    shapes = [(32, 48, 3), (40, 70, 3), (150, 90, 3), (480, 640, 3), (33, 47), (64, 64, 4), (600, 20, 3)]
    return [random.integers(0, 256, shape, np.uint8) for shape in shapes] + [
        random.integers(0, 2**16, (50, 60), np.uint16)
    ]

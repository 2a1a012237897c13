"""What the hook refuses before the training; what it writes is tested with whole commands."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from kgl_mm.engine.hooks import PriorGenerationHook
from kgl_mm.errors import UsageError


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(typo=5), "PriorGenerationHook: .*'typo'"),
        (dict(batch_size='x'), "batch_size='x': not a whole number of 1 or more"),
        (dict(fraction=5), 'fraction=5: not a number above 0, up to 1'),
        (dict(fraction='x'), "fraction='x': not a number above 0, up to 1"),
        (dict(bits=12), 'bits=12: not one of 8, 16'),
        (dict(num_workers=-1), 'num_workers=-1: not a whole number of 0 or more'),
    ],
)
def test_settings_that_writing_would_refuse_are_said_before_the_training(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        PriorGenerationHook(**settings)


def test_images_of_several_sizes_are_said_before_the_training(tmp_path):
    for kind in ('good', 'defect'):
        (tmp_path / kind).mkdir()
        for index in range(20):
            pixels = np.random.default_rng([index, kind == 'good']).integers(0, 255, (32, 32 + index % 2, 3), np.uint8)
            cv2.imwrite(str(tmp_path / f'{kind}/{index}.png'), pixels)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.PackDefect')]
    settings = dict(type='kgl_mm.DefectFolder', data_root=str(tmp_path), pipeline=pipeline)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = SimpleNamespace(dataset=DATASETS.build(settings), collate_fn=pseudo_collate)
        model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        runner = SimpleNamespace(
            train_dataloader=loader, model=model, work_dir=str(tmp_path / 'work'), _resume=False,
            cfg=Config(dict(test_dataloader=dict(dataset=settings))),
        )  # fmt: skip
        method = dict(type='kgl_mm.LayerCAM', layers=['0'])
        with pytest.raises(UsageError, match=r'becomes 32 x 32 and .* becomes 32 x 33, .*batch_size=1'):
            PriorGenerationHook(method).before_train(runner)
        PriorGenerationHook(method, batch_size=1).before_train(runner)
        resize = [pipeline[0], dict(type='Resize', scale=(32, 32)), pipeline[1]]
        PriorGenerationHook(method, pipeline=resize).before_train(runner)
        (tmp_path / 'maps').mkdir()
        cv2.imwrite(str(tmp_path / 'maps/elsewhere.png'), pixels)
        folder = dict(type='kgl_mm.FolderSource', folder=str(tmp_path / 'maps'))
        with pytest.raises(UsageError, match=r"none of its 1 maps is that of .*png; add it, or set missing='empty'"):
            PriorGenerationHook(folder, pipeline=resize).before_train(runner)
        PriorGenerationHook(dict(folder, missing='empty'), pipeline=resize).before_train(runner)

"""Every shipped config of a detector is whole: its model takes a step, its data set and transforms are known."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS, METRICS, TRANSFORMS, DefaultScope
from mmengine.structures import InstanceData
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from kgl_mm.datasets.synthetic import SurfaceSettings
from kgl_mm.engine.config import load_config

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted([*ROOT.glob('agssp/agdp_*.py'), *ROOT.glob('agssp/detect_*.py')])


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_is_whole(path):
    cfg = load_config(path)
    assert len(path.read_text().splitlines()) <= 45
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for split in ('train', 'val', 'test'):
            if loader := cfg.get(f'{split}_dataloader'):
                assert DATASETS.get(loader.dataset.type) is not None
                assert [TRANSFORMS.build(transform) for transform in loader.dataset.pipeline]
                assert split == 'train' or METRICS.get(cfg[f'{split}_evaluator'].type) is not None
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        boxes = InstanceData(bboxes=torch.tensor([[8.0, 8, 40, 40]]), labels=torch.tensor([0]))
        inputs = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
        data = model.data_preprocessor(dict(inputs=inputs, data_samples=[DataSample(gt_instances=boxes)]), True)
        loss = sum(model(**data, mode='loss').values())
    assert torch.isfinite(loss)
    frozen = path.name.startswith('agdp')
    assert all(p.requires_grad is not frozen for p in model.backbone.parameters())
    assert all(p.requires_grad for part in (model.neck, model.detector) for p in part.parameters())


def test_the_demo_finds_the_surfaces_of_the_other_demo():
    settings = dict(load_config(ROOT / 'kgl_demo.py').train_dataloader.dataset)
    names = ('num_train', 'num_test', 'size', 'difficulty')
    drawn = SurfaceSettings(**{name: settings[name] for name in names})
    assert load_config(ROOT / 'agssp/agdp_demo.py').train_dataloader.dataset.data_root.endswith(drawn.folder_name)

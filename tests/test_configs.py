"""Every shipped config is whole: it resolves, its model takes a step, its data set and transforms are known."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import DATA_SAMPLERS, DATASETS, METRICS, TRANSFORMS, DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from kgl_mm.engine.config import load_config
from kgl_mm.engine.stages import stages_of

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted([*ROOT.glob('*.py'), *ROOT.glob('studies/*.py'), *ROOT.glob('agssp/agbp_*.py')])


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_is_whole(path):
    cfg = load_config(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for stage in stages_of(cfg).values():
            pretrains = dict(type='kgl_mm.BackboneHook') in stage.get('custom_hooks', [])  # which has no test
            for split in ('train', 'val', 'test'):
                loader = stage.get(f'{split}_dataloader')
                if loader is None:
                    assert split == 'val' or pretrains
                    continue
                assert DATASETS.get(loader.dataset.type) is not None
                assert DATA_SAMPLERS.get(loader.sampler.type) is not None
                assert [TRANSFORMS.build(transform) for transform in loader.dataset.pipeline]
                evaluator = stage.get(f'{split}_evaluator') or stage.get('test_evaluator')
                assert pretrains if evaluator is None else METRICS.get(evaluator.type) is not None
            model = MODELS.build(dict(stage.model, data_preprocessor=stage.get('data_preprocessor')))
            batch = dict(
                inputs=torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8),
                data_samples=[
                    DataSample(prior=torch.rand(1, 64, 96), prior_mask=torch.zeros(1, 64, 96))
                    .set_gt_label(label)
                    .set_mask(torch.ones(16, 24))
                    for label in (0, 1)
                ],
            )
            data = model.data_preprocessor(batch, training=True)
            loss = sum(model(**data, mode='loss').values())
            loss.backward()
            assert torch.isfinite(loss)
            assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_leaf_is_a_few_lines():
    assert max(len(path.read_text().splitlines()) for path in CONFIGS) <= 45

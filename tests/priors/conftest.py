import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.registry import MODELS

from kgl_mm.priors.generation import generate
from kgl_mm.priors.store import PriorStore
from kgl_mm.saliency import LayerCAM

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.LoadMask'), dict(type='kgl_mm.PackDefect')]


def some_map(seed=0, shape=(6, 5)):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def filled(root, keys=('a.jpg', 'kos01/Part5.jpg', 'kos01/ü 2.jpg')):
    store = PriorStore(root)
    for i, key in enumerate(keys):
        store.write(key, some_map(i), quality=i / 2)
    return store


@pytest.fixture(autouse=True)
def scope():
    """Names without a prefix are mmpretrain's, whatever a runner of another test has left behind."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
    """Where ten small surfaces are drawn, four of them defective."""
    return str(tmp_path_factory.mktemp('surfaces') / 'drawn')


@pytest.fixture
def surfaces(drawn):
    cfg = dict(type='kgl_mm.SyntheticSurface', data_root=drawn, num_train=(7, 4), num_test=(2, 2), size=(64, 64))
    return DATASETS.build(dict(cfg, pipeline=PIPELINE, test_mode=True))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            data_preprocessor=dict(
                type='mmpretrain.ClsDataPreprocessor', mean=[127.5] * 3, std=[50.0] * 3, to_rgb=True
            ),
            backbone=dict(type='kgl_mm.SlimVGG', channels=(8, 8), convs=(1, 1)),
            neck=dict(type='kgl_mm.GlobalPooling', mode='max_avg'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=16, topk=(1,)),
        )
    )


@pytest.fixture
def run(surfaces, model, tmp_path):
    """A function that writes the priors of the surfaces into a folder of this name."""

    def run(name='store', method=None, dataset=surfaces, **kwargs):
        store = PriorStore(tmp_path / name)
        generate(method or LayerCAM(model, normalize='evidence'), dataset, store, **dict(dict(batch_size=3), **kwargs))
        return PriorStore(tmp_path / name)

    return run

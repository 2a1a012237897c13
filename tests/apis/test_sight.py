import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.registry import DefaultScope

from kgl_mm.apis.sight import Sight
from kgl_mm.errors import UsageError

PIPELINES = {
    'crop': [dict(type='ResizeEdge', scale=64), dict(type='CenterCrop', crop_size=48)],
    'efficient': [dict(type='EfficientNetCenterCrop', crop_size=48)],
    'pad': [dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='Pad', size=(64, 64))],
    'whole': [dict(type='Resize', scale=(40, 56))],
}


def build(steps):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose(steps)


@pytest.mark.parametrize('name', PIPELINES)
@pytest.mark.parametrize('size', [(200, 150), (90, 300), (128, 128)])
def test_what_is_in_sight_is_laid_where_it_is_in_the_image(name, size):
    pipeline = build(PIPELINES[name])
    image = np.zeros((*size[::-1], 3), np.uint8)
    middle = size[0] // 2 + 7, size[1] // 2 - 9
    cv2.circle(image, middle, 12, (255, 255, 255), -1)
    seen = pipeline(dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2]))['img']
    placed = Sight(pipeline.transforms).place(seen[..., 0].astype(np.float32) / 255, size)
    if name != 'whole':  # which stretches
        assert placed.shape[1] / placed.shape[0] == pytest.approx(size[0] / size[1], rel=0.05)
    whole = cv2.resize(placed, size)
    rows, columns = np.nonzero(whole > 0.5)
    pixel = max(size[0] / placed.shape[1], size[1] / placed.shape[0])
    assert (columns.mean(), rows.mean()) == pytest.approx(middle, abs=pixel)
    assert len(rows) == pytest.approx(np.pi * 12**2, rel=0.35)


def test_what_nobody_looked_at_is_empty():
    pipeline = build(PIPELINES['crop'])
    sight = Sight(pipeline.transforms)
    placed = sight.place(np.ones((48, 48), np.float32), (128, 128))
    assert placed.shape == (64, 64)
    assert (placed[8:56, 8:56] > 0.9).mean() > 0.9
    assert placed[:6].max() == placed[:, -6:].max() == 0
    assert sight.place(np.ones((48, 48), np.float32), (256, 128)).shape == (64, 128)


def test_an_image_of_which_nothing_is_in_sight_has_no_map():
    pipeline = build([dict(type='CenterCrop', crop_size=2)])
    assert Sight(pipeline.transforms).place(np.ones((2, 2), np.float32), (128, 128)) is None


def test_what_may_move_an_image_anywhere_is_refused():
    with pytest.raises(UsageError, match='nobody knows whether'):
        Sight([lambda results: results])

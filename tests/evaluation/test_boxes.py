import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample

from kgl_mm.errors import UsageError
from kgl_mm.evaluation import BoxMetric
from kgl_mm.evaluation.boxes import Boxes, best_threshold, match

BOX, FAR = [0, 0, 100, 100], [200, 200, 260, 260]


def true(*boxes, labels=None):
    return Boxes(np.array(boxes, float).reshape(-1, 4), np.array(labels or [0] * len(boxes)))


def found(*boxes, labels=None):
    """Boxes with their scores at the end."""
    boxes = np.array(boxes, float).reshape(-1, 5)
    return Boxes(boxes[:, :4], np.array(labels or [0] * len(boxes)), boxes[:, 4])


def test_precision_over_recall_at_101_points():
    """Right, wrong, right: precision 1 up to a recall of one half, 2/3 beyond."""
    result = match([true(BOX, FAR)], [found([*BOX, 0.9], [400, 400, 500, 500, 0.8], [*FAR, 0.7])], 1)
    np.testing.assert_allclose(result.precision[:, 0], (51 + 50 * 2 / 3) / 101)
    assert result.scores[0].tolist() == [0.9, 0.8, 0.7]
    assert result.right[0].tolist() == [True, False, True]
    assert result.true.tolist() == [2]


def test_a_box_counts_up_to_its_overlap():
    """An overlap of 0.72 is enough for 0.5, 0.55, 0.6, 0.65 and 0.7."""
    result = match([true([50, 300, 150, 400])], [found([50, 300, 150, 372, 0.5])], 1)
    np.testing.assert_allclose(result.precision[:, 0], [1] * 5 + [0] * 5)


def test_images_and_classes_do_not_mix():
    truth = [true(BOX, labels=[0]), true(BOX, labels=[1])]
    result = match(truth, [found([*BOX, 0.9], labels=[1]), found([*BOX, 0.8], labels=[1])], 3)
    # that of the first image is the better one, and wrong
    np.testing.assert_allclose(result.precision[0, :2], [0, 0.5])
    assert np.isnan(result.precision[:, 2]).all()
    assert [right.tolist() for right in result.right] == [[False], [True]]


def test_one_true_box_is_found_once():
    result = match([true(BOX)], [found([*BOX, 0.9], [*BOX, 0.8])], 1)
    assert result.right[0].tolist() == [True, False]


def test_where_f1_is_best():
    """F1 from each score on, with three true boxes: 2/4, 2/5, 4/6, 4/7."""
    truth = [true(BOX, FAR), true(BOX), true()]
    boxes = [found([*BOX, 0.9], [*FAR, 0.3]), found([400, 400, 500, 500, 0.5]), found([*BOX, 0.1])]
    assert best_threshold(match(truth, boxes, 1)) == 0.3
    assert best_threshold(match(truth[2:], boxes[2:], 1)) == 1.0
    assert best_threshold(match(truth[1:2], [found()], 1)) == 1.0


def sample(index, truth, boxes):
    result = DataSample(metainfo=dict(sample_idx=index, img_path=f'{index}.png'))
    for name, one in (('gt_instances', truth), ('pred_instances', boxes)):
        fields = zip(('bboxes', 'labels', 'scores'), one, strict=True)
        setattr(result, name, InstanceData(**{key: torch.tensor(x) for key, x in fields if x is not None}))
    return result.to_dict()


@pytest.fixture
def metric():
    metric = BoxMetric()
    metric.dataset_meta = dict(classes=('dent', 'scratch', 'stain'))
    return metric


def test_the_metric_has_means_over_the_classes_that_there_are(metric):
    samples = [
        sample(1, true(BOX, FAR, labels=[0, 1]), found([*BOX, 0.9], [0, 0, 60, 60, 0.4], labels=[0, 1])),
        sample(0, true(), found()),
    ]
    metric.process(None, samples)
    metric.process(None, samples[:1])  # a sampler gives an image twice to fill a batch
    result = metric.evaluate(2)
    assert result.pop('num_images') == 2
    assert result.pop('num_boxes') == 2
    assert result == pytest.approx(
        dict(mAP_50=0.5, mAP=0.5, AP_50_dent=1, AP_dent=1, AP_50_scratch=0, AP_scratch=0), abs=1e-9
    )
    assert [image['img_path'] for image in metric.images] == ['0.png', '1.png']
    assert metric.results == []


def test_what_cannot_be_is_said(metric):
    metric.process(None, [sample(0, true(), found())])
    with pytest.raises(UsageError, match='1 distinct images reached BoxMetric, but the data set has 2'):
        metric.evaluate(2)
    assert metric.evaluate(1) == dict(num_images=1, num_boxes=0)
    metric.process(None, [sample(0, true(BOX), found([*BOX, 0.5], labels=[3]))])
    with pytest.raises(UsageError, match=r'finds class 3, .* 3 classes .*model.num_classes=3'):
        metric.evaluate(1)
    metric.results.clear()
    metric.process(None, [sample(0, true(BOX), found([*BOX, np.nan]))])
    with pytest.raises(UsageError, match=r'0.png: its scores are not finite'):
        metric.evaluate(1)
    with pytest.raises(UsageError, match='needs gt_instances and pred_instances'):
        metric.process(None, [dict(sample_idx=0)])


def test_without_pycocotools_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'pycocotools', None)
    with pytest.raises(UsageError, match=r'kgl_mm\[boxes\]'):
        BoxMetric()


def test_boxes_of_one_score_come_together():
    """F1 of two true boxes: 2/3 at 0.9; at 0.5 one right and four wrong ones, 4/8."""
    far, wrong = [200, 200, 260, 260], [400, 400, 500, 500]
    boxes = found([*BOX, 0.9], [*far, 0.5], *[[*wrong, 0.5]] * 4)
    assert best_threshold(match([true(BOX, far)], [boxes], 1)) == 0.9


def test_boxes_of_any_size_and_up_to_a_hundred_count():
    big = [0, 0, 1400, 500]
    assert match([true(big)], [found([*big, 0.9])], 1).precision[0, 0] == pytest.approx(1)
    many = [[20 * i, 0, 20 * i + 10, 10] for i in range(40)]
    assert match([true(*many)], [found(*[[*box, 0.5] for box in many])], 1).precision[0, 0] == pytest.approx(1)

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils.data import Dataset

import kgl_mm
from kgl_mm.errors import UsageError
from kgl_mm.evaluation import DefectMetric, defect_metric


@pytest.fixture(autouse=True)
def hub(request):
    return MessageHub.get_instance(request.node.nodeid.replace('/', '-'))


@pytest.fixture
def log(monkeypatch):
    """What the metric logs, as (level, text)."""
    lines = []
    monkeypatch.setattr(
        defect_metric, 'print_log', lambda text, logger, level=logging.INFO: lines.append((level, text))
    )
    return lines


def warnings(log):
    return [text for level, text in log if level == logging.WARNING]


def predictions(probabilities, labels):
    """Data samples as mmpretrain's head and PackInputs leave them."""
    return [
        DataSample(metainfo=dict(sample_idx=i, img_path=f'{i}.png')).set_gt_label(int(label)).set_pred_score(p)
        for i, (p, label) in enumerate(zip(torch.as_tensor(probabilities), labels, strict=True))
    ]


def evaluate(samples, classes=('good', 'defect'), size=None, **kwargs):
    metric = DefectMetric(**kwargs)
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dict(classes=classes) if classes else None
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples) if size is None else size), metric


def binary(n=40, seed=0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 4 == 0).astype(int)
    p = torch.softmax(torch.tensor(rng.normal(size=(n, 2)) + np.eye(2)[labels]).float(), 1)
    return p, labels


def test_binary_results_in_an_evaluator_built_from_config():
    p, labels = binary()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        evaluator = Evaluator(dict(type='kgl_mm.DefectMetric'))
    evaluator.dataset_meta = dict(classes=('good', 'defect'))
    result = evaluator.offline_evaluate(predictions(p, labels), chunk_size=7)
    assert result['AP'] == pytest.approx(average_precision_score(labels, p[:, 1]))
    assert result['AUROC'] == pytest.approx(roc_auc_score(labels, p[:, 1]))
    assert result['AP_low'] < result['AP'] < result['AP_high']
    assert result['AUROC_low'] < result['AUROC'] < result['AUROC_high']
    called = (p[:, 1] >= 0.5).numpy()
    assert (result['FP'], result['FN']) == (np.sum(called & (labels == 0)), np.sum(~called & (labels == 1)))
    assert (result['threshold'], result['threshold_calibrated']) == (0.5, 0)
    assert (result['num_images'], result['num_defects']) == (40, 10)
    assert 'chosen_threshold' not in result
    assert {type(value) for value in result.values()} == {float}


def test_stored_threshold_is_used_and_a_validation_evaluator_chooses_one(hub):
    p, labels = binary()
    hub.update_info('threshold', dict(value=0.9, aim='f1', calibrated=True))  # that of an earlier epoch
    result, _ = evaluate(predictions(p, labels), threshold_aim='f1')
    chosen = result['chosen_threshold']
    assert (result['threshold'], result['threshold_calibrated']) == (chosen, 1)
    precision, recall = result['precision'], result['recall']
    assert 2 * precision * recall / (precision + recall) == pytest.approx(result['oracle_F1'])
    result, _ = evaluate(predictions(p, labels), threshold_aim='misses=0')
    hub.update_info('threshold', dict(value=result['chosen_threshold'], aim='no miss', calibrated=True))
    result, _ = evaluate(predictions(p, labels))
    assert (result['FN'], result['FP']) == (0, result['FP_at_zero_FN'])
    assert result['miss_rate_high'] == pytest.approx(1 - 0.05 ** (1 / 10))  # none of ten
    assert (result['threshold_calibrated'], 'chosen_threshold' in result) == (1, False)


def test_saturated_softmax_creates_no_ties():
    """All of 20 images reach a float32 probability of 1; only column 0 still ranks them."""
    margins, labels = torch.linspace(20, 60, 20), (np.arange(20) >= 10).astype(int)
    p = torch.softmax(torch.stack([-margins / 2, margins / 2], 1), 1)
    assert (p[:, 1] == 1).all()
    assert evaluate(predictions(p, labels))[0]['AP'] == 1


def test_a_model_that_gives_the_probability_of_defect_alone():
    p, labels = binary()
    expected, _ = evaluate(predictions(p, labels))
    for scores in (p[:, 1:].double(), p[:, 1].double()):
        samples = [dict(pred_score=s, gt_label=torch.tensor([y])) for s, y in zip(scores, labels, strict=True)]
        assert evaluate(samples)[0] == pytest.approx(expected, abs=1e-6)
    certain = [dict(pred_score=s, gt_label=y) for s, y in ((0.0, 0), (1e-30, 1), (0.5, 0), (1.0, 1))]
    assert evaluate(certain)[0]['AUROC'] == 0.75


def test_table_has_a_plain_row_an_image_in_order():
    samples = predictions([[0.25, 0.75], [0.5, 0.5]], [1, 0])
    _, metric = evaluate(samples[::-1])
    assert metric.table == [
        {
            'sample_idx': 0,
            'img_path': '0.png',
            'label': 1,
            'probabilities': [0.25, 0.75],
            'score': 0.75,
            'log_odds': pytest.approx(np.log(3)),
        },
        {
            'sample_idx': 1,
            'img_path': '1.png',
            'label': 0,
            'probabilities': [0.5, 0.5],
            'score': 0.5,
            'log_odds': 0,
        },
    ]
    json.dumps(metric.table)


def multi(count=3, n=30):
    rng = np.random.default_rng(1)
    labels = np.arange(n) % count
    return torch.softmax(torch.tensor(rng.normal(size=(n, count)) + np.eye(count)[labels]).float(), 1), labels


def test_good_and_two_kinds_of_defect(log):
    p, labels = multi()
    result, _ = evaluate(predictions(p, labels), classes=('good', 'crack', 'pit'))
    assert result['AP'] == pytest.approx(average_precision_score(labels > 0, 1 - p[:, 0]))
    assert result['macro_AP'] == pytest.approx(average_precision_score(np.eye(3)[labels], p))
    assert result['accuracy'] == np.mean(p.argmax(1).numpy() == labels)
    (_, text), *others = log
    lines = text.splitlines()
    assert not others
    assert lines[1].split() == ['class', 'support', 'precision', 'recall', 'F1', 'AP']
    assert [line.split()[:2] for line in lines[2:5]] == [['good', '10'], ['crack', '10'], ['pit', '10']]
    assert sum(int(cell) for line in lines[-3:] for cell in line.split()[1:]) == 30
    assert len({len(line) for line in lines[1:5]}) == len({len(line) for line in lines[-4:]}) == 1


def test_kinds_of_defect_without_a_good_class():
    p, labels = multi(6)
    result, metric = evaluate(predictions(p, labels), classes=tuple('abcdef'))
    assert set(result) == {'macro_AP', 'accuracy', 'num_images'}
    assert 'score' not in metric.table[0]


def test_a_first_class_of_another_name(log):
    samples = predictions(*binary())
    assert 'AP' not in evaluate(samples, classes=('ok', 'ng'))[0]
    assert "set DefectMetric(good='ok')" in warnings(log)[0]
    assert 'AP' in evaluate(samples, classes=('ok', 'ng'), good='ok')[0]
    assert 'AP' in evaluate(samples, classes=None)[0]


def test_one_class_only_says_so_and_leaves_out_what_is_undefined(log):
    common = {'threshold', 'threshold_calibrated', 'accuracy', 'num_images', 'num_defects'}
    result, _ = evaluate(predictions([[0.4, 0.6], [0.9, 0.1]], [0, 0]), threshold_aim='f1')
    assert set(result) == common | {'FP'}
    assert (result['FP'], result['accuracy'], result['num_defects']) == (1, 0.5, 0)
    result, _ = evaluate(predictions([[0.4, 0.6]], [1]))
    assert set(result) == common | {'FN', 'recall', 'miss_rate_high'}
    assert (result['FN'], result['recall']) == (0, 1)
    good, defective = warnings(log)
    assert 'none of the 2 images is defective' in good
    assert 'no threshold can be chosen, so it stays uncalibrated' in good
    assert 'none of the 1 images is good' in defective


def test_a_notice_is_given_once_however_many_epochs_it_is_true_of(log):
    metric = DefectMetric(threshold_aim='f1')
    metric.dataset_meta = dict(classes=('good', 'defect'))
    for _ in range(3):
        metric.process(None, [sample.to_dict() for sample in predictions([[0.4, 0.6], [0.9, 0.1]], [0, 0])])
        result = metric.evaluate(2)
        assert (result['threshold'], result['threshold_calibrated']) == (0.5, 0)
        assert metric.threshold == dict(value=0.5, calibrated=False)
    assert len(warnings(log)) == 1


@pytest.mark.parametrize(
    ('aim', 'words'),
    [
        ('f1', 'the best F1'),
        (dict(misses=0.1), 'at most 10 % of defects missed'),
        ('miss=100:false_alarm=1', 'the lowest cost at 100 a miss and 1 a false alarm'),
    ],
)
def test_the_aim_is_said_in_words_and_how_certain_it_is(log, aim, words):
    result, metric = evaluate(predictions(*binary()), threshold_aim=aim)
    assert metric.threshold == dict(value=result['chosen_threshold'], aim=words, calibrated=True)
    (said,) = (text for _, text in log)
    assert f'for {words}: {result["FN"]:.0f} of 10 missed' in said
    certainty = '95 % certainty' if 'missed' in words else 'less than 95 % certainty'
    assert f'up to {result["miss_rate_high"]:.0%} may be (with {certainty})' in said


def test_a_wrong_aim_is_refused_before_anything_is_evaluated():
    with pytest.raises(UsageError, match="threshold_aim='misses=2%': not an aim"):
        DefectMetric(threshold_aim='misses=2%')


def test_one_kind_only(log):
    result, _ = evaluate(predictions(torch.eye(3)[:2], [1, 1]), classes=('a', 'b', 'c'))
    assert result == {'accuracy': 0.5, 'num_images': 2}
    assert 'all 2 images are of class b' in warnings(log)[0]


@pytest.mark.parametrize(
    ('sample', 'sentence'),
    [
        (dict(gt_label=0, sample_idx=1), r"needs pred_score .* found only \['gt_label', 'sample_idx'\]"),
        (dict(img_path='x'), 'needs gt_label and pred_score'),
        (dict(pred_score=torch.ones(2) / 2, gt_label=[0, 1], img_path='x.png'), r'one gt_label .*x.png.* \[0, 1\]'),
        (dict(pred_score=torch.ones(2) / 2, gt_label=-1), r'one gt_label of 0 or more'),
        (dict(pred_score=torch.tensor([np.nan, np.nan]), gt_label=1, img_path='x.png'), '1 of 2 images, first x.png'),
        (dict(pred_score=torch.tensor([-3.0, 2.0]), gt_label=1, img_path='x.png'), 'model gives logits'),
        (dict(pred_score=torch.ones(3) / 3, gt_label=1), 'same number of probabilities'),
    ],
)
def test_bad_samples_get_one_sentence(sample, sentence):
    fine = dict(pred_score=torch.tensor([0.5, 0.5]), gt_label=0, sample_idx=0)
    with pytest.raises(UsageError, match=sentence):
        evaluate([fine, sample])


def test_bad_sets_get_one_sentence():
    with pytest.raises(UsageError, match='no image reached DefectMetric'):
        evaluate([])
    with pytest.raises(UsageError, match='3 probabilities an image, but the data set has 3 classes and labels up to 5'):
        evaluate(predictions(torch.eye(3), [0, 1, 5]), classes=('a', 'b', 'c'))
    with pytest.raises(UsageError, match='3 probabilities an image, but the data set has 2 classes'):
        evaluate(predictions(torch.eye(3), [0, 1, 1]), classes=('good', 'b'))
    with pytest.raises(UsageError, match='4 distinct images reached DefectMetric, but the data set has 5'):
        evaluate(predictions(*binary(4)), size=5)


def test_the_parts_of_a_concatenated_data_set_are_different_images():
    samples = predictions(*binary(8))
    for i, sample in enumerate(samples):
        sample.set_metainfo(dict(sample_idx=i % 4))
    assert evaluate(samples)[0]['num_images'] == 8


class Points(Dataset):
    """Numbers whose sign is the label."""

    metainfo = dict(classes=('good', 'defect'))

    def __len__(self):
        return 16

    def __getitem__(self, i):
        return dict(x=torch.tensor([i - 7.5]), gt_label=int(i > 7), sample_idx=i)


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 2)

    def forward(self, mode, x, gt_label, sample_idx):
        logits = self.linear(x)
        if mode == 'loss':
            return dict(loss=torch.nn.functional.cross_entropy(logits, gt_label))
        return [
            dict(pred_score=p, gt_label=y, sample_idx=i)
            for p, y, i in zip(logits.softmax(1), gt_label, sample_idx, strict=True)
        ]


def test_results_pass_through_a_runner_its_log_and_save_best(tmp_path):
    def loader():
        return dict(
            batch_size=4,
            dataset=Points(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        )

    runner = Runner(
        model=Line(),
        work_dir=str(tmp_path),
        train_dataloader=loader(),
        val_dataloader=loader(),
        test_dataloader=loader(),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        val_cfg={},
        test_cfg={},
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_evaluator=dict(type='kgl_mm.DefectMetric', threshold_aim='f1'),
        test_evaluator=dict(type='kgl_mm.DefectMetric'),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best=['AP', 'AUROC'], rule='greater')),
        experiment_name=tmp_path.name,
    )
    runner.train()
    metrics = runner.test()
    assert type(runner.test_loop.evaluator.metrics[0].table[3]['sample_idx']) is int
    assert list(tmp_path.glob('best_AP_epoch_*.pth'))
    assert list(tmp_path.glob('best_AUROC_epoch_*.pth'))
    (logged,) = (json.loads(path.read_text()) for path in tmp_path.glob('*/2*.json'))
    assert {name: logged[name] for name in metrics} == pytest.approx(metrics)
    scalars = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert {'chosen_threshold', *metrics} <= scalars[-1].keys()


TWO_PROCESSES = """
import json, sys
import torch
from mmengine.dist import all_gather_object
from mmengine.evaluator import Evaluator
from kgl_mm.errors import UsageError
from kgl_mm.evaluation.defect_metric import DefectMetric

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)

def evaluate(shares, size=7, prefix=None, key='sample_idx'):
    evaluator = Evaluator(DefectMetric(prefix=prefix))
    evaluator.dataset_meta = dict(classes=('good', 'defect'))
    for i in shares[rank]:
        p = (i * 5 % 7 + 1) / 9
        evaluator.process([{'pred_score': torch.tensor([1 - p, p]), 'gt_label': int(i % 3 == 0), key: i}])
    try:
        result = evaluator.evaluate(size)
    except UsageError as error:
        result = str(error)
    return dict(result=result, rows=len(evaluator.metrics[0].table))

answers = dict(
    whole=evaluate([range(7), range(0)]),
    padded=evaluate([[0, 2, 4, 6], [1, 3, 5, 0]]),
    uneven=evaluate([[6, 0], [1, 2, 3, 4, 5]]),
    prefixed=evaluate([[0, 2, 4, 6], [1, 3, 5]], prefix='test'),
    lost=evaluate([[0, 2, 4], [1, 3, 5]]),
    nameless=evaluate([[0, 2, 4, 6], [1, 3, 5, 0]], key='other'),
)
gathered = all_gather_object(answers)
if rank == 0:
    print(json.dumps(gathered))
torch.distributed.destroy_process_group()
"""


def test_two_processes_count_every_image_once(tmp_path):
    script = tmp_path / 'two.py'
    script.write_text(TWO_PROCESSES)
    env = os.environ | {'PYTHONPATH': str(Path(kgl_mm.__file__).parents[1])}
    children = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path)], env=env, stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    out, _ = (child.communicate(timeout=120)[0] for child in children)
    assert [child.returncode for child in children] == [0, 0]
    main, other = json.loads(out.decode().splitlines()[-1])
    expected = main['whole']['result']
    assert (expected['num_images'], expected['num_defects']) == (7, 3)
    for name in ('whole', 'padded', 'uneven', 'nameless'):
        assert main[name]['result'] == other[name]['result'] == expected, name
        assert (main[name]['rows'], other[name]['rows']) == (7, 0)
    assert main['prefixed']['result'] == {f'test/{key}': value for key, value in expected.items()}
    assert main['lost']['result'].startswith('6 distinct images reached DefectMetric, but the data set has 7')
    assert other['lost']['result'] == main['lost']['result']


def with_maps(masks, size=None):
    samples = predictions(*binary(8))
    for number, sample in enumerate(samples):
        label = int(sample.gt_label)
        random = np.random.default_rng(number)
        sample.set_field(torch.from_numpy(random.random((1, *(size or (6, 5))), np.float32)), 'pred_map')
        if masks == 'all' or (masks == 'some' and number):
            sample.set_field(torch.full((1, 6, 5), label, dtype=torch.uint8), 'mask')
    return samples


def test_what_padding_added_to_an_image_is_no_pixel_of_it():
    padded, bare = with_maps('some', (8, 9)), with_maps('some', (8, 9))
    for sample, other in zip(padded, bare, strict=True):
        sample.set_metainfo(dict(img_shape=(6, 5)))
        other.pred_map = other.pred_map[:, :6, :5]
    padded[0].set_gt_label(0)
    bare[0].set_gt_label(0)
    assert evaluate(padded)[0] == evaluate(bare)[0]


def test_pixel_metrics_where_there_are_maps_and_masks(log):
    samples = with_maps('all')
    result, metric = evaluate(samples)
    maps, masks = (
        np.concatenate([sample.get(name).numpy().ravel() for sample in samples]) for name in ('pred_map', 'mask')
    )
    assert result['pixel_AUROC'] == pytest.approx(roc_auc_score(masks, maps), abs=1e-3)
    assert result['pixel_AP'] == pytest.approx(average_precision_score(masks, maps), abs=1e-3)
    assert 0 <= result['AUPRO'] <= 1
    assert not warnings(log)
    assert all('pred_map' not in row for row in metric.table)
    plain, _ = evaluate(predictions(*binary(8)))
    assert plain == {name: value for name, value in result.items() if 'pixel' not in name and name != 'AUPRO'}


def test_masks_that_are_missing_are_said_once(log):
    result, _ = evaluate(with_maps('some'))
    assert 'AUPRO' in result
    assert ['1 defective images have a map and no mask, without them' in line for line in warnings(log)] == [True]
    log.clear()
    result, metric = evaluate(with_maps('none'))
    assert 'AUPRO' not in result
    for sample in with_maps('none'):
        metric.process(None, [sample.to_dict()])
    metric.evaluate(8)
    assert ['so there are no pixel metrics' in line for line in warnings(log)] == [True]


def test_images_without_an_index_have_no_pixel_metrics_and_that_is_said(log):
    samples = with_maps('all')
    for sample in samples:
        sample.set_metainfo(dict(sample_idx=None))
    assert 'AUPRO' not in evaluate(samples)[0]
    assert ['they need the sample_idx of images' in line for line in warnings(log)] == [True]


def test_a_map_of_another_size_is_said():
    with pytest.raises(UsageError, match=r'png: a map \(4, 5\) and its mask \(6, 5\)'):
        evaluate(with_maps('all', size=(4, 5)))


def test_a_score_above_one_is_no_probability():
    samples = [
        dict(pred_score=torch.tensor(p), gt_label=i, sample_idx=i) for i, p in enumerate(([1.0, 0.0], [0.0, 1.5]))
    ]
    with pytest.raises(UsageError, match=r'not in .0, 1. for 1 of 2 images'):
        evaluate(samples)

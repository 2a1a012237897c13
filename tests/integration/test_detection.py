"""From a store of priors to boxes, to a pretrained detector, to one of other classes; killed, in two processes."""

import json
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from kgl_mm.priors import PriorStore

from .test_resume import KILLER, KILLER_MODULE

BASE = Path(__file__).parents[2] / 'configs/_base_'

CONFIG = """
_base_ = ['{base}/schedules/boxes_sgd.py', '{base}/datasets/boxes.py', '{base}/default_runtime.py']
data_preprocessor = dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True)
model = dict(
    type='kgl_mm.TorchvisionDetector', kind='fcos', channels=32, num_classes={classes},
    backbone=dict(type='kgl_mm.SlimVGG', channels=(4, 8, 8), convs=(1, 1, 1), out_indices=(1, 2)),
)
steps = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.Resize', scale=(64, 64), keep_ratio=True)]
data = dict(type='kgl_mm.CocoBoxes', ann_file={ann_file!r}, data_root={images!r}, test_fraction=0.25)
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=4, **workers, dataset=dict(**data, pipeline=[*steps, dict(type='RandomFlip', prob=0.5), *_base_.pack]))
test_dataloader = dict(batch_size=3, **workers, dataset=dict(**data, pipeline=[*steps, *_base_.pack]))
train_cfg = dict(max_epochs=3)
"""


@pytest.fixture
def images(tmp_path):
    """20 images of noise, with a square in three of four, and a store of exact maps of them."""
    root, random = tmp_path / 'images', np.random.default_rng(0)
    store = PriorStore(tmp_path / 'store')
    for number in range(20):
        size = (40, 64) if number % 2 else (64, 40)
        image, map = random.integers(90, 160, size, np.uint8), np.zeros(size, np.float32)
        if number % 4:
            top, left = (int(random.integers(2, side - 18)) for side in size)
            map[top : top + 16, left : left + 16] = 0.8
            image[map > 0] = 250
        key = f'part{number % 3}/{number:02d}.png'
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / key), image)
        store.write(key, map)
    store.compact()
    return root


@pytest.fixture
def boxes(images, run_here):
    """A function that runs ``boxes_from_priors.py`` in this process: status and errors."""

    def boxes(*words, store=images.parent / 'store'):
        return run_here('boxes_from_priors.py', str(store), *map(str, words))

    return boxes


@pytest.fixture
def config(boxes, images, tmp_path):
    """A function that writes a config of a detector of the boxes, which are there, and gives its path."""
    assert boxes('--images', images, '--out', 'boxes.json') == (0, '')

    def config(name='boxes.py', classes=1, extra='', file='boxes.json'):
        settings = dict(classes=classes, ann_file=str(tmp_path / file), images=str(images))
        (tmp_path / name).write_text(CONFIG.format(base=BASE, **settings) + extra)
        return tmp_path / name

    return config


def test_boxes_are_the_same_bytes_twice_with_names_and_sizes_of_the_files(boxes, images, tmp_path):
    assert boxes('--images', images, '--out', 'a.json', '--sheet', 'sheet.png') == (0, '')
    assert boxes('--out', 'b.json') == (0, '')  # sizes are in the store too
    assert (tmp_path / 'a.json').read_bytes() == (tmp_path / 'b.json').read_bytes()
    record = json.loads((tmp_path / 'a.json').read_text())
    assert len(record['images']) == 20
    assert len(record['annotations']) == 15
    assert record['info']['threshold'] == pytest.approx(0.8 * 15 / 20 - 0.1, abs=1e-4)
    for image in record['images']:
        found = cv2.imread(str(images / image['file_name']))
        assert found.shape[:2] == (image['height'], image['width'])
        squares = [one['bbox'] for one in record['annotations'] if one['image_id'] == image['id']]
        assert squares == ([[*_corner(found), 16, 16]] if (found > 200).any() else [])
    assert cv2.imread(str(tmp_path / 'sheet.png')).shape[0] > 500


def _corner(image):
    rows, columns = np.nonzero(image[..., 0] > 200)
    return [columns.min(), rows.min()]


def test_boxes_of_a_data_set_have_the_names_that_it_gives(boxes, config, images, tmp_path):
    """The images of a config alone, here those of its test part."""
    words = ['--config', config(), '--split', 'test', '--sheet', 'sheet.png']
    assert boxes(*words, '--out', 'c.json')[0] == 0
    record = json.loads((tmp_path / 'c.json').read_text())
    assert len(record['images']) == 5
    assert all((images / image['file_name']).is_file() for image in record['images'])


def test_what_is_wrong_is_one_sentence(boxes, images, tmp_path):
    empty = tmp_path / 'empty'
    PriorStore(empty).begin('evidence', {})
    out = ['--out', 'x.json']
    for words, store, said in (
        (out, tmp_path / 'none', 'none: there is no store of priors, as store.json is missing: write one first'),
        (out, empty, 'empty: there is no map in layer evidence: write priors first'),
        ([*out, '--layer', 'other'], images.parent / 'store', "there is no layer 'other', only evidence"),
        ([*out, '--margin', '0.7'], images.parent / 'store', 'a margin of 0.7 leaves nothing'),
        ([*out, '--iou', '2'], images.parent / 'store', 'iou=2.0: not a number from 0 to 1'),
        ([*out, '--sheet', 's.png'], images.parent / 'store', '--sheet: say where the images are'),
        ([*out, '--images', 'none'], images.parent / 'store', '--images none: no such folder'),
        ([*out, '--images', empty], images.parent / 'store', '20 of the 20 images that the store has maps of are not'),
    ):
        status, errors = boxes(*words, store=store)
        assert status == 2
        assert errors.count('\n') == 1
        assert said in errors
    cv2.imwrite(str(images / 'part0/00.png'), np.zeros((9, 9), np.uint8))
    assert 'has 9 x 9 pixels, but its map is for 40 x 64' in boxes(*out, '--images', images)[1]
    (tmp_path / 'store/evidence/part0/00.png.png').write_bytes(b'broken')
    assert 'part0/00.png.png is damaged' in boxes(*out)[1]
    assert not (tmp_path / 'x.json').exists()


def final_state(work_dir):
    checkpoint = torch.load(work_dir / 'stage1/epoch_3.pth', weights_only=True)
    metrics = json.loads((work_dir / 'metrics.json').read_text())['stage1']['test']
    metrics.pop('config')
    return checkpoint['state_dict'], checkpoint['optimizer'], metrics


def test_killed_and_resumed_equals_undisturbed_and_goes_on_with_other_classes(tool, run_here, config, tmp_path):
    (tmp_path / 'killer.py').write_text(KILLER_MODULE)
    paths = dict(EXTRA_PATH=str(tmp_path))
    done = tool('train.py', config(), '--work-dir', 'a')
    assert 'stage1 test mAP@.5 ' in done.stdout
    assert 'boxes in 5 images' in done.stdout
    killed = config('killed.py', extra=KILLER)
    end = tool('train.py', killed, '--work-dir', 'b', env=dict(paths, KILL='epoch'), check=False)
    assert end.returncode == -signal.SIGKILL
    tool('train.py', killed, '--work-dir', 'b', '--resume', env=paths)
    one, other = final_state(tmp_path / 'a'), final_state(tmp_path / 'b')
    for a, b in zip(one[:2], other[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert one[2] == other[2]
    assert cv2.imread(str(tmp_path / 'a/stage1/test.png')) is not None
    report = (tmp_path / 'a/report.html').read_text()
    assert 'id="boxes"' in report
    assert 'could not be drawn' not in report
    assert 'id="threshold"' not in report
    status, errors = run_here('predict.py', 'a', str(tmp_path / 'images'))
    assert (status, 'a detector of boxes gives no verdict' in errors, errors.count('\n')) == (2, True, 1)
    record = json.loads((tmp_path / 'boxes.json').read_text())
    record['categories'] = [dict(id=1, name='dent'), dict(id=2, name='stain')]
    for place, annotation in enumerate(record['annotations']):
        annotation['category_id'] = 1 + place % 2
    (tmp_path / 'two.json').write_text(json.dumps(record))
    words = ['--work-dir', 'c', '--cfg-options', 'load_from=a/stage1/epoch_3.pth', 'train_cfg.max_epochs=1']
    wrong = tool('train.py', config('wrong.py', file='two.json'), *words, check=False)
    assert wrong.returncode == 2
    assert 'has 2 classes (dent, stain), the detector 1: --cfg-options model.num_classes=2' in wrong.stderr
    tuned = tool('train.py', config('two.py', classes=2, file='two.json'), *words)
    assert (tuned.stdout + tuned.stderr).count('left out and begin anew') == 1
    status, errors = run_here('test.py', str(tmp_path / 'two.py'), 'a/stage1/epoch_3.pth', '--work-dir', 'd')
    assert (status, 'not of this model, whose detector.head' in errors, errors.count('\n')) == (2, True, 1)
    assert not (tmp_path / 'd/metrics.json').exists()


def test_two_processes_agree_and_count_every_image_once(tool, two_processes, config, tmp_path):
    path = config()
    # of so many boxes, which are anchors as good as untouched, some are right
    options = ['model.kind=retinanet', 'model.options.score_thresh=0.0', 'model.options.detections_per_img=1000']
    options = ['--cfg-options', 'train_cfg.max_epochs=1', *options]
    two_processes('train.py', path, '--work-dir', 'two', '--amp', *options)
    facts = json.loads((tmp_path / 'two/metrics.json').read_text())['stage1']['test']
    assert facts['num_images'] == 5
    assert facts['mAP_50'] > 0
    tool('test.py', path, 'two/stage1/epoch_1.pth', '--work-dir', 'one', *options)
    alone = json.loads((tmp_path / 'one/metrics.json').read_text())['stage1']['test']
    for name in ('mAP_50', 'mAP', 'num_boxes'):
        assert alone[name] == pytest.approx(facts[name], abs=1e-6)


def test_a_detector_is_written_under_the_names_of_mmdet(run_here, tmp_path):
    from mmpretrain.registry import MODELS

    backbone = dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1), out_indices=(0, 1))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        settings = dict(type='kgl_mm.TorchvisionDetector', backbone=backbone, channels=32, kind='retinanet')
        model = MODELS.build(settings)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'here.pth')
    assert run_here('export_detector.py', 'here.pth', 'there.pth', '--to', 'mmdet') == (0, '')
    saved = torch.load(tmp_path / 'there.pth', weights_only=True)
    assert saved['meta'] == dict(kind='retinanet')
    weight = model.detector.head.classification_head.cls_logits.weight
    assert torch.equal(saved['state_dict']['bbox_head.retina_cls.weight'], weight)
    torch.save(dict(state_dict={'backbone.x': weight}), tmp_path / 'other.pth')
    status, errors = run_here('export_detector.py', 'other.pth', 'there.pth')
    assert (status, errors) == (2, 'error: other.pth: not the weights of a detector: there is no detector.head and no '
                                'detector.rpn among them\n')  # fmt: skip

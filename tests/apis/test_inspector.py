import itertools
import tracemalloc

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.apis import ImageClassificationInferencer
from mmpretrain.registry import MODELS
from PIL import Image

from kgl_mm.apis import DefectInspector
from kgl_mm.apis.predict import _place
from kgl_mm.errors import UsageError
from kgl_mm.inspection import Threshold

CONFIG = """
default_scope = 'mmpretrain'
data_preprocessor = dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1)),
    {rest})
pipeline = [dict(type='LoadImageFromFile'{load}), dict(type='kgl_mm.LoadMask'), {steps} dict(type='kgl_mm.PackDefect')]
test_dataloader = dict(dataset=dict(type='kgl_mm.DefectFolder', pipeline=pipeline))
test_evaluator = dict(type='kgl_mm.DefectMetric', good='ok')
"""
PLAIN = "neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes={}, in_channels=8)"
GUIDED = "head=dict(type='kgl_mm.KnowledgeInjectionHead', num_classes={}, in_channels=8{})"
KINDS = ['gray', 'colour', 'bmp', 'tiff', 'turned', 'jpeg', 'alpha', '16-bit', '16-bit colour', '16-bit alpha']
RESIZE = "dict(type='Resize', scale=(32, 48)),"


@pytest.fixture
def make(tmp_path):
    """A function that writes what a run of a model with random weights leaves, and gives its directory."""

    def make(rest=PLAIN, classes=('ok', 'defect'), threshold=None, steps=RESIZE, load='', extra=''):
        folder = tmp_path / 'run'
        folder.mkdir(exist_ok=True)
        rest = rest.format(len(classes), extra)
        (folder / 'config.py').write_text(CONFIG.format(rest=rest, steps=steps, load=load))
        cfg = Config.fromfile(folder / 'config.py')
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        for parameter in model.head.parameters():  # so that images differ in their scores
            parameter.data.mul_(10)
        hub = dict(runtime_info=dict(threshold=threshold) if threshold else {})
        meta = dict(dataset_meta=dict(classes=list(classes)))
        torch.save(dict(state_dict=model.state_dict(), meta=meta, message_hub=hub), folder / 'epoch_1.pth')
        return folder

    return make


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 40 * i + 60, (40 + 9 * i, 70 - 9 * i, 3), np.uint8) for i in range(5)]


def scores(results):
    return np.array([result.score for result in results])


@pytest.mark.parametrize(
    ('kind', 'load'),
    [
        *itertools.product(KINDS, ['']),
        *itertools.product(KINDS[:5], [", to_float32=True, color_type='color', imdecode_backend='pillow'"]),
    ],
)
def test_a_file_an_array_of_it_and_the_pipeline_of_the_test_agree(make, tmp_path, kind, load):
    shape = (50, 30, 3 if 'colour' in kind or kind in ('jpeg', 'turned') else 4 if 'alpha' in kind else 1)
    depth = np.uint16 if '16' in kind else np.uint8
    pixels = np.random.default_rng(0).integers(0, np.iinfo(depth).max, shape, depth)
    path = tmp_path / f'a.{dict(jpeg="jpg", bmp="bmp", tiff="tif", turned="jpg").get(kind, "png")}'
    if kind == 'turned':
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).save(path, exif=exif)
    else:
        cv2.imwrite(str(path), pixels)
    inspector = DefectInspector(make(load=load), device='cpu')
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if kind == 'turned':
        array = cv2.imread(str(path))
    by_path, by_array = (inspector(image)[0] for image in (path, array))
    assert by_path.size == by_array.size == ((50, 30) if kind == 'turned' else (30, 50))
    if not (load and kind == 'turned'):  # which Pillow decodes in its own way
        assert by_path.score == by_array.score
    cfg = Config.fromfile(make(load=load) / 'config.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        packed = Compose(cfg.pipeline)(dict(img_path=str(path), mask_path=None, gt_label=1))
    model = inspector.network.model
    with torch.no_grad():
        batch = dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
        (expected,) = model.test_step(batch)
    assert by_path.score == pytest.approx(expected.pred_score[1].item(), abs=1e-6)


def test_batches_change_nothing_and_order_is_kept(make, images):
    inspector = DefectInspector(make(), device='cpu')
    one_by_one = inspector(images, batch_size=1)
    assert len(set(scores(one_by_one).round(6))) == len(images)
    for size in (2, 3, 16):
        found = inspector(images, batch_size=size)
        np.testing.assert_allclose(scores(found), scores(one_by_one), atol=1e-6)
        np.testing.assert_allclose([r.map for r in found], [r.map for r in one_by_one], atol=1e-5)
        assert [result.size for result in found] == [image.shape[1::-1] for image in images]


def test_images_of_several_sizes_are_never_padded(make, images):
    inspector = DefectInspector(make(steps=''), device='cpu')
    alone = [inspector(image)[0] for image in images]
    np.testing.assert_allclose(scores(inspector([*images, *images])), [*scores(alone), *scores(alone)], atol=1e-6)
    assert alone[0].map.shape == images[0].shape[:2]


def test_it_gives_what_an_inferencer_of_mmpretrain_gives(make, images, tmp_path):
    folder = make(steps=RESIZE, classes=('ok', 'dent', 'scratch'))
    ours = DefectInspector(folder, device='cpu')
    cfg = Config.fromfile(folder / 'config.py')
    cfg.test_dataloader.dataset.pipeline = [step for step in cfg.pipeline if step.type != 'kgl_mm.LoadMask']
    cfg.model.data_preprocessor = cfg.data_preprocessor
    theirs = ImageClassificationInferencer(cfg, str(folder / 'epoch_1.pth'), device='cpu')
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, images[0])
    for given in (path, images[0], [path, images[1]], tuple(images[:2])):
        mine, other = ours(given), theirs(given)
        assert isinstance(mine, list)
        assert isinstance(other, list)
        for ours_of_it, facts in zip(mine, other, strict=True):
            np.testing.assert_allclose(ours_of_it.as_dict()['pred_scores'], facts['pred_scores'], atol=1e-6)


def test_a_guided_model_shows_its_segmentation_a_plain_one_its_evidence(make, images):
    guided = DefectInspector(make(GUIDED), device='cpu')
    (found,) = guided(images[0])
    head, packed = guided.network.model.head, guided.network.prepare(found.source, found.source.read())
    with torch.no_grad():
        data = guided.network.model.data_preprocessor(dict(inputs=[packed['inputs']]))
        seg = head.segment(guided.network.model.extract_feat(data['inputs'])).sigmoid()
    expected = torch.nn.functional.interpolate(seg, size=(48, 32), mode='bilinear')[0, 0]
    np.testing.assert_allclose(found.map, expected, atol=1e-6)
    (plain,) = DefectInspector(make(), device='cpu')(images[0])
    assert plain.map.shape == (48, 32)
    assert 0 <= plain.map.min() <= plain.map.max() <= 1


@pytest.mark.parametrize(
    ('classes', 'stored', 'threshold'),
    [
        (('ok', 'defect'), None, Threshold(0.5, False)),
        (('ok', 'defect'), dict(value=0.2, aim='f1', calibrated=True), Threshold(0.2, True, 'f1')),
        (('ok', 'dent', 'scratch'), dict(value=0.2, aim='f1', calibrated=True), Threshold(0.2, True, 'f1')),
        (('dent', 'scratch'), None, None),
    ],
)
def test_the_threshold_travels_with_the_model(make, images, classes, stored, threshold):
    inspector = DefectInspector(make(classes=classes, threshold=stored), device='cpu')
    assert inspector.classes == classes
    assert inspector.threshold == threshold
    for result in inspector(images):
        assert result.threshold == threshold
        assert result.is_defective == (None if threshold is None else result.score >= threshold.value)
        assert sum(result.probabilities) == pytest.approx(1)
    if threshold is None:
        with pytest.raises(UsageError, match='none of the classes dent, scratch is good'):
            inspector.threshold = 0.3
        return
    for value in (0.0, scores(inspector(images[:1]))[0]):  # at its edge it counts
        inspector.threshold = value
        (result,) = inspector(images[0])
        assert result.is_defective
        assert not result.threshold.calibrated


def test_weights_alone_have_the_classes_of_the_data_set(make, images):
    folder = make()
    saved = torch.load(folder / 'epoch_1.pth', weights_only=True)
    torch.save(saved['state_dict'], folder / 'epoch_1.pth')
    config = folder / 'config.py'
    config.write_text(config.read_text().replace(", good='ok'", ''))
    inspector = DefectInspector(folder, device='cpu')
    assert inspector.threshold == Threshold()
    assert inspector.classes == ('good', 'defect')
    assert inspector(images[0])[0].label in inspector.classes


def test_it_goes_on_where_it_is_told_of_errors_and_stops_where_not(make, images, tmp_path):
    inspector = DefectInspector(make(), device='cpu')
    given = [images[0], tmp_path / 'absent.png', images[1], np.zeros((3, 3)), images[2]]
    with pytest.raises(UsageError, match=r'absent.png: no such file'):
        inspector(given)
    told = []
    found = list(inspector.stream(given, on_error=lambda source, error: told.append((source.name, str(error)))))
    np.testing.assert_allclose(scores(found), scores(inspector(images[:3])), atol=1e-6)
    assert [name for name, _ in told] == [str(tmp_path / 'absent.png'), 'image 3']


def test_what_the_network_cannot_take_is_told_too(make, images):
    inspector = DefectInspector(make(steps=''), device='cpu')
    told = []
    given = [images[0], np.zeros((1, 1), np.uint8), images[1]]
    found = list(inspector.stream(given, on_error=lambda source, error: told.append(str(error))))
    assert len(found) == 2
    assert len(told) == 1
    assert told[0].startswith('image 1: ')


def test_an_iterator_is_read_a_batch_at_a_time_in_flat_memory(make):
    inspector = DefectInspector(make(), device='cpu')
    read = 0

    def camera():
        nonlocal read
        while True:
            read += 1
            yield np.full((600, 800, 3), read % 255, np.uint8)

    stream = inspector(camera(), batch_size=4)
    next(stream)
    assert read <= 5
    for _ in range(20):
        next(stream)
    tracemalloc.start()
    for _ in range(60):  # 86 MB of images
        next(stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_the_model_is_left_as_it_was(make, images):
    inspector = DefectInspector(make(GUIDED), device='cpu')
    before = {name: value.clone() for name, value in inspector.network.model.state_dict().items()}
    first = scores(inspector(images))
    for _ in range(3):
        np.testing.assert_array_equal(scores(inspector(images)), first)
    for name, value in inspector.network.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_where_the_pipeline_crops_maps_lie_over_the_whole_image(make, images):
    folder = make(steps="dict(type='ResizeEdge', scale=32), dict(type='CenterCrop', crop_size=32),")
    inspector = DefectInspector(folder, device='cpu')
    (found,) = inspector(np.random.default_rng(0).integers(0, 255, (64, 128), np.uint8))
    assert found.map.shape == (32, 64)
    assert found.map[:, 16:48].max() > 0
    assert found.map[:, :15].max() == found.map[:, 49:].max() == 0
    assert found.heat_map.shape == (64, 128)


def test_without_maps_there_are_scores(make, images):
    steps = f"{RESIZE} dict(type='RandomFlip', prob=1.0),"
    (found,) = DefectInspector(make(steps=steps), device='cpu')(images[0])
    assert found.map is None
    assert found.heat_map is None
    assert found.regions == []
    assert found.draw().shape[2] == 3


def test_the_channel_is_made_without_priors_and_a_given_one_is_refused(make, images):
    assert DefectInspector(make(GUIDED, extra=", channel='self'"), device='cpu')(images[0])
    folder = make(GUIDED, extra=", channel='given'")
    with pytest.raises(UsageError, match='needs a prior of each image'):
        DefectInspector(folder, device='cpu')


@pytest.mark.parametrize(('device', 'sentence'), [('tpu7', 'tpu7'), ('cuda:77', 'cuda:77')])
def test_a_device_that_is_not_there(make, device, sentence):
    with pytest.raises(UsageError, match=sentence):
        DefectInspector(make(), device=device)


@pytest.mark.parametrize('size', [0, -1, 1.5, True])
def test_a_batch_has_a_whole_number_of_images(make, images, size):
    with pytest.raises(UsageError, match='batch_size'):
        DefectInspector(make(), device='cpu')(images, batch_size=size)


def test_weights_of_another_model_and_no_probabilities(make, images):
    folder = make()
    saved = torch.load(folder / 'epoch_1.pth', weights_only=True)
    saved['state_dict']['head.fc.weight'][:] = float('nan')
    torch.save(saved, folder / 'epoch_1.pth')
    with pytest.raises(UsageError, match='gives no probabilities'):
        DefectInspector(folder, device='cpu')(images[0])
    del saved['state_dict']['head.fc.weight']
    torch.save(saved, folder / 'epoch_1.pth')
    with pytest.raises(UsageError, match='not a checkpoint of this model'):
        DefectInspector(folder, device='cpu')


def test_maps_have_no_part_in_what_pads_an_image(make, images):
    folder = make(GUIDED, steps='')
    config = folder / 'config.py'
    config.write_text(config.read_text().replace('to_rgb=True)', 'to_rgb=True, pad_size_divisor=64)'))
    for result, image in zip(DefectInspector(folder, device='cpu')(images), images, strict=True):
        assert result.map.shape == image.shape[:2]


def test_a_new_image_needs_no_prior_where_the_test_has_them(make, images):
    inspector = DefectInspector(make(steps="dict(type='Resize', scale=(32, 48)),"), device='cpu')
    expected = inspector(images[0])[0].score
    priors = "dict(type='kgl_mm.LoadPrior', store='gone'), dict(type='kgl_mm.BinarizePrior'),"
    steps = f"dict(type='Resize', scale=(32, 48)), {priors}"
    assert DefectInspector(make(steps=steps), device='cpu')(images[0])[0].score == pytest.approx(expected)


@pytest.mark.parametrize('value', [-0.1, 1.1, 'x'])
def test_a_threshold_is_a_probability(make, value):
    with pytest.raises(UsageError, match='threshold='):
        DefectInspector(make(), device='cpu').threshold = value


def test_pictures_stay_in_their_folder(tmp_path):
    used = set()
    names = ['../../x.png', '/etc/x.png', 'a/../../x.png', 'b/x.png', 'x.png']
    places = [_place(tmp_path, name, used) for name in names]
    assert all(place.resolve().is_relative_to(tmp_path.resolve()) for place in places)
    assert len(set(places)) == len(names)

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import checkpoint, load_state_dict
from mmengine.structures import InstanceData
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from kgl_mm.errors import UsageError
from kgl_mm.models.detectors import torchvision_detector
from kgl_mm.models.detectors.anchors import Anchors
from kgl_mm.models.detectors.mmdet_names import to_mmdet

KINDS = ('fcos', 'retinanet', 'faster_rcnn')
SLIM = dict(type='kgl_mm.SlimVGG', channels=(8, 8, 16, 16), convs=(1, 1, 1, 1), out_indices=(1, 2, 3))
BOX = [12.0, 20.0, 44.0, 52.0]


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def detector(kind='fcos', seed=0, **kwargs):
    torch.manual_seed(seed)
    settings = dict(type='kgl_mm.TorchvisionDetector', kind=kind, num_classes=2, channels=32, backbone=SLIM)
    return MODELS.build(settings | kwargs)


def sample(*boxes, label=1, size=(64, 80), **meta):
    instances = InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.full((len(boxes),), label, dtype=torch.long)
    )
    return DataSample(gt_instances=instances, metainfo=dict(img_shape=size, **meta))


def image(*boxes, size=(64, 80), seed=0, value=2.0):
    """Noise with a square of this value in each box."""
    picture = 0.1 * torch.randn(3, *size, generator=torch.Generator().manual_seed(seed))
    for left, top, right, bottom in boxes:
        picture[:, int(top) : int(bottom), int(left) : int(right)] += value
    return picture


@pytest.mark.parametrize('kind', KINDS)
def test_losses_reach_every_weight_with_and_without_boxes(kind):
    model = detector(kind)
    for samples in ([sample(BOX), sample()], [sample(), sample()]):
        model.zero_grad()
        losses = model(torch.stack([image(BOX), image()]), samples, mode='loss')
        assert all(name.startswith('loss') and value.isfinite() for name, value in losses.items())
        sum(losses.values()).backward()
        assert all(p.grad is not None for p in model.parameters())  # so that processes need not look for unused ones


def test_fcos_takes_one_small_image():
    model, size, box = detector(channels=32), (32, 32), [4.0, 6.0, 20.0, 20.0]
    small = image(box, size=size)[None]
    assert model(small)[-1].shape[-2:] == (1, 1)
    losses = model(small, [sample(box, size=size)], mode='loss')
    assert all(value.isfinite() for value in losses.values())
    assert len(model.eval()(small, mode='predict')) == 1


def test_boxes_of_fcos_begin_with_an_extent():
    # their distances pass through a ReLU, and what is beyond it never learns
    for seed in range(10):
        model = detector(seed=seed)
        distances, _ = model.detector.head.regression_head(model(torch.stack([image(BOX), 100 * image()])))
        assert (distances > 0.1).all()


@pytest.mark.parametrize('kind', KINDS)
def test_a_frozen_backbone_stays_as_it_is(kind):
    model = detector(kind, freeze_backbone=True).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(model(torch.stack([image(BOX)] * 2), [sample(BOX)] * 2, mode='loss').values()).backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if name.startswith('backbone.')]
    assert {name.split('.')[0] for name in changed} == {'neck', 'detector'}
    assert not model.backbone.training
    assert model.neck.training
    assert detector(kind).train().backbone.training


FEW = dict(rpn_pre_nms_top_n_train=50, rpn_post_nms_top_n_train=50, box_batch_size_per_image=32)


@pytest.mark.parametrize(
    ('kind', 'rate', 'options'), [('fcos', 0.003, {}), ('retinanet', 0.001, {}), ('faster_rcnn', 0.003, FEW)]
)
def test_it_learns_where_squares_are(kind, rate, options):
    """From images that are padded to the size of the largest; what it finds is in pixels of their files."""
    model = detector(kind, options=options, backbone=dict(SLIM, norm_cfg=None))
    boxes, sizes, scales = [BOX, [30.0, 4.0, 58.0, 32.0]], [(64, 80), (64, 64)], [(0.5, 2.0), (1.0, 1.0)]
    inputs = torch.zeros(2, 3, 64, 80)
    for place, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        inputs[place, :, :, : size[1]] = image(box, size=size, seed=place, value=(-2, 2)[place])

    def samples():
        return [
            sample(box, size=size, label=label, scale_factor=scale)
            for label, (box, size, scale) in enumerate(zip(boxes, sizes, scales, strict=True))
        ]

    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(40):
        optimizer.zero_grad()
        sum(model(inputs, samples(), mode='loss').values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found = model(inputs, samples(), mode='predict')
    for label, (one, box) in enumerate(zip(found, [[24.0, 10, 88, 26], boxes[1]], strict=True)):
        assert one.gt_instances.bboxes.tolist() == [box]
        of_class = one.pred_instances[one.pred_instances.labels == label]
        best = of_class[of_class.scores.argmax().view(1)]
        assert box_iou(best.bboxes, torch.tensor([box])).item() > 0.3  # 0.06 in pixels of the input


@pytest.mark.parametrize('kind', KINDS)
def test_a_detector_is_pickled_and_what_it_is_given_stays(kind):
    model = detector(kind, options={} if kind == 'faster_rcnn' else dict(score_thresh=0.0)).eval()
    copied = pickle.loads(pickle.dumps(model))  # noqa: S301
    given = sample(BOX, scale_factor=(0.5, 2.0))
    with torch.no_grad():
        (once,) = model(image(BOX)[None], [given], mode='predict')
        (again,) = copied(image(BOX)[None], [given], mode='predict')
    assert given.gt_instances.bboxes.tolist() == [BOX]
    assert 'pred_instances' not in given
    assert once.gt_instances.bboxes.tolist() == again.gt_instances.bboxes.tolist() == [[24.0, 10, 88, 26]]
    assert torch.equal(once.pred_instances.bboxes, again.pred_instances.bboxes)
    assert len(once.pred_instances) > 0


@pytest.mark.parametrize('kind', KINDS)
def test_mixed_precision_leaves_boxes_exact(kind):
    model = detector(kind).eval()
    seen = []
    for name, part in model.detector.named_modules():
        if name in ('head', 'rpn.head', 'roi_heads.box_predictor'):
            part.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        features = model.extract_feat(image()[None])
        (found,) = model(image()[None], [sample()], mode='predict')
        generator = model.detector.rpn.anchor_generator if kind == 'faster_rcnn' else model.detector.anchor_generator
        anchors = generator(ImageList(image()[None], [(64, 80)]), list(features))[0]
    assert features[0].dtype == torch.bfloat16
    assert anchors.dtype == torch.float32
    assert {x.dtype for x in _tensors(seen)} == {torch.float32}
    assert found.pred_instances.bboxes.dtype == torch.float32


def _tensors(things):
    if isinstance(things, torch.Tensor):
        return [things]
    return [x for thing in (things.values() if isinstance(things, dict) else things) for x in _tensors(thing)]


def test_what_was_found_has_an_extent():
    """At the lower edge RetinaNet finds boxes in the padding, of which clipping leaves nothing."""
    model = detector('retinanet', options=dict(score_thresh=0.0)).eval()
    with torch.no_grad():
        (found,) = model(image(size=(40, 40))[None], [sample(size=(40, 40))], mode='predict')
    boxes = found.pred_instances.bboxes
    assert len(boxes)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.max() <= 40


@pytest.mark.parametrize('kind', KINDS)
def test_another_number_of_classes_leaves_out_the_class_layer_alone(kind, monkeypatch):
    saved = detector(kind, num_classes=1, seed=1).state_dict()
    model = detector(kind, num_classes=3)
    before = copy.deepcopy(model.state_dict())
    said = []
    for module in (torchvision_detector, checkpoint):
        monkeypatch.setattr(module, 'print_log', lambda text, *_, **__: said.append(text))
    load_state_dict(model, copy.deepcopy(saved))
    layers = {'cls_score', 'bbox_pred'} if kind == 'faster_rcnn' else {'cls_logits'}
    for name, value in model.state_dict().items():
        left_out = name.split('.')[-2] in layers and 'rpn' not in name
        assert torch.equal(value, before[name] if left_out else saved[name])
    assert len(said) == 1
    assert 'are of another number of classes than 3: they are left out and begin anew' in said[0]


def test_weights_of_the_backbone_are_checked(tmp_path):
    path = tmp_path / 'agbp.pth'
    weights = {f'backbone.{name}': value for name, value in detector().backbone.state_dict().items()}
    torch.save(weights, path)
    init = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    model = detector(seed=1, backbone=dict(SLIM, init_cfg=init))
    model.init_weights()
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, weights[f'backbone.{name}'])
    for settings, said in (
        (dict(init, prefix=None), "set prefix='backbone.'"),
        (dict(init, checkpoint='none.pth'), 'none.pth cannot be loaded'),
        (dict(init, prefix='neck.'), 'agbp.pth cannot be loaded'),
    ):
        with pytest.raises(UsageError, match=said):
            detector(backbone=dict(SLIM, init_cfg=settings)).init_weights()
    with pytest.raises(UsageError, match='it is of another network'):
        detector(backbone=dict(SLIM, channels=(8, 8, 16, 32), init_cfg=init)).init_weights()


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        (dict(kind='yolo'), "kind='yolo': not one of fcos, retinanet, faster_rcnn"),
        (dict(num_classes=0), 'num_classes=0'),
        (dict(channels=48), 'give a multiple of 32'),
        (dict(options=dict(score_treshold=1)), 'options: FCOS has no score_treshold, but .*score_thresh'),
        (dict(options=dict(min_size=1)), 'FCOS has no min_size'),
        (dict(backbone=dict(SLIM, out_indices=(0, 2))), r'strides \[1, 4\], but each must be twice'),
        (dict(backbone=dict(SLIM, out_indices=())), 'puts out no maps'),
    ],
)
def test_wrong_settings(settings, said):
    with pytest.raises(UsageError, match=said):
        detector(**settings)


def test_anchors_are_those_of_torchvision_where_nothing_is_rounded():
    ours = Anchors([4, 8], [(16,), (32,)], (1.0,))
    theirs = AnchorGenerator(((16,), (32,)), ((1.0,),) * 2)
    images = ImageList(torch.zeros(1, 3, 32, 64), [(32, 64)])
    features = [torch.zeros(1, 1, 8, 16), torch.zeros(1, 1, 4, 8)]
    assert torch.equal(ours(images, features)[0], theirs(images, features)[0])


def test_anchors_do_not_depend_on_the_padding():
    """Of 33 pixels in steps of 32 there are two, which are not 16 apart."""
    (found,) = Anchors.of_retinanet([32])(ImageList(torch.zeros(1, 3, 33, 33), [(33, 33)]), [torch.zeros(1, 1, 2, 2)])
    centres = (found[:, :2] + found[:, 2:]) / 2
    assert centres.round().unique(dim=0).tolist() == [[0, 0], [0, 32], [32, 0], [32, 32]]
    sizes = (found[:, 2:] - found[:, :2]).prod(1).sqrt().unique().tolist()
    np.testing.assert_allclose(np.unique(np.round(sizes, 2)), [128, 161.27, 203.19], rtol=1e-4)


def test_points_of_fcos_are_in_the_middle_of_cells():
    (found,) = Anchors.of_fcos([8])(ImageList(torch.zeros(1, 3, 16, 8), [(16, 8)]), [torch.zeros(1, 1, 2, 1)])
    assert found.tolist() == [[0, 0, 8, 8], [0, 8, 8, 16]]


@pytest.mark.parametrize('kind', KINDS)
def test_names_and_shapes_are_those_of_mmdet(kind):
    """Listed from mmdet 3.3.0's own models of these sizes; docs/detection.md says how outputs were compared."""
    listed = json.loads(Path(__file__).with_name('mmdet_names.json').read_text())[kind]
    indices = (0, 1, 2, 3) if kind == 'faster_rcnn' else (1, 2, 3)
    resnet = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, out_indices=indices)
    state = detector(kind, num_classes=3, backbone=resnet).state_dict()
    assert {name: list(value.shape) for name, value in to_mmdet(state).items()} == listed


def test_the_background_is_the_last_class_of_mmdet():
    state = detector('faster_rcnn', num_classes=3).state_dict()
    moved = to_mmdet(state)
    weight = state['detector.roi_heads.box_predictor.cls_score.weight']
    assert torch.equal(moved['roi_head.bbox_head.fc_cls.weight'], weight[[1, 2, 3, 0]])
    boxes = state['detector.roi_heads.box_predictor.bbox_pred.bias']
    assert torch.equal(moved['roi_head.bbox_head.fc_reg.bias'], boxes[4:])


def test_other_weights_have_no_names_in_mmdet():
    with pytest.raises(UsageError, match='not the weights of a detector'):
        to_mmdet({'backbone.conv1.weight': torch.zeros(1)})
    with pytest.raises(UsageError, match=r'neck.more.weight and 1 weights in all have no name in mmdet'):
        to_mmdet(detector('fcos').state_dict() | {'neck.more.weight': torch.zeros(1)})

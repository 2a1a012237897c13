from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from kgl_mm.engine.config import load_config
from kgl_mm.engine.run import _compare_classes
from kgl_mm.errors import UsageError
from kgl_mm.models import AFF, SimAM, TeacherStudentDetector
from kgl_mm.models.detectors.teacher_student_detector import _untrained
from kgl_mm.priors.fingerprint import hash_of_model
from kgl_mm.saliency import AnomalyMap, LayerCAM

TEACHER = dict(type='kgl_mm.SlimVGG', channels=(4, 8, 8), convs=(1, 1, 1), out_indices=(1, 2))
RESNET = dict(type='ResNet', depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
HEADS = [
    dict(),
    dict(unit=False),
    dict(loss='mkd', maps='mkd'),
    dict(loss='stpm', maps='mkd', blur=0),
    dict(combine='sum', top=0.1),
]


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def detector(seed=0, **kwargs):
    torch.manual_seed(seed)
    settings = dict(type='kgl_mm.TeacherStudentDetector', teacher=TEACHER, ssp=dict(attention='simam'))
    model = MODELS.build(settings | kwargs)
    with torch.no_grad():
        for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
            norm.running_var.uniform_(0.5, 1.5)
    return model


def samples(*labels):
    return [DataSample().set_gt_label(label) for label in labels]


def images(number=2, size=(32, 24)):
    return torch.randn(number, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('teacher', [TEACHER, RESNET])
def test_predictions_are_probabilities_and_maps(teacher, head):
    model = detector(teacher=teacher, head=head).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        found = model(images(), samples(0, 1), mode='predict')
        logits = model(images())
    for sample, row in zip(found, logits.softmax(1), strict=True):
        torch.testing.assert_close(sample.pred_score, row)
        assert sample.pred_map.shape == (1, 32, 24)
        assert 0 <= sample.pred_map.min() < sample.pred_map.max() < 1
    assert not model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize('head', HEADS)
def test_an_image_is_judged_alone(head):
    model = detector(head=head).eval()
    together = model(images(4), samples(0, 0, 1, 1), mode='predict')
    for image, sample in zip(images(4), together, strict=True):
        (alone,) = model(image[None], samples(0), mode='predict')
        torch.testing.assert_close(alone.pred_score, sample.pred_score, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(alone.pred_map, sample.pred_map, rtol=1e-3, atol=1e-6)


def test_the_map_of_mkd_is_the_gradient_of_the_loss():
    model = detector(head=dict(loss='mkd', maps='mkd', blur=0)).double().eval()
    pixels = images().double()
    epsilon, row, column = 1e-6, 7, 11
    slopes = 0
    for colour in range(3):
        shifted = pixels.clone()
        shifted[:, colour, row, column] += epsilon
        with torch.no_grad():
            losses = [model.head.per_image(model.extract_feat(x)) for x in (pixels, shifted)]
        slopes = slopes + ((losses[1] - losses[0]) / epsilon).abs()
    maps = AnomalyMap(model)(pixels)[:, row, column]
    torch.testing.assert_close(maps / (1 - maps), slopes, rtol=1e-3, atol=1e-9)


def test_only_the_student_learns():
    model = detector()
    before = hash_of_model(model.teacher)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    history = []
    for _ in range(30):
        losses = model(images(), samples(0, 0), mode='loss')
        assert set(losses) == {'loss_distillation', 'loss_ssp'}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(losses['loss_distillation'].item())
        assert not model.teacher.training
        assert model.student.training
    assert hash_of_model(model.teacher) == before
    assert history[-1] < 0.5 * history[0]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.eval()
    model.train()
    assert not any(module.training for module in model.teacher.modules())


@pytest.mark.parametrize('fuse', ['aff', 'add', 'replace'])
@pytest.mark.parametrize('attention', ['none', 'se', 'simam'])
def test_blocks_can_be_chosen_and_left_out(fuse, attention):
    model = detector(fuse=fuse, ssp=dict(attention=attention))
    assert any(isinstance(module, AFF) for module in model.modules()) == (fuse == 'aff')
    assert any(isinstance(module, SimAM) for module in model.modules()) == (attention == 'simam')
    sum(model(images(), samples(0, 0), mode='loss').values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    plain = detector(ssp=None)
    assert set(plain(images(), samples(0, 0), mode='loss')) == {'loss_distillation'}
    assert len(list(plain.parameters())) == 2 * len(list(plain.teacher.parameters()))


@pytest.mark.parametrize(
    'teacher',
    [
        dict(type='ResNet', depth=18, out_indices=(0, 1), frozen_stages=1, norm_eval=True),
        dict(type='MobileNetV2', out_indices=(1, 2)),
    ],
)
def test_all_that_is_trained_has_a_gradient(teacher):
    """What is behind the last map would keep several processes waiting; what the teacher freezes the student learns."""
    model = detector(teacher=teacher)
    sum(model(images(), samples(0, 0), mode='loss').values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    trained = [p.requires_grad for p in model.student.parameters()]
    assert trained[0]
    assert not trained[-1]
    assert model.student.training


def test_fusion_by_its_formula():
    model = detector(fuse='add', ssp=dict(attention='none')).eval()
    learned = model.student(images())
    for block, feature, fused in zip(model.blocks, learned, model.extract_feat(images())[1], strict=True):
        torch.testing.assert_close(fused, feature + block.ssp(feature))
    model.train()
    losses = model(images(), samples(0, 0), mode='loss')
    learned = model.student(images())
    parts = zip(model.blocks, learned, strict=True)
    expected = [(block.ssp(x) - x).square().sum() / x.square().sum() for block, x in parts]
    torch.testing.assert_close(losses['loss_ssp'], 0.1 * sum(expected) / 2)


def test_a_defective_image_teaches_nothing():
    one, both = detector(), detector()
    alone = one(images()[:1], samples(0), mode='loss')
    mixed = both(images(), samples(0, 1), mode='loss')
    torch.testing.assert_close(mixed, alone)
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), both.buffers(), strict=True))
    losses = both(images(), samples(1, 2), mode='loss')
    assert losses.keys() == mixed.keys()
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), both.buffers(), strict=True))
    sum(losses.values()).backward()
    assert all(not p.grad.any() for p in both.parameters() if p.requires_grad)
    assert sum(losses.values()) == 0


@pytest.mark.parametrize(
    'name', ['ssp_kd_resnet18_ksdd.py', 'ssp_kd_folder.py', 'ssp_kd_vgg16_mvtec.py', 'ssp_kd_demo.py']
)
def test_all_layers_of_a_random_teacher_are_its_own(name):
    teacher = MODELS.build(load_config(name).model.teacher)
    teacher.init_weights()  # which leaves the last norms of a ResNet's blocks 0, if it may
    assert all(weight.any() for key, weight in teacher.named_parameters() if key.endswith('weight'))


def test_a_batch_of_one_small_image_and_mixed_precision():
    model = detector(teacher=dict(TEACHER, norm_cfg=None))
    losses = model(images(1, (4, 4)), samples(0), mode='loss')  # the last map is a single position
    assert all(torch.isfinite(value) for value in losses.values())
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(images(), samples(0, 0), mode='loss')
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_the_error_of_a_prediction_is_as_large_in_half_precision():
    model = detector(ssp=dict(attention='none'))
    with torch.no_grad():
        for weight in model.student.parameters():
            weight *= 500 if weight.ndim == 1 else 1  # norms: squares of what it puts out are beyond float16
    exact = model(images(), samples(0, 0), mode='loss')['loss_ssp']
    with torch.autocast('cpu', torch.float16):
        half = model(images(), samples(0, 0), mode='loss')['loss_ssp']
        assert model.student(images())[-1].dtype == torch.float16
        assert model.student(images())[-1].square().mean().isinf()
    assert exact > 0
    assert float(half) == pytest.approx(float(exact), rel=0.02)


def test_a_map_never_exceeds_what_a_map_may_be():
    model = detector().eval()
    model.head.map_scale.fill_(1e-12)
    with torch.no_grad():
        found = model(images(2, (33, 47)), samples(0, 0), mode='predict')
    assert max(float(sample.pred_map.max()) for sample in found) == 1


def saved(tmp_path, prefix, channels=(4, 8, 8)):
    torch.manual_seed(7)
    trained = MODELS.build(dict(TEACHER, channels=channels))
    state = {prefix + name: value for name, value in trained.state_dict().items()}
    path = str(tmp_path / f'{len(prefix)}{channels[0]}.pth')
    torch.save(dict(state_dict=state), path)
    return path, trained


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'backbone', 'module.'])
def test_the_weights_of_a_teacher_come_in_one_line(tmp_path, prefix):
    path, trained = saved(tmp_path, 'backbone.' if prefix == 'backbone' else prefix)
    init = dict(type='Pretrained', checkpoint=path)
    if prefix not in ('', 'module.'):  # torch puts the latter before the names of a model on several GPUs
        init['prefix'] = prefix
    model = detector(teacher=dict(TEACHER, init_cfg=init))
    model.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.teacher.parameters(), trained.parameters(), strict=True))
    assert not torch.equal(next(model.student.parameters()), next(trained.parameters()))
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())


@pytest.mark.parametrize(
    ('where', 'sentence'),
    [
        (('backbone.', (4, 8, 8), ''), r"no fitting stages.* and 15 of 15 weights .* set prefix='backbone.'"),
        (('', (6, 8, 8), ''), 'no fitting stages.* of another network'),
        (('', (4, 8, 8), 'neck.'), 'cannot be loaded'),
        (None, 'absent.pth cannot be loaded'),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, where, sentence):
    path, prefix = ('absent.pth', '') if where is None else (saved(tmp_path, *where[:2])[0], where[2])
    init = dict(type='Pretrained', checkpoint=path) | (dict(prefix=prefix) if prefix else {})
    with pytest.raises(UsageError, match=sentence):
        detector(teacher=dict(TEACHER, init_cfg=init)).init_weights()


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save(dict(model=dict(a=torch.zeros(1)), epoch=3), tmp_path / 'a.pth')
    with pytest.raises(UsageError, match='no fitting stages'):
        detector(
            teacher=dict(TEACHER, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')))
        ).init_weights()


def test_blocks_that_are_run_twice_to_save_memory():
    model = detector(teacher=dict(type='mmpretrain.ResNet', depth=18, with_cp=True, out_indices=(0, 1)))
    assert not any(weight.requires_grad for weight in model.student.layer3.parameters())
    assert all(block.with_cp for block in model.student.layer1)


def test_each_good_image_counts_alike_whichever_process_has_it(monkeypatch):
    """One process has three of them, and another one has one: two on average."""
    model = detector()
    images, samples = torch.randn(3, 3, 32, 32), [DataSample().set_gt_label(0) for _ in range(3)]
    alone = model.loss(images, samples)
    monkeypatch.setattr('kgl_mm.models.detectors.teacher_student_detector.all_reduce', lambda x, op: x.fill_(2))
    for name, loss in model.loss(images, samples).items():
        torch.testing.assert_close(loss, 1.5 * alone[name])


def test_weights_that_are_not_named_are_asked_for():
    with pytest.raises(UsageError, match=r'model\.teacher\.init_cfg: Pretrained needs a checkpoint'):
        detector(teacher=dict(TEACHER, init_cfg=dict(type='Pretrained'))).init_weights()


def test_a_student_never_begins_with_the_weights_of_its_teacher(tmp_path):
    path, trained = saved(tmp_path, '')
    inits = [dict(type='Kaiming', layer='Conv2d'), dict(type='Pretrained', checkpoint=path)]
    model = detector(teacher=dict(TEACHER, init_cfg=inits))
    model.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.teacher.parameters(), trained.parameters(), strict=True))
    assert not torch.equal(next(model.student.parameters()), next(trained.parameters()))
    absent = detector(teacher=dict(TEACHER, init_cfg=[dict(inits[1], checkpoint=str(tmp_path / 'absent.pth'))]))
    with pytest.raises(UsageError, match=r'absent\.pth cannot be loaded'):
        absent.init_weights()
    with pytest.raises(UsageError, match='pretrained: the student would have these weights too; give a student'):
        _untrained(dict(type='TIMMBackbone', model_name='resnet18', pretrained=True))


def test_a_teacher_of_gray_images_and_one_that_wants_large_ones():
    gray = dict(TEACHER, in_channels=1)
    model = detector(teacher=gray, data_preprocessor=dict(mean=[0.0], std=[1.0]))
    assert model(images()[:, :1]).shape == (2, 2)
    swin = dict(type='SwinTransformer', arch='tiny', img_size=224, out_indices=(2, 3), drop_path_rate=0.0)
    assert len(detector(teacher=swin).scales) == 2


def test_a_random_teacher_is_that_of_the_seed():
    one, same, other = (detector(seed) for seed in (0, 0, 1))
    assert hash_of_model(one.teacher) == hash_of_model(same.teacher) != hash_of_model(other.teacher)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(fuse='typo'), "fuse='typo': not one of aff, add, replace"),
        (dict(ssp_weight=-1), 'ssp_weight=-1: not a number of 0 or more'),
        (dict(ssp=dict(attention='typo')), "attention='typo'"),
        (dict(ssp='none'), "ssp='none': give a dict of settings of SSPConv, or None"),
        (dict(standardize='maybe'), "standardize='maybe': not one of True, False"),
        (dict(teacher=dict(type='VisionTransformer', arch='deit-t')), 'puts out something that is no feature'),
    ],
)
def test_what_is_wrong_is_said(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        detector(**settings)


def test_a_student_that_does_not_fit_is_said():
    with pytest.raises(UsageError, match='choose another student'):
        detector(student=dict(TEACHER, channels=(4, 8, 6)))
    with pytest.raises(UsageError, match='they must be maps C x h x w, alike'):
        detector(student=dict(TEACHER, out_indices=(2,)))


def test_both_are_compared_where_the_teacher_is_standardized():
    model = detector().eval()
    mean, deviation = torch.linspace(-1, 1, 8), torch.linspace(0.5, 2, 8)
    model.scales[1].set(mean, deviation)
    with torch.no_grad():
        taught, learned = model.extract_feat(images())
        fused = [block(feature)[0] for block, feature in zip(model.blocks, model.student(images()), strict=True)]
        for found, raw in ((taught, model.teacher(images())), (learned, fused)):
            assert torch.equal(found[0], raw[0])
            expected = (raw[1].double() - mean[:, None, None]) / deviation[:, None, None]
            torch.testing.assert_close(found[1], expected.float())
        losses = model(images(), samples(0, 0), mode='loss')
        assert losses['loss_distillation'].item() == pytest.approx(
            model.head.per_image((taught, learned)).mean().item()
        )
        model.standardize = False
        assert torch.equal(model.extract_feat(images())[0][1], model.teacher(images())[1])


def test_lengths_of_features_count_where_they_were_learned_and_standardized():
    learned = dict(TEACHER, init_cfg=[dict(type='Pretrained', checkpoint='of_a_training.pth')])
    assert detector().head.unit
    assert not detector(teacher=learned).head.unit
    assert detector(teacher=learned, standardize=False).head.unit
    assert detector(teacher=learned, head=dict(unit=True)).head.unit
    assert not detector(head=dict(unit=False)).head.unit


@pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, load_state_dict])
def test_a_checkpoint_is_looked_at_as_it_was_trained(load):
    """The weights of a teacher are named for the training alone, so that a test does not know whether they were."""
    trained = detector(teacher=dict(TEACHER, init_cfg=dict(type='Pretrained', checkpoint='of_a_training.pth')))
    tested, set_by_hand = detector(seed=1), detector(seed=1, head=dict(unit=True))
    for model in (tested, set_by_hand):
        load(model, trained.state_dict())
    assert (trained.head.unit, tested.head.unit, set_by_hand.head.unit) == (False, False, True)
    assert hash_of_model(tested) == hash_of_model(trained)
    older = {key: value for key, value in trained.state_dict().items() if key != 'head._extra_state'}
    load(tested, older)
    assert not tested.head.unit
    load(trained, detector().state_dict())
    assert trained.head.unit


def test_a_channel_that_never_moves_does_not_outweigh_the_others():
    scale = detector().scales[0]
    scale.set(torch.zeros(8), torch.tensor([0.0, 4, 2, 2, 2, 2, 2, 2]))
    assert scale.deviation.flatten().tolist() == pytest.approx([0.004, 4, 2, 2, 2, 2, 2, 2])
    scale.set(torch.zeros(8), torch.zeros(8))
    assert torch.equal(scale(torch.ones(1, 8, 1, 1)), torch.ones(1, 8, 1, 1))


def test_a_defect_is_found_where_it_is():
    """A student of smooth images leaves its teacher at a bright spot."""
    random = np.random.default_rng(0)
    smooth = [cv2.GaussianBlur(random.normal(size=(64, 64, 3)).astype(np.float32), (0, 0), 2) * 4 for _ in range(16)]
    good = torch.from_numpy(np.stack(smooth)).permute(0, 3, 1, 2).contiguous()
    model = detector(ssp=None)  # attention looks at the whole image
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model(good, samples(*[0] * 16), mode='loss').values()).backward()
        optimizer.step()
    spotted = good[:4].clone()
    spotted[:, :, 40:43, 28:31] += 6
    for found in AnomalyMap(model)(spotted) - AnomalyMap(model)(good[:4]):
        row, column = np.unravel_index(int(found.argmax()), found.shape)
        assert abs(row - 41) <= 8  # what one position of the last map sees reaches that far
        assert abs(column - 29) <= 8
    with torch.no_grad():
        odds = model.eval()(torch.cat([good[:4], spotted]))[:, 1]
    assert odds[4:].mean() > odds[:4].mean()


def test_anomaly_maps_are_of_detectors_and_never_scaled_by_themselves():
    model = detector().eval()
    plain = AnomalyMap(model)(images())
    torch.testing.assert_close(AnomalyMap(model, normalize='max')(images()), plain)
    torch.testing.assert_close(AnomalyMap(model, normalize='evidence', flips=())(images()), plain)
    both = AnomalyMap(model, flips=['h'])(images())
    torch.testing.assert_close(both, (plain + AnomalyMap(model)(images().flip(3)).flip(2)) / 2)
    assert AnomalyMap(model).settings()['normalize'] is None
    with pytest.raises(UsageError, match='Linear is no detector'):
        AnomalyMap(torch.nn.Linear(2, 2))
    assert LayerCAM(model, layers=['student.stages.2'])(images()).shape == (2, 32, 24)  # logits like any other


def test_kinds_of_defect_are_not_for_a_detector():
    kinds = SimpleNamespace(metainfo=dict(classes=('good', 'dent', 'scratch')))
    with pytest.raises(UsageError, match='tells good from defective: leave labels=kind out'):
        _compare_classes(detector(), kinds, 'train')
    _compare_classes(detector(), SimpleNamespace(metainfo=dict(classes=('good', 'defect'))), 'train')


def test_it_is_a_model_of_mmpretrain():
    model = detector(data_preprocessor=dict(mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True))
    assert isinstance(model, TeacherStudentDetector)
    batch = dict(inputs=[torch.zeros(3, 32, 24, dtype=torch.uint8)] * 2, data_samples=samples(0, 1))
    assert len(model.test_step(batch)) == 2

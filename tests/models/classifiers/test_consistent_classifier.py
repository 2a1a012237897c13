"""An ImageClassifier taught by maps: the same network, but for one more loss."""

import multiprocessing

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import distributed, nn

from kgl_mm.errors import UsageError
from kgl_mm.models.heads import KnowledgeInjectionHead

BACKBONE = dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1), norm_cfg=None)
NECK = dict(type='GlobalAveragePooling')
HEAD = dict(type='LinearClsHead', num_classes=2, in_channels=8)


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def build(kind='kgl_mm.ConsistentClassifier', backbone=BACKBONE, neck=NECK, head=HEAD, **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(dict(type=kind, backbone=backbone, neck=neck, head=head, **kwargs))
    for parameter in model.parameters():  # where weights are 0, as biases are, nothing could go wrong
        nn.init.normal_(parameter, std=0.3)
    return model


def sample(label, mask=None, **fields):
    given = DataSample(metainfo=dict(img_path=f'kind{label}.png'))
    if label is not None:
        given.set_gt_label(label)
    if mask is not None:
        given.set_field(mask, 'prior_mask')
    for name, value in fields.items():
        given.set_field(value, name)
    return given


def square(left=0):
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:8, left : left + 4] = 1
    return mask


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def samples():
    return [sample(1, square()), sample(0, torch.zeros(1, 16, 16)), sample(1, square(8)), sample(1)]


def test_differs_from_the_plain_classifier_in_one_loss(images, samples):
    """Dropout in the head would show a second pass through it."""
    head = dict(type='StackedLinearClsHead', num_classes=2, in_channels=8, mid_channels=[8], dropout_rate=0.5)
    model, plain = (build(kind, head=head) for kind in ('kgl_mm.ConsistentClassifier', 'ImageClassifier'))
    assert list(model.state_dict()) == list(plain.state_dict())
    losses = []
    for classifier in (model, plain):
        torch.manual_seed(2)
        losses.append(classifier(images, samples, mode='loss'))
    assert set(losses[0]) == {'loss', 'loss_consistency'}
    assert losses[0]['loss'] == losses[1]['loss']
    sum(losses[0].values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not model.head._forward_hooks

    plain.load_state_dict(model.state_dict())
    model.eval(), plain.eval()
    assert torch.equal(model(images), plain(images))
    for got, expected in zip(model(images, mode='predict'), plain(images, mode='predict'), strict=True):
        assert torch.equal(got.pred_score, expected.pred_score)


@pytest.mark.parametrize('mode', ['avg', 'max_avg'])
def test_exports_node_for_node_as_the_plain_classifier(images, samples, mode):
    parts = dict(
        backbone=dict(BACKBONE, norm_cfg=dict(type='BN')),
        neck=dict(type='kgl_mm.GlobalPooling', mode=mode),
        head=dict(HEAD, in_channels=8 if mode == 'avg' else 16),
    )
    model, plain = build(**parts), build('ImageClassifier', **parts)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(images, samples, mode='loss')['loss_consistency'].backward()
    optimizer.step()
    plain.load_state_dict(model.state_dict())
    programs = [torch.export.export(classifier.eval(), (images,)) for classifier in (model, plain)]
    graphs = [
        [
            (node.name, node.op, str(node.target), str(node.args), str(node.kwargs), str(node.meta.get('val')))
            for node in program.graph.nodes
        ]
        for program in programs
    ]
    assert len(graphs[0]) > 10
    assert graphs[0] == graphs[1]
    assert str(programs[0].graph_signature) == str(programs[1].graph_signature)
    assert torch.equal(programs[0].module()(images), plain(images))


class Spy(nn.Module):
    """A loss that keeps what it is given."""

    def forward(self, features, logits, targets, valid):
        self.seen = features, logits, targets, valid
        return logits.sum() * 0


def spied(**parts):
    model = build(**parts)
    model.consistency = Spy()
    return model


def test_what_the_loss_is_given(images, samples):
    model = spied()
    model(images, [*samples[:3], sample(0)], mode='loss')
    features, logits, targets, valid = model.consistency.seen
    torch.testing.assert_close(features, model.backbone(images)[0])
    torch.testing.assert_close(logits, model(images))
    assert valid.tolist() == [True, True, True, False]
    assert torch.equal(targets[:3], torch.stack([sample.prior_mask for sample in samples[:3]]))


def test_a_defective_image_whose_target_is_empty_is_left_out(images, samples):
    model = spied()
    samples[2].prior_mask.zero_()
    model(images, samples, mode='loss')
    assert model.consistency.seen[3].tolist() == [True, True, False, False]


class Halving(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 2, stride=2)

    def forward(self, feats):
        return (self.conv(feats[-1]),)


def test_a_neck_that_puts_out_maps_and_a_head_that_takes_them(images, samples):
    """KnowledgeInjectionHead calls itself with more than the features, and adds losses of its own."""
    for neck, size in ((None, 8), (Halving(), 4)):
        head = KnowledgeInjectionHead(num_classes=2, in_channels=8)
        model = spied(neck=neck, head=head)
        losses = model(images, samples, mode='loss')
        assert len(losses) > 2
        assert model.consistency.seen[0].shape == (4, 8, size, size)
        losses = build(neck=neck, head=head)(images, samples, mode='loss')
        assert 0 < losses['loss_consistency'] < 1


def test_nobody_has_a_target(images):
    model = build()
    losses = model(images[:1], [sample(1)], mode='loss')
    assert losses['loss_consistency'] == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_settings_of_the_loss():
    loss = build(consistency=dict(formula='layer_cam', loss_weight=2.0)).consistency
    assert (type(loss).__name__, loss.formula, loss.loss_weight) == ('SaliencyConsistencyLoss', 'layer_cam', 2.0)


def test_mixed_precision(images, samples):
    model = build()
    expected = model(images, samples, mode='loss')['loss_consistency']
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(images, samples, mode='loss')
    torch.testing.assert_close(losses['loss_consistency'], expected, rtol=0.05, atol=0.01)
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


class Pooled(nn.Module):
    def forward(self, images):
        return (images.mean((2, 3)).repeat(1, 3)[:, :8],)


class Unseen(nn.Linear):
    """A head whose loss goes around its own call."""

    def loss(self, feats, data_samples):
        return dict(loss=super().forward(feats[-1]).sum())


@pytest.mark.parametrize(
    ('parts', 'sentence'),
    [
        (dict(backbone=Pooled(), neck=None), r'needs feature maps .*, not shape \(4, 8\)'),
        (dict(backbone=dict(BACKBONE, init_cfg=None), freeze=True), 'features without a graph: .*frozen_stages'),
        (dict(head=Unseen(8, 2)), 'Unseen.loss does not call the head'),
    ],
)
def test_parts_that_it_cannot_teach(images, samples, parts, sentence):
    freeze = parts.pop('freeze', False)
    model = build(**parts)
    model.backbone.requires_grad_(not freeze)
    with pytest.raises(UsageError, match=sentence):
        model(images, samples, mode='loss')


@pytest.mark.parametrize(
    ('bad', 'sentence'),
    [
        (sample(None, torch.zeros(1, 16, 16)), 'kindNone.png has no gt_label'),
        (sample(1, torch.zeros(1, 8, 16)), r'prior_mask of kind1.png has shape \(1, 8, 16\), and its image \(16, 16\)'),
        (sample(1, torch.zeros(16, 16)), r'shape \(16, 16\)'),
    ],
)
def test_samples_that_it_refuses(images, samples, bad, sentence):
    with pytest.raises(UsageError, match=sentence):
        build()(images, [*samples[:3], bad], mode='loss')
    with pytest.raises(UsageError, match='an image has no gt_label'):
        build()(images, mode='loss')


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(train_cfg=dict(augments=dict(type='Mixup', alpha=0.2))), 'train_cfg.augments'),
        (dict(consistency=dict(formula='cam')), "formula='cam'"),
    ],
)
def test_settings_that_it_refuses(change, sentence):
    with pytest.raises(UsageError, match=sentence):
        build(**change)


def run(tmp_path, images, samples, **kwargs):
    dataset = [dict(inputs=image, data_samples=each) for image, each in zip(images, samples, strict=True)]
    runner = Runner(
        model=build(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=4, dataset=dataset, sampler=dict(type=DefaultSampler), collate_fn=dict(type='pseudo_collate')
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        cfg=kwargs,
        default_scope='mmpretrain',
        experiment_name=tmp_path.name,
    )
    runner.train()
    return runner


def test_in_a_runner(tmp_path, images, samples):
    assert 'train/loss_consistency' in run(tmp_path, images, samples).message_hub.log_scalars


def test_compile_is_refused_in_one_sentence(tmp_path, images, samples):
    torch._dynamo.reset()
    sentence = 'torch.compile does not support double backward, .*: leave compile out'
    with pytest.raises(UsageError, match=sentence):
        run(tmp_path, images, samples, compile=dict(backend='aot_eager'))
    with pytest.raises(UsageError, match=sentence):
        torch.compile(spied(), backend='aot_eager')(images, samples, mode='loss')  # before anything is compiled
    compiled = torch.compile(build(), backend='aot_eager')
    torch.testing.assert_close(compiled(images), build()(images))


def test_a_compiled_backbone_is_taught_the_same(images, samples):
    torch._dynamo.reset()
    grads = []
    for backend in (None, 'aot_eager'):
        model = build()
        if backend:
            model.backbone.compile(backend=backend)
        model(images, samples, mode='loss')['loss_consistency'].backward()
        grads.append([parameter.grad for parameter in model.backbone.parameters()])
    torch.testing.assert_close(grads[1], grads[0])


def gradient_of_steps(model, part):
    """Of three steps: one image without a target on the second process, then two, then nobody has one."""
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    steps = []
    for with_target in (3, 2, 0):
        samples = [sample(1, square(4 * i) if i < with_target else None) for i in range(4)]
        model.zero_grad()
        sum(model(images[part], samples[part], mode='loss').values()).backward()
        steps.append([parameter.grad.clone() for parameter in model.parameters()])
    return steps


def one_of_two(rank, folder):
    distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    wrapped = nn.parallel.DistributedDataParallel(build())
    torch.save(gradient_of_steps(wrapped, slice(2 * rank, 2 * rank + 2)), f'{folder}/{rank}.pth')


def test_two_processes_have_the_gradient_of_one(tmp_path):
    # where there is a GPU, autograd has threads, which a fork would lack
    context = multiprocessing.get_context('spawn' if torch.cuda.is_available() else 'fork')
    processes = [context.Process(target=one_of_two, args=(rank, tmp_path), daemon=True) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=100)
        assert process.exitcode == 0
    expected = gradient_of_steps(build(), slice(None))
    for rank in (0, 1):
        got = torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_the_trust_in_a_target_comes_with_its_image(images):
    model = spied()
    samples = [
        sample(1, square(), prior_trust=0.25),
        sample(0, square() * 0),
        sample(1, square(), prior_trust=0.0),
        sample(1),
    ]
    model(images, samples, mode='loss')
    assert model.consistency.seen[3].tolist() == [0.25, 1, 0, 0]

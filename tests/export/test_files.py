import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import kgl_mm
from kgl_mm.apis import DefectInspector
from kgl_mm.errors import UsageError
from kgl_mm.export.files import build
from kgl_mm.files import hash_of

from .conftest import SIX, write_run

SETTINGS = dict(guided=True, extra=", channel='self'")


def test_the_metadata_say_what_a_consumer_needs(export):
    original, exported = export(**SETTINGS)
    model = onnx.load(exported.network.path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts['classes']) == ['ok', 'defect']
    assert json.loads(facts['threshold']) == dict(value=0.5, calibrated=False, aim=None)
    assert facts['version'] == model.producer_version == kgl_mm.__version__
    assert facts['checkpoint'] == hash_of(original.network.checkpoint)
    assert json.loads(facts['size']) == [48, 32]
    assert facts['map'] == 'SegmentationMap'
    assert 'BGR' in facts['input']
    (given,) = model.graph.input
    dims = given.type.tensor_type.shape.dim
    assert [bool(dim.dim_param) for dim in dims] == [True, True, True, False]
    assert dims[3].dim_value == 3
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_no_path_of_this_machine_is_in_the_file(export):
    content = export(**SETTINGS)[1].network.path.read_bytes()
    assert b'site-packages' not in content
    assert b'.py' not in content


@pytest.mark.parametrize(
    ('content', 'sentence'), [(None, 'no such file'), (b'', 'not a model'), (b'abc', 'not a model'), ('cut', 'not a')]
)
def test_a_file_that_is_none(export, tmp_path, content, sentence):
    path = tmp_path / 'a.onnx'
    if content is not None:
        whole = export(**SETTINGS)[1].network.path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == 'cut' else content)
    with pytest.raises(UsageError, match=f'a.onnx: {sentence}'):
        DefectInspector(path)


def test_a_model_of_somebody_else(tmp_path):
    given = onnx.helper.make_tensor_value_info('images', onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info('y', onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node('Relu', ['images'], ['y'])], 'g', [given], [other])
    opset = [onnx.helper.make_opsetid('', 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / 'a.onnx')
    with pytest.raises(UsageError, match=r'not written by tools/export\.py'):
        DefectInspector(tmp_path / 'a.onnx')


def test_what_does_not_fit_an_exported_file(export):
    path = export(**SETTINGS)[1].network.path
    with pytest.raises(UsageError, match='leave the checkpoint out'):
        DefectInspector(path, checkpoint='epoch_1.pth')
    with pytest.raises(UsageError, match="device='tpu'"):
        DefectInspector(path, device='tpu')


def test_a_size_that_the_network_cannot_take_is_told(export, monkeypatch):
    exported = export(guided=True, classes=SIX, steps='')[1]
    infer, told = exported.network.infer, []

    def with_a_least_size(images):  # runtimes differ in what they take
        assert images.shape[1] > 1, 'too small'
        return infer(images)

    monkeypatch.setattr(exported.network, 'infer', with_a_least_size)
    images = [np.zeros((1, 1), np.uint8), np.zeros((64, 64), np.uint8)]
    found = list(exported.stream(images, on_error=lambda source, error: told.append(str(error))))
    assert [result.name for result in found] == ['image 1']
    assert len(told) == 1
    assert told[0].startswith('image 0: the network cannot take images of 1 x 1 pixels (too small')


def test_a_score_that_is_not_that_of_the_probabilities_is_refused(export, monkeypatch):
    exported = export(guided=True, classes=SIX)[1]
    infer = exported.network.infer

    def other(images):
        found = infer(images)
        return found | dict(score=found['score'] + np.float32(1e-3))

    image = np.zeros((64, 64), np.uint8)
    assert exported(image)
    monkeypatch.setattr(exported.network, 'infer', other)
    with pytest.raises(UsageError, match='its scores are not those of its probabilities'):
        exported(image)


def test_a_model_whose_map_cannot_be_written_has_scores_and_says_so(tmp_path, images, monkeypatch):
    original = DefectInspector(write_run(tmp_path / 'run', guided=True), device='cpu')
    expected = original(images)

    def explain(*_):
        raise RuntimeError('no such operator')

    monkeypatch.setattr(original.network.method, 'explain', explain)
    facts, reason = build(original.network, tmp_path / 'a.onnx')
    assert (facts['map'], reason) == ('none', 'no such operator')
    found = DefectInspector(tmp_path / 'a.onnx')(images)
    assert all(result.map is None for result in found)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.probabilities, other.probabilities, atol=1e-5)


class CountsImages(nn.Module):
    def forward(self, x):
        return x + torch.zeros(len(x), 1, 1, 1)


def test_a_model_that_computes_with_the_number_of_its_images_is_refused(tmp_path):
    network = DefectInspector(write_run(tmp_path / 'run'), device='cpu').network
    network.model.backbone = nn.Sequential(CountsImages(), network.model.backbone)
    with pytest.raises(UsageError, match='number or size of images as plain numbers'):
        build(network, tmp_path / 'a.onnx', with_map=False)

"""Loading, and one sentence for whatever is missing."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from kgl_mm.errors import UsageError
from kgl_mm.priors.sources.clip import load

open_clip = pytest.importorskip('open_clip', reason='open_clip is not installed')


@pytest.fixture
def known(small_clip, monkeypatch):
    """The small network by the name ``small`` among those of open_clip."""
    settings = json.loads((small_clip / 'open_clip_config.json').read_text())['model_cfg']
    names = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setattr(open_clip.factory, '_MODEL_CONFIGS', dict(names, small=settings))
    return small_clip / 'open_clip_pytorch_model.bin'


@pytest.fixture
def copied(small_clip, tmp_path):
    """A copy of the small network that may be damaged."""
    return shutil.copytree(small_clip, tmp_path / 'copied')


class Code:
    def __reduce__(self):
        return print, ('this ran',)


def test_a_name_with_a_file_of_weights(known, tmp_path):
    model, _ = load('small', str(known))
    weights = torch.load(known, weights_only=True)
    assert all(torch.equal(value.cpu(), weights[name]) for name, value in model.state_dict().items() if name in weights)
    assert not model.training
    assert not any(value.requires_grad for value in model.parameters())
    torch.save(
        dict(epoch=3, state_dict={f'module.{name}': value for name, value in weights.items()}), tmp_path / 'run.pt'
    )
    again, _ = load('small', tmp_path / 'run.pt')
    assert torch.equal(again.visual.proj, model.visual.proj)


def test_another_size_of_images(small_clip):
    usual, _ = load(f'local-dir:{small_clip}', None)
    larger, _ = load(f'local-dir:{small_clip}', None, [24, 48])
    square, _ = load(f'local-dir:{small_clip}', None, [64, 64])
    assert [model.visual.grid_size for model in (usual, larger, square)] == [(4, 4), (3, 6), (8, 8)]
    assert torch.equal(larger.visual.positional_embedding[0], usual.visual.positional_embedding[0])
    assert larger.visual(torch.zeros(1, 3, 24, 48, device=larger.logit_scale.device)).shape == (1, 8)


def test_images_are_prepared_as_by_open_clip(small_clip):
    model, _ = load(f'local-dir:{small_clip}', None)
    rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    expected = open_clip.image_transform(32, is_train=False)(Image.fromarray(rgb))
    for channels in (rgb[..., ::-1], rgb[..., :1]):  # BGR, as images are read here, and gray
        given = torch.from_numpy(channels.transpose(2, 0, 1).copy())
        found = model.data_preprocessor(dict(inputs=[given]))['inputs'][0].cpu()
        assert found.shape == (3, 32, 32)
        torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(
        model.data_preprocessor(dict(inputs=[torch.from_numpy(rgb[..., ::-1].transpose(2, 0, 1).copy())]))['inputs'][
            0
        ].cpu(),
        expected,
    )


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'open_clip', None)
    with pytest.raises(UsageError, match=r"needs open_clip \(.*\): pip install 'kgl_mm\[clip\]'$"):
        load('ViT-B-16', 'openai')


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(
        UsageError,
        match=r"laion400m_e32 of ViT-B-16-plus-240 cannot be downloaded .*ClipSource\(pretrained='file.pt'\)$",
    ):
        load('ViT-B-16-plus-240', 'laion400m_e32')
    with pytest.raises(UsageError, match=r'^hf-hub:nobody/nothing: cannot be loaded'):
        load('hf-hub:nobody/nothing', None)


@pytest.mark.parametrize(
    ('network', 'pretrained', 'sentence'),
    [
        ('ViT-Z', 'openai', "network='ViT-Z': open_clip has no such network"),
        (
            'ViT-B/16',
            'absent.pt',
            "pretrained='absent.pt': neither a file nor weights known to open_clip of ViT-B-16 \\(openai, ",
        ),
        ('ViT-B-16', None, 'pretrained=None: neither a file nor'),
        ('small', 'openai', r"known to open_clip of small \(none\); .*\(pretrained='file.pt'\)$"),
        (dict(width=3), None, 'not the name of a network'),
        ('local-dir:absent', None, 'local-dir:absent: cannot be loaded .*not found'),
    ],
)
def test_what_there_is_not(known, network, pretrained, sentence):
    with pytest.raises(UsageError, match=sentence):
        load(network, pretrained)


def test_files_that_are_no_weights(known, tmp_path, capfd):
    path = tmp_path / 'file.pt'
    other = {name: value[:1] for name, value in torch.load(known, weights_only=True).items() if value.ndim}
    for content in (b'', b'text', known.read_bytes()[:5000]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r'file.pt: (no weights of small, or damaged|refused)'):
            load('small', path)
    for value, sentence in [
        (other, 'no weights of small, or damaged'),
        ([1], 'no weights of small'),
        ({}, 'no weights of small'),
        (dict(code=Code()), 'refused'),
    ]:
        torch.save(value, path)
        with pytest.raises(UsageError, match=f'file.pt: {sentence}') as caught:
            load('small', path)
        assert '\n' not in str(caught.value)
    assert 'this ran' not in capfd.readouterr().out


def test_a_folder_without_weights(copied):
    (copied / 'open_clip_pytorch_model.bin').unlink()
    with pytest.raises(UsageError, match=r'copied: cannot be loaded \('):
        load(f'local-dir:{copied}', None)


@pytest.mark.parametrize(
    'vision', [dict(layers=[1, 1, 1, 1], image_size=32, width=4), dict(qk_norm=True), dict(attentional_pool=True)]
)
def test_what_is_no_plain_vit_is_refused(copied, vision):
    config = json.loads((copied / 'open_clip_config.json').read_text())
    config['model_cfg']['vision_cfg'] |= vision
    (copied / 'open_clip_config.json').write_text(json.dumps(config))
    torch.save(open_clip.CLIP(**config['model_cfg']).state_dict(), copied / 'open_clip_pytorch_model.bin')
    with pytest.raises(UsageError, match=r'no plain ViT of open_clip, such as ViT-B-16'):
        load(f'local-dir:{copied}', None)

"""CLIP's patches, wholes and texts against the same networks written out in float64."""

import math

import numpy as np
import pytest
import torch

from kgl_mm.priors.sources.clip import load, patches_and_whole, text_directions

open_clip = pytest.importorskip('open_clip', reason='open_clip is not installed')


@pytest.fixture
def visual():
    """A function that builds the image side of a CLIP with weights at random, for images of 16 x 24."""

    def visual(**settings):
        torch.manual_seed(1)
        sizes = dict(image_size=(16, 24), patch_size=8, width=12, layers=5, heads=3, mlp_ratio=2, output_dim=6)
        network = open_clip.transformer.VisionTransformer(**sizes, **settings).eval().requires_grad_(False)
        for value in network.parameters():
            value.add_(0.3 * torch.randn_like(value))
        return network

    return visual


def norm(x, weights, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * weights[f'{name}.weight'] + weights[f'{name}.bias']


def attention(queries, keys, values, heads):
    """Softmax of scaled products, head by head; all are (N, C)."""
    parts = []
    for query, key, value in zip(*(np.split(x, heads, 1) for x in (queries, keys, values)), strict=True):
        scores = np.exp(query @ key.T / math.sqrt(query.shape[1]))
        parts.append(scores / scores.sum(1, keepdims=True) @ value)
    return np.concatenate(parts, 1)


def by_the_formula(network, image, layers, vv_blocks, heads=3):
    """Patches behind layers, and the whole, of one image in float64."""
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    cells = image.double().numpy().reshape(3, 2, 8, 3, 8).transpose(1, 3, 0, 2, 4).reshape(6, -1)
    x = np.concatenate([weights['class_embedding'][None], cells @ weights['conv1.weight'].reshape(12, -1).T])
    x = norm(x + weights['positional_embedding'], weights, 'ln_pre')
    y, behind = None, {}
    for number in range(5):
        block = {
            name.removeprefix(f'transformer.resblocks.{number}.'): value
            for name, value in weights.items()
            if name.startswith(f'transformer.resblocks.{number}.')
        }
        gammas = [block.get(f'ls_{n}.gamma', 1.0) for n in (1, 2)]
        seen = norm(x, block, 'ln_1') @ block['attn.in_proj_weight'].T + block['attn.in_proj_bias']
        query, key, value = seen[:, :12], seen[:, 12:24], seen[:, 24:]
        out = lambda found, block=block: found @ block['attn.out_proj.weight'].T + block['attn.out_proj.bias']  # noqa: E731
        if number >= 5 - vv_blocks:
            y = (x if y is None else y) + gammas[0] * out(attention(value, value, value, heads))
        x = x + gammas[0] * out(attention(query, key, value, heads))
        hidden = norm(x, block, 'ln_2') @ block['mlp.c_fc.weight'].T + block['mlp.c_fc.bias']
        hidden = hidden * np.vectorize(lambda v: (1 + math.erf(v / math.sqrt(2))) / 2)(hidden)
        x = x + gammas[1] * (hidden @ block['mlp.c_proj.weight'].T + block['mlp.c_proj.bias'])
        behind[number + 1] = x if y is None else y
    ends = [norm(z, weights, 'ln_post') @ weights['proj'] for z in (x, *(behind[layer] for layer in layers))]
    ends = [end / np.linalg.norm(end, axis=1, keepdims=True) for end in ends]
    return np.stack([end[1:] for end in ends[1:]]), ends[0][0]


@pytest.mark.parametrize('settings', [{}, dict(ls_init_value=0.7)])
@pytest.mark.parametrize(('layers', 'vv_blocks'), [((1, 2, 3, 5), 3), ((5, 1), 5), ((4, 4), 1), ((1, 3, 5), 0)])
def test_patches_by_the_formula(visual, settings, layers, vv_blocks):
    network = visual(**settings)
    images = torch.randn(2, 3, 16, 24)
    patches, whole = patches_and_whole(network, images, layers, vv_blocks)
    assert patches.shape == (len(layers), 2, 6, 6)
    for number, image in enumerate(images):
        expected, of_all = by_the_formula(network, image, layers, vv_blocks)
        np.testing.assert_allclose(patches[:, number].numpy(), expected, atol=2e-5)
        np.testing.assert_allclose(whole[number].numpy(), of_all, atol=2e-5)


def test_the_second_path_is_another_and_the_first_one_is_as_it_was(visual):
    network = visual()
    images = torch.randn(3, 3, 16, 24)
    before = network(images)
    (plain, whole), (second, same) = (patches_and_whole(network, images, [2, 3, 5], blocks) for blocks in (0, 3))
    for found in (whole, same):
        assert torch.equal(found, torch.nn.functional.normalize(before, dim=-1))
    assert torch.equal(plain[0], second[0])  # the layer before the second path
    assert ((plain[1:] - second[1:]).abs().amax((1, 2, 3)) > 0.1).all()
    assert torch.equal(network(images), before)
    assert not any(block._forward_hooks for block in network.transformer.resblocks)


def test_an_error_leaves_no_hooks(visual):
    network = visual()
    with pytest.raises(RuntimeError):
        patches_and_whole(network, torch.randn(1, 3, 8, 8), [1], 1)
    assert not any(block._forward_hooks for block in network.transformer.resblocks)


def test_wholes_are_those_of_open_clip(small_clip):
    model, _ = load(f'local-dir:{small_clip}', None)
    device = model.logit_scale.device
    images = torch.randn(2, 3, 32, 32, device=device)
    _, whole = patches_and_whole(model.visual, images, [4], 3)
    assert torch.equal(whole, model.encode_image(images, normalize=True))


def test_directions_of_texts_by_the_formula(small_clip):
    model, tokenizer = load(f'local-dir:{small_clip}', None)
    groups = [[f'a good plate {n}' for n in range(70)], ['a bad plate', 'a plate with a crack.'], ['a photo of the .']]
    found = text_directions(model, tokenizer, groups).cpu().numpy()
    ends = []
    for group in groups:
        of_each = []
        for text in group:
            embedding = (
                model.encode_text(open_clip.tokenize([text]).to(model.logit_scale.device))[0].cpu().double().numpy()
            )
            of_each.append(embedding / math.sqrt((embedding**2).sum()))
        mean = np.mean(of_each, axis=0)
        ends.append(mean / math.sqrt((mean**2).sum()))
    for direction, end in zip(found, ends[:2], strict=True):
        expected = end - ends[2]
        np.testing.assert_allclose(direction, expected / math.sqrt((expected**2).sum()), atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 0.1

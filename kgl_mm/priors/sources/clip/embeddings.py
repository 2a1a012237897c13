"""Embeddings of texts, of patches and of whole images by a CLIP that is not changed."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from mmengine.dist import get_dist_info
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.nn import functional as F  # noqa: N812

TEXTS = 64  # at once


def text_directions(
    model: nn.Module, tokenizer: Callable[[list[str]], torch.Tensor], texts: Sequence[list[str]]
) -> torch.Tensor:
    """Which way *good* and *defective* lie, (2, D) of length 1, by texts about a good object, a defective one and none.

    ::

        t    = normalize(mean over texts of normalize(embedding))    for each of the three
        a, b = normalize(t_good - t_none), normalize(t_defective - t_none)
    """
    known = [text for group in texts for text in group]
    parts = [known[start : start + TEXTS] for start in range(0, len(known), TEXTS)]
    console, device = Console(stderr=True), model.logit_scale.device
    hidden = not console.is_terminal or get_dist_info()[0] > 0
    found = [
        model.encode_text(tokenizer(part).to(device), normalize=True).float()
        for part in track(parts, 'embedding prompts', console=console, disable=hidden)
    ]
    means = torch.stack([group.mean(0) for group in torch.cat(found).split([len(group) for group in texts])])
    good, defective, none = F.normalize(means, dim=1)
    return F.normalize(torch.stack([good, defective]) - none, dim=1)


def patches_and_whole(
    visual: nn.Module, images: torch.Tensor, layers: Sequence[int], vv_blocks: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of length 1: of the patches behind each layer (layers, B, h w, D), and of whole images (B, D).

    The network runs as it always does, and whole images are what it says of them. Beside its stream x, a second one y
    begins with the last ``vv_blocks`` blocks, in which the values V of the ordinary stream attend to themselves::

        y = x                                                before the first of these blocks
        y = y + out_proj(softmax(V V^T / sqrt(d)) V)         in each, by heads; no MLP;  V = values of ln_1(x)

    The patches behind layer n, counted from 1, are those of y after n blocks, or of x where y has not begun, through
    the last norm and the projection of the network.
    """
    blocks = visual.transformer.resblocks
    streams: dict[int, torch.Tensor] = {}

    def note(number: int, block: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if number > len(blocks) - vv_blocks:
            before = streams[number - 1] if number - 1 > len(blocks) - vv_blocks else inputs[0]
            output = before + values_to_values(block, inputs[0])
        streams[number] = output

    handles = [block.register_forward_hook(partial(note, number)) for number, block in enumerate(blocks, 1)]
    try:
        whole = visual(images)
    finally:
        for handle in handles:
            handle.remove()
    patches = torch.stack([visual.ln_post(streams[layer][:, 1:]) @ visual.proj for layer in layers])
    return F.normalize(patches.float(), dim=-1), F.normalize(whole.float(), dim=-1)


def values_to_values(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the attention of a block (B, N, C) gives where each value looks for values like itself."""
    attention = block.attn
    weight, bias = attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
    values = F.linear(block.ln_1(x), weight, bias).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    seen = F.scaled_dot_product_attention(values, values, values)
    return block.ls_1(attention.out_proj(seen.transpose(1, 2).flatten(2)))

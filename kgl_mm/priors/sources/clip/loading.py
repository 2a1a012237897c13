"""CLIP networks of open_clip; what is missing or wrong is said in one sentence."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from kgl_mm.errors import UsageError, first_line
from kgl_mm.registry import MODELS

REMEDY = "give a local file of them: ClipSource(pretrained='file.pt')"


def load(
    network: str, pretrained: str | Path | None, image_size: Sequence[int] | None = None
) -> tuple[nn.Module, Callable[[list[str]], torch.Tensor]]:
    """A CLIP with its weights, on a GPU where there is one, what prepares its images beside it, and its tokenizer.

    Args:
        network: as open_clip names it, also ``'local-dir:FOLDER'`` and ``'hf-hub:NAME'``, which bring their weights.
        pretrained: a file of weights, or a name that open_clip knows for this network, which it downloads once.
        image_size: height and width at which the network sees images; None for that of its training.
    """
    try:
        import open_clip
    except ImportError as error:
        raise UsageError(f"ClipSource needs open_clip ({first_line(error)}): pip install 'kgl_mm[clip]'") from error
    if not isinstance(network, str):
        raise UsageError(f'network={network!r}: not the name of a network of open_clip, such as ViT-B-16')
    network = network if ':' in network else network.replace('/', '-')
    weights = None if ':' in network else _weights(open_clip, network, pretrained)
    size = image_size and tuple(image_size)
    try:
        with torch.random.fork_rng(devices=[]):  # a network begins with weights at random
            model = open_clip.create_model(
                network, weights, force_image_size=size, require_pretrained=True, weights_only=True
            )
        tokenizer = open_clip.get_tokenizer(network)
    except pickle.UnpicklingError as error:
        raise UsageError(f'{weights or network}: refused, since it is damaged or asks for more than tensors') from error
    except Exception as error:  # each format of weights has errors of its own
        reason = ' '.join(str(error).split())[:200] or first_line(error)
        what = f'{weights}: no weights of {network}, or damaged ones' if weights else f'{network}: cannot be loaded'
        raise UsageError(f'{what} ({reason})') from error
    _refuse_others(open_clip, model, network)
    facts = open_clip.get_model_preprocess_cfg(model)
    colours = {name: [255 * value for value in facts[name]] for name in ('mean', 'std')}
    preprocessor = MODELS.build(dict(type='mmpretrain.ClsDataPreprocessor', to_rgb=True, **colours))
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model.data_preprocessor = preprocessor.to(device)
    return model.to(device).eval().requires_grad_(False), tokenizer


def _weights(open_clip, network: str, pretrained: str | Path | None) -> str:
    """A file, or the name of weights that are here after this."""
    if network not in open_clip.list_models():
        raise UsageError(f'network={network!r}: open_clip has no such network; open_clip.list_models() names them')
    if pretrained and Path(pretrained).expanduser().is_file():
        return str(Path(pretrained).expanduser())
    if not pretrained or not open_clip.is_pretrained_cfg(network, str(pretrained)):
        known = ', '.join(open_clip.list_pretrained_tags_by_model(network)) or 'none'
        raise UsageError(
            f'pretrained={pretrained!r}: neither a file nor weights known to open_clip of {network} ({known}); {REMEDY}'
        )
    try:
        open_clip.download_pretrained(open_clip.get_pretrained_cfg(network, pretrained))
    except Exception as error:  # of the hub, of the network, of the disk
        raise UsageError(
            f'weights {pretrained} of {network} cannot be downloaded ({first_line(error).split(". ")[0]}); {REMEDY}'
        ) from error
    return pretrained


def _refuse_others(open_clip, model: nn.Module, network: str) -> None:
    visual = model.visual
    if (
        not isinstance(visual, open_clip.transformer.VisionTransformer)
        or visual.attn_pool is not None
        or not all(isinstance(block.attn, nn.MultiheadAttention) for block in visual.transformer.resblocks)
    ):
        raise UsageError(f'network={network!r}: no plain ViT of open_clip, such as ViT-B-16 or ViT-L-14')

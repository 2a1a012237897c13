"""A hash of a network, by which maps are known to be its own."""

import hashlib
import re

import torch
from torch import nn


def hash_of_model(model: nn.Module) -> str:
    """Of its structure, of all parameters and buffers, and of what its preprocessor does; not of where they began."""
    preprocessor = vars(getattr(model, 'data_preprocessor', None) or nn.Identity())
    plain = sorted((name, str(value)) for name, value in preprocessor.items() if _is_plain(name, value))
    structure = re.sub(r'\n *init_cfg=.*', '', without_addresses(model))
    digest = hashlib.sha256(f'{structure} {plain}'.encode())
    for name, value in sorted([*model.named_parameters(), *model.named_buffers()]):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def without_addresses(thing) -> str:
    return re.sub(' at 0x[0-9a-f]+', '', str(thing))


def _is_plain(name: str, value) -> bool:
    return name != 'training' and (value is None or isinstance(value, bool | int | float | str | list | tuple))

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from kgl_mm.errors import UsageError, first_line


def is_pretrained(network: nn.Module) -> bool:
    """Whether its ``init_cfg`` names weights that were learned."""
    return bool(_pretrained(network))


def check_pretrained(network: nn.Module, name: str) -> None:
    """Refuse weights that ``init_cfg=dict(type='Pretrained', ...)`` names and that do not fit, or cannot be read.

    mmengine itself loads what fits, and says in the log what does not.

    Args:
        network: with its ``init_cfg``; with any other there is nothing to check.
        name: of it in a config, such as ``model.backbone``.
    """
    for settings in _pretrained(network):
        _check(network, settings, name)


def _pretrained(network: nn.Module) -> list[dict]:
    given = getattr(network, 'init_cfg', None)
    steps = given if isinstance(given, list) else [given]
    return [step for step in steps if isinstance(step, dict) and step.get('type') == 'Pretrained']


def _check(network: nn.Module, settings: dict, name: str) -> None:
    if not settings.get('checkpoint'):
        raise UsageError(f'{name}.init_cfg: Pretrained needs a checkpoint')
    path, prefix, part = settings['checkpoint'], settings.get('prefix') or '', name.rpartition('.')[2]
    if prefix and not prefix.endswith('.'):  # as mmengine reads it
        prefix += '.'
    try:
        saved = CheckpointLoader.load_checkpoint(path, 'cpu')
        saved = saved.get('state_dict', saved)
    except (OSError, RuntimeError, AssertionError, ValueError, AttributeError) as error:
        raise UsageError(f'{name}.init_cfg: {path} cannot be loaded ({first_line(error)})') from error
    wanted = {name: value.shape for name, value in network.state_dict().items() if value.ndim}
    weights = {name: x for name, x in saved.items() if isinstance(x, torch.Tensor)}
    start = prefix or 'module.'  # which mmengine leaves out too
    found = {name.removeprefix(start): x.shape for name, x in weights.items() if name.startswith(prefix)}
    if prefix and not found:
        raise UsageError(f'{name}.init_cfg: {path} cannot be loaded (nothing in it begins with {prefix})')
    if lacking := [name for name, shape in wanted.items() if found.get(name) != shape]:
        inside = not prefix and f'backbone.{lacking[0]}' in saved
        raise UsageError(
            f'{name}.init_cfg: {path} has no fitting {prefix}{lacking[0]} and {len(lacking)} of {len(wanted)} weights '
            f'of the {part} in all: ' + ("set prefix='backbone.'" if inside else 'it is of another network')
        )

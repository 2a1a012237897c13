import torch
from mmengine.hooks import Hook

from kgl_mm.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lays the weights of the model out channels last, which convolutions then keep for what they put out.

    Example::

        default_hooks = dict(channels_last=dict(type='kgl_mm.ChannelsLastHook'))
    """

    def before_run(self, runner) -> None:
        runner.model.to(memory_format=torch.channels_last)

"""One forward and one backward pass through a model that is left as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from kgl_mm.errors import UsageError

from .targets import Target, evidence


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of weights inside; all flags as they were afterwards, also after an error."""
    training = [(module, module.training) for module in model.modules()]
    # a checkpointed block is run again in the backward pass, which asks for a gradient of everything
    checkpointed = [module for module in model.modules() if getattr(module, 'with_cp', False) is True]
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for module, _ in training:  # not model.eval(), which a model may answer with more than a flag
            module.training = False
        for module in checkpointed:
            module.with_cp = False
        for parameter in wanted:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, flag in training:
            module.training = flag
        for module in checkpointed:
            module.with_cp = True
        for parameter in wanted:
            parameter.requires_grad_(True)


class OnePass:
    """Calls back, once in a backward pass, with what modules put out and the gradient of the target there.

    Inside ``with`` the callbacks are registered, then the pass is called with the images. The gradient of the sum of
    the images' numbers is the gradient of each, since in evaluation mode no layer mixes images. The graph begins at
    the shallowest activation that is asked for, and callbacks run while it is taken down: what they do not keep is
    gone. They see float32 or wider, whatever the model computes in.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._handles = []
        self._roots = []
        self._at_input = []
        self._goes_back = False

    def __enter__(self) -> 'OnePass':
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()
        self._roots.clear()

    def at_input(self, callback: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        """``callback(images, gradient)``; this takes the backward pass down to the images."""
        self._at_input.append(callback)
        self._goes_back = True

    def at_gradient(self, module: nn.Module, callback: Callable[[torch.Tensor], None]) -> None:
        """``callback(gradient)`` for each tensor that the module puts out on a way to the target."""

        def watch(_module, _inputs, output):
            if not isinstance(output, torch.Tensor) or not output.requires_grad:
                return None
            output.register_hook(lambda gradient: callback(_wide(gradient)))
            # an in-place operation on a view would take the hook out of the graph
            return output.clone() if output._is_view() else None

        self._goes_back = True
        self._handles.append(module.register_forward_hook(watch))

    def at_activation(self, module: nn.Module, callback: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        """``callback(activation, gradient)``, the activation as the module put it out.

        The model goes on with a copy, so that an in-place operation behind the module cannot change what is kept.
        """

        def watch(_module, _inputs, output):
            if not isinstance(output, torch.Tensor):
                return None
            with torch.enable_grad():  # the model may have switched it off up to here
                if not output.requires_grad:
                    output = output.detach().requires_grad_()
                    self._roots.append(output)
                copy = output.clone()
            copy.register_hook(lambda gradient: callback(_wide(output), _wide(gradient)))
            return copy

        self._goes_back = True
        self._handles.append(module.register_forward_hook(watch))

    def at_call(self, module: nn.Module, callback: Callable) -> None:
        """``callback(*inputs)`` of the module; where nothing else is asked for, there is no backward pass."""
        self._handles.append(module.register_forward_pre_hook(lambda _module, inputs: callback(*inputs)))

    def __call__(self, images: torch.Tensor, target: Target, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The target's numbers (B,); ``dtype`` is that of mixed precision, None for none."""
        images = images.clone() if images.is_inference() else images.detach()
        if self._at_input:
            self._roots = [images.requires_grad_()]
        with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
            # a copy, since the model may work in place on what it is given
            logits = self.model(images.clone())
        score = evidence(logits, target)
        if not self._goes_back:
            return _wide(score)
        if not self._roots or not score.requires_grad:
            raise UsageError('no gradient reaches the layers that were asked for: the logits do not depend on them')
        first = torch.autograd.grad(score.sum(), self._roots, allow_unused=True)[0]
        for callback in self._at_input:
            callback(_wide(images), _wide(first))
        return _wide(score)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float() if tensor.dtype.itemsize < 4 else tensor.detach()

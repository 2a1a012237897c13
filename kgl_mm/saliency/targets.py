"""What a map explains: one number an image, made from its logits."""

from collections.abc import Callable

import torch

from kgl_mm.errors import UsageError

Target = str | int | torch.Tensor | Callable[[torch.Tensor], torch.Tensor]


def evidence(logits: torch.Tensor, target: Target = 'defect') -> torch.Tensor:
    """The number to be explained, shape (B,), of logits (B, C).

    Args:
        logits: of any classifier; one column is the logit of a defect.
        target: ``'defect'``: the highest logit of a defect minus that of the good class, column 0, so that a good
            part is never asked what makes it good; ``'predicted'``: the highest logit, for data without a good class;
            a class, or a class for each image (B,): its logit; or a function of the logits.

    >>> evidence(torch.tensor([[1.0, 3.0], [2.0, 0.5]])).tolist()
    [2.0, -1.5]
    >>> evidence(torch.tensor([[1.0, 3.0, 4.0]]), target=1).tolist()
    [3.0]
    """
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        what = f'shape {tuple(logits.shape)}' if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UsageError(f'the model must return logits of shape (images, classes), but gave {what}')
    if callable(target):
        return target(logits)
    if isinstance(target, str):
        if target not in ('defect', 'predicted'):
            raise UsageError(f"target={target!r}: not 'defect', 'predicted', a class or a function of the logits")
        if target == 'predicted':
            return logits.amax(1)
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1:].amax(1) - logits[:, 0]
    classes = torch.as_tensor(target, device=logits.device)
    if classes.is_floating_point() or tuple(classes.shape) not in ((), (len(logits),)):
        raise UsageError(f'target={target}: not a class, nor one for each of the {len(logits)} images')
    classes = classes.expand(len(logits))
    if classes.min() < 0 or classes.max() >= logits.shape[1]:
        raise UsageError(f'target={target}: the model has classes 0 to {logits.shape[1] - 1}')
    return logits.gather(1, classes[:, None])[:, 0]

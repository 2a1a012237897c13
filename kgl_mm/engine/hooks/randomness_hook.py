import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from kgl_mm.datasets.seeding import set_epoch
from kgl_mm.registry import HOOKS


@HOOKS.register_module()
class RandomnessHook(Hook):
    """Makes every random draw of a training a function of the seed and of where it happens.

    Each sample draws from (seed, epoch, index), which the data set does once it is told seed and epoch (where a sampler
    passes several times over the images in an epoch, passes count in its place); the model
    (dropout and the like) from (seed, iteration, rank). So the number of workers, persistent workers, a cache and a
    resume change nothing, and the number of processes nothing but rounding and dropout. A loop that counts iterations
    has no epochs to tell, so its samples draw from the global state, as they do without this hook.

    Example::

        default_hooks = dict(randomness=dict(type='kgl_mm.RandomnessHook'))
    """

    priority = 'LOWEST'

    def before_train_epoch(self, runner) -> None:
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            set_epoch(runner.train_dataloader.dataset, runner.seed, runner.epoch)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        # The whole global state is set here and not once an epoch, since starting an iteration over a DataLoader
        # draws from it, and how often depends on its workers.
        words = np.random.SeedSequence([runner.seed, runner.iter, get_rank()]).generate_state(3)
        torch.manual_seed(int(words[0]))
        np.random.seed(words[1])
        random.seed(int(words[2]))

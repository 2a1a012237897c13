"""Several processes with or without GPUs, which mmengine's own start cannot do on the CPU."""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import init_dist

from kgl_mm.errors import UsageError


@contextmanager
def process_group(cfg: Config, launcher: str) -> Iterator[None]:
    """Prepare ``cfg`` for the launcher, and leave the process group in order at the end."""
    cfg.launcher = launcher
    if launcher == 'none':
        yield
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UsageError('--launcher pytorch needs to be started by torchrun: use tools/dist_train.sh CONFIG GPUS')
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        end_with_parent()
    if torch.cuda.is_available():
        processes, gpus = int(os.environ.get('LOCAL_WORLD_SIZE', 1)), torch.cuda.device_count()
        if processes > gpus:
            raise UsageError(f'{processes} processes were started, but there are {gpus} GPUs')
        # before the Runner would: what is in a work directory is looked at, and moved, by one process alone
        init_dist(launcher, **(cfg.get('env_cfg') or {}).get('dist_cfg', {}))
    elif launcher == 'pytorch':
        # Runner skips its own start, which would select a CUDA device, where a group is there already
        dist.init_process_group('gloo')
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    yield
    # not after an error: the others may then wait in another collective call, until the launcher ends them
    dist.barrier()
    dist.destroy_process_group()


def end_with_parent() -> None:
    """Have Linux kill this process when the one that started it dies.

    torchrun gives its processes sessions of their own, so that, itself killed, it would leave them training.
    """
    with suppress(AttributeError, OSError):  # another system
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

from kgl_mm._require import require_mm

require_mm()

from .atomic_backend import AtomicBackend  # noqa: E402
from .bf16_optim_wrapper import Bf16OptimWrapper  # noqa: E402
from .hooks import ChannelsLastHook, RandomnessHook, RecordHook, SafeCheckpointHook  # noqa: E402

__all__ = [
    'AtomicBackend',
    'Bf16OptimWrapper',
    'ChannelsLastHook',
    'RandomnessHook',
    'RecordHook',
    'SafeCheckpointHook',
]

from kgl_mm._require import require_mm

require_mm()

from .atomic_backend import AtomicBackend  # noqa: E402
from .bf16_optim_wrapper import Bf16OptimWrapper  # noqa: E402
from .hooks import (  # noqa: E402
    CalibrationHook,
    ChannelsLastHook,
    GuidanceHook,
    PriorGenerationHook,
    RandomnessHook,
    RecordHook,
    SafeCheckpointHook,
)

__all__ = [
    'AtomicBackend',
    'Bf16OptimWrapper',
    'CalibrationHook',
    'ChannelsLastHook',
    'GuidanceHook',
    'PriorGenerationHook',
    'RandomnessHook',
    'RecordHook',
    'SafeCheckpointHook',
]

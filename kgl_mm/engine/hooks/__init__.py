from .backbone_hook import BackboneHook
from .calibration_hook import CalibrationHook
from .channels_last_hook import ChannelsLastHook
from .guidance_hook import GuidanceHook
from .prior_generation_hook import PriorGenerationHook
from .randomness_hook import RandomnessHook
from .record_hook import RecordHook
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = [
    'BackboneHook',
    'CalibrationHook',
    'ChannelsLastHook',
    'GuidanceHook',
    'PriorGenerationHook',
    'RandomnessHook',
    'RecordHook',
    'SafeCheckpointHook',
]

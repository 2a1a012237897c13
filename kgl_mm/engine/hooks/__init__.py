from .channels_last_hook import ChannelsLastHook
from .prior_generation_hook import PriorGenerationHook
from .randomness_hook import RandomnessHook
from .record_hook import RecordHook
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = ['ChannelsLastHook', 'PriorGenerationHook', 'RandomnessHook', 'RecordHook', 'SafeCheckpointHook']

from .channels_last_hook import ChannelsLastHook
from .randomness_hook import RandomnessHook
from .record_hook import RecordHook
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = ['ChannelsLastHook', 'RandomnessHook', 'RecordHook', 'SafeCheckpointHook']

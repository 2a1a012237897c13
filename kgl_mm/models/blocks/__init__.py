from .aff import AFF
from .sim_am import SimAM
from .ssp_conv import SSPConv

__all__ = ['AFF', 'SSPConv', 'SimAM']

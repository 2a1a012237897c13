"""Knowledge-prior guided learning for mmpretrain.

Importing this package loads neither torch nor the mm packages, so that version and tools answer on any machine.
"""

__version__ = '0.1.0'

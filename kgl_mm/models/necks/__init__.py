from .global_pooling import GlobalPooling

__all__ = ['GlobalPooling']

from .slim_vgg import SlimVGG

__all__ = ['SlimVGG']

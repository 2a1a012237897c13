"""What the tools call, and what a program of one's own does: ``from kgl_mm.apis import DefectInspector``."""

__all__ = ['DefectInspector']


def __getattr__(name: str):
    """Nothing is imported before it is asked for: ``cli`` answers without torch."""
    if name != 'DefectInspector':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .inspector import DefectInspector

    return DefectInspector

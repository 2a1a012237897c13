"""Two pages in a browser: to try a model on images, and to repaint the priors of a run. Nothing needs a network."""

from importlib import import_module

from kgl_mm._require import require_mm
from kgl_mm.errors import UsageError

require_mm(['cv2'])

for name in ('starlette', 'uvicorn', 'PIL'):
    try:
        import_module(name)
    except ModuleNotFoundError:
        raise UsageError(
            f"{name} is not installed, and the pages need it: pip install 'kgl_mm[serve]' (in a checkout: make venv)"
        ) from None

HOMES = dict(
    inspect_app='inspect', serve='app', repaint_app='repaint', Gallery='gallery', open_gallery='gallery',
    paint_masks='gallery',
)  # fmt: skip
__all__ = list(HOMES)


def __getattr__(name: str):
    """Nothing is imported before it is asked for, since an exported model is served without torch."""
    if name not in HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{HOMES[name]}'), name)

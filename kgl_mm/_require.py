"""The mm packages come in two families with the same import names, so neither can be a hard requirement."""

import importlib
from collections.abc import Sequence

NEEDED = ('torch', 'torchvision', 'cv2', 'mmengine', 'mmcv', 'mmpretrain')
REMEDY = "install one family of the mm packages with: pip install 'kgl_mm[onedl]' (in a checkout: make venv)"


def require_mm(needed: Sequence[str] = NEEDED) -> None:
    """Import what the components are built on, or say in one sentence what to install."""
    for name in needed:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise ImportError(f'{name} is installed but does not import ({error}); {REMEDY}') from error
            raise ImportError(f'kgl_mm needs {name}, which is not installed; {REMEDY}') from None

"""The mm packages come in two families with the same import names, so neither can be a hard requirement."""

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NEEDED = ('torch', 'torchvision', 'cv2', 'mmengine', 'mmcv', 'mmpretrain')
_HERE = Path(__file__).parents[1] / '.venv/bin/activate'
REMEDY = (
    f'source {_HERE} first'
    if _HERE.exists() and Path(sys.prefix) != _HERE.parents[1]
    else "install one family of the mm packages with: pip install 'kgl_mm[onedl]' (in a checkout: make venv)"
)


def require_mm(needed: Sequence[str] = NEEDED) -> None:
    """Import what the components are built on, or say in one sentence what to install."""
    for name in needed:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise ImportError(f'{name} is installed but does not import ({error}); {REMEDY}') from error
            raise ImportError(f'kgl_mm needs {name}, which is not installed; {REMEDY}') from None
    if 'mmpretrain' in needed and transformers_limit():
        # None of them is used here, so they become placeholders, as where transformers is not installed.
        importlib.import_module('mmpretrain.utils.dependency').WITH_MULTIMODAL = False


def transformers_limit() -> str:
    """The version that transformers must stay below for mmpretrain's models of images and text, where it does not.

    As soon as pycocotools and transformers are installed, ``mmpretrain.models`` imports them, whatever the version, and
    a newer transformers lacks names that they need: then no model at all can be imported. '' when nothing is wrong.
    """
    mmpretrain = importlib.import_module('mmpretrain')
    digit_version = importlib.import_module('mmengine.utils').digit_version
    # Tried: 1.2.0 imports with 4.28 to 4.51 and not with 4.52; 1.3.6 with 4.28 to 4.57 and not with 5.0.
    limit = '5' if digit_version(mmpretrain.__version__) >= digit_version('1.3') else '4.52'
    try:
        return limit if digit_version(version('transformers')) >= digit_version(limit) else ''
    except PackageNotFoundError:
        return ''

"""The weights of a detector for another framework: what ``tools/export_detector.py`` does."""

import io
from pathlib import Path

import torch

from kgl_mm.engine.checkpoint_io import load_from_file
from kgl_mm.errors import UsageError
from kgl_mm.files import write_atomically
from kgl_mm.models.detectors.mmdet_names import kind_of, to_mmdet


def export_detector(checkpoint: str | Path, out: str | Path) -> dict[str, torch.Tensor]:
    """Write the weights of a checkpoint under mmdet's names, as a file that its ``load_from`` reads; returns them."""
    saved = load_from_file(str(checkpoint), map_location='cpu')
    state = saved.get('state_dict', saved) if isinstance(saved, dict) else {}
    state = {name: value for name, value in state.items() if not name.startswith('data_preprocessor.')}
    try:
        found, kind = to_mmdet(state), kind_of(state)
    except UsageError as error:
        raise UsageError(f'{checkpoint}: {error}') from error
    data = io.BytesIO()
    torch.save(dict(state_dict=found, meta=dict(kind=kind)), data)
    write_atomically(out, data.getvalue())
    print(f'{len(found)} weights of {kind}; written:\n  {out}')
    return found

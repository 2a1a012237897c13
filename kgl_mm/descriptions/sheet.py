"""What descriptions draw, in one picture."""

from collections.abc import Sequence

import numpy as np

from kgl_mm.errors import UsageError, check_number

from .record import Description
from .renderer import render


def draw_descriptions(
    records: Sequence[Description], images: Sequence[np.ndarray], columns: int = 6, seed: int = 0
) -> bytes:
    """A PNG file: each description a row, its columns the next seeds and images, the map with its outline beside.

    Args:
        records: the descriptions.
        images: good ones, taken in turn.
        columns: of each row.
        seed: of the first column.
    """
    from kgl_mm.visualization import draw_contact_sheet

    check_number(1, whole=True, columns=columns)
    if not records or not len(images):
        raise UsageError('a sheet needs at least one description and one image to draw it on')
    rows = {}
    for number, record in enumerate(records, 1):
        title = f'{number}. {record.kind} on {record.object}: {record.features()}'
        rows[title] = [_tile(images[column % len(images)], record, seed + column) for column in range(columns)]
    return draw_contact_sheet(rows, top=1)


def _tile(image: np.ndarray, record: Description, seed: int) -> dict:
    drawn, map = render(image, record, seed)
    return dict(image=drawn, prior=map, mask=map > 0.5, caption=f'seed {seed}')

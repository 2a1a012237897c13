"""The table of a study: one row for each stage of each cell."""

import csv
import io
from pathlib import Path
from typing import Any

from kgl_mm.errors import UsageError
from kgl_mm.files import read_json, write_atomically

from .code import code_hash
from .plan import Cell, Origin

FACTS = ('stage', 'status', 'error')
PIXELS = ('pixel_AUROC', 'pixel_AP', 'AUPRO')
FOUND = ('AP', 'AUROC', *PIXELS, 'macro_AP', 'accuracy', 'FP', 'FN', 'FP_at_zero_FN', 'threshold')
ORIGIN = (
    'trust', 'seconds', 'peak_mib', 'run', 'key', 'config', 'uses', 'code', 'stale', 'commit', 'machine', 'versions',
)  # fmt: skip


class Table:
    """The rows in ``results.csv``, by what they are the result of: the fold, the seed, the varied fields, the stage.

    Those of another config stay beside, each in a place of its own.
    """

    def __init__(self, path: Path, varied: list[str], config: str = '') -> None:
        self.path = path
        self.varied = varied
        self.config = config
        self.rows = {}
        for row in read_table(path):
            others = [name for name in varied_in(row) if name not in varied]
            if others or any(name not in row for name in varied):
                raise UsageError(
                    f'{path}: there, {", ".join(varied_in(row)) or "nothing"} was varied; give another --work-dir'
                )
            self.rows[self._identity(row)] = row

    def _identity(self, row: dict) -> tuple:
        another = row['config'] if self.is_of_another(row) else ''
        return (*(str(row[name]) for name in self.varied), row['seed'], row['fold'], row['stage'], another)

    def is_of_another(self, row: dict) -> bool:
        """Whether it is known to come of another config, or of other data, than new rows do."""
        return not self.config.startswith(row.get('config', ''))  # older rows tell less of theirs

    def find(self, cell: Cell, stage: str) -> dict | None:
        return self.rows.get(self._identity(self._begin(cell, stage)))

    def _begin(self, cell: Cell, stage: str) -> dict:
        settings = {name: str(value) for name, value in cell.settings.items()}
        fold = '' if cell.fold is None else str(cell.fold)
        return dict(settings, seed=str(cell.seed), fold=fold, stage=stage, config=self.config)

    def expect(self, cell: Cell, stage: str, origin: Origin) -> None:
        """A row in the place of one that is yet to come."""
        row = self._begin(cell, stage) | dict(status='planned', key=origin.key)
        self.rows[self._identity(row)] = row

    def add(self, cell: Cell, stage: str, origin: Origin, folder: Path, error: str = '') -> None:
        """The row of a stage, from what its task left in ``folder``, or with what went wrong."""
        row = self._begin(cell, stage) | dict(status='failed' if error else 'done', error=error, **origin._asdict())
        run = read_json(folder / 'run.json')
        row |= {name: run.get(name, '') for name in ('seconds', 'peak_mib', 'commit', 'machine')} | dict(
            run=folder.name
        )
        row['versions'] = ' '.join(f'{name}={version}' for name, version in run.get('versions', {}).items())
        if not error:
            splits = read_json(folder / 'metrics.json').get(stage, {})
            row |= {
                f'{split}_{name}': splits[split][name] for split in splits for name in FOUND if name in splits[split]
            }
            row['trust'] = read_json(folder / 'state.json')['stages'][stage].get('trust', '')
        self.rows[self._identity(row)] = row | dict(code=code_hash(origin.uses), stale='')

    def write(self) -> None:
        found = [f'{split}_{name}' for split in ('test', 'val') for name in FOUND]
        found = [name for name in found if any(row.get(name, '') != '' for row in self.rows.values())]
        text = io.StringIO(newline='')
        writer = csv.DictWriter(text, [*self.varied, 'seed', 'fold', *FACTS, *found, *ORIGIN], restval='')
        writer.writeheader()
        writer.writerows(self.sorted())
        write_atomically(self.path, text.getvalue().encode())

    def sorted(self) -> list[dict]:
        """The rows in the order of the file, whatever was done first."""
        return [row for _, row in sorted(self.rows.items(), key=lambda item: [_number(x) for x in item[0]])]


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, each field as text; those of other code than this are stale, whenever they were written."""
    if not path.exists():
        return []
    with path.open(newline='') as file:
        return [row | dict(stale='yes' if is_stale(row) else '') for row in csv.DictReader(file)]


def is_stale(row: dict[str, str]) -> bool:
    """Whether the code has changed since, where that row's components need it."""
    return row.get('code') != code_hash(row.get('uses', ''))


def varied_in(row: dict) -> list[str]:
    """The varied fields are those before the seed."""
    names = list(row)
    return names[: names.index('seed')] if 'seed' in names else []


def _number(text: str) -> tuple:
    """Numbers in their order, before words in theirs."""
    try:
        return (0, float(text), '')
    except ValueError:
        return (1, 0.0, text)

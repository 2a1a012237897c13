"""A whole study: what is to be run, the runs, the table, the summary.

::

    WORK_DIR/results.csv     a row for each stage of each cell; see :mod:`kgl_mm.study.table`
    WORK_DIR/summary.csv     a line for each setting; summary.md and summary.png show the same
    WORK_DIR/runs/KEY/       what each run left: log.txt, metrics, checkpoints, priors
"""

import copy
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kgl_mm.engine.checkpoint_io import use_safe_loading
from kgl_mm.engine.run import draw_parts, rehearse
from kgl_mm.engine.stages import stages_of
from kgl_mm.errors import UsageError
from kgl_mm.files import alone_in, read_json

from .plan import Cell, Origin, Task, base_hash, cells_of, config_of, origins, remark_on, tasks_of
from .pool import Pool, visible_gpus
from .report import report
from .summary import called, groups_of, metric_of, with_or_without
from .table import Table, is_stale

RUNS_ON_A_GPU = 4


class Study:
    """One config over folds, seeds and varied fields.

    Args:
        cfg: the config, with what the command line laid over it; results go to its ``work_dir``.
        folds: which ones; by default all that the data set has.
        seeds: which ones.
        vary: the values of each varied field; see :func:`~kgl_mm.study.plan.config_of`.
        resume: add to the results that are there.
        keep_stale: let results of older code count, instead of running them again.
    """

    def __init__(
        self,
        cfg: Config,
        folds: Sequence[int] | None = None,
        seeds: Sequence[int] = (0,),
        vary: dict[str, list] | None = None,
        resume: bool = False,
        keep_stale: bool = False,
    ) -> None:
        self.root = Path(cfg.work_dir)
        self.keep_stale = keep_stale
        if (self.root / 'results.csv').exists() and not resume:
            raise UsageError(f'{self.root} has results: add --resume to go on with them, or give another --work-dir')
        self.config = base_hash(cfg)
        cells = cells_of(cfg, folds, seeds, vary or {})
        self.remark = remark_on(cells, cfg)
        self.cells = []
        for cell in cells:
            config = config_of(cfg, cell)
            self.cells.append((cell, tasks_of(config), origins(stages_of(config))))
        self.table = Table(self.root / 'results.csv', list(vary or {}), self.config)

    def tasks(self) -> list[Task]:
        """What is left to do: each task once, after those whose stages it reads."""
        found = {}
        for cell, tasks, origin in self.cells:
            wanted = [task for task in tasks if not all(self._is_known(cell, name, origin) for name in task.stages)]
            needed = {key for task in wanted for key in task.linked.values()}
            for task in tasks:
                is_there = all(stage.get('done') for stage in _states(self.root / 'runs' / task.key, task.stages))
                if task in wanted or (task.key in needed and not is_there):
                    found.setdefault(task.key, task)
        return list(found.values())

    def _is_known(self, cell: Cell, stage: str, origin: dict[str, Origin]) -> bool:
        row = self.table.find(cell, stage)
        if row is None or row['status'] != 'done':
            return False
        return row['key'] == origin[stage].key or (self.keep_stale and is_stale(row))

    def check(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Refuse to compare what the summary will not have, as far as it is known before the first run.

        Raises:
            UsageError: names what there will be.
        """
        plan = copy.copy(self.table)
        plan.rows = dict(plan.rows)
        for cell, _, origin in self.cells:
            for name in origin:
                if not self._is_known(cell, name, origin):
                    plan.expect(cell, name, origin[name])
        groups = groups_of([row for row in plan.sorted() if not plan.is_of_another(row)])
        groups += with_or_without(groups, metric_of(groups))[0]
        for label in itertools.chain(*pairs):
            called(label, groups, '--compare')

    def run(self, jobs: int | None = None) -> None:
        """Do what is left, several runs side by side, and write each result as it comes."""
        with alone_in(self.root):
            self.table = Table(self.table.path, self.table.varied, self.config)  # another process may have added to it
            self._run(jobs)

    def _run(self, jobs: int | None) -> None:
        use_safe_loading()
        self._rehearse()
        tasks = self.tasks()
        jobs = jobs or default_jobs()
        columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        with Progress(*columns, auto_refresh=False) as progress:  # no thread of its own, since processes are forked
            bar = progress.add_task(f'{len(tasks)} runs, {min(jobs, len(tasks)) or 1} at a time', total=len(tasks))

            def ended(task: Task, error: str) -> None:
                self._record(task, error)
                if error:
                    progress.console.print(f'failed: {", ".join(task.stages)} in {self.root}/runs/{task.key}: {error}')
                progress.update(bar, advance=1, refresh=True)

            Pool(self.root / 'runs', jobs, ended).run(tasks)

    def _rehearse(self) -> None:
        """What is wrong with a config shows before the first run; parts are drawn here, not by each run for itself."""
        seen = set()
        for cell, tasks, origin in self.cells:
            todo = {(str(cell.settings), name) for name in origin if not self._is_known(cell, name, origin)} - seen
            stages = stages_of(tasks[-1].cfg) if todo else {}
            for _, name in sorted(todo):
                rehearse(stages[name])
                draw_parts(stages[name])
            seen |= todo

    def _record(self, task: Task, error: str) -> None:
        """Enter what a task found into the rows of all cells that share it."""
        for cell, tasks, origin in self.cells:
            if any(other.key == task.key for other in tasks):
                folder = self.root / 'runs' / task.key
                for name, state in zip(task.stages, _states(folder, task.stages), strict=True):
                    self.table.add(cell, name, origin[name], folder, '' if state.get('done') else error)
        self.table.write()

    def report(self, pairs: Sequence[tuple[str, str]] = ()) -> str:
        """Write the summary; returns it as Markdown. Rows of another config stay in the table and are left out here."""
        rows = [row for row in self.table.sorted() if not self.table.is_of_another(row)]
        text = report(rows, self.root / 'summary', pairs, remark=self.remark)
        others = len(self.table.rows) - len(rows)
        return text + (f'\n{others} rows of another config, or of other data, are left out.\n' if others else '')


def default_jobs() -> int:
    """Some for each GPU, or one for each core."""
    gpus = visible_gpus()
    return min(RUNS_ON_A_GPU * len(gpus), os.cpu_count()) if gpus else os.cpu_count()


def _states(folder: Path, stages: list[str]) -> list[dict]:
    state = read_json(folder / 'state.json').get('stages', {})
    return [state.get(name, {}) for name in stages]

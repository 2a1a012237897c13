"""Running tasks side by side, each in a process that is forked off with everything imported."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

from kgl_mm.files import read_json

from .plan import Task
from .work import perform

OUT_OF_MEMORY = 'out of memory'  # of CUDA, wherever it is raised


class Pool:
    """At most ``jobs`` tasks at a time, spread over the GPUs.

    Where the GPU's memory did not do, there is one process fewer from then on and the task is tried again.

    Args:
        runs: each task works in ``runs/KEY``.
        jobs: how many run side by side.
        report: called with the task and what went wrong, or '', whenever one has ended.
    """

    def __init__(self, runs: Path, jobs: int, report: Callable[[Task, str], None]) -> None:
        self.runs = runs
        self.jobs = jobs
        self.report = report
        self._alone = jobs == 1
        self._running = {}  # by sentinel: process, task, place
        self._crowded = set()  # keys of tasks that had others beside them
        self._errors = {}  # by key, '' where all went well

    def run(self, tasks: list[Task]) -> None:
        """Run all of them, each after those that it needs; one whose need failed fails as well."""
        waiting = list(tasks)
        keys = {task.key for task in tasks}
        try:
            while waiting or self._running:
                for task in list(waiting):
                    needs = [key for key in task.linked.values() if key in keys]
                    failed = next((key for key in needs if self._errors.get(key)), None)
                    if failed:
                        waiting.remove(task)
                        self._end(task, f'a stage before it failed: {self._errors[failed]}')
                    elif len(self._running) < self.jobs and all(key in self._errors for key in needs):
                        waiting.remove(task)
                        self._start(task)
                if self._running:
                    waiting += self._wait()
        finally:
            for process, _, _ in self._running.values():
                process.terminate()
                process.join()

    def _start(self, task: Task) -> None:
        taken = [place for _, _, place in self._running.values()]
        place = next(i for i in range(len(taken) + 1) if i not in taken)
        gpus = visible_gpus()
        device = gpus[place % len(gpus)] if len(gpus) > 1 else None
        context = multiprocessing.get_context('fork')
        process = context.Process(target=perform, args=(task, self.runs, device, self._alone))
        process.start()
        self._running[process.sentinel] = (process, task, place)
        if len(self._running) > 1:
            self._crowded |= {task.key for _, task, _ in self._running.values()}

    def _wait(self) -> list[Task]:
        """Wait until some have ended; returns those that are to be tried again."""
        again = []
        for sentinel in wait(list(self._running)):
            process, task, _ = self._running.pop(sentinel)
            process.join()
            error = read_json(self.runs / task.key / 'run.json').get('error', '') if process.exitcode in (0, 1) else ''
            if process.exitcode < 0:
                error = f'its process was killed (signal {-process.exitcode})'
            elif process.exitcode:
                error = error or f'its process ended with status {process.exitcode}'
            if OUT_OF_MEMORY in error.lower() and task.key in self._crowded:
                self.jobs = max(1, min(self.jobs, len(self._running)))
                self._crowded.remove(task.key)
                again.append(task)
            else:
                self._end(task, error)
        return again

    def _end(self, task: Task, error: str) -> None:
        self._errors[task.key] = error
        self.report(task, error)


def visible_gpus() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES calls the GPUs of this process; CUDA itself is not touched."""
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    if named is not None:
        return [name for name in named.split(',') if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]

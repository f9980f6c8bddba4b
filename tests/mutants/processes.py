"""Forked processes side by side, each with a time limit and with an end that takes all that it started along."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

_fork = multiprocessing.get_context("fork")


@dataclass
class Task:
    """`work` runs in a process; `end` takes its exit code, None where it ran out of time."""

    work: Callable[[], None]
    seconds: float
    end: Callable[[int | None], None]


@dataclass
class _Running:
    task: Task
    process: BaseProcess
    deadline: float
    temporary: Path  # short: sockets lie in it

    def stop(self) -> None:
        assert self.process.pid is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # ended by itself, with all that it started
            pass
        self.process.join()
        shutil.rmtree(self.temporary, ignore_errors=True)


def run_tasks(tasks: Iterable[Task], jobs: int, log: Path) -> None:
    """Run all tasks. What they print is added to `log`."""
    pending = list(tasks)[::-1]
    running: list[_Running] = []
    try:
        while pending or running:
            while pending and len(running) < jobs:
                running.append(_start(pending.pop(), log))
            until = min(each.deadline for each in running) - time.monotonic()
            wait([each.process.sentinel for each in running], timeout=max(until, 0))
            for each in list(running):
                alive = each.process.is_alive()
                if not alive or time.monotonic() > each.deadline:
                    running.remove(each)
                    code = None if alive else each.process.exitcode
                    each.stop()
                    each.task.end(code)
    finally:
        for each in running:
            each.stop()


def _start(task: Task, log: Path) -> _Running:
    temporary = Path(tempfile.mkdtemp(prefix="m"))

    def run() -> None:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(temporary)
        task.work()

    process = _fork.Process(target=run)
    process.start()
    return _Running(task, process, time.monotonic() + task.seconds, temporary)

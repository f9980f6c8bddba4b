"""A campaign: which test files execute which lines, then each fault in a copy of the tree before the tests that reach it."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from tests.mutants.faults import Fault
from tests.support.paths import ROOT

AT_LEAST = 10  # faults of each room that counts
COUNTS_FROM = 50  # possible faults
BUDGET_SECONDS = 60.0  # of test files, as long as they took when they were traced
TRACING_SECONDS, STARTUP_SECONDS = 500.0, 60.0
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".hypothesis", ".*_cache", "run", "build", "dist", "*.egg-info"
)
_PYTEST = ("-q", "-x", "-p", "no:cacheprovider", "-p", "tests.mutants.lines", "--hypothesis-seed=0",
           "-m", "not minute and not exhaustive", "--rootdir", ".")  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    fault: Fault
    verdict: str  # killed, equivalent, survived
    by: str = ""  # the test that failed, or how it ended
    met: int = 0  # test files


@dataclass
class Room:
    possible: int
    unreached: int
    planted: list[Fault]


@dataclass
class Reach:
    """What each test file that passes on the tree as it is takes and executes: line numbers by module."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, set[int]]] = field(default_factory=dict)

    def files(self, fault: Fault) -> list[str]:
        """Test files that reach it, the quickest first. What runs at import is reached by all that execute its module."""
        reached = [
            file
            for file, modules in self.lines.items()
            if fault.path in modules and (not fault.function or modules[fault.path].intersection(fault.lines))
        ]
        return sorted(reached, key=lambda file: (self.seconds[file], file))

    def chosen(self, fault: Fault) -> list[str]:
        """Those that are run."""
        files = self.files(fault)
        ends = accumulate(self.seconds[file] for file in files)
        return [file for file, end in zip(files, ends, strict=True) if file == files[0] or end < BUDGET_SECONDS]


class Campaign:
    """Runs pytest in copies of the tree, which stay as they were while people go on working."""

    def __init__(self, root: Path, package: str, folder: Path, jobs: int) -> None:
        self._package, self._jobs = package, jobs
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._running: set[subprocess.Popen[str]] = set()
        for number in range(jobs):
            self._free.put(Path(shutil.copytree(root, folder / str(number), ignore=_LEFT_OUT, symlinks=True)))

    def reach(self, files: Sequence[str], say: Callable[[str], None]) -> Reach:
        """Run every test file once, traced."""
        found, failed = Reach(), []

        def trace(file: str) -> None:
            with tempfile.NamedTemporaryFile() as out:
                began = time.monotonic()
                lines = {"FLOPSD_MUTANTS_LINES": out.name, "FLOPSD_MUTANTS_PACKAGE": self._package}
                code, _ = self._pytest([file], TRACING_SECONDS, lines)
                if code == 0:
                    found.seconds[file] = time.monotonic() - began
                    found.lines[file] = {path: set(at) for path, at in json.loads(Path(out.name).read_text()).items()}
                else:
                    failed.append(file)

        say(f"tracing {len(files)} test files")
        list(self._each(trace, files))
        if failed:
            say(f"test files that do not pass on the tree as it is, and meet no fault: {', '.join(sorted(failed))}")
        return found

    def plant(self, faults: Iterable[Fault], reach: Reach) -> Iterator[Outcome]:
        """Plant each fault; what became of it."""

        def meet(fault: Fault) -> Outcome:
            files = reach.chosen(fault)
            seconds = STARTUP_SECONDS + 3 * sum(reach.seconds[file] for file in files)
            code, printed = self._pytest(files, seconds, {}, fault)
            named = re.search(r"^(?:FAILED|ERROR) (\S+)", printed, re.MULTILINE)
            by = named[1] if named else "out of time" if code is None else f"exit {code}"
            return Outcome(fault, "survived", met=len(files)) if code == 0 else Outcome(fault, "killed", by, len(files))

        return self._each(meet, faults)

    def _each(
        self, work: Callable[[Fault], Outcome] | Callable[[str], None], on: Iterable[object]
    ) -> Iterator[Outcome]:
        executor = ThreadPoolExecutor(self._jobs)
        try:
            for done in as_completed([executor.submit(work, each) for each in on]):  # type: ignore[arg-type]
                yield done.result()  # type: ignore[misc]
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):
                _kill(process)

    def _pytest(
        self, files: Sequence[str], seconds: float, more: dict[str, str], fault: Fault | None = None
    ) -> tuple[int | None, str]:
        """The exit code, None where time ran out, and what was printed."""
        with self._tree(fault) as tree, tempfile.TemporaryDirectory(prefix="m") as short:  # sockets lie in it
            env = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{ROOT}", "PYTEST_DEBUG_TEMPROOT": short, **more}
            command = [sys.executable, "-m", "pytest", *_PYTEST, *files]
            with subprocess.Popen(command, cwd=tree, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, start_new_session=True) as process:  # fmt: skip
                self._running.add(process)
                try:
                    printed, _ = process.communicate(timeout=seconds)
                except subprocess.TimeoutExpired:
                    return None, ""
                finally:
                    _kill(process)
                    self._running.discard(process)
                return process.returncode, printed

    @contextmanager
    def _tree(self, fault: Fault | None) -> Iterator[Path]:
        tree = self._free.get()
        try:
            if fault is None:
                yield tree
                return
            source = (tree / fault.path).read_bytes()
            (tree / fault.path).write_bytes(fault.plant(source))
            try:
                yield tree
            finally:
                (tree / fault.path).write_bytes(source)
        finally:
            self._free.put(tree)


def _kill(process: subprocess.Popen[str]) -> None:
    """With all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def sample(seed: int, count: int, by_room: dict[str, list[Fault]], reach: Reach) -> dict[str, Room]:
    """`count` faults that tests reach, by room in proportion to what is possible, at least AT_LEAST of each that counts.

    A fault's rank depends on the seed and on its own text, so it is the same whatever changes elsewhere.
    """

    def rank(fault: Fault) -> str:
        return hashlib.sha256(repr((seed, fault.key)).encode()).hexdigest()

    reached = {room: [f for f in found if reach.files(f)] for room, found in by_room.items()}
    total = sum(map(len, reached.values())) or 1
    floor = min(AT_LEAST, count // max(1, len(reached)))
    least = {room: floor if len(found) >= COUNTS_FROM else 0 for room, found in reached.items()}
    wanted = {room: max(least[room], round(count * len(found) / total)) for room, found in reached.items()}
    while sum(wanted.values()) > count:  # the largest give what the smallest have more
        largest = max((room for room in wanted if wanted[room] > least[room]), key=wanted.__getitem__, default=None)
        if largest is None:
            break
        wanted[largest] -= 1
    return {
        room: Room(len(found), len(found) - len(reached[room]), sorted(reached[room], key=rank)[: wanted[room]])
        for room, found in by_room.items()
    }


def table(by_room: dict[str, Room], outcomes: Iterable[Outcome]) -> list[str]:
    """Room by room: faults possible, on lines that no test executes, planted, and what became of these."""
    verdicts = {room: Counter[str]() for room in by_room}
    room_of = {id(fault): name for name, room in by_room.items() for fault in room.planted}
    for outcome in outcomes:
        verdicts[room_of[id(outcome.fault)]][outcome.verdict] += 1
    rows = [(name, room.possible, room.unreached, verdicts[name]) for name, room in by_room.items()]
    whole = sum((verdict for *_, verdict in rows), Counter[str]())
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows), whole))
    lines = [f"{'room':14}{'possible':>9}{'unreached':>10}{'planted':>9}{'killed':>8}{'equivalent':>11}{'survived':>9}"]
    for name, possible, unreached, verdict in rows:
        planted = verdict.total()
        if planted:
            share = f"{100 * (planted - verdict['survived']) / planted:6.1f} %"
            figures = f"{verdict['killed']:8}{verdict['equivalent']:11}{verdict['survived']:9}"
            lines.append(f"{name:14}{possible:9}{unreached:10}{planted:9}{figures}  {share}")
    return lines

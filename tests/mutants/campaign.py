"""A campaign: find which tests execute which lines, then plant each fault in a copy of the tree and run the tests
that reach it."""

import hashlib
import json
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from tests.mutants.faults import Fault
from tests.mutants.lines import bits
from tests.support.paths import ROOT

AT_LEAST = 10  # faults of each room that counts
COUNTS_FROM = 50  # possible faults from which a room counts
# All in seconds of CPU, so that a busy machine changes no verdict. A traced test takes several times as long as by
# itself.
BUDGET_SECONDS, TRACING_SECONDS, STARTUP_SECONDS, QUICK_SECONDS = 120.0, 1000, 60, 3
# A test that waits for ever takes no CPU: this many seconds with less than this share of a core, or this many such
# spans in total.
IDLE_SECONDS, IDLE_SHARE, MOST_IDLE_TIMES = 120, 0.05, 15
Ended = tuple[int | None, str]  # exit code, None where time ran out; and text
PASSED = (0, 5)  # exit codes of pytest: all tests passed, or none was run
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".hypothesis", ".*_cache", "run", "build", "dist")
_PYTEST = ("-q", "-p", "no:cacheprovider", "-p", "tests.mutants.lines", "--hypothesis-seed=0",
           "-m", "not minute and not exhaustive", "--rootdir", ".")  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    fault: Fault
    verdict: str  # killed, equivalent, survived
    by: str = ""  # the test that failed, or the way it ended
    met: int = 0  # number of tests run


@dataclass(frozen=True)
class Traced:
    """A test that passes on the original tree, and the lines that it executes, as `bits`, by module."""

    name: str
    seconds: float  # of CPU
    waits: bool  # depends on elapsed time, so that it may fail on a busy machine
    lines: dict[str, int]
    starts: bool  # starts a Python process, which executes more

    def executes(self, fault: Fault) -> bool:
        """For code that runs at import, any line of its module counts."""
        at = self.lines.get(fault.path, 0)
        return bool(at and (not fault.function or at & bits(fault.lines)))


@dataclass
class Reach:
    """The lines that each test executes, by file; the lines shared by a file's tests; and those of a whole file."""

    tests: dict[str, list[Traced]] = field(default_factory=dict)
    shared: dict[str, Traced] = field(default_factory=dict)
    whole: dict[str, Traced] = field(default_factory=dict)

    def add(self, file: str, found: dict[str, tuple[float, bool, dict[str, int], bool]]) -> None:
        traced = {name: Traced(name, *figures) for name, figures in found.items()}
        whole = self.whole[file] = Traced(file, 0.0, False, {}, False)
        for test in traced.values():
            for path, at in test.lines.items():
                whole.lines[path] = whole.lines.get(path, 0) | at
        self.shared[file] = traced.pop("")
        self.tests[file] = list(traced.values())

    def reached(self, fault: Fault) -> bool:
        return any(whole.executes(fault) for whole in self.whole.values())

    def chosen(self, fault: Fault) -> dict[str, list[Traced]]:
        """Tests that reach the fault, by file: first those of the file with the module's name, for code at import also
        those of the page of limits, which may state it; then those that execute the fault themselves, of these first
        those of the module's room, then those unlike others, then the quickest, to a tenth of a second. If a test
        starts a process, or the code runs at import, all lines that the file executes count; for code at import also
        the modules that the file imports or compares with the page of limits. Such a test executes nothing of the
        module, so its speed does not put it last."""
        found, at_import = list[Traced](), not fault.function
        own = {f"test_{Path(fault.path).stem}.py", "test_limits.py" if at_import else ""}
        room = Path(fault.path).parts[1]
        module = f"from {fault.path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')} import"
        for file, tests in self.tests.items():
            shared, whole = self.shared[file].executes(fault), self.whole[file].executes(fault)
            whole = whole or (at_import and module in _text(ROOT / file))
            found += [t for t in tests if t.executes(fault) or shared or (whole and (t.starts or at_import))]
        alike, ranked = Counter[tuple[str, int]](), []
        for test in sorted(found, key=lambda test: (round(test.seconds, 1), test.name)):
            kind = test.name.partition("[")[0], test.lines.get(fault.path, 0)
            is_first = test.executes(fault) or (at_import and test.seconds < QUICK_SECONDS)
            where = Path(test.name.partition("::")[0])
            nearness = where.name not in own, not is_first, room not in where.parts
            ranked.append((*nearness, alike[kind], round(test.seconds, 1), test.name, test))
            alike[kind] += 1
        files, left = dict[str, list[Traced]](), BUDGET_SECONDS
        for *_, name, test in sorted(ranked, key=lambda each: each[:6]):
            file = name.partition("::")[0]
            left -= test.seconds + (0.0 if file in files else self.shared[file].seconds)
            if left < 0 and files:
                break
            files.setdefault(file, []).append(test)
        return files


class Campaign:
    """Runs pytest in copies of the tree, which stay unchanged while people go on working."""

    def __init__(self, root: Path, package: str, folder: Path, jobs: int) -> None:
        self._package, self._jobs = package, jobs
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._running: set[subprocess.Popen[str]] = set()
        self._times = count(1)
        for number in range(jobs):
            self._free.put(Path(shutil.copytree(root, folder / str(number), ignore=_LEFT_OUT, symlinks=True)))

    def reach(self, files: Sequence[str], say: Callable[[str], None]) -> Reach:
        """Run every test file once, traced; a second time if a test fails."""
        reach = Reach()

        def trace(file: str) -> list[str]:
            with tempfile.NamedTemporaryFile() as out:
                lines = {"FLOPSD_MUTANTS_LINES": out.name, "FLOPSD_MUTANTS_PACKAGE": self._package}
                code, printed = self._pytest([file], TRACING_SECONDS, lines)
                if code not in PASSED:
                    code, printed = self._pytest([file], TRACING_SECONDS, lines)
                if code in (0, 1):
                    reach.add(file, json.loads(Path(out.name).read_text()))
                return [] if code in PASSED else _failed(printed) or [file]

        say(f"tracing {len(files)} test files")
        if failed := sorted(name for names in self._each(trace, files) for name in names):
            say(f"do not pass on the tree as it is, and meet no fault: {', '.join(failed)}")
        return reach

    def plant(self, faults: Iterable[Fault], reach: Reach) -> Iterator[Outcome]:
        """Plant each fault, and yield its outcome."""

        def meet(fault: Fault) -> Outcome:
            chosen = reach.chosen(fault)
            tests = {test.name: test for tests in chosen.values() for test in tests}
            names = list(tests)
            limit = STARTUP_SECONDS + 3 * sum(test.seconds for at in chosen for test in [*chosen[at], reach.shared[at]])
            code, by = self._run(names, limit, fault)
            while code not in PASSED and by in names and not self._decides(tests[by], limit, fault):
                names.remove(by)
                code, by = self._run(names, limit, fault)
            return Outcome(fault, "survived" if code in PASSED else "killed", by, len(names))

        return self._each(meet, faults)

    def _decides(self, test: Traced, limit: float, fault: Fault) -> bool:
        """Whether the fault is the cause of the failure, and not an earlier test or another process that takes the
        CPU."""
        if self._run([test.name], limit, fault)[0] in PASSED:
            return False
        return not test.waits or self._run([test.name], limit, None)[0] in PASSED

    def _run(self, names: list[str], limit: float, fault: Fault | None) -> Ended:
        """The exit code, and the test that failed or the way it ended."""
        with tempfile.NamedTemporaryFile("w") as file:
            json.dump(names, file)
            file.flush()
            files = list(dict.fromkeys(name.partition("::")[0] for name in names))
            code, printed = self._pytest(["-x", *files], limit, {"FLOPSD_MUTANTS_TESTS": file.name}, fault)
        ended = {None: "waits for ever", -signal.SIGXCPU: "out of CPU time"}.get(code, f"exit {code}")
        return code, next(iter(_failed(printed)), ended)

    def _each(self, work: Callable[[Any], Any], on: Iterable[object]) -> Iterator[Any]:
        executor = ThreadPoolExecutor(self._jobs)
        try:
            for done in as_completed([executor.submit(work, each) for each in on]):
                yield done.result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):
                _kill(process)

    def _pytest(self, files: list[str], cpu_seconds: float, more: dict[str, str], fault: Fault | None = None) -> Ended:
        """Run test files with a fault planted; the text is the printed output."""
        with self._tree(fault) as tree, tempfile.TemporaryDirectory(prefix="m") as short:  # holds sockets
            env = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{ROOT}", "PYTEST_DEBUG_TEMPROOT": short, **more}
            command = [sys.executable, "-m", "pytest", *_PYTEST, *files]
            with subprocess.Popen(command, cwd=tree, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, start_new_session=True) as process:  # fmt: skip
                self._running.add(process)
                try:
                    # Each process that it starts inherits the limit, with a count of its own.
                    resource.prlimit(process.pid, resource.RLIMIT_CPU, (int(cpu_seconds), int(cpu_seconds) + 5))
                    printed = _communicate(process)
                finally:
                    _kill(process)
                    self._running.discard(process)
                return (None, "") if printed is None else (process.returncode, printed)

    @contextmanager
    def _tree(self, fault: Fault | None) -> Iterator[Path]:
        tree = self._free.get()
        source = (tree / fault.path).read_bytes() if fault else b""
        try:
            if fault:
                (tree / fault.path).write_bytes(fault.plant(source))
                os.utime(
                    tree / fault.path, (0, next(self._times))
                )  # so that byte code of another fault is never reused
            yield tree
        finally:
            if fault:
                (tree / fault.path).write_bytes(source)
            self._free.put(tree)


@cache
def _text(file: Path) -> str:
    """The text of a test file, with the constants that it imports by name if it compares the page of limits with
    them."""
    text = file.read_text() if file.exists() else ""
    constants = (ROOT / "tests" / "support" / "limit_constants.py").read_text() if "limit_constants" in text else ""
    return text + re.sub(r"^ *(flopsd\.\S+): ", r"from \1 import ", constants, flags=re.MULTILINE)


def _communicate(process: subprocess.Popen[str]) -> str | None:
    """The printed output; None if it waits for ever."""
    before = 0.0
    for _ in range(MOST_IDLE_TIMES):
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=IDLE_SECONDS)[0]
        used = _session_cpu_seconds(process.pid)
        if used - before < IDLE_SHARE * IDLE_SECONDS:
            break
        before = used
    return None


def _session_cpu_seconds(session: int) -> float:
    """CPU time of a session's processes, and of the children that they have waited for."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has ended
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15])) if int(fields[3]) == session else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _failed(printed: str) -> list[str]:
    """Tests that failed, as pytest names them."""
    return re.findall(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - |$)", printed, re.MULTILINE)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill it with all the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def sample(seed: int, most: int, faults: Iterable[Fault], reach: Reach) -> list[Fault]:
    """`most` faults that tests reach, divided between rooms in proportion to the reached faults, with at least
    AT_LEAST for each room that counts.

    A fault's rank depends on the seed and on its own text, so other changes do not affect it.
    """
    by_room: dict[str, list[Fault]] = {}
    for fault in sorted(faults, key=lambda fault: hashlib.sha256(repr((seed, fault.key)).encode()).digest()):
        if reach.reached(fault):
            by_room.setdefault(fault.room, []).append(fault)
    share = most / (sum(map(len, by_room.values())) or 1)
    floor = min(AT_LEAST, most // (len(by_room) or 1))
    least = {room: floor if len(found) >= COUNTS_FROM else 0 for room, found in by_room.items()}
    wanted = {room: max(least[room], round(share * len(found))) for room, found in by_room.items()}
    while sum(wanted.values()) > most:  # take from the largest rooms the excess over `most`
        wanted[max(wanted, key=lambda room: (wanted[room] > least[room], wanted[room]))] -= 1
    return [fault for room, found in by_room.items() for fault in found[: wanted[room]]]


def table(faults: Sequence[Fault], reach: Reach, outcomes: Sequence[Outcome]) -> list[str]:
    """For each room: the possible faults, those on lines that no test executes, those planted, and their outcomes."""
    header = ("possible", "unreached", "planted", "killed", "equivalent", "survived")
    lines = ["room".ljust(14) + "".join(f"{title:>11}" for title in header)]
    for room in [*sorted({outcome.fault.room for outcome in outcomes}), "all"]:
        possible = [fault for fault in faults if room in (fault.room, "all")]
        verdicts = Counter(outcome.verdict for outcome in outcomes if room in (outcome.fault.room, "all"))
        unreached = sum(not reach.reached(fault) for fault in possible)
        figures = (len(possible), unreached, verdicts.total(), *(verdicts[verdict] for verdict in header[3:]))
        share = 1 - verdicts["survived"] / (verdicts.total() or 1)
        lines.append(room.ljust(14) + "".join(f"{figure:11}" for figure in figures) + f"{100 * share:7.1f} %")
    return lines

"""A pytest plug-in of campaigns: runs few examples of each property, and records the lines that each test executes, or
selects the tests to run.

FLOPSD_MUTANTS_LINES names the file for the lines of the package FLOPSD_MUTANTS_PACKAGE, found with `sys.settrace`.
Lines executed by a process that a test starts are not recorded. FLOPSD_MUTANTS_TESTS names the file with the tests to
run.
"""

import inspect
import json
import os
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterable
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

EXAMPLES = 25  # of each property, as in `make quick`
WAITING_SECONDS = 0.3


def pytest_configure(config: pytest.Config) -> None:
    if out := os.environ.get("FLOPSD_MUTANTS_LINES"):
        config.pluginmanager.register(Lines(f"{Path.cwd()}/", os.environ["FLOPSD_MUTANTS_PACKAGE"], Path(out)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that run Prometheus would take most of the time, and reach little of the package."""
    from hypothesis import HealthCheck, settings  # pytest must have loaded it, to rewrite its assertions

    items[:] = [item for item in items if not any("promtool" in marker.args for marker in item.iter_markers("tool"))]
    if chosen := os.environ.get("FLOPSD_MUTANTS_TESTS"):
        place = {test: number for number, test in enumerate(json.loads(Path(chosen).read_text()))}
        items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])
    for item in items:
        test = getattr(item, "obj", None)
        known = getattr(test, "_hypothesis_internal_use_settings", None)
        if known is not None and isinstance(test, FunctionType):
            # No example is refused for slowness: other load on the machine must not decide.
            most, checks = min(known.max_examples, EXAMPLES), list(HealthCheck)
            calm = settings(known, max_examples=most, deadline=None, suppress_health_check=checks)
            test._hypothesis_internal_use_settings = calm  # type: ignore[attr-defined]


class Lines:
    """Plug-in: for each test that passes, the lines in functions of `package` that it executes, its seconds of CPU,
    and whether it waits for something other than the CPU.

    The test "" is the part shared by the tests of a file: code that runs at import and in fixtures of more than one
    test.
    """

    def __init__(self, root: str, package: str, out: Path) -> None:
        self._root, self._prefix, self._out = root, f"{root}{package}/", out
        self._totals: dict[CodeType, int] = {}  # number of lines; 0: not a function of the package
        self._by_test: dict[str, defaultdict[CodeType, set[int]]] = {}
        self._cpu_seconds: defaultdict[str, float] = defaultdict(float)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._test, self._since, self._starting = "", _now(), set[str]()
        self._failed: set[str] = set()
        self._turn("")
        sys.addaudithook(self._audit)
        threading.settrace(self._call)
        sys.settrace(self._call)

    def _audit(self, event: str, args: tuple[object, ...]) -> None:
        if event == "os.fork" or (event == "subprocess.Popen" and "python" in str(args)):
            self._starting.add(self._test)

    def _turn(self, test: str) -> str:
        """Set the test that runs from now on; returns the previous one."""
        before, now = self._test, _now()
        for seconds, at, since in zip((self._cpu_seconds, self._seconds), now, self._since, strict=True):
            seconds[before] += at - since
        self._test, self._since = test, now
        self._seen = self._by_test.setdefault(test, defaultdict(set))
        return before

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        for module in list(sys.modules.values()):  # a test that uses another test's cached value executes its code too
            for value in vars(module).values() if str(getattr(module, "__file__", "")).startswith(self._root) else ():
                getattr(value, "cache_clear", int)()
        sys.settrace(self._call)  # a test that exhausts the recursion limit ends tracing too
        self._turn(nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        before = self._turn(self._test if fixturedef.scope == "function" else "")
        value = yield
        self._turn(before)
        return value

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        self._turn("")
        found: dict[str, tuple[float, bool, defaultdict[str, int], bool]] = {}
        for test in self._by_test.keys() - self._failed:
            waits = self._seconds[test] - self._cpu_seconds[test] > WAITING_SECONDS
            found[test] = self._cpu_seconds[test], waits, defaultdict(int), test in self._starting
            for code, lines in self._by_test[test].items():
                found[test][2][code.co_filename.removeprefix(self._root)] |= bits(lines)
        self._out.write_text(json.dumps(found))

    def _call(self, frame: FrameType, _event: str, _arg: object) -> Any:
        code = frame.f_code
        total = self._totals.get(code)
        if total is None:
            counts = code.co_filename.startswith(self._prefix) and code.co_flags & inspect.CO_OPTIMIZED
            total = self._totals[code] = len({line for _, _, line in code.co_lines() if line}) if counts else 0
        if total == 0 or len(self._seen.get(code, ())) >= total:
            return None
        self._seen[code].add(frame.f_lineno)
        return self._line

    def _line(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":
            seen = self._seen[frame.f_code]
            seen.add(frame.f_lineno)
            if len(seen) >= self._totals[frame.f_code]:
                frame.f_trace_lines = False  # nothing new can come, and line tracing is what costs time
        return self._line


def _now() -> tuple[float, float]:
    """CPU seconds of this process and its waited-for children; and elapsed time by the clock."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used), time.monotonic()


def bits(lines: Iterable[int]) -> int:
    """Line numbers as one integer: sets for thousands of tests in a hundred modules would fill the memory."""
    return sum(1 << line for line in set(lines))

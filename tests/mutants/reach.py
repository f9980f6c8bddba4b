"""Which tests execute which lines. A line is known by its text and that of the line before, wherever it moves to.

A pytest plug-in with `sys.settrace`. What a shared fixture executes is reached by every test that uses it. Lines
that only a subprocess of a test executes are not seen: such tests meet the faults of what they execute themselves.
"""

from __future__ import annotations

import sys
import threading
import time
import zlib
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

Lines = Mapping[str, Collection[int]]


def line_ids(source: str) -> list[int]:
    """An id for each line, in order."""
    lines = [line.strip() for line in source.splitlines()]
    return [zlib.crc32(f"{before}\n{line}".encode()) for before, line in pairwise(["", *lines])]


@dataclass
class Test:
    """A test that passes on the tree as it is."""

    id: str
    seconds: float
    lines: Lines  # ids of lines by path, relative to the tree

    def plain(self) -> list[Any]:
        """For JSON: the arguments of this class."""
        return [self.id, self.seconds, {path: sorted(lines) for path, lines in self.lines.items()}]

    @property
    def file(self) -> str:
        return self.id.partition("::")[0]


class Reach:
    """Plug-in: the lines of `package` that each test executes, in `tests` when the session is over."""

    def __init__(self, root: Path, package: str) -> None:
        self.tests: list[Test] = []
        self.failed: list[str] = []  # ids of tests that fail or are skipped
        self._prefix = f"{root}/{package}/"
        self._cut = len(str(root)) + 1
        self._seen: dict[CodeType, set[int]] = {}
        self._totals: dict[CodeType, int] = {}  # number of lines; 0: not of the package
        self._by_fixture: dict[int, list[dict[CodeType, set[int]]]] = {}
        self._failed = False
        self._ids: dict[str, list[int]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._seen = {}
        self._failed = False
        began = time.perf_counter()
        threading.settrace(self._call)
        sys.settrace(self._call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            if self._failed:
                self.failed.append(item.nodeid)
            else:
                self.tests.append(Test(item.nodeid, time.perf_counter() - began, self._lines(item)))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        outer, self._seen = self._seen, {}
        try:
            return (yield)
        finally:
            self._by_fixture.setdefault(id(fixturedef), []).append(self._seen)
            self._seen = outer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or not report.passed

    def _lines(self, item: pytest.Item) -> Lines:
        parts = [self._seen]
        if isinstance(item, pytest.Function):
            for definitions in item._fixtureinfo.name2fixturedefs.values():
                for definition in definitions:
                    parts.extend(self._by_fixture.get(id(definition), []))
        lines: dict[str, set[int]] = {}
        for part in parts:
            for code, numbers in part.items():
                path = code.co_filename
                if path not in self._ids:
                    self._ids[path] = line_ids(Path(path).read_text())
                ids = self._ids[path]
                lines.setdefault(path[self._cut :], set()).update(ids[number - 1] for number in numbers)
        return lines

    def _call(self, frame: FrameType, _event: str, _arg: object) -> Any:
        code = frame.f_code
        total = self._totals.get(code)
        if total is None:
            counts = code.co_filename.startswith(self._prefix) and code.co_name != "<module>"
            total = self._totals[code] = len({line for _, _, line in code.co_lines() if line}) if counts else 0
        if total == 0:
            return None
        seen = self._seen.setdefault(code, set())
        if len(seen) >= total:
            return None
        seen.add(frame.f_lineno)
        return self._line

    def _line(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":
            seen = self._seen.setdefault(frame.f_code, set())
            seen.add(frame.f_lineno)
            if len(seen) >= self._totals[frame.f_code]:
                frame.f_trace_lines = False  # nothing new can come, and this is what costs time
        return self._line


def set_examples(items: list[pytest.Item], at_most: int) -> None:
    """Properties of which no example is refused for being slow: what else runs on the machine must not decide."""
    from hypothesis import HealthCheck, settings  # pytest must have loaded it, to rewrite its assertions

    for item in items:
        test = getattr(item, "obj", None)
        known = getattr(test, "_hypothesis_internal_use_settings", None)
        if known is not None and isinstance(test, FunctionType):
            most = min(known.max_examples, at_most)
            calm = settings(known, max_examples=most, deadline=None, suppress_health_check=list(HealthCheck))
            test._hypothesis_internal_use_settings = calm  # type: ignore[attr-defined]

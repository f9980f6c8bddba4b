"""A pytest plug-in of campaigns: few examples of each property and, where it is asked for, which lines the tests execute.

FLOPSD_MUTANTS_LINES names the file for the lines of the package FLOPSD_MUTANTS_PACKAGE, found with `sys.settrace`.
Lines that only a subprocess of a test executes are not seen.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

EXAMPLES = 25  # of each property, as in `make quick`


def pytest_configure(config: pytest.Config) -> None:
    if out := os.environ.get("FLOPSD_MUTANTS_LINES"):
        config.pluginmanager.register(Lines(f"{Path.cwd()}/", os.environ["FLOPSD_MUTANTS_PACKAGE"], Path(out)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that run Prometheus would take most of the time, and reach little of the package."""
    from hypothesis import HealthCheck, settings  # pytest must have loaded it, to rewrite its assertions

    items[:] = [item for item in items if not any("promtool" in marker.args for marker in item.iter_markers("tool"))]
    for item in items:
        test = getattr(item, "obj", None)
        known = getattr(test, "_hypothesis_internal_use_settings", None)
        if known is not None and isinstance(test, FunctionType):
            # No example is refused for being slow: what else runs on the machine must not decide.
            most, checks = min(known.max_examples, EXAMPLES), list(HealthCheck)
            calm = settings(known, max_examples=most, deadline=None, suppress_health_check=checks)
            test._hypothesis_internal_use_settings = calm  # type: ignore[attr-defined]


class Lines:
    """Plug-in: the lines in functions of `package` that are executed while tests run."""

    def __init__(self, root: str, package: str, out: Path) -> None:
        self._root, self._prefix, self._out = root, f"{root}{package}/", out
        self._seen: dict[CodeType, set[int]] = {}
        self._totals: dict[CodeType, int] = {}  # number of lines; 0: not of the package

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        threading.settrace(self._call)
        sys.settrace(self._call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)

    def pytest_sessionfinish(self) -> None:
        found: dict[str, list[int]] = {}
        for code, lines in self._seen.items():
            found.setdefault(code.co_filename.removeprefix(self._root), []).extend(lines)
        self._out.write_text(json.dumps(found))

    def _call(self, frame: FrameType, _event: str, _arg: object) -> Any:
        code = frame.f_code
        total = self._totals.get(code)
        if total is None:
            counts = code.co_filename.startswith(self._prefix) and code.co_name != "<module>"
            total = self._totals[code] = len({line for _, _, line in code.co_lines() if line}) if counts else 0
        if total == 0 or len(self._seen.get(code, ())) >= total:
            return None
        self._seen.setdefault(code, set()).add(frame.f_lineno)
        return self._line

    def _line(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":
            seen = self._seen[frame.f_code]
            seen.add(frame.f_lineno)
            if len(seen) >= self._totals[frame.f_code]:
                frame.f_trace_lines = False  # nothing new can come, and this is what costs time
        return self._line

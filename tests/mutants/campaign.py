"""A campaign, in one pytest session: collect all tests once, then fork a process for each fault and run tests there.

A fault in a function is put into the function itself; one in what runs at import needs the package to be imported anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.mutants.faults import Fault
from tests.mutants.plant import Functions, plant_before_import
from tests.mutants.processes import Task, run_tasks
from tests.mutants.project import Project
from tests.mutants.reach import Reach, Test, line_ids, set_examples

AT_LEAST = 10  # faults of each room that counts
COUNTS_FROM = 50  # possible faults
# Examples of a property: enough to see which lines it executes, and as many as in `make quick`.
EXAMPLES_TRACED, EXAMPLES = 10, 25
BUDGET_SECONDS = 60.0  # of tests, as they took when they were traced
BUDGET_FILES = 8  # where they must be imported anew
STARTUP_SECONDS = 60.0
# Tests that run Prometheus or wait for a minute would take most of the time, and reach little of the package.
LEFT_OUT_TOOLS = frozenset({"promtool"})
PYTEST = ("-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-m", "not minute and not exhaustive")

Say = Callable[[str], None]


@dataclass
class Map:
    """The tests that pass on the tree as it is, and which of them execute a line."""

    tests: list[Test]
    root: Path
    _by_line: dict[str, dict[int, list[Test]]] = field(default_factory=dict)  # by the ids of lines
    _ids: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for test in self.tests:
            for path, lines in test.lines.items():
                by_line = self._by_line.setdefault(path, {})
                for line in lines:
                    by_line.setdefault(line, []).append(test)

    def reaching(self, fault: Fault) -> list[Test]:
        """The cheapest first. Code that runs at import is reached by every test that executes its module."""
        by_line = self._by_line.get(fault.path, {})
        if fault.path not in self._ids:
            self._ids[fault.path] = line_ids((self.root / fault.path).read_text())
        ids = self._ids[fault.path]
        lines: Iterable[int] = (ids[number - 1] for number in fault.lines) if fault.function else by_line
        return _cheapest(test for line in lines for test in by_line.get(line, ()))

    def chosen(self, fault: Fault) -> list[Test]:
        """The tests to run: those that reach it, then others of the same files, which use what the former cached."""
        reaching = self.reaching(fault)
        ids, files = {test.id for test in reaching}, {test.file for test in reaching}
        beside = _cheapest(test for test in self.tests if test.file in files and test.id not in ids)
        chosen: list[Test] = []
        seconds = 0.0
        for test in (*reaching, *beside):
            seconds += test.seconds
            if not chosen or seconds < BUDGET_SECONDS:
                chosen.append(test)
        return chosen


def _cheapest(tests: Iterable[Test]) -> list[Test]:
    return sorted({test.id: test for test in tests}.values(), key=lambda test: (test.seconds, test.id))


@dataclass(frozen=True)
class Outcome:
    fault: Fault
    verdict: str  # killed, equivalent, survived
    by: str = ""  # the test that failed, or how it ended
    met: int = 0  # tests


@dataclass
class Room:
    possible: int
    unreached: int
    planted: list[Fault]


def sample(seed: int, count: int, by_room: dict[str, list[Fault]], reach: Map) -> dict[str, Room]:
    """`count` faults that tests reach, by room in proportion to what is possible, at least AT_LEAST of each that counts.

    A fault's rank depends on the seed and on its own text, so it is the same whatever changes elsewhere.
    """

    def rank(fault: Fault) -> str:
        return hashlib.sha256(repr((seed, fault.key)).encode()).hexdigest()

    reached = {room: [f for f in found if reach.reaching(f)] for room, found in by_room.items()}
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


class Campaign:
    """Plug-in that takes the place of running the collected tests: `work` is called with this instead."""

    def __init__(
        self, project: Project, folder: Path, log: Path, jobs: int, say: Say, work: Callable[[Campaign], None]
    ) -> None:
        """`folder` is for what is kept; `log` for what the tests print."""
        self._project = project
        self._log = log
        self._folder = folder
        self._jobs = jobs
        self._say = say
        self._work = work
        self._session: pytest.Session

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if not LEFT_OUT_TOOLS & _tools(item)]
        set_examples(items, EXAMPLES)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._session = session
        self._work(self)
        return True

    # Which tests reach what

    def find_reach(self, keep_old: bool) -> Map:
        """Run every test file once, traced. What an earlier campaign found is kept while nothing that it used changes;
        with `keep_old` it is kept while the test file itself is the same."""
        folder = self._folder / "reach"
        folder.mkdir(parents=True, exist_ok=True)
        tests: list[Test] = []
        failed: list[str] = []
        missing = {}
        digests = self._project.digests()
        for path, digest in digests.items():
            result = folder / path.replace("/", "+")
            if not self._is_known(result, path, digest, keep_old):
                missing[path] = result
        if missing:
            self._say(f"tracing {len(missing)} of {len(digests)} test files")
            run_tasks((self._trace(p, digests[p], result) for p, result in missing.items()), self._jobs, self._log)
        for path in digests:
            result = folder / path.replace("/", "+")
            if result.exists():
                found = json.loads(result.read_text())
                tests += [Test(*test) for test in found["tests"]]
                failed += found["failed"]
        if failed:
            self._say(
                f"{len(failed)} tests fail or are skipped on the tree as it is: {', '.join(sorted(failed)[:5])}, …"
            )
        return Map(tests, self._project.root)

    def _is_known(self, result: Path, path: str, digest: str, keep_old: bool) -> bool:
        known = json.loads(result.read_text()) if result.exists() else {}
        return known.get("file") == self._of_file(path) if keep_old else known.get("digest") == digest

    def _of_file(self, path: str) -> str:
        return hashlib.sha256((self._project.root / path).read_bytes()).hexdigest()

    def _trace(self, path: str, digest: str, result: Path) -> Task:
        def work() -> None:
            reach = Reach(self._project.root, self._project.package)
            items = [item for item in self._session.items if item.nodeid.partition("::")[0] == path]
            self._session.config.pluginmanager.register(reach)
            set_examples(items, EXAMPLES_TRACED)
            self._run(items, lambda: False)
            partial = result.with_suffix(f".{os.getpid()}")
            known = {"digest": digest, "file": self._of_file(path), "failed": reach.failed}
            partial.write_text(json.dumps({**known, "tests": [test.plain() for test in reach.tests]}))
            partial.rename(result)
            os._exit(0)  # threads of tests may hang

        def end(code: int | None) -> None:
            if code != 0:
                self._say(f"{path} did not end: its tests meet no fault")

        return Task(work, 500.0, end)

    def _run(self, items: Sequence[pytest.Item], stop: Callable[[], bool]) -> None:
        self._session.items = list(items)
        for item, following in zip(items, [*items[1:], None], strict=True):
            self._session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if stop():
                return

    # Faults

    def plant(self, planted: Iterable[Fault], reach: Map, done: Callable[[Outcome], None]) -> None:
        """Plant each fault, and call `done` with what became of it."""
        functions = Functions(self._project.root, self._project.package)
        run_tasks((self._meet(fault, reach.chosen(fault), functions, done) for fault in planted), self._jobs, self._log)

    def _meet(self, fault: Fault, tests: Sequence[Test], functions: Functions, done: Callable[[Outcome], None]) -> Task:
        note = self._folder / f"failed-{hashlib.sha256(repr(fault).encode()).hexdigest()[:16]}"

        def work() -> None:
            first = _FirstFailure(note)
            if functions.plant(fault):
                by_id = {item.nodeid: item for item in self._session.items}
                self._session.config.pluginmanager.register(first)
                self._run([by_id[test.id] for test in tests if test.id in by_id], note.exists)
                os._exit(int(note.exists()))
            plant_before_import(fault, self._project.root, self._project.package)
            files = list(dict.fromkeys(test.file for test in tests))[:BUDGET_FILES]
            unwritten = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
            chosen = _Chosen([test.id for test in tests])
            os._exit(int(pytest.main([*PYTEST, *unwritten, "-x", *files], plugins=[chosen, first])))

        def end(code: int | None) -> None:
            how = "out of time" if code is None else f"exit {code}"
            by = note.read_text() if note.exists() else how
            note.unlink(missing_ok=True)
            done(Outcome(fault, "killed" if code != 0 else "survived", by if code != 0 else "", len(tests)))

        return Task(work, STARTUP_SECONDS + 3 * sum(test.seconds for test in tests), end)


def _tools(item: pytest.Item) -> set[str]:
    return {str(name) for marker in item.iter_markers("tool") for name in marker.args}


class _FirstFailure:
    """Plug-in: notes the first test that fails."""

    def __init__(self, note: Path) -> None:
        self._note = note

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self._note.exists():
            self._note.write_text(report.nodeid)


class _Chosen:
    """Plug-in: of what is collected only the tests with these ids, in this order."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._order = {name: index for index, name in enumerate(ids)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self._order), key=lambda i: self._order[i.nodeid])


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

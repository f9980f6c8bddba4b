"""The contract that every source must keep, as tests that the author of a plug-in runs on it.

With pytest:

    from flopsd.testing import SourceContract

    class TestMine(SourceContract):
        name = "mine"

Without pytest: `violations(TestMine())` returns a sentence for every broken clause.
"""

from __future__ import annotations

import threading
import unittest
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psutil

import flopsd.testing.rules as rules
from flopsd.core.model import DeviceUid, Gap, Reading
from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import Source, SourceInfo, SourceSettings
from flopsd.sources.calls import devices_of, facts_of, read_source
from flopsd.sources.peak_rows import table_of
from flopsd.sources.registry import find, open_source
from flopsd.system.clock import Clock
from flopsd.testing.fakes import FakeClock
from flopsd.testing.imports import import_effects
from flopsd.testing.rules import Observation, Read

_LEFTOVER_SECONDS = 5.0
T = TypeVar("T")


class ContractViolation(AssertionError):
    """A source breaks a clause of the contract; the message names the clause."""

    def __init__(self, clause: str, problems: Sequence[str]) -> None:
        self.clause, self.problems = clause, tuple(problems)
        super().__init__(f"{clause}: " + "; ".join(problems))


class SourceContract:
    """Subclass this in a test module and name the source; pytest collects a test for each clause. Every test opens the
    source anew, with the attributes and hooks below: override those that differ. A test whose hook is not overridden is
    skipped."""

    name: str = ""
    """The name in the entry-point group `flopsd.sources` under which the source is opened."""
    options: Mapping[str, Any] = {}
    """`SourceSettings.options`; absent options have the source's declared defaults."""
    interval_seconds: float = 1.0
    reads: int = 5
    """Every device must have been read after this many reads, an interval apart."""
    module: str = ""
    """The module to import for the source; empty: the module that defines it."""

    def clock(self) -> Clock:
        """The clock that the source is given. With a SystemClock the tests wait in real time, as hardware needs."""
        return FakeClock()

    def peaks(self) -> PeakTable:
        """flopsd's own peak table with the rows that the source ships."""
        return table_of(None, [self.name]).table

    def info(self) -> SourceInfo:
        return find(self.name)

    def open(self, settings: SourceSettings) -> Source:
        """Open the source, on hardware or a simulation of it; by default by its name."""
        return open_source(self.name, settings)

    def open_nothing(self, settings: SourceSettings) -> Source:  # noqa: ARG002, an override uses it
        """Open the source where there is nothing to read."""
        raise unittest.SkipTest("open_nothing is not overridden")

    def break_one(self, source: Source) -> DeviceUid:  # noqa: ARG002, an override uses it
        """Make one of at least two devices fail from now on, and return it."""
        raise unittest.SkipTest("break_one is not overridden")

    def test_the_name_is_the_entry_points(self) -> None:
        with self._opened() as (source, _):
            found = source.name
            if not isinstance(found, str) or not found:
                raise ContractViolation("name", [f"name is {found!r}, which is not text"])
            if found != self.name:
                raise ContractViolation("name", [f"name is {found!r}, it is opened as {self.name!r}"])

    def test_devices_are_described(self) -> None:
        info = self.info()
        with self._opened() as (source, clock):
            _require("devices", rules.identities(_accepted(devices_of, source), info))
            for read in self._reads(source, clock):
                _require("devices", rules.identities(read.after, info))

    def test_readings_name_listed_devices(self) -> None:
        self._check("membership", rules.membership)

    def test_intervals_are_contiguous_and_never_in_the_future(self) -> None:
        self._check("intervals", rules.intervals)

    def test_no_work_exceeds_the_device(self) -> None:
        self._check("work", rules.works)

    def test_unread_pipes_are_not_counted(self) -> None:
        self._check("unread", rules.unread)

    def test_totals_only_grow(self) -> None:
        self._check("totals", rules.totals)

    def test_every_device_is_read_as_promised(self) -> None:
        self._check("coverage", rules.coverage)

    def test_the_description_fits_the_ledger(self) -> None:
        with self._opened() as (source, _):
            if "replay" not in _accepted(facts_of, source):
                raise ContractViolation("describe", ["describe() has no 'replay': None stands for hardware"])

    def test_reading_twice_at_one_moment_changes_nothing(self) -> None:
        """Two instances read in parallel, one of them twice each time, must give the same."""
        clock = self.clock()
        opened_ns = clock.boottime_ns()
        with self._opened(clock) as (once, _), self._opened(clock) as (twice, _):
            single: list[Read] = []
            double: list[Read] = []
            for _ in range(self.reads):
                self._wait(clock)
                single.append(self._read(once, clock))
                double += [self._read(twice, clock), self._read(twice, clock)]
            problems = list(rules.intervals(Observation(opened_ns, tuple(double))))
            alone, pair = (rules.work_done(_readings(reads)) for reads in (single, double))
            for uid, (begin_ns, end_ns, sums) in alone.items():
                other = pair.get(uid)
                if other is None:
                    problems.append(f"{uid}: gives no readings when it is read twice")
                elif other[:2] == (begin_ns, end_ns):  # always so with a manually stepped clock
                    problems += [
                        f"{uid}: {what} is {other[2][what]} when read twice, {sums[what]} when read once"
                        for what in sorted(sums | other[2])
                        if abs(sums[what] - other[2][what]) > len(double)  # each reading is rounded
                    ]
            _require("twice", problems)

    def test_one_fault_is_a_gap_of_one_device(self) -> None:
        clock = self.clock()
        opened_ns = clock.boottime_ns()
        with self._opened(clock) as (source, _):
            before = [self._step(source, clock) for _ in range(self.reads)]
            well = {reading.device for reading in _readings(before) if not isinstance(reading.work, Gap)}
            broken = self.break_one(source)
            after = [self._step(source, clock) for _ in range(self.reads)]
            problems = list(rules.intervals(Observation(opened_ns, (*before, *after))))
            read = {reading.device for reading in _readings(after)}
            gaps = {reading.device for reading in _readings(after) if isinstance(reading.work, Gap)}
            if broken not in gaps:
                problems.append(f"{broken} failed and has no gap: missing is never zero")
            others = well - {broken}
            if not others:
                problems.append("no other device gave readings before: this test needs a second device")
            problems += [f"{uid} has a gap, although only {broken} failed" for uid in sorted(others & gaps)]
            problems += [f"{uid} gives no readings since {broken} failed" for uid in sorted(others - read)]
            _require("fault", problems)

    def test_a_closed_source_says_so(self) -> None:
        clock, problems = self.clock(), []
        source = self.open(self._settings(clock))
        self._step(source, clock)
        source.close()
        try:
            source.close()
        except Exception as fault:  # noqa: BLE001, any is reported
            problems.append(f"close() a second time raised {fault!r}")
        try:
            source.read()
            problems.append("read() after close() gives readings, SourceError is expected")
        except SourceError:
            pass  # as it should be
        except Exception as fault:  # noqa: BLE001, any is reported
            problems.append(f"read() after close() raised {fault!r}, SourceError is expected")
        _require("close", problems)

    def test_nothing_there_is_unavailable_with_a_hint(self) -> None:
        settings = self._settings(self.clock())
        problems = []
        try:
            self.open_nothing(settings).close()
            problems.append("it opens although there is no device")
        except unittest.SkipTest:
            raise
        except SourceUnavailableError as fault:
            if not fault.hint.strip():
                problems.append(f"the error has no hint what to do: {fault}")
        except Exception as fault:  # noqa: BLE001, any is reported
            problems.append(f"raised {fault!r}, SourceUnavailableError is expected")
        _require("nothing there", problems)

    def test_nothing_is_left_behind(self) -> None:
        threads, children = set(threading.enumerate()), set(psutil.Process().children(recursive=True))
        with self._opened() as (source, clock):
            self._step(source, clock)
        left = [thread for thread in threading.enumerate() if thread not in threads]
        for thread in left:
            thread.join(_LEFTOVER_SECONDS)
        problems = [f"the thread {thread.name!r} outlives close()" for thread in left if thread.is_alive()]
        started = [child for child in psutil.Process().children(recursive=True) if child not in children]
        _, alive = psutil.wait_procs(started, timeout=_LEFTOVER_SECONDS)
        problems += [f"the child process {child.pid} outlives close()" for child in alive]
        _require("left behind", problems)

    def test_import_does_nothing(self) -> None:
        with self._opened() as (source, _):
            module = self.module or type(source).__module__
        _require("import", import_effects(module))

    def _settings(self, clock: Clock) -> SourceSettings:
        return SourceSettings(clock, self.peaks(), dict(self.options))

    @contextmanager
    def _opened(self, clock: Clock | None = None) -> Iterator[tuple[Source, Clock]]:
        clock = clock if clock is not None else self.clock()
        source = self.open(self._settings(clock))
        try:
            yield source, clock
        finally:
            source.close()

    def _check(self, clause: str, rule: Any) -> None:
        clock = self.clock()
        opened_ns = clock.boottime_ns()
        with self._opened(clock) as (source, _):
            _require(clause, rule(Observation(opened_ns, self._reads(source, clock))))

    def _reads(self, source: Source, clock: Clock) -> tuple[Read, ...]:
        return tuple(self._step(source, clock) for _ in range(self.reads))

    def _step(self, source: Source, clock: Clock) -> Read:
        self._wait(clock)
        return self._read(source, clock)

    def _wait(self, clock: Clock) -> None:
        clock.wait(threading.Event(), self.interval_seconds)

    def _read(self, source: Source, clock: Clock) -> Read:
        before = _accepted(devices_of, source)
        sweep = _accepted(read_source, source, clock)
        return Read(clock.boottime_ns(), before, _accepted(devices_of, source), sweep)


def violations(contract: SourceContract) -> tuple[str, ...]:
    """A sentence for every clause that a source breaks; for use without a test runner."""
    found: list[str] = []
    for name in dir(contract):
        if not name.startswith("test_"):
            continue
        try:
            getattr(contract, name)()
        except unittest.SkipTest:
            continue
        except ContractViolation as broken:
            found.append(str(broken))
        except Exception as fault:  # noqa: BLE001, any is reported
            found.append(f"{name}: raised {fault!r}")
    return tuple(dict.fromkeys(found))


def _accepted(ask: Callable[..., T], *arguments: object) -> T:
    """A source's result, if the daemon accepts it; what the daemon refuses is an outage, however sound the rest."""
    try:
        return ask(*arguments)
    except SourceError as fault:
        raise ContractViolation("daemon", [str(fault)]) from fault


def _require(clause: str, problems: Iterable[str]) -> None:
    if found := list(problems):
        raise ContractViolation(clause, found)


def _readings(reads: Iterable[Read]) -> list[Reading]:
    return [reading for read in reads for reading in read.sweep.readings]

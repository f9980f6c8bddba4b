"""The contract suite catches violations: for each clause a source that breaks it."""

import subprocess
import sys
import threading
import unittest
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.model import (
    Active,
    Busy,
    Counted,
    Device,
    DeviceUid,
    Evidence,
    Gap,
    GapReason,
    Gauges,
    Growth,
    Pipe,
    Reading,
    Sweep,
    Totals,
)
from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import Source, SourceInfo, SourceSettings
from flopsd.system.clock import Clock, SystemClock
from flopsd.testing import ContractViolation, FakeClock, SourceContract, violations
from flopsd.testing.rules import work_done
from tests.support.runs import A100, H100
from tests.support.strategies import table

CYCLES = replace(H100, evidence=Evidence.CYCLES)
DECLARED = (Evidence.CYCLES, Evidence.ACTIVITY, Evidence.UTILIZATION)
MOST = 132 * 1980 * 10**6  # SM-cycles of the H100 in a second


def on(uid: DeviceUid, change: Callable[[Reading], Reading]) -> Callable[[Sweep], Sweep]:

    def edit(sweep: Sweep) -> Sweep:
        return replace(
            sweep, readings=tuple(change(reading) if reading.device == uid else reading for reading in sweep.readings)
        )

    return edit


def work(**changed: Any) -> Callable[[Sweep], Sweep]:
    return on(CYCLES.uid, lambda reading: replace(reading, **changed))


@dataclass
class Model:
    """A valid source of two devices, with the places where a test breaks it."""

    settings: SourceSettings
    listed: Sequence[Device] = (CYCLES, A100)
    edit: Callable[[Sweep], Sweep] = lambda sweep: sweep
    name: Any = "model"
    facts: Any = field(default_factory=lambda: {"driver": "1", "replay": None})
    edit_second: Callable[[Sweep], Sweep] = lambda sweep: sweep  # of a second read at the same time
    broken: DeviceUid | None = None
    closed: int = 0
    on_fault: Callable[[Sweep, DeviceUid], Sweep] = lambda sweep, uid: on(
        uid, lambda reading: replace(reading, work=Gap(GapReason.DEVICE_LOST))
    )(sweep)

    def __post_init__(self) -> None:
        self.clock = self.settings.clock
        self.begin_ns = self.since_ns = self.last_ns = self.clock.boottime_ns()

    def devices(self) -> Sequence[Device]:
        return self.listed

    def read(self) -> Sweep:
        if self.closed:
            raise SourceError("closed")
        now_ns, since_ns = self.clock.boottime_ns(), self.since_ns
        again, self.last_ns = now_ns == self.last_ns, now_ns
        if again:
            return self.edit_second(Sweep(()))
        self.since_ns = now_ns
        cycles = 132 * 1700 * (now_ns - since_ns) // 1000
        active = Active(Evidence.CYCLES, {Pipe.TENSOR: cycles}, {Pipe.TENSOR: cycles // 50}, (Pipe.FP16,))
        sweep = Sweep(
            (
                Reading(CYCLES.uid, since_ns, now_ns, active, {"energy_mj": now_ns // 10**6}),
                Reading(A100.uid, since_ns, now_ns, Busy(108 * 1000 * (now_ns - since_ns) // 1000)),
            ),
            {CYCLES.uid: Gauges()},
        )
        if self.broken is not None:
            sweep = self.on_fault(sweep, self.broken)
        return self.edit(sweep)

    def describe(self) -> Mapping[str, Any]:
        facts: Mapping[str, Any] = self.facts
        return facts

    def close(self) -> None:
        self.closed += 1


class Sound(SourceContract):
    """The suite on the model, with a test's changes."""

    name = "model"

    def info(self) -> SourceInfo:
        return SourceInfo(self.name, "a model of a source", self.open, DECLARED, "plug it in", vendor="nvidia")

    def __init__(self, kind: type[Model] = Model, **changed: Any) -> None:
        self.kind, self.changed = kind, changed

    def peaks(self) -> PeakTable:
        return table()

    def open(self, settings: SourceSettings) -> Source:
        return self.kind(settings, **self.changed)

    def open_nothing(self, settings: SourceSettings) -> Source:  # noqa: ARG002
        raise SourceUnavailableError("nothing here", hint="plug it in")

    def break_one(self, source: Source) -> DeviceUid:
        assert isinstance(source, Model)
        source.broken = CYCLES.uid
        return CYCLES.uid


class Quick(Sound):
    def test_import_does_nothing(self) -> None:
        raise unittest.SkipTest("costs an interpreter each time, and is tested by itself")


class OnRealTime(Quick):
    interval_seconds = 0.002

    def clock(self) -> Clock:
        return SystemClock()


@pytest.mark.long
@pytest.mark.parametrize("contract", [Sound, OnRealTime])
def test_a_valid_source_breaks_no_clause(contract: type[Sound]) -> None:
    assert violations(contract()) == ()


def shifted(begin_ns: int, end_ns: int) -> Callable[[Sweep], Sweep]:
    return on(CYCLES.uid, lambda r: replace(r, begin_ns=r.begin_ns + begin_ns, end_ns=r.end_ns + end_ns))


def active(**changed: Any) -> Callable[[Sweep], Sweep]:
    return work(work=Active(**{"evidence": Evidence.CYCLES, "sm_cycles": {Pipe.TENSOR: 5}, **changed}))


def growth(unread: tuple[Pipe, ...] = (), **changed: Any) -> Callable[[Sweep], Sweep]:
    """Running totals whose values are functions of the boot time."""
    shown = {"elapsed": lambda ms: ms * 1000, "pipes": lambda ms: {Pipe.TENSOR: ms}, **changed}

    def give(reading: Reading) -> Reading:
        ms = reading.end_ns // 10**6
        return replace(reading, work=Growth(unread), totals=Totals("boot", shown["elapsed"](ms), shown["pipes"](ms)))

    return on(CYCLES.uid, give)


class Renamed(Model):
    """Describes its devices anew after a reading."""

    def devices(self) -> Sequence[Device]:
        return self.listed if self.last_ns == self.begin_ns else (CYCLES, replace(A100, vendor=""))


def test_devices_are_checked_after_each_reading_too() -> None:
    assert any("has no vendor" in str(one) for one in violations(Quick(Renamed)))


BROKEN: list[tuple[str, str, dict[str, Any]]] = [
    ("name", "it is opened as 'model'", {"name": "other"}),
    ("name", "which is not text", {"name": None}),
    ("devices", "has no vendor", {"listed": (CYCLES, replace(A100, vendor=""))}),
    ("devices", "has no model", {"listed": (CYCLES, replace(A100, model=" "))}),
    ("devices", "no evidence_reason", {"listed": (CYCLES, replace(A100, evidence_reason=""))}),
    ("devices", "has the vendor 'amd', the source declares 'nvidia'", {"listed": (CYCLES, replace(A100, vendor="amd"))}),
    ("devices", "has evidence count, which the source does not declare", {"listed": (
        CYCLES, replace(A100, evidence=Evidence.COUNT))}),
    ("membership", "does not list", {"listed": (CYCLES,)}),
    ("membership", "does not list", {"edit": lambda sweep: replace(sweep, gauges={"GPU-z": Gauges()})}),
    ("intervals", "in the future", {"edit": shifted(1, 1)}),
    ("intervals", "before the source was opened", {"edit": shifted(-1, -1)}),
    ("intervals", "leaves a hole of 5 ns", {"edit": shifted(5, 0)}),
    ("intervals", "overlaps by 5 ns", {"edit": shifted(-5, 0)}),
    ("work", "the device has", {"edit": active(sm_cycles={Pipe.TENSOR: MOST * 2})}),
    ("work", "doubt: ", {"edit": active(uncertainty_sm_cycles={Pipe.TENSOR: MOST * 2})}),
    ("work", "the device has", {"edit": on(A100.uid, lambda r: replace(r, work=Busy(MOST)))}),
    ("work", "doubt about a pipe", {"edit": active(uncertainty_sm_cycles={Pipe.FP64: 1})}),
    ("unread", "listed as unread", {"edit": active(unread=(Pipe.TENSOR,))}),
    ("unread", "listed as unread", {"edit": growth(unread=(Pipe.TENSOR,))}),
    ("totals", "Growth without totals", {"edit": work(work=Growth())}),
    ("totals", "tensor fell", {"edit": growth(pipes=lambda ms: {Pipe.TENSOR: 10**9 - ms})}),
    ("totals", "elapsed fell", {"edit": growth(elapsed=lambda ms: 10**9 - ms)}),
    ("totals", "no cycle elapsed in 1000000000 ns", {"edit": growth(elapsed=lambda _: 5)}),
    ("totals", "grew by", {"edit": growth(pipes=lambda ms: {Pipe.TENSOR: ms * 10**9})}),
    ("totals", "other pipes", {"edit": growth(pipes=lambda ms: {Pipe.TENSOR if ms // 1000 % 2 else Pipe.FP64: ms})}),
    ("coverage", "silence is not a gap", {"edit": lambda sweep: replace(sweep, readings=sweep.readings[:1])}),
    ("coverage", "gave gaps only", {"edit": work(work=Gap(GapReason.STARTING))}),
    ("coverage", "better than the evidence", {"listed": (replace(CYCLES, evidence=Evidence.ACTIVITY,
                                                                 evidence_reason="old driver"), A100)}),
    ("describe", "no 'replay'", {"facts": {}}),
    ("daemon", "the ledger takes", {"facts": {"replay": None, "celsius": 1.5}}),
    ("daemon", "serial is 165", {"listed": (CYCLES, replace(A100, serial=165))}),  # type: ignore[arg-type]
    ("daemon", "not iterable", {"listed": None}),
    ("daemon", "readings is None", {"edit": lambda sweep: replace(sweep, readings=None)}),
    ("daemon", "expected a whole number", {"edit": work(work=Counted(-1))}),
    ("fault", "missing is never zero", {"on_fault": lambda sweep, _: sweep}),
    ("fault", "although only GPU-h failed", {"on_fault": lambda sweep, _: replace(sweep, readings=tuple(
        replace(r, work=Gap(GapReason.DEVICE_LOST)) for r in sweep.readings))}),
    ("fault", "gives no readings since", {"on_fault": lambda sweep, _: replace(sweep, readings=(
        replace(sweep.readings[0], work=Gap(GapReason.DEVICE_LOST)),))}),
    ("fault", "needs a second device", {"edit": on(A100.uid, lambda r: replace(r, work=Gap(GapReason.STARTING)))}),
]  # fmt: skip


@pytest.mark.parametrize(("clause", "words", "changed"), BROKEN, ids=[f"{b[0]}: {b[1]}" for b in BROKEN])
def test_a_broken_clause_is_found_and_named(clause: str, words: str, changed: dict[str, Any]) -> None:
    found = violations(Quick(**changed))
    named = [line for line in found if line.startswith(f"{clause}: ")]
    assert named, found
    assert words in named[0]
    assert len(named) == 1  # however many tests it fails


class NoDevices(Model):
    def devices(self) -> Sequence[Device]:
        return ()

    def read(self) -> Sweep:
        return replace(super().read(), readings=(), gauges={})


class Doubles(Model):
    """Each call of read adds work, even a call that gives no reading."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pending = 0

    def read(self) -> Sweep:
        self.pending += 10**6
        sweep = super().read()
        if not sweep.readings:
            return sweep
        cycles, self.pending = self.pending, 0
        return on(A100.uid, lambda reading: replace(reading, work=Busy(cycles)))(sweep)


class Overlaps(Model):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.kept: Sweep = Sweep(())

    def read(self) -> Sweep:
        sweep = super().read()
        self.kept = sweep if sweep.readings else self.kept
        return self.kept


class FussyClose(Model):
    def close(self) -> None:
        super().close()
        if self.closed == 2:
            raise RuntimeError("closed already")


class ReadsOn(Model):
    def read(self) -> Sweep:
        self.closed = 0
        return super().read()


class WrongError(Model):
    def read(self) -> Sweep:
        if self.closed:
            raise ValueError("handle is gone")
        return super().read()


class Raises(Model):
    def read(self) -> Sweep:
        if self.broken:
            raise OSError("one device failed")
        return super().read()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (NoDevices, "devices: no device is listed"),
        (Doubles, "twice: GPU-a: busy is"),
        (Overlaps, "twice: GPU-h"),
        (FussyClose, "close: close() a second time raised"),
        (ReadsOn, "close: read() after close() gives readings"),
        (WrongError, "close: read() after close() raised ValueError"),
        (Raises, "daemon: source 'model' failed: OSError('one device failed')"),
    ],
)
def test_a_broken_behaviour_is_found(kind: type[Model], words: str) -> None:
    assert [line for line in violations(Quick(kind)) if line.startswith(words)]


class LeavesThread(Model):
    """It starts the thread with the first reading."""

    release: threading.Event

    def read(self) -> Sweep:
        threading.Thread(target=self.release.wait, name="poller", daemon=True).start()
        return super().read()


class LeavesChild(Model):
    child: subprocess.Popen[bytes]

    def __post_init__(self) -> None:
        super().__post_init__()
        type(self).child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


@pytest.mark.parametrize(
    ("kind", "words"), [(LeavesThread, "the thread 'poller' outlives close"), (LeavesChild, "the child process")]
)
def test_a_thread_or_child_that_outlives_close_is_found(
    kind: type[Model], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flopsd.testing.contract._LEFTOVER_SECONDS", 0.01)
    LeavesThread.release = threading.Event()
    try:
        with pytest.raises(ContractViolation, match=words):
            Sound(kind).test_nothing_is_left_behind()
    finally:
        LeavesThread.release.set()
        if kind is LeavesChild:
            LeavesChild.child.communicate(b"\n")


class Ending(threading.Thread):
    """A thread that takes until somebody waits for it."""

    def join(self, timeout: float | None = None) -> None:
        LeavesThread.release.set()
        super().join(timeout)


class EndsThreadLate(Model):
    def read(self) -> Sweep:
        Ending(target=LeavesThread.release.wait, daemon=True).start()
        return super().read()


def test_a_thread_may_take_a_moment_to_end_after_close() -> None:
    LeavesThread.release = threading.Event()
    Sound(EndsThreadLate).test_nothing_is_left_behind()


class Shy(Sound):
    """Without hardware, it raises the given fault, or opens."""

    def __init__(self, fault: Exception | None) -> None:
        super().__init__()
        self.fault = fault

    def open_nothing(self, settings: SourceSettings) -> Source:
        if self.fault is not None:
            raise self.fault
        return self.open(settings)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (None, "opens although there is no device"),
        (SourceUnavailableError("nothing"), "no hint"),
        (KeyError("lib"), "SourceUnavailableError is expected"),
    ],
)
def test_a_wrong_answer_without_hardware_is_found(fault: Exception | None, words: str) -> None:
    with pytest.raises(ContractViolation, match=words):
        Shy(fault).test_nothing_there_is_unavailable_with_a_hint()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("print('hello')", "prints 'hello'"),
        ("import ctypes; ctypes.CDLL('libc.so.6')", "loads libc.so.6"),
        ("import threading; threading.Thread(target=int).start()", "starts the thread"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("open('/dev/full', 'w').close()", "opens /dev/full"),
        ("import os; os.system('true')", "os.system"),
        ("raise RuntimeError('no driver')", "cannot be imported: RuntimeError: no driver"),
    ],
)
def test_an_import_with_side_effects_is_found(
    line: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "eager_plugin.py").write_text(line + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    contract = Sound()
    contract.module = "eager_plugin"
    with pytest.raises(ContractViolation) as caught:
        contract.test_import_does_nothing()
    assert caught.value.clause == "import"
    assert words in str(caught.value)


@pytest.mark.long
def test_a_missing_hook_is_skipped_and_breaks_no_clause() -> None:
    class Plain(SourceContract):
        name = "model"

        def info(self) -> SourceInfo:
            return Sound().info()

        def open(self, settings: SourceSettings) -> Source:
            return Model(settings)

    assert violations(Plain()) == ()


def test_work_is_summed_by_kind() -> None:
    active = Active(Evidence.ACTIVITY, {Pipe.FP32: 5})
    works: list[Active | Busy | Counted | Gap]
    works = [active, active, Busy(7), Busy(7), Counted(11), Counted(11), Gap(GapReason.STALE), Gap(GapReason.STALE, 3)]
    readings = [Reading(H100.uid, at, at + 2, work, {}) for at, work in zip(range(0, 16, 2), works, strict=True)]
    begin_ns, end_ns, sums = work_done(readings)[H100.uid]
    assert (begin_ns, end_ns) == (0, 16)
    assert sums == {"activity fp32": 10, "busy": 14, "flop": 25, "gap stale": 4}


def test_waiting_on_a_fake_clock_advances_it() -> None:
    clock, event = FakeClock(10, 20), threading.Event()
    for seconds in (1.5, 0, -3):
        assert not clock.wait(event, seconds)
        assert (clock.boottime_ns(), clock.wall_ns()) == (1_500_000_010, 1_500_000_020)
    event.set()
    assert clock.wait(event, 9)
    clock.step_wall(-20)
    assert (clock.boottime_ns(), clock.wall_ns()) == (1_500_000_010, 1_500_000_000)

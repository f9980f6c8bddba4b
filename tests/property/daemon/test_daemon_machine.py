"""One state machine over the writer and a real journal, with a clock stepped by hand.

Ticks, faults, recoveries, lost devices, crashes at any time with restarts, full disks, wall-clock steps; after each
step the invariants must hold.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flopsd.core.figures import Figures
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.impossible_totals import refuse_double_counting
from flopsd.core.ledger.run_view import view_of
from flopsd.core.model import Active, Device, Evidence, Gap, GapReason, Pipe, Reading, Sweep
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.recovery.local_journal import RecoveredRun
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.errors import JournalError
from flopsd.journal.journal import Journal
from flopsd.journal.state_dir import StateDir
from flopsd.settings.platform import Context
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.snapshot import DeviceState, Snapshot
from flopsd.testing import FakeClock
from tests.support.strategies import table

DEVICES = tuple(
    Device(f"GPU-{i}", i, "nvidia", "NVIDIA H100 80GB HBM3", sm_count=132, sm_clock_max_mhz=1980) for i in range(2)
)
MHZ, SMS = 1500, 132
CONTEXT = Context("host", None, "node", "boot-1", "1")


def _span_ns(state: DeviceState) -> int:
    return sum(tally.span_ns for tally in state.tallies)


class FullDisk(Journal):
    full = False

    def append(self, *of_record, **options):  # type: ignore[no-untyped-def]
        if self.full:
            raise JournalError("no space left on the device")
        super().append(*of_record, **options)

    def note(self, *of_record):  # type: ignore[no-untyped-def]
        if self.full:
            raise JournalError("no space left on the device")
        super().note(*of_record)


class DaemonMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.since = {device.uid: 0 for device in DEVICES}  # where the source's next reading begins
        self.present = set(DEVICES)
        self.shown: Figures | None = None
        self.shown_gap = 0
        self.observed_cycles = 0  # the total that the source has handed over
        self.state = StateDir(self.folder)

    @initialize()
    def start(self) -> None:
        self._start()

    def _emit(self, line: str) -> None:
        assert line.startswith("flopsd-checkpoint run=run node=node ")
        assert f"head={self.journal.head_sha256}" in line  # printed only when it is durable

    def _start(self) -> None:
        self.state.acquire()
        self.journal = FullDisk(self.state)
        recovery = self.journal.recover("damaged")
        assert recovery is None or recovery.kept_as is None
        history = read_history(self.journal.read())
        wanted = WriterSettings(NS_PER_S, 5 * NS_PER_S, "0" * 64, None, ("sim",))
        self.writer = Writer(self.journal, table(), wanted, CONTEXT, self.clock, self._emit)
        self.writer.begin("run", RecoveredRun(history, recovery))
        now = self.clock.boottime_ns()
        self.since = {device.uid: now for device in DEVICES}
        self._send(opened={"replay": None})

    def _send(self, fault: GapReason | None = None, opened: dict[str, None] | None = None, work: int = 0) -> None:
        now, found = self.clock.boottime_ns(), []
        for device in sorted(self.present, key=lambda d: d.index):
            begin = self.since[device.uid]
            if begin == now:
                continue
            cycles = (now - begin) * MHZ * SMS // 1000 * work // 100
            did = Gap(fault) if fault is not None else Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: cycles})
            self.observed_cycles += 0 if fault is not None else cycles
            found.append(Reading(device.uid, begin, now, did))
            self.since[device.uid] = now
        devices = sorted(self.present, key=lambda d: d.index)
        self.writer.take(Message("sim", now, devices, Sweep(tuple(found)), opened=opened))

    @rule(ms=st.integers(1, 3000), work=st.integers(0, 100))
    def tick(self, ms: int, work: int) -> None:
        self.clock.advance(ms * 1_000_000)
        self._send(work=work)

    @rule(ms=st.integers(1, 9000), reason=st.sampled_from([GapReason.DRIVER_ERROR, GapReason.DEVICE_LOST]))
    def fail(self, ms: int, reason: GapReason) -> None:
        self.clock.advance(ms * 1_000_000)
        self._send(fault=reason)

    @rule(ms=st.integers(1, 9000))
    def source_raises(self, ms: int) -> None:
        self.clock.advance(ms * 1_000_000)
        now = self.clock.boottime_ns()
        self.writer.take(Message("sim", now, fault="it raised", reason=GapReason.DRIVER_ERROR))
        self.since = dict.fromkeys(self.since, now)

    @rule(ms=st.integers(1, 20_000))
    def silence(self, ms: int) -> None:
        self.clock.advance(ms * 1_000_000)
        self.writer.tick()

    @rule()
    def lose_or_regain_a_device(self) -> None:
        self.present ^= {DEVICES[1]}

    @rule(seconds=st.integers(-100_000, 100_000))
    def step_the_wall_clock(self, seconds: int) -> None:
        self.clock.step_wall(seconds * NS_PER_S)

    @rule(full=st.booleans())
    def fill_or_free_the_disk(self, full: bool) -> None:
        self.journal.full = full

    @rule()
    def rotate(self) -> None:
        before = self.writer.snapshot
        done = self.writer.rotate()
        assert not (done and self.journal.full)
        assert self.writer.snapshot.view.figures == before.view.figures

    @precondition(lambda self: not self.journal.full)
    @rule(ms=st.integers(0, 60_000))
    def crash_and_restart(self, ms: int) -> None:
        before = self.writer.snapshot
        self.journal.close()
        self.state.release()
        self.clock.advance(ms * 1_000_000)
        self._start()
        if not before.journal_fault:  # no figure that was shown is lost, even by a kill -9
            self._has_grown(before)

    @rule(ms=st.integers(0, 5000), tail=st.binary(max_size=40))
    def crash_with_a_torn_tail(self, ms: int, tail: bytes) -> None:
        self.journal.close()
        self.state.release()
        with self.state.journal.open("ab") as file:
            file.write(tail.replace(b"\n", b"") + b'{"h":"')
        self.clock.advance(ms * 1_000_000)
        self._start()
        self.shown = None  # an earlier full disk may have cost figures that were only in memory

    def _has_grown(self, before: Snapshot) -> None:
        old = {state.device.uid: state for state in before.devices}
        for state in self.writer.snapshot.devices:
            if state.device.uid in old:
                assert state.observed_ns >= old[state.device.uid].observed_ns
                assert _span_ns(state) >= _span_ns(old[state.device.uid])

    @invariant()
    def laws_hold(self) -> None:
        if not hasattr(self, "writer"):
            return
        snapshot = self.writer.snapshot
        for state in snapshot.devices:
            for tally in state.tallies:
                assert tally.total_observed_ns + tally.total_gap_ns == tally.span_ns
        figures = snapshot.view.figures
        if figures.measured_flop is not None:
            assert figures.high_flop is not None
            assert figures.low_flop <= figures.measured_flop <= figures.high_flop
            assert figures.measured_flop <= self.observed_cycles * 4096

    @invariant()
    def the_journal_has_the_same(self) -> None:
        if not hasattr(self, "writer") or self.journal.full or self.writer.snapshot.journal_fault:
            return
        assert self.writer.checkpoint()
        history: History = read_history(self.journal.read())
        assert view_of(history, table(), whole_run=True).figures == self.writer.snapshot.view.figures
        refuse_double_counting(history)
        # After a checkpoint no part of the span is missing except the time since each device's last reading.
        tracked = {one.entry.device.uid: one for one in self.writer._devices.tracked}
        for uid, tally in history.incarnations[-1].tallies.items():
            assert tally == tracked[uid].in_segment

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.journal.full = False
            self.clock.advance(NS_PER_S)
            assert self.writer.close("sigterm")
            history = read_history(self.journal.read())
            assert history.ended
            for incarnation in history.incarnations[-1:]:
                for tally in incarnation.tallies.values():
                    assert tally.watermark_ns == self.clock.boottime_ns()  # the whole time is accounted for
            self.journal.close()
            self.state.release()
        shutil.rmtree(self.folder)


class DaemonMachineAtLength(DaemonMachine):
    """The same machine, for more and longer runs."""


TestDaemonMachine = DaemonMachine.TestCase
TestDaemonMachine.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestDaemonMachineAtLength = pytest.mark.exhaustive(DaemonMachineAtLength.TestCase)
TestDaemonMachineAtLength.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

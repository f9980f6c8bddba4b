"""A rotated run counts the same as the same run unrotated: through the real writer and journals, rotated at any
time."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flopsd.core.ledger.growing_run import GrowingRun
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import extend
from flopsd.core.ledger.impossible_totals import refuse_impossible
from flopsd.core.ledger.rated_tally import counted_in, rated_tallies
from flopsd.core.ledger.run_view import view_of
from flopsd.core.ledger.segments import added_work
from flopsd.core.model import Gap, GapReason, Growth, Pipe, Reading, Sweep
from flopsd.core.session_protocol import FactsDeclared, PhaseChanged, SessionOpened, WorkCounted
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.recovery.local_journal import choose_run, recover
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.journal.journal import Journal
from flopsd.journal.reading import read_journal
from flopsd.journal.segments import closed_segments
from flopsd.journal.state_dir import StateDir
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.extent import Extent, examples, sampled
from tests.support.os_calls import Killed
from tests.support.runs import CONTEXT, history_of
from tests.support.story import A100, CYCLES_H100, H100, Second, active, running, table

PROCESSES = ("11" * 16, "22" * 16)
WORK = {H100: active(132, 1700, {Pipe.TENSOR_HMMA: 300_000, Pipe.FP32: 7}, doubt=9, swing=40_000)}
STEPS = st.one_of(
    st.tuples(st.just("read"), st.integers(1, 4)),
    st.tuples(st.just("fail"), st.integers(1, 3)),
    st.tuples(st.just("silence"), st.integers(1, 8)),
    st.tuples(st.just("kill"), st.integers(0, 20)),
    st.tuples(st.just("phase"), st.integers(0, 3)),
    st.tuples(st.just("work"), st.integers(1, 1000)),
    st.tuples(st.just("appear"), st.just(0)),
    st.tuples(st.just("rotate"), st.just(0)),
)


def work_of(tokens: int) -> dict[str, int]:
    seen = {"kernel_windows": tokens, "kernel_window_ns": tokens * 1000, "kernel_launches_vector": 3 * tokens}
    return {"tokens": tokens, "operator_flop": tokens * 10**11, "kernel_ns_vector": tokens * 900, **seen}


class Twin:
    """One of two runs with the same input, on its own clock."""

    def __init__(self, folder: Path) -> None:
        self.state, self.clock, self.devices = StateDir(folder), FakeClock(), [H100, CYCLES_H100]
        self.done, self.printed = dict.fromkeys(PROCESSES, 0), list[str]()
        self.start()

    def start(self) -> None:
        self.state.acquire()
        self.journal = Journal(self.state)
        found = recover(self.journal, self.clock, None)
        run, found = choose_run(self.journal, found, "run", CONTEXT.node, table(), self.clock)
        wanted = WriterSettings(NS_PER_S, 5 * NS_PER_S, "0" * 64, None, ("sim",))
        self.writer = Writer(self.journal, table(), wanted, CONTEXT, self.clock, self.printed.append)
        self.writer.begin(run, found)
        self.since_ns = self.clock.boottime_ns()
        self.send(Sweep(()), opened={"replay": None})
        for process in PROCESSES:
            self.writer.take_event(SessionOpened(process, 7, 1000, "1"))
            device = (CYCLES_H100 if process is PROCESSES[0] else A100).uid
            self.writer.take_event(FactsDeclared(process, {"precision": "fp8", "device": device}))

    def send(self, sweep: Sweep, **more: Any) -> None:
        self.writer.take(Message("sim", self.clock.boottime_ns(), tuple(self.devices), sweep, **more))

    def do(self, what: str, n: int) -> None:
        if what in ("read", "fail"):
            for _ in range(n):
                self.read(what == "fail")
        elif what == "silence":
            self.clock.advance(n * NS_PER_S)
            self.writer.tick()
        elif what == "kill":
            self.journal.close()
            self.state.release()
            self.clock.advance(n * NS_PER_S)
            self.start()
        elif what == "phase":
            for process in PROCESSES:
                self.writer.take_event(PhaseChanged(process, ("train", "evaluate", "other", "undeclared")[n]))
        elif what == "work":
            for process in PROCESSES:
                self.done[process] += n
                self.writer.take_event(WorkCounted(process, {"train": work_of(self.done[process])}))
            self.writer.tick()  # otherwise a kill loses it, unless a rotation comes first
        elif what == "appear" and A100 not in self.devices:
            self.devices.append(A100)

    def read(self, failed: bool) -> None:
        self.clock.advance(NS_PER_S)
        second = Second(self.since_ns, self.clock.boottime_ns())
        readings = []
        for device in self.devices:
            counters, totals = {"energy_mj": second.end_ns * 7 // 10_000_001}, None
            if failed or device is A100:
                work: Any = Gap(GapReason.DRIVER_TIMEOUT)
                counters = {}
            elif device is CYCLES_H100:
                work, totals = Growth(), running(second)
            else:
                work = WORK[device](second)
            readings.append(Reading(device.uid, second.begin_ns, second.end_ns, work, counters, totals))
        self.send(Sweep(tuple(readings)))
        self.since_ns = second.end_ns

    def finish(self) -> list[History]:
        self.read(failed=False)
        assert self.writer.close("sigterm")
        self.journal.close()
        self.state.release()
        return [*map(history_of, closed_segments(self.state)), history_of(self.state.journal)]


def check_printed(lines: Iterable[str], journals: Sequence[Path]) -> None:
    """Each checkpoint line of a rotated run follows from the records of its journal up to it."""
    said = [dict(field.split("=", 1) for field in line.split()[1:]) for line in lines]
    for number, journal in enumerate(journals, start=1):
        history, run = History(), GrowingRun(table())
        here = {int(one["records"]): one for one in said if one.get("segment", "1") == str(number)}
        for line in read_journal(journal):
            extend(history, line.record())
            if (one := here.get(line.number)) is not None and one["head"] == line.head.hex():
                figures = run.figures(history)
                shown = (figures.low_flop, figures.measured_flop, figures.high_flop)
                assert [one[f"{name}_flop"] for name in ("low", "measured", "high")] == [
                    "unknown" if flop is None else str(flop) for flop in shown
                ]


def without_operators(counters: Mapping[str, int]) -> dict[str, int]:
    """Operators count later in the next segment."""
    return {name: value for name, value in counters.items() if name != "operator_flop"}


def totals(histories: Iterable[History]) -> dict[str, Any]:
    """The sum of everything counted in the journals of one run, with gaps joined across them."""
    rated = (one for history in histories for one in rated_tallies(history, table()))
    counted = counted_in(replace(one, start=0) for one in rated)
    work: dict[str, dict[str, dict[str, int]]] = {}
    for history in histories:
        for name, session in history.sessions.items():
            rest = {phase: without_operators(counters) for phase, counters in session.work.items()}
            work[name] = added_work(work.get(name, {}), rest)
    gaps: dict[tuple[str, str], int] = {}
    for history in histories:
        for gap in history.gaps:
            key = gap.device, gap.reason.value
            gaps[key] = gaps.get(key, 0) + gap.end_ns - gap.begin_ns
    return {
        "tallies": {(one.entry.device.uid, one.entry.part_id): one.tally for one in counted},
        "work": work,
        "gaps": gaps,
    }


@settings(max_examples=8, deadline=None)
@given(steps=st.lists(STEPS, min_size=4, max_size=24))
@example(steps=[("kill", 0), ("silence", 5), ("work", 67), ("silence", 5)])  # first counted after a restart
@example(steps=[("kill", 3), ("read", 2), ("rotate", 0), ("appear", 0), ("kill", 4), ("read", 1)])
def test_a_rotated_run_counts_the_same_as_unrotated(steps: list[tuple[str, int]]) -> None:
    compare(steps)


@pytest.mark.exhaustive
@settings(max_examples=400, deadline=None)
@given(steps=st.lists(STEPS, min_size=4, max_size=60))
def test_a_long_rotated_run_counts_the_same_as_unrotated(steps: list[tuple[str, int]]) -> None:
    compare(steps)


def compare(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole, rotated = Twin(Path(one)), Twin(Path(other))
        rotations = 0
        for what, n in [("read", 2), *steps]:
            if what == "rotate":
                if not rotated.writer.has_open_gap:
                    rotations += rotated.writer.rotate()
                continue
            whole.do(what, n)
            rotated.do(what, n)
            assert rotated.writer.snapshot.view.figures == whole.writer.snapshot.view.figures
            assert rotated.writer.snapshot.view.start == whole.writer.snapshot.view.start
        parts, (single,) = rotated.finish(), whole.finish()
        assert rotated.writer.snapshot.view.declarations == whole.writer.snapshot.view.declarations
        assert len(parts) == rotations + 1
        assert totals(parts) == totals([single])
        assert view_of(parts[-1], table(), whole_run=True).figures == view_of(single, table()).figures
        assert rotated.writer.snapshot.journal_records == sum(history.records for history in parts)
        check_printed(rotated.printed, [*closed_segments(rotated.state), rotated.state.journal])


LATE = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(1, 100)),  # seconds
        st.tuples(st.just("count"), st.integers(0, 59)),  # the work up to so many seconds ago
        st.tuples(st.just("rotate"), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 70)),
        st.tuples(st.just("alter"), st.just(0)),  # another process alters the journal
    ),
    min_size=4,
    max_size=40,
)


@pytest.mark.long
@settings(max_examples=examples(30))
@given(steps=LATE)
@example(steps=[("run", 30), ("count", 0), ("rotate", 0), ("run", 100), ("count", 0), ("run", 100), ("count", 0)])
@example(steps=[("count", 0), ("run", 9), ("rotate", 0), ("kill", 1), ("count", 0), ("run", 80), ("count", 5)])
@example(steps=[("run", 90), ("count", 0), ("rotate", 0), ("run", 90), ("count", 0), ("alter", 0), ("kill", 1)])
def test_late_operator_counts_leave_low_below_the_truth_in_every_segment(steps: list[tuple[str, int]]) -> None:
    flop_per_second = 10**14
    with tempfile.TemporaryDirectory() as folder:
        run = Twin(Path(folder))
        run.devices = [A100]
        began_ns, counted_s, rotated_ns = run.clock.boottime_ns(), 0, [run.clock.boottime_ns()]
        for what, n in steps:
            if what == "run":
                for _ in range(n):
                    run.read(failed=True)
            elif what == "count":
                counted_s = max(counted_s, (run.clock.boottime_ns() - began_ns) // NS_PER_S - n)
                work = {"train": {"operator_flop": counted_s * flop_per_second}}
                run.writer.take_event(WorkCounted(PROCESSES[1], work))
                run.writer.tick()
            elif what == "kill":
                run.do(what, n)
            elif what == "alter":
                run.state.journal.write_bytes(b"{}\n")
                for _ in range(6):  # up to a checkpoint
                    run.read(failed=True)
                assert run.state.path.joinpath("not-ours.journal.jsonl").exists(), "another one was begun"
            elif not run.writer.has_open_gap and run.writer.rotate():
                rotated_ns.append(run.clock.boottime_ns())
        parts = run.finish()
        ends_ns = [*rotated_ns[1:], run.clock.boottime_ns()]
        assert len(parts) == len(rotated_ns)
        for part, from_ns, to_ns in zip(parts, rotated_ns, ends_ns, strict=True):
            low = view_of(part, table()).figures.low_flop
            assert low * NS_PER_S <= (to_ns - from_ns) * flop_per_second
        whole = view_of(parts[-1], table(), whole_run=True).figures.low_flop
        assert whole == counted_s * flop_per_second, "what rotations leave out is in the run"


CALLS = ("replace", "fsync", "pwrite", "open", "ftruncate", "mkdir", "close")


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Make file operation number `step` the last one."""
    left = step

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def die(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return call(*arguments, **named)

        return die

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, dying(getattr(os, name)))
        yield


@sampled(7)
def test_a_kill_at_any_step_of_a_rotation_loses_nothing(tmp_path: Path, extent: Extent) -> None:
    whole = Twin(tmp_path / "whole")
    for what in ("work", "read", "kill", "read"):
        whole.do(what, 2)
    wanted = totals(whole.finish())
    outcomes = set()
    for step in count(0, extent.step):
        rotated = Twin(tmp_path / str(step))
        rotated.do("work", 2)
        rotated.do("read", 2)
        try:
            with killed_at(step):
                assert rotated.writer.rotate()
                break
        except Killed:
            rotated.do("kill", 2)
        rotated.do("read", 2)
        parts = rotated.finish()
        assert totals(parts) == wanted, f"killed at step {step}"
        assert [part.segment for part in parts] == list(range(1, len(parts) + 1))
        for before, after in pairwise(parts):
            assert after.continues is not None
            assert after.continues.before.records == before.records
        outcomes.add((len(parts), len(parts[-1].incarnations)))
    assert step > 10
    kinds = {(1, 2), (2, 1), (2, 2)}  # not ended yet; ended, and the next one not begun; begun
    assert outcomes == kinds if extent.step == 1 else outcomes <= kinds


def test_counters_before_an_open_gap_account_for_no_time_of_the_segment_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap is the closed segment's: with these counters the next one would have more energy and work than time."""
    run = Twin(tmp_path)
    run.do("read", 2)
    run.do("fail", 2)

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(run.writer.segment, "begin_next", killed)
    with pytest.raises(Killed):
        run.writer.rotate()
    run.do("kill", 0)
    run.do("read", 2)
    closed, last = run.finish()
    assert closed.is_rotated
    refuse_impossible(rated_tallies(last, table()))


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EIO])  # ENOENT: NFS repeats a rename whose answer was lost
@pytest.mark.parametrize("name", ["next.journal.jsonl", "journal.jsonl"])
def test_a_rename_that_succeeded_but_is_reported_as_failed_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    twin, replace_file, failed = Twin(tmp_path), os.replace, list[Path]()

    def replaced(path: Path, there: Path) -> None:
        replace_file(path, there)
        if path.name == name and not failed:
            failed.append(path)
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", replaced)
    twin.do("read", 2)
    assert twin.writer.rotate()
    twin.do("read", 2)
    assert failed
    assert [part.segment for part in twin.finish()] == [1, 2]


def test_a_disk_that_refuses_the_next_segment_a_record_loses_no_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of a refused record is closed, and the rotation is finished before another record opens it again."""
    twin = Twin(tmp_path)
    twin.do("read", 2)

    def refuses(code: int) -> Callable[..., None]:
        def fails(*_: Any) -> None:
            raise OSError(code, os.strerror(code))

        return fails

    with monkeypatch.context() as sick:
        sick.setattr(os, "replace", refuses(errno.EIO))
        assert twin.writer.rotate()
        twin.do("read", 1)
        sick.setattr(os, "pwrite", refuses(errno.ENOSPC))
        twin.clock.advance(4 * NS_PER_S)
        twin.do("read", 1)  # with a checkpoint
    twin.do("read", 1)
    assert not twin.journal.is_next
    assert [part.segment for part in twin.finish()] == [1, 2]

"""GPUs that other jobs get at times that no daemon sees: the real wrapper, writer and journal, on a fake clock. The
work counted for this job is at most its own, and at least that with the ceilings of its gaps."""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import (
    ACCOUNTED_ELSEWHERE,
    Active,
    Device,
    Evidence,
    Gap,
    GapReason,
    Growth,
    Limits,
    Pipe,
    Reading,
    Sweep,
    Totals,
)
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.journal.reading import read_journal
from flopsd.sources.ownership.filtered_source import FilteredSource
from flopsd.sources.ownership.rule import Ownership, OwnershipResult
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.extent import examples
from tests.support.story import CYCLES_H100, H100, Story, Work

RUNNING = replace(
    CYCLES_H100,
    uid="GPU-00000000-0000-4000-8000-000000000006",
    index=5,
    serial="1650000000006",
    pci_bus_id="00000000:15:00.0",
)  # with running counters
PATIENCE_SECONDS = 30.0  # for the thread that asks
STEP_NS = NS_PER_S // 4
CYCLES = 132 * 1755 * STEP_NS // 1000  # all cycles of a step
# How long, in steps, this job and another one have the GPUs in turn: long enough to be asked about.
TURNS = st.lists(st.integers(80, 160), min_size=1, max_size=5)


class Machine:
    """Two GPUs used alike by all jobs, with the work of each step and its job."""

    name = "told"
    words, constant, lasting = "the devices of this job", False, False

    def __init__(self, clock: FakeClock, turns: Sequence[int], seed: int) -> None:
        self._clock, self._draw = clock, random.Random(seed)
        self.is_at_work = seed % 2 == 1  # this job works; otherwise all counted work is another's
        self._ends = list(accumulate(turns))
        self.step, self.done, self.ours = 0, 0, 0
        self._read_at_ns, self._read = clock.boottime_ns(), 0
        self.works = True  # or it gives gaps

    def is_ours(self) -> bool:
        return sum(end <= self.step for end in self._ends) % 2 == 0

    def go_on(self) -> None:
        """A step of time, with its work."""
        did = self._draw.choice((0, CYCLES // 3, CYCLES)) if self.is_at_work or not self.is_ours() else 0
        self.ours += did if self.is_ours() else 0
        self.done += did
        self.step += 1
        self._clock.advance(STEP_NS)

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        return OwnershipResult({device.uid: Ownership(self.is_ours()) for device in devices})

    def devices(self) -> Sequence[Device]:
        return (H100, RUNNING)

    def read(self) -> Sweep:
        self._clock.advance(1_000_000)  # the read ends after the question that was asked with it
        since_ns, self._read_at_ns = self._read_at_ns, self._clock.boottime_ns()
        did, self._read = self.done - self._read, self.done
        elapsed = 132 * 1755 * self._read_at_ns // 1000
        pipes = {Pipe.TENSOR: self.done, Pipe.TENSOR_HMMA: self.done}
        works: tuple[Work, Work] = (Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: did}), Growth())
        totals: tuple[None, Totals | None] = (None, Totals("GPM pipes x132, elapsed x132", elapsed, pipes))
        if not self.works:
            works, totals = (Gap(GapReason.DRIVER_ERROR),) * 2, (None, None)
        rows = zip(self.devices(), works, totals, strict=True)
        return Sweep(
            tuple(Reading(device.uid, since_ns, self._read_at_ns, work, {}, total) for device, work, total in rows)
        )

    def describe(self) -> dict[str, object]:
        return {"replay": None}

    def close(self) -> None:
        pass


class Metered:
    """A run of such a machine."""

    def __init__(self, folder: Path, turns: Sequence[int], seed: int, interval_s: int = 1) -> None:
        self._draw, self._interval_ns = random.Random(seed), interval_s * NS_PER_S
        self.story = Story(folder, ())
        self.story.kill()
        self.story.settings = replace(self.story.settings, interval_ns=self._interval_ns)
        self.story.start()
        self.machine = Machine(self.story.clock, turns, seed)
        self._open()

    def _open(self) -> None:
        self._source = FilteredSource(
            self.machine, self.machine, self.story.clock, interval_ns=self._interval_ns,
            grace_seconds=PATIENCE_SECONDS, draw_below=self._draw.randrange,
        )  # fmt: skip

    def read(self) -> None:
        sweep, devices = self._source.read(), tuple(self._source.devices())
        self.story.writer.take(Message("told", self.story.clock.boottime_ns(), devices, sweep))

    def kill(self, steps: int) -> None:
        self.story.kill()
        for _ in range(steps):
            self.machine.go_on()
        self._open()
        self.story.start()

    def finish(self) -> None:
        self._source.before_last_read()
        self.read()
        self.story.finish()


@settings(max_examples=examples(40))
@given(TURNS, st.integers(0, 2**32), st.lists(st.sampled_from(["fault", "kill", "silence"]), max_size=4))
def test_work_of_others_on_a_gpu_is_never_counted_and_this_jobs_is_in_the_bounds(
    turns: list[int], seed: int, faults: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run, draw = Metered(Path(folder), turns, seed), random.Random(seed)
        at = {draw.randrange(4, sum(turns)): fault for fault in faults}  # after the first read
        for step in range(sum(turns)):
            run.machine.go_on()
            run.machine.works = at.get(step) != "fault"
            if at.get(step) == "kill":
                run.kill(draw.randrange(30))
            elif at.get(step) == "silence":
                for _ in range(draw.randrange(160)):
                    run.machine.go_on()
                run.story.writer.tick()
            elif step % 4 == 3 or not run.machine.works:
                run.read()
        run.machine.works = True
        run.finish()
        history = read_history(line.record() for line in read_journal(run.story.state.journal))
    for device in run.machine.devices():
        tallies = [one.tallies[device.uid] for one in history.incarnations if device.uid in one.tallies]
        counted = sum(tally.active_sm_cycles.get((device.evidence, Pipe.TENSOR_HMMA), 0) for tally in tallies)
        gaps_ns = sum(ns for tally in tallies for why, ns in tally.gap_ns.items() if why not in ACCOUNTED_ELSEWHERE)
        assert counted <= run.machine.ours <= counted + max_sm_cycles(Limits(132, 1980), gaps_ns)


@pytest.mark.parametrize("interval_s", [1, 10, 60])
def test_readings_far_apart_count_too(tmp_path: Path, interval_s: int) -> None:
    """The owner of a device is asked for with a read, so answers are as far apart as reads."""
    steps = 4 * interval_s
    run = Metered(tmp_path, [100 * steps], 1, interval_s)
    for _ in range(20):
        for _ in range(steps):
            run.machine.go_on()
        run.read()
    run.finish()
    history = read_history(line.record() for line in read_journal(run.story.state.journal))
    for device in run.machine.devices():
        tally = history.incarnations[-1].tallies[device.uid]
        assert tally.total_observed_ns >= 17 * interval_s * NS_PER_S

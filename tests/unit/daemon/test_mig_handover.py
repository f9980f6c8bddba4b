"""A GPU's time while it is sliced, resliced and made whole again: nothing is lost or counted twice."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopsd.core.ledger.run_view import view_of
from flopsd.core.model import Active, Device, DeviceUid, Evidence, Gap, GapReason, Limits, Pipe, Reading, Sweep
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.system.clock import NS_PER_S
from tests.support.extent import examples
from tests.support.runs import H100, Run, history_of
from tests.support.strategies import table

GPU = replace(H100, uid="GPU-p", sm_count=120)
PARTITIONS = ((120,), (60, 60), (20, 40, 60), (15,) * 8)
WHOLE: tuple[Device, ...] = (GPU,)
SLICED = [
    tuple(replace(GPU, uid=f"MIG-{at}-{n}", serial=None, sm_count=sms, parent=GPU.uid) for n, sms in enumerate(parts))
    for at, parts in enumerate(PARTITIONS)
]
LAYOUTS = [WHOLE, *SLICED]


class Metered:
    """A source that lists the devices that a test sets, and reads all of them on request."""

    def __init__(self, folder: Path) -> None:
        self.run = Run(folder / "state", devices=())
        self.since_ns = self.run.clock.boottime_ns()
        self.listed: tuple[Device, ...] = ()

    def tell(self, devices: tuple[Device, ...], ms: int, renamed: dict[DeviceUid, Device] | None = None) -> None:
        """After `ms` the source reads `devices`."""
        self.run.clock.advance(ms * 1_000_000)
        now_ns = self.run.clock.boottime_ns()
        readings = tuple(
            Reading(device.uid, self.since_ns, now_ns, Active(Evidence.ACTIVITY, {Pipe.FP32: 5})) for device in devices
        )
        self.run.writer.take(Message("sim", now_ns, devices, Sweep(readings, renamed=renamed or {})))
        self.since_ns, self.listed = now_ns, devices

    def fail(self, ms: int) -> None:
        self.run.clock.advance(ms * 1_000_000)
        self.since_ns = self.run.clock.boottime_ns()
        self.run.writer.take(Message("sim", self.since_ns, fault="it raised", reason=GapReason.DRIVER_ERROR))

    def restart(self, ms: int) -> None:
        """Like kill -9, with the same devices listed afterwards."""
        self.run.kill()
        self.run.clock.advance(ms * 1_000_000)
        self.run.start()
        self.since_ns = self.run.clock.boottime_ns()
        self.tell(self.listed, 0)

    def sm_ns(self) -> int:
        """The job's device time, weighted by SMs."""
        found = [(one.tally, one.rating) for one in self.run.writer.snapshot.view.rated]
        total = 0
        for tally, rating in found:
            assert isinstance(rating.limits, Limits)
            total += tally.job_ns * rating.limits.sm_count
        return total


steps = st.tuples(
    st.sampled_from(["tell"] * 6 + ["fail", "restart"]), st.integers(0, len(LAYOUTS) - 1), st.integers(1, 4000)
)


@pytest.mark.long
@settings(max_examples=examples(60), deadline=None)
@given(st.lists(steps, min_size=1, max_size=25))
def test_the_time_of_a_gpu_equals_that_of_its_slices_in_every_layout(plan: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        metered = Metered(Path(folder))
        begin_ns = metered.run.clock.boottime_ns()
        metered.tell(WHOLE, 1)
        for what, layout, ms in plan:
            if what == "tell":
                metered.tell(LAYOUTS[layout], ms)
            elif what == "fail":
                metered.fail(ms)
            else:
                metered.restart(ms)
            metered.run.writer.tick()
            for state in metered.run.writer.snapshot.devices:
                for tally in state.tallies:
                    assert tally.total_observed_ns + tally.total_gap_ns == tally.span_ns
        metered.tell(metered.listed, 1000)  # the devices that it reads now are read to the end
        elapsed_ns = metered.run.clock.boottime_ns() - begin_ns
        assert metered.sm_ns() == elapsed_ns * 120
        metered.run.finish()
        shown = metered.run.writer.snapshot.view.figures
        assert view_of(history_of(metered.run.state.journal), table()).figures == shown
        metered.run.seal(Path(folder) / "out" / "ledger.json")


def test_a_slice_that_returns_while_its_gpu_cannot_be_read_loses_no_time(tmp_path: Path) -> None:
    metered, (small, _), (large, _) = Metered(tmp_path), SLICED[3][:2], SLICED[1]
    for device in (large, small):
        metered.tell((device,), 30_000)
    read_ns = metered.since_ns
    for _ in range(100):
        metered.fail(1000)
        metered.run.writer.tick()
    metered.since_ns = read_ns  # the source found the slice when it looked again
    metered.tell((large,), 1000)
    (state,) = (one for one in metered.run.writer.snapshot.devices if one.device.uid == large.uid)
    assert state.tally.gap_ns == {GapReason.REPLACED: 30 * NS_PER_S}
    assert state.tally.total_observed_ns == (30 + 101) * NS_PER_S


def test_a_slice_of_another_job_does_not_count_as_replaced(tmp_path: Path) -> None:
    metered = Metered(tmp_path)
    first, second = SLICED[1]
    metered.tell((first, second), 1000)
    for _ in range(5):
        metered.run.clock.advance(NS_PER_S)
        now_ns = metered.run.clock.boottime_ns()
        metered.run.writer.take(
            Message("sim", now_ns, (first,), Sweep((), not_ours=frozenset({second.uid}), patience_ns=0))
        )
    gaps = {state.device.uid: state.tally.gap_ns for state in metered.run.writer.snapshot.devices}
    assert GapReason.REPLACED not in gaps[second.uid]
    assert gaps[second.uid][GapReason.OTHER_JOB] > 2 * NS_PER_S


def test_work_of_a_device_before_it_left_the_job_stays_with_the_job(tmp_path: Path) -> None:
    """Its source reports every thirty seconds, and the device left before the report."""
    run = Run(tmp_path, devices=())
    since_ns = run.clock.boottime_ns()
    for second in range(1, 60):
        run.clock.advance(NS_PER_S)
        leaves = frozenset({H100.uid}) if second > 30 else frozenset()
        read = (Reading(H100.uid, since_ns, since_ns + NS_PER_S, Gap(GapReason.STARTING)),) if second == 1 else ()
        sweep = Sweep(read, not_ours=leaves, patience_ns=62 * NS_PER_S)
        run.writer.take(Message("sim", run.clock.boottime_ns(), () if leaves else (H100,), sweep))
    run.writer.close("sigterm")
    (state,) = run.writer.snapshot.devices
    assert state.tally.gap_ns == {
        GapReason.STARTING: NS_PER_S, GapReason.MISSED_READING: 30 * NS_PER_S, GapReason.OTHER_JOB: 28 * NS_PER_S,
    }  # fmt: skip


def test_a_named_device_gets_its_ceiling_once_it_is_identified(tmp_path: Path) -> None:
    metered = Metered(tmp_path)
    nameless = replace(H100, uid="slot-0", model="unidentified", pci_device_id=None, sm_count=None)
    metered.run.writer.take(Message("sim", metered.run.clock.boottime_ns(), (nameless,), Sweep(())))
    metered.run.clock.advance(5 * NS_PER_S)
    metered.run.writer.tick()
    unbounded = metered.run.writer.snapshot.view.figures
    assert unbounded.high_flop is None
    metered.since_ns = metered.run.clock.boottime_ns()
    parts = SLICED[1]
    for _ in range(20):
        metered.tell(parts, 1000, {"slot-0": GPU})
    states = {state.device.uid: state for state in metered.run.writer.snapshot.devices}
    assert states["slot-0"].tally.job_ns == 5 * NS_PER_S
    assert states["slot-0"].device.sm_count == 120
    assert [states[part.uid].tally.span_ns for part in parts] == [20 * NS_PER_S] * 2
    assert metered.sm_ns() == 25 * NS_PER_S * 120
    bounded = metered.run.writer.snapshot.view.figures
    assert bounded.high_flop is not None
    metered.restart(1000)
    assert {state.device.uid for state in metered.run.writer.snapshot.devices} == {part.uid for part in parts}


def test_a_second_source_with_a_higher_clock_raises_the_ceiling(tmp_path: Path) -> None:
    """A dcgm-exporter's page may lack the highest clock, and then the table's clock is used."""
    metered = Metered(tmp_path)
    metered.tell((replace(GPU, sm_clock_max_mhz=None),), 1000)
    assert metered.run.writer.snapshot.view.figures.high_flop is not None
    metered.tell((replace(GPU, sm_clock_max_mhz=2100),), 1000)
    assert metered.run.writer.snapshot.view.figures.high_flop is None

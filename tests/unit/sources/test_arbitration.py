"""Which source reads which device, alone and through the real writer."""

from collections.abc import Iterator
from dataclasses import replace
from logging import INFO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.ledger.device_records import DeviceEntry, evidence_record, identified
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.run_view import view_of
from flopsd.core.model import Active, Busy, Device, DeviceUid, Evidence, Gap, GapReason, Gauges, Pipe, Reading, Sweep
from flopsd.daemon.accounts.source_tracker import Message, SourceTracker
from flopsd.daemon.accounts.tracked_device import HOLD_NS
from flopsd.sources.arbitration import Arbiter
from flopsd.system.clock import NS_PER_S
from flopsd.system.log_rest import REST_SECONDS
from flopsd.telemetry.snapshot import SourceState
from flopsd.testing import FakeClock
from tests.support.runs import A100, H100, Run
from tests.support.strategies import table

Work = Active | Busy | Gap
GAUGES = Gauges({Pipe.FP32: 0.5})


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    found = Run(tmp_path / "state", devices=(), sources=("nvml", "dcgm"))
    yield found
    found.kill()


def tell(run: Run, source: str, *read: tuple[Device, Work], **counters: int) -> None:
    """A source reads the work of the last second of each device."""
    now_ns = run.clock.boottime_ns()
    readings = tuple(Reading(device.uid, now_ns - NS_PER_S, now_ns, work, counters) for device, work in read)
    devices = tuple(device for device, _ in read)
    run.writer.take(Message(source, now_ns, devices, Sweep(readings), opened={"replay": None}))


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(list(Evidence)), st.booleans()), max_size=12)
)
def test_the_strongest_offer_of_an_answering_source_is_taken(calls: list[tuple[str, Evidence, bool]]) -> None:
    roster, offers, down = Arbiter(("a", "b")), dict[str, Evidence](), set[str]()
    for source, evidence, answers in calls:
        if answers:
            roster.offer(source, [replace(H100, evidence=evidence)])
            offers[source] = evidence
            down.discard(source)
        else:
            roster.down(source)
            down.add(source)
        best = roster.best(H100.uid)
        assert (best is None) == (not offers)
        if best is not None:
            answering = {name for name in offers if name not in down} or set(offers)
            assert best[0] in answering
            strongest = min(list(Evidence).index(offers[name]) for name in answering)
            assert list(Evidence).index(offers[best[0]]) == strongest


def test_a_device_no_longer_listed_belongs_to_no_source() -> None:
    roster = Arbiter(("nvml",))
    assert roster.offer("nvml", [H100, A100])
    assert not roster.offer("nvml", [H100, A100])
    assert roster.offer("nvml", [H100])
    assert roster.best(A100.uid) is None


def test_the_first_named_of_equal_offers_is_taken_and_a_source_that_is_down_last() -> None:
    roster, weaker = Arbiter(("b", "a")), replace(H100, evidence=Evidence.UTILIZATION)
    assert roster.offered("a") == ()
    assert all(roster.offer(source, [H100]) for source in ("stranger", "a", "b"))
    taken = []
    for source in ("", "b", "a"):
        assert roster.down(source) != roster.down(source)
        taken.append((roster.best(H100.uid) or ("",))[0])
    assert taken == ["b", "a", "stranger"]
    assert roster.offer("b", [H100]), "it was down"
    assert (roster.best(H100.uid), roster.offered("b")) == (("b", H100), (H100,))
    roster.offer("a", [H100])
    assert roster.offer("b", [weaker])
    assert (roster.best(H100.uid), roster.is_in_slices(H100.uid)) == (("a", H100), False)
    assert roster.offer("c", [SLICE])
    assert (roster.best(H100.uid), roster.is_in_slices(H100.uid)) == (None, True)
    assert (roster.best(SLICE.uid), roster.is_in_slices(SLICE.uid)) == (("c", SLICE), False)


@pytest.mark.parametrize("whole_first", [True, False])
def test_a_gpu_whose_slices_are_read_is_never_metered_as_a_whole_too(run: Run, whole_first: bool) -> None:
    """An exporter lists the whole GPU, NVML its slices. Whichever comes first, the whole has neither work nor
    ceiling."""
    whole = replace(A100, evidence=Evidence.UTILIZATION)
    slices = [replace(whole, uid=f"MIG-{n}", parent=whole.uid, sm_count=42) for n in (1, 2)]
    for _ in range(5):
        run.clock.advance(NS_PER_S)
        for source, devices in (("dcgm", [whole]), ("nvml", slices))[:: 1 if whole_first else -1]:
            tell(run, source, *((device, Busy(1000)) for device in devices))
    assert run.writer.close("sigterm")
    states = {state.device.uid: state for state in run.writer.snapshot.devices}
    assert set(states) == {"MIG-1", "MIG-2"} | ({whole.uid} if whole_first else set())
    if whole_first:  # it was listed before its slices
        tally = states[whole.uid].tally
        assert tally.unknown_ns == 0
        assert tally.gap_ns[GapReason.METERED_AS_MIG] > 3 * NS_PER_S
        assert tally.busy_sm_cycles <= 1000
    assert all(states[one.uid].tally.busy_sm_cycles == 5000 for one in slices)


@pytest.mark.parametrize("nameless_first", [True, False])
def test_the_identity_of_a_device_does_not_depend_on_the_first_source_that_lists_it(
    run: Run, nameless_first: bool
) -> None:
    nameless = replace(H100, model="unidentified", pci_device_id=None, serial=None, sm_count=None,
                       sm_clock_max_mhz=None, evidence=Evidence.GAP)  # fmt: skip
    writer = run.writer
    answer: dict[str, tuple[Device, Work]] = {
        "dcgm": (nameless, Gap(GapReason.UNKNOWN_DEVICE)),
        "nvml": (H100, Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 10**11})),
    }
    for _ in range(30):
        run.clock.advance(NS_PER_S)
        for source in sorted(answer, reverse=not nameless_first):
            tell(run, source, answer[source])
    assert writer.close("sigterm")
    (shown,) = writer.snapshot.devices
    assert shown.device.serial == H100.serial
    assert shown.tally.observed_ns == {Evidence.ACTIVITY: (30 - nameless_first) * NS_PER_S}
    figures = writer.snapshot.view.figures
    assert figures.high_flop is not None  # the second without a name is bounded by the later identity of the device
    history = read_history(run.journal.read())
    assert view_of(history, table()).figures == figures
    (entry,) = history.incarnations[0].devices.values()
    assert entry == DeviceEntry(shown.device, "nvml", "h100-sxm5-80gb", shown.tally.begin_ns)


def test_a_device_is_not_identified_twice() -> None:
    entry = DeviceEntry(replace(H100, model="unidentified"), "nvml", None, 0)
    known = replace(entry, device=H100, part_id="h100-sxm5-80gb")
    record = evidence_record(1, 0, 5, known, identified=True)
    assert identified(entry, record["identity"]) == known
    with pytest.raises(ValueError, match="GPU-h is identified twice"):
        identified(known, record["identity"])


def test_a_device_whose_source_fell_silent_is_read_by_the_next(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    better = replace(A100, evidence=Evidence.ACTIVITY), Active(Evidence.ACTIVITY, {Pipe.FP32: 5})
    for second in range(9):
        run.clock.advance(NS_PER_S)
        if second < 3:
            tell(run, "dcgm", better)
        tell(run, "nvml", (A100, Busy(10)))
    (shown,) = run.writer.snapshot.devices
    assert (shown.entry.source, shown.tally.active_sm_cycles[(Evidence.ACTIVITY, Pipe.FP32)]) == ("nvml", 15)
    assert shown.tally.busy_sm_cycles > 0
    tell(run, "dcgm", better)
    assert [record.getMessage().partition(": a call")[0] for record in caplog.records if record.levelno > INFO] == [
        "source dcgm: no answer for 3 s",
        "source dcgm: answers again after 6 s",
    ]


def test_a_source_that_failed_and_answers_is_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        run.writer.take(Message("dcgm", run.clock.boottime_ns(), fault="answers 503"))
    for _ in range(2):
        run.clock.advance(NS_PER_S)
        tell(run, "dcgm", (A100, Busy(10)))
    said = [record.getMessage() for record in caplog.records if record.levelno > INFO]
    assert said == ["source dcgm: answers 503", "source dcgm: answers now"]


def test_a_source_that_flaps_is_logged_once_in_ten_minutes(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Each of its faults, and each change of what it reads; once more if it then stays down."""
    caplog.set_level(INFO, "flopsd")

    def fails(with_fault: str) -> None:
        run.writer.take(Message("dcgm", run.clock.boottime_ns(), fault=with_fault))
        run.clock.advance(NS_PER_S)

    for at in range(60):
        fails("answers 503" if at % 2 else "refuses the connection")
        listed = replace(A100, evidence=Evidence.GAP if at % 2 else Evidence.ACTIVITY)
        tell(run, "dcgm", (listed, Gap(GapReason.STALE)))
        run.clock.advance(NS_PER_S)
    said = [record.getMessage() for record in caplog.records]
    assert [one for one in said if one.startswith("source dcgm: ")] == [
        "source dcgm: refuses the connection", "source dcgm: answers now",
        "source dcgm: answers 503", "source dcgm: answers now",
    ]  # fmt: skip
    assert len([one for one in said if "read by source dcgm" in one]) == 2
    for _ in range(REST_SECONDS):
        fails("answers 503")
    assert [record.getMessage() for record in caplog.records].count("source dcgm: answers 503") == 2


def test_a_source_that_never_answers_is_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(130):
        run.clock.advance(NS_PER_S)
        tell(run, "nvml", (A100, Busy(10)))
    (said,) = [record.getMessage() for record in caplog.records if record.levelno > INFO]
    assert said.startswith("source dcgm: no answer for 2 min: a call of its driver or server has not returned")


def test_a_suspended_daemon_blames_no_driver(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Whether or not it ticks before it reads again."""
    for seconds in (1, 60, 1, 700, 1, 1):
        run.clock.advance(seconds * NS_PER_S)
        if seconds == 60:
            run.writer.tick()
        tell(run, "nvml", (A100, Busy(10)))
        tell(run, "dcgm", (replace(A100, evidence=Evidence.ACTIVITY), Active(Evidence.ACTIVITY, {Pipe.FP32: 5})))
    said = [record.getMessage().partition(": it was")[0] for record in caplog.records if record.levelno > INFO]
    assert said == ["flopsd stood still for 60 s", "flopsd stood still for 12 min"]


def test_a_suspended_daemon_blames_no_source_that_it_could_not_retry(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    for seconds in (1, 700, 1, 1):
        run.clock.advance(seconds * NS_PER_S)
        tell(run, "nvml", (A100, Busy(10)))
    assert "no answer" not in caplog.text


def test_a_gap_of_the_better_source_is_not_filled_by_the_worse(run: Run) -> None:
    run.clock.advance(NS_PER_S)
    tell(run, "dcgm", (replace(A100, evidence=Evidence.ACTIVITY), Gap(GapReason.STALE)))
    run.clock.advance(NS_PER_S)
    tell(run, "nvml", (A100, Busy(10)))
    (shown,) = run.writer.snapshot.devices
    assert shown.entry.source == "dcgm"
    assert shown.tally.busy_sm_cycles == 0
    assert shown.tally.gap_ns == {GapReason.STALE: NS_PER_S}


def test_an_older_energy_value_of_another_source_is_not_counted_again(run: Run) -> None:
    """NVML bounds it at 1000 and 1700 mJ; an exporter measures it from a page that still says 1100, and dies."""
    better = replace(A100, evidence=Evidence.ACTIVITY), Active(Evidence.ACTIVITY, {Pipe.FP32: 5})
    for energy_mj in (1000, 1700):
        run.clock.advance(NS_PER_S)
        tell(run, "nvml", (A100, Busy(10)), energy_mj=energy_mj)
    run.clock.advance(NS_PER_S)
    tell(run, "dcgm", better, energy_mj=1100)
    run.writer.take(Message("dcgm", run.clock.boottime_ns(), fault="no answer"))
    # If its own value falls, the driver was reloaded, as always.
    for energy_mj, total_mj in ((3100, 2100), (100, 2100), (150, 2150)):
        run.clock.advance(NS_PER_S)
        tell(run, "nvml", (A100, Busy(10)), energy_mj=energy_mj)
        assert run.writer.snapshot.devices[0].tally.energy_mj == total_mj


def test_an_energy_value_that_another_source_reads_unchanged_counts_up_to_then(run: Run) -> None:
    better = replace(A100, evidence=Evidence.ACTIVITY), Active(Evidence.ACTIVITY, {Pipe.FP32: 5})
    for source, read in (("nvml", (A100, Busy(10))), ("dcgm", better)):
        run.clock.advance(NS_PER_S)
        tell(run, source, read, energy_mj=1000)
    tally = run.writer.snapshot.devices[0].tally
    assert tally.energy_at_ns == tally.watermark_ns == run.clock.boottime_ns()


def hold(run: Run, since_ns: int, device: Device = H100, **counters: int) -> None:
    """A source reads the last second of a device, of which it is only known whose it was at `since_ns`."""
    run.clock.advance(NS_PER_S)
    now_ns = run.clock.boottime_ns()
    reading = Reading(device.uid, now_ns - NS_PER_S, now_ns, Active(Evidence.ACTIVITY, {Pipe.FP32: 1000}), counters)
    sweep = Sweep((reading,), {device.uid: GAUGES}, ours_until_ns=since_ns)
    run.writer.take(Message("nvml", now_ns, (device,), sweep))


def settle(run: Run, until_ns: int) -> dict[GapReason, int]:
    """The device is this job's until then. Returns its gaps."""
    run.writer.take(Message("nvml", run.clock.boottime_ns(), (H100,), Sweep((), ours_until_ns=until_ns)))
    return dict(run.writer.snapshot.devices[0].tally.gap_ns)


def test_a_reading_that_may_be_of_another_job_waits_for_the_word_of_its_own_source(run: Run) -> None:
    hold(run, since_ns := run.clock.boottime_ns())
    tell(run, "dcgm")
    assert not run.writer.snapshot.view.figures.measured_flop
    run.clock.advance(2 * NS_PER_S)
    run.writer.take(Message("nvml", run.clock.boottime_ns(), fault="no answer"))
    hold(run, since_ns)
    assert not settle(run, since_ns + NS_PER_S - 1)
    assert run.writer.snapshot.devices[0].gauges == GAUGES
    assert settle(run, run.clock.boottime_ns()) == {GapReason.SOURCE_DOWN: 2 * NS_PER_S}
    assert run.writer.snapshot.devices[0].gauges == GAUGES
    assert run.writer.snapshot.view.figures.measured_flop


def test_energy_of_a_reading_that_waited_is_that_of_its_own_source(run: Run) -> None:
    run.clock.advance(NS_PER_S)
    tell(run, "nvml", (A100, Busy(10)), energy_mj=1000)
    hold(run, run.clock.boottime_ns(), A100, energy_mj=1700)
    for energy_mj, total_mj in ((1100, 700), (1800, 800)):  # the first from an older page
        run.clock.advance(NS_PER_S)
        better = replace(A100, evidence=Evidence.ACTIVITY), Active(Evidence.ACTIVITY, {Pipe.FP32: 5})
        tell(run, "dcgm", better, energy_mj=energy_mj)
        assert run.writer.snapshot.devices[0].tally.energy_mj == total_mj


@pytest.mark.parametrize(("late_ns", "lost"), [(0, {}), (1, {GapReason.MISSED_READING: NS_PER_S})])
def test_a_word_that_comes_too_late_leaves_a_gap(run: Run, late_ns: int, lost: dict[GapReason, int]) -> None:
    hold(run, run.clock.boottime_ns())
    silent_ns = HOLD_NS + 3 * NS_PER_S + late_ns
    run.clock.advance(silent_ns)
    assert settle(run, run.clock.boottime_ns()) == {GapReason.SOURCE_SILENT: silent_ns, **lost}
    assert bool(run.writer.snapshot.view.figures.measured_flop) is not bool(lost)


def test_readings_that_wait_too_long_become_a_gap(run: Run) -> None:
    since_ns, most = run.clock.boottime_ns(), HOLD_NS // NS_PER_S + 4
    for _ in range(most):
        hold(run, since_ns)
    assert not run.writer.snapshot.devices[0].tally.gap_ns
    hold(run, since_ns)
    assert run.writer.snapshot.devices[0].tally.gap_ns == {GapReason.MISSED_READING: (most + 1) * NS_PER_S}


def test_a_fault_of_a_source_is_logged_once_until_it_changes(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    for fault in ("no answer", "no answer", "no permission"):
        run.writer.take(Message("dcgm", run.clock.boottime_ns(), fault=fault))
    said = [record.getMessage() for record in caplog.records if record.levelno > INFO]
    assert said == ["source dcgm: no answer", "source dcgm: no permission"]


def test_readings_that_waited_behind_a_slow_disk_are_all_counted(run: Run) -> None:
    writer, clock = run.writer, run.clock
    begin_ns = clock.boottime_ns()
    waiting = []
    for number in range(10):
        until_ns = begin_ns + (number + 1) * NS_PER_S
        reading = Reading(H100.uid, until_ns - NS_PER_S, until_ns, Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 1000}))
        waiting.append(
            Message("nvml", until_ns, (H100,), Sweep((reading,)), opened={"replay": None} if not number else None)
        )
    clock.advance(10 * NS_PER_S)
    for message in waiting:
        writer.take(message)
    (device,) = writer.snapshot.devices
    assert device.tally.active_sm_cycles == {(Evidence.ACTIVITY, Pipe.TENSOR_HMMA): 10_000}
    assert not device.tally.gap_ns


SLICE = replace(H100, uid="MIG-1", parent=H100.uid)


@pytest.mark.parametrize(
    ("offered", "renamed", "others", "why"),
    [
        ((), (), (), None),
        ((H100,), (), (), GapReason.REPLACED),  # the whole GPU is read in its place
        ((replace(SLICE, uid="MIG-2"),), (), (), GapReason.REPLACED),  # another slice of the GPU is read
        ((A100,), (), (), None),
        ((SLICE,), (), (), None),  # the slice itself is read
        ((H100,), (), (SLICE.uid,), None),  # another job's
        ((A100,), (SLICE.uid,), (), GapReason.REPLACED),  # under another name
    ],
)  # fmt: skip
def test_a_slice_loses_no_time_while_its_gpu_is_read(
    offered: tuple[Device, ...], renamed: tuple[str, ...], others: tuple[str, ...], why: GapReason | None
) -> None:
    tracker = SourceTracker(("nvml",), FakeClock())
    sweep = Sweep((), renamed=dict.fromkeys(map(DeviceUid, renamed), H100), not_ours=frozenset(map(DeviceUid, others)))
    message = Message("nvml", 1, offered, sweep)
    tracker.note_devices(message, sweep)
    tracker.note_sweep(message, sweep, ())
    assert tracker.accounted_elsewhere(DeviceEntry(SLICE, "nvml", None, 0)) is why


@pytest.mark.parametrize(
    ("state", "offered", "why"),
    [
        (None, (), GapReason.SOURCE_DOWN),
        (SourceState(up=False), (H100,), GapReason.SOURCE_DOWN),
        (SourceState(up=False, reason="source_silent"), (H100,), GapReason.SOURCE_SILENT),
        (SourceState(up=True), (), GapReason.DEVICE_MISSING),
        (SourceState(up=True), (H100,), GapReason.STARTING),
    ],
)
def test_an_unread_device_has_the_right_gap_reason(
    state: SourceState | None, offered: tuple[Device, ...], why: GapReason
) -> None:
    tracker = SourceTracker(("nvml",), FakeClock())
    tracker.note_devices(Message("nvml", 1, offered, Sweep(())), Sweep(()))
    tracker.states = {} if state is None else {"nvml": state}
    assert tracker.why_unread(DeviceEntry(H100, "nvml", None, 0), GapReason.STARTING) is why


def test_a_reading_of_an_unlisted_device_is_reported_and_not_counted(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    now_ns = run.clock.boottime_ns()
    stray = Reading(A100.uid, now_ns - NS_PER_S, now_ns, Busy(NS_PER_S // 2), {})
    run.writer.take(Message("nvml", now_ns, (H100,), Sweep((stray,)), opened={"replay": None}))
    assert "sent a reading of device GPU-a, which it does not list" in caplog.text
    assert [state.device.uid for state in run.writer.snapshot.devices] == [H100.uid]

"""The Neuron source with a scripted monitor: the work from each line, and when the monitor is restarted."""

import gc
import itertools
import json
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from flopsd.core.model import Counted, Device, Evidence, Gap, GapReason, Reading, Sweep
from flopsd.errors import SourceUnavailableError
from flopsd.sources.neuron.counted_periods import CountedPeriods
from flopsd.sources.neuron.document import Core, DocumentError, MonitorDocument, Runtime, parse
from flopsd.sources.neuron.monitor_process import Failure, StreamItem
from flopsd.sources.neuron.source import NeuronSource
from flopsd.sources.neuron.sysfs import Tree
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.strategies import table

S = NS_PER_S


class Monitor:
    """Each start takes the items of `first`; `fails`: it cannot be started."""

    started: list["Monitor"]
    first: list[MonitorDocument | Failure]
    fails, rattles = False, False  # rattles: prints garbage without end

    def __init__(self, path: str, clock: FakeClock) -> None:
        assert path == "/opt/monitor"
        if Monitor.fails:
            Monitor.started.append(self)
            raise SourceUnavailableError("it cannot be started")
        self.clock, self.version, self.closed, self.waits = clock, "2.1", list[bool](), 0
        self.items = [StreamItem(clock.boottime_ns(), what) for what in Monitor.first]
        Monitor.first = []
        Monitor.started.append(self)

    def says(self, *whats: MonitorDocument | Failure) -> None:
        self.items += [StreamItem(self.clock.boottime_ns(), what) for what in whats]

    def wait(self, seconds: float) -> bool:
        assert seconds == 10.0
        self.waits += 1
        if Monitor.rattles:
            self.says(Failure("no JSON"))
        return bool(self.items)

    def drain(self) -> list[StreamItem]:
        items, self.items = self.items, []
        return items

    def close(self, *, wait: bool = True) -> None:
        self.closed.append(wait)


NUMBERS = itertools.count(1)


def document(
    flop: int | None = 0, *, cores: int | None = 2, count: int | None = 2, error: str = "", rate: str | None = "flops"
) -> MonitorDocument:
    """One runtime with `flop` per second on core 2, which is on the second of two chips. Each document differs from
    the others."""
    core = Core(None if flop is None else Fraction(flop), Fraction(20))
    runtimes = (Runtime("7/t", "", Fraction(1), {2: core}),) if count else ()
    facts = {"neuron_device_type": "trainium2"}
    return MonitorDocument(
        runtimes, rate, None, "trainium2", count, cores, "trn2.48xlarge", error, facts, (next(NUMBERS),)
    )


@pytest.fixture(autouse=True)
def _monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    Monitor.started, Monitor.first, Monitor.fails, Monitor.rattles = [], [document()], False, False
    monkeypatch.setattr("flopsd.sources.neuron.source.MonitorProcess", Monitor)


class Opened:
    def __init__(
        self, monitor: str | None = "/opt/monitor", root: str = "/nowhere", first: MonitorDocument | None = None
    ) -> None:
        self.clock = FakeClock()
        Monitor.first += [] if first is None else [first]
        self.source = NeuronSource(self.clock, table(), Tree(root, "/nowhere"), monitor)
        self.begin_ns = self.clock.boottime_ns()

    def after(self, ns: int, *whats: MonitorDocument | Failure) -> Sequence[Reading]:
        self.clock.advance(ns)
        if whats:
            Monitor.started[-1].says(*whats)
        return self.source.read().readings

    def works(self, ns: int, *whats: MonitorDocument | Failure) -> list[object]:
        return [reading.work for reading in self.after(ns, *whats)]

    @property
    def fact(self) -> Callable[[str], object]:
        return self.source.describe().__getitem__


def test_a_line_covers_its_period_on_every_chip() -> None:
    opened = Opened()
    assert [(chip.uid, chip.model) for chip in opened.source.devices()] == [
        ("neuron0", "trainium2"), ("neuron1", "trainium2"),
    ]  # fmt: skip
    assert opened.source.read() == Sweep((), {}, 10 * S)
    assert Monitor.started[0].waits == 1
    begin_ns = opened.begin_ns
    first = opened.after(S, document(7))
    assert {reading.begin_ns for reading in first} == {begin_ns + 1}, "two lines at one moment are two periods"
    assert tuple(replace(reading, begin_ns=begin_ns) for reading in first) == (
        Reading("neuron0", begin_ns, begin_ns + S, Counted(0)), Reading("neuron1", begin_ns, begin_ns + S, Counted(7)),
    )  # fmt: skip
    late = opened.after(3 * S, document(9))
    assert [(one.begin_ns - begin_ns, one.end_ns - begin_ns) for one in late] == [(3 * S, 4 * S)] * 2
    both = opened.after(2 * S, document(7), document(9))
    assert [(one.begin_ns - begin_ns, one.end_ns - begin_ns) for one in both[::2]] == [(4 * S, 5 * S), (5 * S, 6 * S)]
    opened.clock.advance(S)
    Monitor.started[-1].says(document(5))
    sweep = opened.source.read()
    assert {uid: gauges.utilization_ratio for uid, gauges in sweep.gauges.items()} == {"neuron0": 0, "neuron1": 0.1}
    assert {name: opened.fact(name) for name in (
        "neuron_monitor", "neuron_monitor_version", "counted_from", "neuron_device_type", "instance_type", "restarts",
        "garbled_lines", "replay", "driver",
    )} == {
        "neuron_monitor": "/opt/monitor", "neuron_monitor_version": "2.1", "counted_from": "flops", "replay": None,
        "neuron_device_type": "trainium2", "instance_type": "trn2.48xlarge", "restarts": 0, "garbled_lines": 0,
        "driver": None,
    }  # fmt: skip
    opened.source.close()
    assert Monitor.started[-1].closed == [True]
    assert opened.fact("neuron_monitor_version") is None


def test_work_partly_before_the_first_read_is_not_counted() -> None:
    opened = Opened()
    opened.clock.advance(S // 2)
    opened.source.read()
    assert opened.works(S // 2, document(7)) == [Gap(GapReason.STARTING)] * 2
    assert opened.works(S, document(7)) == [Counted(0), Counted(7)]
    opened = Opened(first=document())
    opened.clock.advance(1)
    opened.source.read()
    assert opened.works(S, document(7)) == [Counted(0), Counted(7)], "it begins with that read"


def test_an_invalid_line_is_a_gap_up_to_its_arrival() -> None:
    opened = Opened()
    opened.source.read()
    assert opened.works(S, Failure("no JSON")) == [Gap(GapReason.DRIVER_ERROR)] * 2
    assert opened.works(0, Failure("no JSON")) == []
    assert opened.fact("garbled_lines") == 2
    assert opened.works(S, document(7)) == [Counted(0), Counted(7)]


def test_a_monitor_that_ends_is_restarted_after_doubling_pauses() -> None:
    opened = Opened()
    opened.source.read()
    assert opened.works(S, Failure("it ended", ended=True)) == [Gap(GapReason.SOURCE_DOWN)] * 2
    assert Monitor.started[0].closed == [False]
    Monitor.fails = True
    pauses, ended_ns = [], opened.clock.boottime_ns()
    for _ in range(4 * 200):
        started = len(Monitor.started)
        assert opened.works(S // 4) == [Gap(GapReason.SOURCE_DOWN)] * 2
        if len(Monitor.started) > started:
            pauses.append((opened.clock.boottime_ns() - ended_ns) / S)
            ended_ns = opened.clock.boottime_ns()
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64]
    Monitor.fails, Monitor.first = False, []
    opened.after(64 * S)
    assert opened.fact("restarts") == 1
    assert opened.works(S, document(3)) == [Counted(0), Counted(3)]
    opened.after(S, Failure("it ended", ended=True))
    opened.after(S - 1)
    assert opened.fact("restarts") == 1
    opened.after(1)
    assert opened.fact("restarts") == 2


def test_a_restarted_monitor_does_not_cover_time_before_its_first_period() -> None:
    opened = Opened()
    opened.source.read()
    opened.after(S, document(7), Failure("it ended", ended=True))
    opened.after(S)
    begin_ns = opened.clock.boottime_ns()
    first = opened.after(S + S // 20, document(7))
    late = opened.after(S + S // 20, document(7))
    assert {(one.begin_ns - begin_ns, one.end_ns - begin_ns) for one in first} == {(S // 20, S + S // 20)}
    assert {(one.begin_ns, one.end_ns) for one in late} == {(first[0].end_ns, opened.clock.boottime_ns())}


def test_a_restarted_monitor_that_lists_no_hardware_saw_no_idle_chip() -> None:
    """A driver that is being reloaded: the processes that work are not listed either."""
    opened, blind = Opened(), replace(document(cores=None, count=None), device_type=None)
    opened.source.read()
    opened.after(S, document(7))
    assert opened.works(S, blind)[0] == Counted(0), "this start listed both chips; the process ended on the other one"
    opened.after(S, Failure("it ended", ended=True))
    opened.after(S)
    assert opened.works(S, blind) == [Gap(GapReason.DRIVER_ERROR)] * 2
    assert opened.works(S, document(count=0)) == [Gap(GapReason.DEVICE_MISSING)] * 2
    assert opened.works(S, blind) == [Gap(GapReason.DEVICE_MISSING)] * 2, "as it listed last"
    assert opened.works(S, document(7)) == [Counted(0), Counted(7)]


@pytest.mark.parametrize("prints", [False, True])
def test_a_silent_monitor_is_ended_after_a_minute_at_first_and_ten_seconds_later(prints: bool) -> None:
    opened = Opened()
    opened.source.read()
    opened.after(S, Failure("it ended", ended=True))
    opened.after(S)
    if prints:
        opened.after(0, document())
    monitor, seconds = Monitor.started[-1], 10 if prints else 60
    assert (len(Monitor.started), opened.works(seconds * S)) == (2, [])
    assert opened.works(1) == [Gap(GapReason.SOURCE_SILENT)] * 2
    assert monitor.closed == [False]
    assert opened.works(1) == [Gap(GapReason.SOURCE_SILENT)] * 2


def test_a_chip_without_a_rate_or_core_count_is_a_gap_until_it_has_one() -> None:
    Monitor.first = [replace(document(cores=None), instance_type=None)]
    opened = Opened()
    assert "instance_type" not in opened.source.describe()
    opened.source.read()
    assert opened.works(S, document(cores=None)) == [Gap(GapReason.NOT_SUPPORTED)] * 2
    assert opened.works(S, document(7)) == [Counted(0), Counted(7)]
    assert opened.works(S, document(7, cores=None)) == [Counted(0), Counted(7)], "what an earlier one said"
    assert opened.works(S, document(None, rate=None)) == [Gap(GapReason.NOT_SUPPORTED)] * 2
    assert {(chip.evidence, chip.evidence_fix) for chip in opened.source.devices()} == {
        (Evidence.GAP, "update aws-neuronx-tools")
    }
    assert opened.fact("counted_from") == "flops"
    opened.after(S, document(count=0, rate=None))
    assert {chip.evidence for chip in opened.source.devices()} == {Evidence.GAP}
    opened.after(S, document(7))
    assert {(chip.evidence, chip.evidence_reason) for chip in opened.source.devices()} == {(Evidence.COUNT, "")}


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ([], "neuron-monitor printed nothing for 10 s"),
        ([document(count=0)], "neuron-monitor shows no Neuron device"),
        ([document(count=0, error="no driver on i-0011223344556677a")], r"neuron-monitor: no driver on \(id\)"),
        ([Failure("neuron-monitor ended with exit code 1", ended=True)], "neuron-monitor ended with exit code 1"),
        ([Failure("no JSON")], "neuron-monitor printed nothing"),
    ],
)
def test_a_monitor_that_shows_no_chip_makes_the_source_unavailable(
    first: list[MonitorDocument | Failure], why: str
) -> None:
    Monitor.first = first
    with pytest.raises(SourceUnavailableError, match=why) as caught:
        Opened()
    assert caught.value.absent is not any(Path("/dev").glob("neuron[0-9]*"))
    assert "aws-neuronx-dkms" in caught.value.hint
    assert Monitor.started[0].closed


@pytest.mark.parametrize("monitor", [None, "/opt/monitor"])
def test_chips_are_read_from_sysfs_where_no_monitor_shows_one(tmp_path: Path, monitor: str | None) -> None:
    (tmp_path / "neuron0").mkdir()
    Monitor.first = [document(count=0)]
    opened = Opened(monitor, root=str(tmp_path))
    assert [one.closed for one in Monitor.started] == ([] if monitor is None else [[True]])
    assert (opened.fact("neuron_monitor"), opened.fact("counted_from")) == (None, "sysfs flop_count")
    assert opened.after(S) == (Reading("neuron0", opened.begin_ns, opened.begin_ns + S, Gap(GapReason.NOT_SUPPORTED)),)
    (chip,) = opened.source.devices()
    why = "no neuron-monitor" if monitor is None else "neuron-monitor sees no device"
    assert chip.evidence_reason == f"{why}, and this driver shows no flop_count"


def test_a_monitor_that_never_lists_the_hardware_is_abandoned() -> None:
    Monitor.first, Monitor.rattles = [], True
    with pytest.raises(SourceUnavailableError, match="printed nothing"):
        Opened()
    assert Monitor.started[0].waits == 5


def test_a_chip_keeps_its_place_when_its_name_changes(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"neuron{index}").mkdir()
    Monitor.first = []
    opened = Opened(root=str(tmp_path))
    assert [chip.uid for chip in opened.source.devices()] == ["neuron0", "neuron1", "neuron2"]
    assert (opened.source.read().readings, opened.fact("counted_from")) == ((), None)
    opened.after(S, Failure("no JSON"))
    found = opened.after(S + S // 20, document(7))
    assert {(one.begin_ns - opened.begin_ns, one.end_ns - one.begin_ns) for one in found} == {(S, S + S // 20)}
    chips: list[Device] = list(opened.source.devices())
    assert [chip.uid for chip in chips] == ["neuron0", "neuron1"]
    assert opened.source.read().renamed == {"neuron2": chips[1]}


def test_chips_that_disappear_are_gaps_and_new_chips_are_listed() -> None:
    opened = Opened()
    opened.source.read()
    missing = Gap(GapReason.DEVICE_MISSING)
    assert opened.works(S, document(7, count=1)) == [Counted(0), Gap(GapReason.DEVICE_MISSING, 7)]
    assert opened.works(S, document(count=0)) == [missing] * 2, "no runtime of no chip is no zero"
    assert opened.works(S, document(7, count=3)) == [Counted(0), Counted(7), Counted(0)]
    assert [chip.uid for chip in opened.source.devices()] == ["neuron0", "neuron1", "neuron2"]
    assert opened.source.read().renamed == {}
    assert opened.works(S, document(7)) == [Counted(0), Counted(7), missing]


@pytest.mark.parametrize("core", [2, 3], ids=["the-process", "one-of-its-cores"])
def test_time_without_a_process_is_a_gap_unless_the_process_stays_away(core: int) -> None:
    opened = Opened()
    opened.source.read()
    one, worked = document(7), Core(Fraction(7), Fraction(20))
    other = Runtime("8/t", "", Fraction(1), {2: worked, 3: worked})
    all_listed = (*one.runtimes, other)
    some_listed = one.runtimes if core == 2 else (*one.runtimes, replace(other, cores={2: worked}))
    known = 7 if core == 2 else 14
    left = Gap(GapReason.MISSED_READING, known)

    def works(runtimes: tuple[Runtime, ...]) -> list[object]:
        return opened.works(S, replace(one, runtimes=runtimes, reports=(next(NUMBERS),)))

    assert works(all_listed) == [Counted(0), Counted(21)]
    assert works(some_listed) == [Counted(0), left]
    assert [works(some_listed) for _ in range(2)] == [[Counted(0)]] * 2
    assert works(all_listed) == [left, left, Counted(0), Counted(21)]
    assert works(some_listed) == [Counted(0), left]
    assert [works(some_listed) for _ in range(4)] == [[Counted(0)]] * 4
    assert works(some_listed) == [*[Counted(known)] * 4, Counted(0), Counted(known)]
    for runtimes in (all_listed, some_listed, some_listed):
        works(runtimes)
    down = Gap(GapReason.SOURCE_DOWN)
    assert opened.works(S, Failure("it ended", ended=True)) == [left, down, down]


def test_identical_idle_documents_mean_a_monitor_that_stands_still() -> None:
    opened = Opened()
    opened.source.read()
    idle = document()
    assert opened.works(S, idle) == [Counted(0)] * 2
    assert [opened.works(S, idle) for _ in range(9)] == [[]] * 9
    assert opened.works(2 * S, idle) == [Gap(GapReason.SOURCE_SILENT)] * 2
    assert opened.fact("repeated_reports") == 10


def test_what_is_kept_of_large_documents_is_bounded() -> None:
    """Eight whole reports, and each process's last one for a minute, took hundreds of megabytes."""
    counted, group = CountedPeriods(), {"period": 1, "neuroncores_in_use": {"0": {"flops": 7, "more": "x" * 5000}}}
    tag = "t" * 5000

    def printed(minute: int) -> MonitorDocument:
        processes = [
            {"pid": 1000 * minute + at, "neuron_runtime_tag": tag, "report": {"neuroncore_counters": group}}
            for at in range(1000)
        ]
        return parse(json.dumps({"neuron_runtime_data": processes}).encode())

    tracemalloc.start()
    for minute in range(3):
        counted.ahead(printed(minute), minute)
    gc.collect()
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 10_000_000
    with pytest.raises(DocumentError, match="a report of 1001 processes"):
        parse(json.dumps({"neuron_runtime_data": [{}] * 1001}).encode())

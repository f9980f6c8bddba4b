"""The Neuron source through a real child process that prints captured documents, on a clock stepped by hand."""

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.model import Counted, Evidence, Gap, GapReason, Sweep
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.errors import UnknownDeviceError
from flopsd.sources import SourceSettings
from flopsd.sources.neuron import source as neuron
from flopsd.sources.neuron.source import NeuronSource
from flopsd.sources.neuron.sysfs import Tree
from flopsd.sources.registry import open_source
from flopsd.system.clock import NS_PER_S
from tests.second_implementation.arithmetic import payload_of
from tests.support.neuron import (
    INF2_FLOP,
    MONITOR,
    SAMPLES,
    Lead,
    Sysfs,
    alive,
    counters,
    counting,
    flop,
    idle,
    inf2,
    sample,
)
from tests.support.process import wait_until
from tests.support.runs import Run
from tests.support.strategies import table

SECOND = 1.000665759  # the period in the inf2 capture


def test_a_real_capture_gives_executions_times_the_graphs_flop(lead: Lead) -> None:
    led = lead()
    source = led.open(inf2())
    (chip,) = source.devices()
    assert (chip.uid, chip.index, chip.vendor, chip.model) == ("neuron0", 0, "aws", "inferentia2")
    assert chip.evidence is Evidence.COUNT
    assert table().resolve(chip).id == "inferentia2"
    begin_ns = led.clock.boottime_ns() + 1  # the first document ended a nanosecond after the opening
    (reading,) = led.after(SECOND, doc=inf2())
    assert flop(reading) == 876_173_407_187
    assert flop(reading) == pytest.approx(INF2_FLOP, rel=1e-7)
    assert (reading.begin_ns, reading.end_ns) == (begin_ns, led.clock.boottime_ns())


def test_logical_cores_of_the_trn2_guide_are_added_up_on_their_chip(lead: Lead) -> None:
    trn2 = sample("trn2_lnc2_awsdocs_example.json")
    led = counting(lead, trn2)
    readings = led.after(1.000113182, doc=trn2)
    assert len(readings) == 16
    assert flop(readings[0]) == round((1234567891011 + 1234567891021) * 1.000113182)
    assert {flop(reading) for reading in readings[1:]} == {0}  # not among the cores in use
    found = led.source.describe()
    assert (found["logical_neuroncore_config"], found["counted_from"]) == (2, "flops")
    assert table().resolve(led.source.devices()[15]).id == "trainium2"
    assert not any(word in json.dumps(found) for word in ("i-00112233", "ami-", "subnet-", "My_Instance"))


def test_tools_without_flops_are_a_stated_absence_and_not_zero(lead: Lead) -> None:
    lines = (SAMPLES / "neuron_monitor_trn1_2xlarge_old_wandb.stream.jsonl").read_text().splitlines()
    led = lead()
    led.open(json.loads(lines[0]))
    led.after(1, doc=json.loads(lines[1]))
    (reading,) = led.after(1, doc=json.loads(lines[2]))
    assert reading.work == Gap(GapReason.NOT_SUPPORTED)
    (chip,) = led.source.devices()
    assert (chip.evidence, chip.evidence_reason) == (Evidence.GAP, "this neuron-monitor reports no FLOP rate")
    assert chip.evidence_fix == "update aws-neuronx-tools"
    # These tools name no chip either, but the instance type does, exactly.
    assert chip.model == "trainium1"
    assert table().resolve(chip).id == "trainium1"


def test_an_instance_type_unknown_to_the_table_stays_unknown(lead: Lead) -> None:
    led = lead()
    led.open(sample("inf1_in_containers_real_trimmed.json"))
    assert led.source.devices()[0].model == "unknown Neuron device"
    with pytest.raises(UnknownDeviceError):
        table().resolve(led.source.devices()[0])


def test_idle_is_a_measured_zero_except_where_the_monitor_cannot_see(lead: Lead) -> None:
    document = sample("idle_no_runtime.json")
    led = counting(lead, document)
    (reading,) = led.after(1, doc=document)
    assert reading.work == Counted(0)
    assert led.source.devices()[0].model == "trainium"
    document["neuron_hardware_info"]["error"] = "driver does not answer"
    assert led.after(1, doc=document)[0].work == Gap(GapReason.DRIVER_ERROR)


def none_seen() -> dict[str, object]:
    """The document in a container without /dev/neuron*."""
    return {**idle(inf2()), "neuron_hardware_info": {"neuron_device_count": 0, "error": ""}}


def test_a_sidecar_without_devices_counts_by_sysfs_and_never_a_false_zero(lead: Lead, tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.work(0, 40, 0)
    led = lead(**sysfs.options)
    led.send(doc=none_seen())
    led.source = NeuronSource(led.clock, table(), Tree(str(sysfs.root), str(sysfs.module)), str(MONITOR))
    assert led.source.read().readings[0].work == Gap(GapReason.STARTING)
    sysfs.work(0, 45, 0)
    led.clock.advance(NS_PER_S)
    assert led.source.read().readings[0].work == Counted(5)
    (chip,) = led.source.devices()
    assert chip.evidence_reason == "neuron-monitor sees no device: counted from the driver's flop_count"
    assert chip.shared is not None
    assert not alive(led.pids()[0])


def two_runtimes(at: int) -> dict[str, Any]:
    """Two processes with a core each, both listing both cores, as pantheonneuron saw them."""
    first, second = json.loads((SAMPLES / "neuron_two_runtimes_same_device_utilisation.json").read_text())[at]
    document = inf2(period=1)
    document["neuron_runtime_data"].append(copy.deepcopy(document["neuron_runtime_data"][0]))
    document["neuron_runtime_data"][1]["pid"] = 2200
    for runtime, (mine, other, percent) in enumerate((("0", "1", first), ("1", "0", second))):
        counters(document, runtime)["neuroncores_in_use"] = {
            mine: {"effective_flops": round(percent * 10**10), "neuroncore_utilization": percent},
            other: {"effective_flops": 0, "neuroncore_utilization": 0},
        }
    return document


def test_a_core_is_the_sum_over_all_runtimes(lead: Lead) -> None:
    led = counting(lead, two_runtimes(0))
    counted = []
    for at in range(10):
        led.clock.advance(NS_PER_S)
        led.send(doc=two_runtimes(at))
        sweep = led.sweep()
        counted.append(flop(sweep.readings[0]))
    assert counted == [round(p * 10**10) for p in (0, 0, 107.8, 199.0, 199.6, 199.4, 165.0, 100.0, 91.8, 0)]
    led.clock.advance(NS_PER_S)
    led.send(doc=two_runtimes(2))
    assert led.sweep().gauges["neuron0"].utilization_ratio == pytest.approx((0.99 + 0.088) / 2)


def rates(document: dict[str, object]) -> tuple[int, ...]:
    """FLOP/s that each of the two runtimes reports for its core."""
    return tuple(counters(document, at)["neuroncores_in_use"][str(at)]["effective_flops"] for at in (0, 1))


def counted_of(lead: Lead, seconds: int, alter: Callable[[int, dict[str, Any]], None]) -> int:
    """The FLOP counted in some seconds, each with the two runtimes' document after `alter`."""
    led, counted = counting(lead, two_runtimes(3)), 0
    for second in range(seconds):
        led.clock.advance(NS_PER_S)
        document = two_runtimes(3)
        alter(second, document)
        led.send(repeated=True, doc=document)
        work = led.sweep().readings[0].work
        assert isinstance(work, Counted | Gap)
        counted += work.flop if isinstance(work, Counted) else work.counted_flop
    return counted


@pytest.mark.parametrize("is_stuck", [True, False], ids=["the-same-report", "a-period-of-three-seconds"])
def test_repeated_reports_of_one_of_two_runtimes_are_counted_once(lead: Lead, is_stuck: bool) -> None:
    """The other's reports cover the second that passed, so neither the document nor its period is the same."""

    def repeat(second: int, document: dict[str, Any]) -> None:
        for at, runtime in enumerate(document["neuron_runtime_data"]):
            runtime["address"] = "" if at and is_stuck else str(second)
        counters(document, 1)["period"] = 1 if is_stuck else 3

    first, other = rates(two_runtimes(3))
    most_seconds = 1 if is_stuck else 9 + 3 + 2  # the first period began before, and a document may come 2 s late
    assert 0 < counted_of(lead, 9, repeat) - 9 * first <= most_seconds * other


def test_a_report_repeated_after_a_document_without_it_is_counted_once(lead: Lead) -> None:
    def leave_out(second: int, document: dict[str, Any]) -> None:
        document["neuron_runtime_data"][0]["address"] = str(second)
        if second % 2:
            del document["neuron_runtime_data"][1]

    first, other = rates(two_runtimes(3))
    assert counted_of(lead, 9, leave_out) == 9 * first + other


def test_a_runtime_that_ends_does_not_affect_the_count_of_another(lead: Lead, tmp_path: Path) -> None:
    led = counting(lead, two_runtimes(3))
    run = Run(tmp_path / "state", devices=(), clock=led.clock)
    counted = []
    for runtimes in (2, 2, 1):
        led.clock.advance(NS_PER_S)
        document = two_runtimes(3)
        document["neuron_runtime_data"] = document["neuron_runtime_data"][:runtimes]
        led.send(doc=document)
        sweep = led.sweep()
        counted.append(sweep.readings[0].work)
        opened = led.source.describe() if len(counted) == 1 else None
        run.writer.take(Message("neuron", led.clock.boottime_ns(), tuple(led.source.devices()), sweep, opened=opened))
    run.finish()
    first, _ = json.loads((SAMPLES / "neuron_two_runtimes_same_device_utilisation.json").read_text())[3]
    alone = round(first * 10**10)
    assert counted[2] == Gap(GapReason.MISSED_READING, alone)
    device = payload_of(run.seal(tmp_path / "ledger.json").ledger)["predicate"]["devices"][0]
    known = sum(
        one.counted_flop if isinstance(one, Gap) else one.flop for one in counted if isinstance(one, Gap | Counted)
    )
    assert int(device["executed"]["measured"]) == known


def test_documents_with_their_own_clock_count_no_time_twice(lead: Lead) -> None:
    led = counting(lead, inf2(period=1))
    work: list[object] = []
    for _ in range(6):
        led.clock.advance(NS_PER_S)
        for _ in range(2):
            led.send(doc=inf2(period=1))
            work += [reading.work for reading in led.sweep().readings]
    assert [isinstance(one, Counted) for one in work] == [True] * 5 + [False] + [True, False] * 3
    assert work[-1] == Gap(GapReason.OVERLAP)


def test_a_document_printed_twice_counts_once(lead: Lead) -> None:
    led = counting(lead, inf2(period=1))
    documents = [inf2(period=1), inf2(period=1 + 2e-9)]
    work: list[object] = []
    for document in documents:
        led.clock.advance(NS_PER_S // 2)
        for printed in (document, *documents[: documents.index(document) + 1]):
            led.send(repeated=True, doc=printed)
        led.clock.advance(NS_PER_S // 2)
        work += [reading.work for reading in led.sweep().readings]
    wait_until(lambda: led.source.read() and led.source.describe()["repeated_reports"] == 3, "all documents")
    assert [isinstance(one, Counted) for one in work] == [True, True]
    led.send(repeated=True, doc=documents[0])
    wait_until(lambda: led.source.read() and led.source.describe()["repeated_reports"] == 4, "the last document")
    led.clock.advance(neuron.SILENT_NS + 1)
    assert [reading.work for reading in led.source.read().readings] == [Gap(GapReason.SOURCE_SILENT)]


def test_rates_are_integrated_over_their_own_periods_not_averaged(lead: Lead) -> None:
    lines = (SAMPLES / "neuron_effective_flops_trn1_8192cubed_series.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    rates = [round(float(row["effective_tflops"]) * 10**12) for row in rows]
    document = idle(sample("trn1_2xlarge_old_wandb.stream.jsonl"))
    led = counting(lead, document)
    counted = 0
    for rate, row in zip(rates, rows, strict=True):
        busy = copy.deepcopy(inf2(period=5))
        busy["neuron_hardware_info"] = document["neuron_hardware_info"]
        counters(busy)["neuroncores_in_use"]["0"] = {
            "effective_flops": rate, "neuroncore_utilization": float(row["neuroncore_utilization_pct"]),
        }  # fmt: skip
        counted += flop(led.after(5, doc=busy)[0])
    true = sum(rate * 5 for rate in rates)
    kernel = 71.93e12 * 30  # its own analytic rate, for as long as it ran
    averaged = sum(rates) / len(rates) * 30  # the first and the last period are partly busy
    assert counted == true
    assert counted == pytest.approx(kernel, rel=0.005)
    assert averaged < 0.87 * kernel


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        ({"error": "cannot open device"}, GapReason.DRIVER_ERROR),
        ({"period": 0}, GapReason.DRIVER_ERROR),
        ({"period": None}, GapReason.DRIVER_ERROR),
        ({"neuroncores_in_use": None}, GapReason.DRIVER_ERROR),
        ({"neuroncores_in_use": {"first": {"effective_flops": 1}}}, GapReason.DRIVER_ERROR),
        ({"neuroncores_in_use": {"0": {"effective_flops": "many"}}}, GapReason.NOT_A_NUMBER),
        ({"neuroncores_in_use": {"0": {"effective_flops": True}}}, GapReason.NOT_A_NUMBER),
        ({"neuroncores_in_use": {"0": {"effective_flops": float("nan")}}}, GapReason.NOT_A_NUMBER),
        ({"neuroncores_in_use": {"0": {"effective_flops": -1}}}, GapReason.OUT_OF_RANGE),
        ({"neuroncores_in_use": {"0": {"effective_flops": 1e300}}}, GapReason.OUT_OF_RANGE),
        ({"neuroncores_in_use": {"0": {"effective_flops": 1}, "1": {}}}, GapReason.NOT_SUPPORTED),
        ({"neuroncores_in_use": {"0": {"effective_flops": 0, "neuroncore_utilization": 89.4}}},
         GapReason.UNCOUNTED_WORK),
    ],
)  # fmt: skip
def test_an_implausible_value_is_a_gap_of_one_period(lead: Lead, group: dict[str, object], reason: GapReason) -> None:
    led = counting(lead, inf2())
    work = led.after(1, doc=inf2(**group))[0].work
    assert isinstance(work, Gap)
    assert (work.reason, work.counted_flop) == (
        reason,
        reason is GapReason.NOT_SUPPORTED,
    )  # from the core that shows it
    assert flop(led.after(SECOND, doc=inf2())[0]) == 876_173_407_187


def test_sysfs_names_the_chip_and_its_total_is_recorded(lead: Lead, tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.work(0, 5000, 7000)
    led = counting(lead, inf2(), **sysfs.options)
    (chip,) = led.source.devices()
    assert (chip.uid, chip.serial, chip.driver) == ("NEURON-000000a1b2c3d400", "000000a1b2c3d400", "2.30.2.0")
    (first,) = led.after(SECOND, doc=inf2())
    assert first.counters["neuron_sysfs_flop_begin"] == first.counters["neuron_sysfs_flop_total"] == 12_000
    sysfs.work(0, 5000 + INF2_FLOP, 7000)
    (second,) = led.after(SECOND, doc=inf2())
    grown = second.counters["neuron_sysfs_flop_total"] - first.counters["neuron_sysfs_flop_total"]
    assert flop(second) / grown == pytest.approx(1, rel=1e-7)
    sysfs.work(0, 5000 + 2 * INF2_FLOP, 7000)
    (third,) = led.after(SECOND, doc=inf2())
    assert third.counters["neuron_sysfs_live"] == 1
    assert led.source.describe()["sysfs_flop_count"] == "live"


def test_chips_renamed_by_the_monitor_are_not_missing(
    lead: Lead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monitor was slow to start, so sysfs named four chips at first; the monitor shows one of them to this
    container."""
    monkeypatch.setattr(neuron, "FIRST_DOCUMENT_SECONDS", 0.2)
    sysfs = Sysfs(tmp_path / "tree", chips=4)
    led = lead(**sysfs.options)
    settings = SourceSettings(led.clock, table(), {"monitor": str(MONITOR), **sysfs.options})
    source = led.source = open_source("neuron", settings)  # type: ignore[assignment]
    run = Run(tmp_path / "state", devices=(), clock=led.clock)

    def post(sweep: Sweep) -> None:
        run.writer.take(Message("sim", led.clock.boottime_ns(), tuple(source.devices()), sweep))

    post(source.read())
    assert len(run.writer.snapshot.devices) == 4
    for at in range(24):
        led.clock.advance(NS_PER_S)
        if at > 3:
            led.send(doc=inf2())
        post(led.sweep() if at > 3 else source.read())
    *old, one = run.writer.snapshot.devices
    assert one.device.uid == "neuron0"
    assert one.tally.span_ns > 23 * NS_PER_S
    assert [state.tally.job_ns for state in old] == [0] * 4
    assert (run.writer.snapshot.view.coverage_ppm or 0) > 750_000
    run.finish()
    run.seal(tmp_path / "out" / "ledger.json")


def test_chips_that_sysfs_shows_are_gaps_while_the_monitor_fails(lead: Lead, tmp_path: Path) -> None:
    sysfs, led = Sysfs(tmp_path), lead(**Sysfs(tmp_path / "tree").options)
    led.send(exit=1)
    led.source = open_source("neuron", SourceSettings(led.clock, table(), {"monitor": str(MONITOR),
                                                                           **sysfs.options}))  # type: ignore[assignment] # fmt: skip
    led.clock.advance(NS_PER_S)
    (reading,) = led.source.read().readings
    assert (reading.device, reading.work) == ("NEURON-000000a1b2c3d400", Gap(GapReason.SOURCE_DOWN))
    led.after(SECOND, doc=inf2())
    assert flop(led.after(SECOND, doc=inf2())[0]) == 876_173_407_187

"""Each metric family that flopsd shows, made of a snapshot. None raises for want of data.

Rows under one name are disjoint, so sum() over it is meaningful; the one exception, flopsd_run_flop,
says so in its HELP. Totals are ints until here and exported as the nearest float.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from flopsd import __version__
from flopsd.core.figures import gap_ceiling_flop, precision_label
from flopsd.core.ledger.devices import lasting_name
from flopsd.core.ledger.run_view import RunView
from flopsd.core.model import PPM, Evidence, Pipe
from flopsd.core.policy.bases import Bases
from flopsd.core.policy.finding import Verdict
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.snapshot import DeviceState, JournalState, Snapshot

_GPU = ("gpu", "uuid")


def flop(snapshot: Snapshot) -> Iterator[Metric]:
    measured = CounterMetricFamily(
        "flopsd_flop",
        "Floating-point operations executed, as measured; a count, not a rate. Gaps and intervals that were "
        "only bounded are not in it: see flopsd_flop_ceiling_total. Of pipes tensor (work that no counter of a kind "
        "accounts for), fp32, and all without a declared format, some may be integer operations.",
        labels=(*_GPU, "pipe", "precision", "evidence"),
    )
    integers = CounterMetricFamily(
        "flopsd_integer_operations",
        "Integer operations of the tensor cores, as measured; they are not in flopsd_flop_total. Absent for a device "
        "whose counters do not tell integers apart.",
        labels=(*_GPU, "evidence"),
    )
    ceiling = CounterMetricFamily(
        "flopsd_flop_ceiling",
        "The most that intervals can hold which were not measured as they passed (gaps, evidence utilization); a "
        "ceiling, not an estimate. Work recovered for a gap is in flopsd_flop_total and stays in here: a "
        "counter cannot fall. Absent for a device whose peak is unknown.",
        labels=_GPU,
    )
    for state in snapshot.devices:
        totals = _zeros(state)
        bound: int | None = 0
        for row in state.rows:
            if row.figures.measured_flop is None:
                if row.evidence is Evidence.UTILIZATION or (row.evidence is Evidence.GAP and row.pipe is not None):
                    bound = None if bound is None or row.figures.high_flop is None else bound + row.figures.high_flop
                continue
            if row.pipe is Pipe.TENSOR_IMMA:
                continue
            key = ("all" if row.pipe is None else row.pipe.value, row.precision, row.evidence.value)
            totals[key] = totals.get(key, 0) + row.figures.measured_flop
        for one in state.rated:
            if gap_ns := one.tally.total_gap_ns - one.tally.elsewhere_ns:
                most = gap_ceiling_flop(gap_ns, one.rating, one.table)
                bound = None if bound is None or most is None else bound + most
        gpu = _gpu(snapshot, state)
        for key, flop in totals.items():
            measured.add_metric((*gpu, *key), float(flop))
        for evidence, operations in _integers(state).items():
            integers.add_metric((*gpu, evidence.value), float(operations))
        if bound is not None:
            ceiling.add_metric(gpu, float(bound))
    yield from (measured, integers, ceiling, _run_flop(snapshot.view.bases), *_thresholds(snapshot.view))


def time_and_energy(snapshot: Snapshot) -> Iterator[Metric]:
    energy = CounterMetricFamily("flopsd_energy_joules", "Energy by the device's own counter.", labels=_GPU)
    observed = CounterMetricFamily(
        "flopsd_observed_seconds",
        "Device time that was observed, by evidence: cycles, activity and count measure, utilization only bounds.",
        labels=(*_GPU, "evidence"),
    )
    gaps = CounterMetricFamily(
        "flopsd_gap_seconds",
        "Device time that was not observed, or is not this job's to count, by reason.",
        labels=(*_GPU, "reason"),
    )
    recovered = CounterMetricFamily(
        "flopsd_recovered_seconds",
        "Gap time whose work running counters accounted for afterwards: it is in flopsd_flop_total.",
        labels=_GPU,
    )
    for state in snapshot.devices:
        gpu = _gpu(snapshot, state)
        if (energy_mj := state.energy_mj) is not None:
            energy.add_metric(gpu, energy_mj / 1000)
        for evidence, ns in state.observed_ns_by_evidence.items():
            observed.add_metric((*gpu, evidence.value), ns / NS_PER_S)
        for reason, ns in state.gap_ns_by_reason.items():
            gaps.add_metric((*gpu, reason.value), ns / NS_PER_S)
        recovered.add_metric(gpu, state.recovered_ns / NS_PER_S)
    yield from (energy, observed, gaps, recovered)


def gauges(snapshot: Snapshot) -> Iterator[Metric]:
    activity = GaugeMetricFamily(
        "flopsd_pipe_activity_ratio",
        "Share of the last interval's cycles in which the pipe was active.",
        labels=(*_GPU, "pipe"),
    )
    utilization = GaugeMetricFamily(
        "flopsd_utilization_ratio",
        "Share of time in which any kernel ran, by the driver; not a measure of how much was computed.",
        labels=_GPU,
    )
    clock = GaugeMetricFamily("flopsd_sm_clock_hertz", "SM clock at the last reading.", labels=_GPU)
    for state in snapshot.devices:
        gpu = _gpu(snapshot, state)
        if state.gauges is not None:
            for pipe, ratio in state.gauges.pipe_activity_ratio.items():
                activity.add_metric((*gpu, pipe.value), ratio)
            if state.gauges.utilization_ratio is not None:
                utilization.add_metric(gpu, state.gauges.utilization_ratio)
            if state.gauges.sm_clock_mhz is not None:
                clock.add_metric(gpu, state.gauges.sm_clock_mhz * 1e6)
    yield from (activity, utilization, clock)


def device_facts(snapshot: Snapshot) -> Iterator[Metric]:
    peak = GaugeMetricFamily(
        "flopsd_peak_flop_per_second",
        "Dense datasheet peak by pipe and format: the denominator of HFU and MFU.",
        labels=(*_GPU, "pipe", "precision"),
    )
    shared = GaugeMetricFamily(
        "flopsd_device_shared",
        "1 where the device is known to be shared: its FLOP are not all of this job.",
        labels=_GPU,
    )
    info = GaugeMetricFamily(
        "flopsd_device_info",
        "The device; always 1.",
        labels=(*_GPU, "model", "source", "evidence", "peak_row", "pci_bus_id", "driver"),
    )
    for state in snapshot.devices:
        gpu, device, part = _gpu(snapshot, state), state.device, state.now.rating.part
        slice_sm_count = device.sm_count if device.parent is not None else None
        for pipe, name, flop_per_second in part.datasheet_peaks(slice_sm_count) if part is not None else ():
            peak.add_metric((*gpu, "all" if pipe is None else pipe.value, name), float(flop_per_second))
        shared.add_metric(gpu, float(device.shared is not None))
        facts = (device.model, state.entry.source, device.evidence.value, state.entry.part_id or "unknown")
        info.add_metric((*gpu, *facts, device.pci_bus_id or "", device.driver or ""), 1)
    yield from (peak, info, shared)


def _run_flop(found: Bases) -> Metric:
    run = GaugeMetricFamily(
        "flopsd_run_flop",
        "Whole run, earlier daemon starts included. low, measured and high are bounds of "
        "ONE figure: never sum them. measured is absent while nothing was measured, high is +Inf "
        "while no ceiling is known. guidelines: what contributes to parameter updates; guidelines_cumulative: "
        "generated data too; architecture: counted from model and tokens, absent while no process declares them.",
        labels=("basis", "bound"),
    )
    counted = found.guidelines
    bases = {"executed": found.executed, "guidelines": counted.updates, "guidelines_cumulative": counted.cumulative}
    for basis, figures in bases.items():
        run.add_metric((basis, "low"), float(figures.low_flop))
        if figures.measured_flop is not None:
            run.add_metric((basis, "measured"), float(figures.measured_flop))
        run.add_metric((basis, "high"), float("inf") if figures.high_flop is None else float(figures.high_flop))
    if found.declarations.architecture is not None:
        required = found.declarations.architecture.counted.required
        run.add_metric(("architecture", "low"), float(required.low))
        if required.computed is not None:
            run.add_metric(("architecture", "computed"), float(required.computed))
        run.add_metric(("architecture", "high"), float("inf") if required.high is None else float(required.high))
    return run


def _thresholds(view: RunView) -> Iterator[Metric]:
    threshold = GaugeMetricFamily(
        "flopsd_threshold_flop",
        "Threshold of a policy's rule that applies to this run; low and high differ where the base model's compute is "
        "an estimate.",
        labels=("policy", "rule", "bound"),
    )
    verdict = GaugeMetricFamily(
        "flopsd_verdict",
        "1 for the state of a rule: below and above are certain, indeterminate is not known. Rules that do not apply "
        "are absent. Indicative, no legal advice.",
        labels=("policy", "rule", "state"),
    )
    share = GaugeMetricFamily(
        "flopsd_threshold_ratio",
        "The run's FLOP as a ratio of a threshold: low is certain, high a ceiling and not an estimate, measured "
        "absent where either is only bounded. Never sum bounds. quantity: base+ includes the base model's compute.",
        labels=("policy", "rule", "quantity", "bound"),
    )
    for finding in view.findings:
        if finding.state is None:
            continue
        name = (finding.policy, finding.rule.id)
        for state in Verdict:
            verdict.add_metric((*name, state.value), float(finding.state is state))
        if finding.limit is not None:
            threshold.add_metric((*name, "low"), float(finding.limit.low))
            if finding.limit.high is not None:
                threshold.add_metric((*name, "high"), float(finding.limit.high))
        for bound, ppm in zip(("low", "measured", "high"), finding.share_ppm, strict=True):
            if ppm is not None:
                share.add_metric((*name, finding.quantity, bound), ppm / PPM)
    yield from (threshold, verdict, share)


def run_facts(snapshot: Snapshot) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "flopsd_run_info",
        'The run; always 1. replay="true": read from a recording, no hardware was metered.',
        labels=("run_id", "node", "platform", "replay"),
    )
    info.add_metric((snapshot.view.run, snapshot.view.node, snapshot.platform, str(snapshot.replay).lower()), 1)
    yield info
    build = GaugeMetricFamily(
        "flopsd_build_info", "This flopsd; always 1.", labels=("version", "python", "peak_table_sha256")
    )
    build.add_metric((__version__, platform.python_version(), snapshot.table.sha256), 1)
    yield build
    yield GaugeMetricFamily(
        "flopsd_daemon_starts", "How often the daemon was started for this run.", snapshot.view.start
    )


def sources(snapshot: Snapshot) -> Iterator[Metric]:
    up = GaugeMetricFamily("flopsd_source_up", "1 while the source answers.", labels=("source",))
    errors = CounterMetricFamily(
        "flopsd_source_errors", "Readings that became gaps, by reason.", labels=("source", "reason")
    )
    duration = GaugeMetricFamily(
        "flopsd_source_read_duration_seconds", "Time that the last read took.", labels=("source",)
    )
    last = GaugeMetricFamily(
        "flopsd_last_reading_timestamp_seconds",
        "When the source last gave a reading that was not a gap.",
        labels=("source",),
    )
    for name, state in snapshot.sources.items():
        if state.absent:
            continue
        up.add_metric((name,), float(state.up))
        for reason, count in state.errors.items():
            errors.add_metric((name, reason), count)
        if state.read_seconds is not None:
            duration.add_metric((name,), state.read_seconds)
        if state.last_reading_wall_ns is not None:
            last.add_metric((name,), state.last_reading_wall_ns / NS_PER_S)
    yield from (up, errors, duration, last)


def journal(snapshot: Snapshot) -> Iterator[Metric]:
    yield CounterMetricFamily("flopsd_journal_records", "Records in the journal.", snapshot.journal_records)
    append = GaugeMetricFamily("flopsd_journal_last_append_timestamp_seconds", "When a record was last made durable.")
    if snapshot.journal_last_append_wall_ns is not None:
        append.add_metric((), snapshot.journal_last_append_wall_ns / NS_PER_S)
    yield append
    yield GaugeMetricFamily(
        "flopsd_journal_writable",
        "0 while the journal cannot be written and totals are only in memory.",
        float(not snapshot.journal_fault),
    )


def journal_state(state: JournalState) -> Iterator[Metric]:
    yield GaugeMetricFamily("flopsd_time_seconds", "The host's wall clock at the scrape.", state.wall_ns / NS_PER_S)
    if state.seal_every_ns is None:
        return
    yield GaugeMetricFamily(
        "flopsd_ledger_seal_interval_seconds",
        "Time between rolling seals; absent without rolling seals.",
        state.seal_every_ns / NS_PER_S,
    )
    last = GaugeMetricFamily(
        "flopsd_ledger_last_seal_timestamp_seconds",
        "When this daemon last sealed the ledger and copied it to every destination; absent before the first time.",
    )
    if state.last_seal_wall_ns is not None:
        last.add_metric((), state.last_seal_wall_ns / NS_PER_S)
    yield last
    yield CounterMetricFamily(
        "flopsd_ledger_seal_failures",
        "Rolling seals that failed, or could not be copied to a destination.",
        state.seal_failures,
    )


def _zeros(state: DeviceState) -> dict[tuple[str, str, str], int]:
    """Every pipe that counters have covered, at a measured zero, so that increase() sees the first work.

    A cumulative counter that was read once is at a measured zero already.
    """
    return {
        (pipe.value, precision_label(pipe, one.rating), evidence.value): 0
        for one in state.rated
        if one.rating.part is not None
        for evidence in (*one.tally.observed_ns, *(() if one.tally.totals is None else (Evidence.CYCLES,)))
        if evidence in (Evidence.CYCLES, Evidence.ACTIVITY)
        for pipe in Pipe
        if pipe is not Pipe.TENSOR_IMMA
    }


def _integers(state: DeviceState) -> dict[Evidence, int]:
    """Measured integer operations by evidence; none where the device's counters never told integers apart."""
    if state.integers.measured_flop is None:
        return {}
    found = dict.fromkeys((Evidence(evidence) for _, _, evidence in _zeros(state)), 0)
    for row in state.rows:
        if operations := row.integers.measured_flop:
            found[row.evidence] = found.get(row.evidence, 0) + operations
    return found


def _gpu(snapshot: Snapshot, state: DeviceState) -> tuple[str, str]:
    return str(state.device.index), lasting_name(state.device, snapshot.view.node)

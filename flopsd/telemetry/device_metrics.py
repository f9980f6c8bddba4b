"""The metric families of devices, made from a snapshot. Missing data never raises.

Rows under one name are disjoint, so sum() over a name is meaningful. Totals are ints up to here and are exported as the
nearest float.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from flopsd.core.ledger.run_view import DeviceView
from flopsd.core.model import DeviceUid, Evidence, Pipe
from flopsd.core.rows import UNDECLARED, gap_ceiling_flop, precision_label
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.families import Family, at_most, counter, gauge
from flopsd.telemetry.snapshot import DeviceState, Snapshot

_GPU = ("gpu", "uuid")
RunDevices: TypeAlias = Sequence[tuple[tuple[str, str], DeviceView]]
MeteredDevices: TypeAlias = Sequence[tuple[tuple[str, str], DeviceState]]
_FLOATING = tuple(pipe for pipe in Pipe if pipe is not Pipe.TENSOR_IMMA)
_COUNTED = ("all", UNDECLARED, Evidence.OPERATOR_COUNT.value)
_REFERENCE = "bf16"  # MFU is a share of this format's peak, whatever ran


def metered_devices(snapshot: Snapshot) -> MeteredDevices:
    """Each device that this daemon start meters, with the values of its labels `gpu` and `uuid`."""
    return [(_labels(state, snapshot), state) for state in snapshot.devices]


def run_devices(snapshot: Snapshot) -> RunDevices:
    """All devices of the run, with the same labels, including those that only earlier daemon starts metered."""
    return [(_labels(view, snapshot), view) for view in snapshot.view.devices]


def _labels(view: DeviceView, snapshot: Snapshot) -> tuple[str, str]:
    return str(view.device.index), view.device.unique_name(snapshot.view.node)


class Highest:
    """The highest count of FLOP by each device's processes so far. Such a count is withdrawn if a counter measures the
    same work later, or if the count proves too high; a counter metric must not fall."""

    def __init__(self) -> None:
        self._flop: dict[str, int] = {}

    def of(self, uid: DeviceUid, flop: int | None) -> int | None:
        """The highest count including `flop`; None if the device's processes have never counted."""
        known = self._flop.get(uid)
        if flop is not None and (known is None or flop > known):
            known = self._flop[uid] = flop
        return known


def flop(gpus: RunDevices, highest: Highest) -> Iterator[Family]:
    measured = counter("flopsd_flop", labels=(*_GPU, "pipe", "precision", "evidence"))
    integers = counter("flopsd_integer_operations", labels=(*_GPU, "evidence"))
    ceiling = counter("flopsd_flop_ceiling", labels=_GPU)
    for gpu, state in gpus:
        zeros = _zeros(state)
        totals = dict(zeros)
        bound: int | None = 0
        for row in state.rows:
            if row.figures.measured_flop is None:
                if row.evidence is Evidence.UTILIZATION or (row.evidence is Evidence.GAP and row.pipe is not None):
                    bound = None if bound is None or row.figures.high_flop is None else bound + row.figures.high_flop
                continue
            if row.pipe is Pipe.TENSOR_IMMA:
                continue
            key = ("all" if row.pipe is None else row.pipe._value_, row.precision, row.evidence._value_)
            totals[key] = totals.get(key, 0) + row.figures.measured_flop
        for one in state.rated:
            if gap_ns := one.tally.total_gap_ns - one.tally.elsewhere_ns:
                most = gap_ceiling_flop(gap_ns, one.rating) if one.tally.is_bounded else None
                bound = None if bound is None or most is None else bound + most
        if (counted := highest.of(state.device.uid, totals.get(_COUNTED))) is not None:
            totals[_COUNTED] = counted
        for key, flop in totals.items():
            measured.add((*gpu, *key), float(flop))
        for evidence, operations in _integers(state, zeros).items():
            integers.add((*gpu, evidence), float(operations))
        if bound is not None:
            ceiling.add(gpu, at_most(bound))
    yield from (measured, integers, ceiling)


def time_and_energy(gpus: RunDevices) -> Iterator[Family]:
    energy = counter("flopsd_energy_joules", labels=_GPU)
    observed = counter("flopsd_observed_seconds", labels=(*_GPU, "evidence"))
    gaps = counter("flopsd_gap_seconds", labels=(*_GPU, "reason"))
    recovered = counter("flopsd_recovered_seconds", labels=_GPU)
    for gpu, state in gpus:
        if (energy_mj := state.energy_mj) is not None:
            energy.add(gpu, energy_mj / 1000)
        for evidence, ns in state.observed_ns_by_evidence.items():
            observed.add((*gpu, evidence._value_), ns / NS_PER_S)
        for reason, ns in state.gap_ns_by_reason.items():
            gaps.add((*gpu, reason._value_), ns / NS_PER_S)
        recovered.add(gpu, state.recovered_ns / NS_PER_S)
    yield from (energy, observed, gaps, recovered)


def gauges(gpus: MeteredDevices) -> Iterator[Family]:
    activity = gauge("flopsd_pipe_activity_ratio", labels=(*_GPU, "pipe"))
    utilization = gauge("flopsd_utilization_ratio", labels=_GPU)
    clock = gauge("flopsd_sm_clock_hertz", labels=_GPU)
    for gpu, state in gpus:
        if state.gauges is not None:
            for pipe, ratio in state.gauges.pipe_activity_ratio.items():
                activity.add((*gpu, pipe._value_), ratio)
            if state.gauges.utilization_ratio is not None:
                utilization.add(gpu, state.gauges.utilization_ratio)
            if state.gauges.sm_clock_mhz is not None:
                clock.add(gpu, state.gauges.sm_clock_mhz * 1e6)
    yield from (activity, utilization, clock)


def up(gpus: MeteredDevices) -> Iterator[Family]:
    found = gauge("flopsd_device_up", labels=_GPU)
    for gpu, state in gpus:
        if (is_up := state.is_up) is not None:
            found.add(gpu, float(is_up))
    yield found


def device_facts(gpus: MeteredDevices) -> Iterator[Family]:
    peak = gauge("flopsd_peak_flop_per_second", labels=(*_GPU, "pipe", "precision"))
    info = gauge(
        "flopsd_device_info",
        labels=(
            *_GPU, "model", "source", "evidence", "peak_row", "pci_bus_id", "driver", "shared", "gpu_instance_id",
            "profile", "parent",
        ),
    )  # fmt: skip
    for gpu, state in gpus:
        device, part = state.device, state.now.rating.part
        slice_sm_count = device.sm_count if device.parent is not None else None
        for pipe, name, flop_per_second in part.datasheet_peaks(slice_sm_count) if part is not None else ():
            if name in (_REFERENCE, precision_label(pipe, state.now.rating)):
                peak.add((*gpu, "all" if pipe is None else pipe.value, name), float(flop_per_second))
        facts = (device.model, state.entry.source, device.evidence.value, state.entry.part_id or "unknown")
        shared = str(device.shared is not None).lower()
        instance = "" if device.gpu_instance is None else str(device.gpu_instance)
        mig = (instance, device.mig_profile or "", device.parent or "")
        info.add((*gpu, *facts, device.pci_bus_id or "", device.driver or "", shared, *mig), 1)
    yield from (peak, info)


def _zeros(state: DeviceView) -> dict[tuple[str, str, str], int]:
    """A measured zero for every pipe that the current counters have covered, so that increase() sees the first work. A
    cumulative counter gives a measured zero once it was read. Zeros of evidence that is no longer used are left out:
    they would add a series for each pipe for the rest of the run."""
    one, newest = state.now, state.device.evidence
    if one.rating.part is None:
        return {}
    covered = {evidence for evidence in (Evidence.CYCLES, Evidence.ACTIVITY) if evidence in one.tally.observed_ns}
    if one.tally.totals is not None:
        covered.add(Evidence.CYCLES)
    if Evidence.CYCLES in covered and newest is not Evidence.ACTIVITY:
        covered.discard(Evidence.ACTIVITY)
    return {
        (pipe._value_, precision_label(pipe, one.rating), evidence._value_): 0
        for evidence in sorted(covered)
        for pipe in _FLOATING
    }


def _integers(state: DeviceView, zeros: Iterable[tuple[str, str, str]]) -> dict[str, int]:
    """Measured integer operations by evidence; empty if the device's counters never distinguished integers."""
    if state.integers.measured_flop is None:
        return {}
    found = {evidence: 0 for _, _, evidence in zeros}
    for row in state.rows:
        if operations := row.integers.measured_flop:
            found[row.evidence._value_] = found.get(row.evidence._value_, 0) + operations
    return found

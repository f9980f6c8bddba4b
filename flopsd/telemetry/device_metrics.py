"""The metric families of devices, made from a snapshot. Missing data never raises.

Rows under one name are disjoint, so sum() over a name is meaningful. Totals are ints up to here and are exported as the
nearest float.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.ledger.run_view import DeviceView
from flopsd.core.model import DeviceUid, Evidence, Pipe
from flopsd.core.rows import UNDECLARED, Rating, precision_label
from flopsd.core.values import added, sum_if_all_known
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.families import Family, at_most, counter, gauge
from flopsd.telemetry.snapshot import DeviceState, Snapshot

_GPU = ("gpu", "uuid")
RunDevices: TypeAlias = Sequence[tuple[tuple[str, str], DeviceView]]
MeteredDevices: TypeAlias = Sequence[tuple[tuple[str, str], DeviceState]]
Counter: TypeAlias = tuple[str, str, str]  # pipe, number format and evidence
_FLOATING = tuple(pipe for pipe in Pipe if pipe is not Pipe.TENSOR_IMMA)
_COUNTED = ("all", UNDECLARED, Evidence.OPERATOR_COUNT.value)
_REFERENCE = "bf16"  # MFU is a share of this format's peak, whatever ran


class Labels:
    """The values of the labels `gpu` and `uuid` of each device, made once for each description of it."""

    def __init__(self) -> None:
        self._known: dict[DeviceUid, tuple[DeviceEntry, str, tuple[str, str]]] = {}

    def of(self, entry: DeviceEntry, node: str) -> tuple[str, str]:
        device = entry.device
        known = self._known.get(device.uid)
        if known is None or known[0] is not entry or known[1] != node:
            labels = (str(device.index), device.unique_name(node))
            known = self._known[device.uid] = entry, node, labels
        return known[2]


def metered_devices(snapshot: Snapshot, labels: Labels) -> MeteredDevices:
    """Each device that this daemon start meters, with its labels."""
    node = snapshot.view.node
    return [(labels.of(state.rated[-1].entry, node), state) for state in snapshot.devices]


def run_devices(snapshot: Snapshot, labels: Labels) -> RunDevices:
    """The same of all devices of the run, including those that only earlier daemon starts metered."""
    node = snapshot.view.node
    return [(labels.of(view.rated[-1].entry, node), view) for view in snapshot.view.devices]


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


class Zeros:
    """A measured zero for every pipe that a device's current counters have covered, so that increase() sees the first
    work. A cumulative counter gives a measured zero once it was read. Zeros of evidence that is no longer used are left
    out: they would add a series for each pipe for the rest of the run."""

    def __init__(self) -> None:
        self._known: dict[DeviceUid, tuple[Rating, set[Evidence], dict[Counter, int]]] = {}

    def of(self, state: DeviceView) -> Mapping[Counter, int]:
        one = state.rated[-1]
        rating, tally, device = one.rating, one.tally, one.entry.device
        if rating.part is None:
            return {}
        covered = {evidence for evidence in (Evidence.CYCLES, Evidence.ACTIVITY) if evidence in tally.observed_ns}
        if tally.totals is not None:
            covered.add(Evidence.CYCLES)
        if Evidence.CYCLES in covered and device.evidence is not Evidence.ACTIVITY:
            covered.discard(Evidence.ACTIVITY)
        known = self._known.get(device.uid)
        if known is None or known[0] is not rating or known[1] != covered:
            found = {
                (pipe._value_, precision_label(pipe, rating), evidence._value_): 0
                for evidence in sorted(covered)
                for pipe in _FLOATING
            }
            known = self._known[device.uid] = rating, covered, found
        return known[2]


def flop(gpus: RunDevices, highest: Highest, zeros: Zeros) -> Iterator[Family]:
    measured = counter("flopsd_flop", labels=(*_GPU, "pipe", "precision", "evidence"))
    integers = counter("flopsd_integer_operations", labels=(*_GPU, "evidence"))
    ceiling = counter("flopsd_flop_ceiling", labels=_GPU)
    for gpu, state in gpus:
        none, parts = zeros.of(state), [one.counter_totals for one in state.rated]
        totals = added(none, *[part.flop for part in parts])
        for row in state.operator_rows:
            if row.figures.measured_flop is not None:
                totals[_COUNTED] = totals.get(_COUNTED, 0) + row.figures.measured_flop
        if (most := highest.of(state.rated[-1].entry.device.uid, totals.get(_COUNTED))) is not None:
            totals[_COUNTED] = most
        measured.add_each(gpu, totals, totals.values())
        # None of all: the device's counters never distinguished integers.
        if any(one.integers.measured_flop is not None for one in state.rated):
            operations = added({evidence: 0 for _, _, evidence in none}, *[part.integers for part in parts])
            integers.add_each(gpu, [(evidence,) for evidence in operations], operations.values())
        if (bound := sum_if_all_known([part.not_measured for part in parts])) is not None:
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
            ratios = state.gauges.pipe_activity_ratio
            activity.add_each(gpu, [(pipe._value_,) for pipe in ratios], ratios.values())
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

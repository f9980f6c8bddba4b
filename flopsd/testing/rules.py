"""Rules for a source's devices and readings beyond what `sources.validate` refuses, which is already checked. Each rule
yields a sentence for each breach. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flopsd.core.dataclass import dataclass
from flopsd.core.meter import max_plausible_sm_cycles
from flopsd.core.model import (
    Active,
    Busy,
    Counted,
    Device,
    DeviceUid,
    Evidence,
    Gap,
    Growth,
    Limits,
    Pipe,
    Reading,
    Sweep,
    Totals,
)
from flopsd.core.running_counters import COUNTER_REFRESH_NS
from flopsd.sources import SourceInfo

_STRENGTH = {evidence: rank for rank, evidence in enumerate(Evidence)}


@dataclass(frozen=True, slots=True)
class Read:
    """One read: the clock after it, the devices listed before and after it, and its result."""

    now_ns: int
    before: tuple[Device, ...]
    after: tuple[Device, ...]
    sweep: Sweep

    def device(self, uid: DeviceUid) -> Device | None:
        return next((device for device in (*self.after, *self.before) if device.uid == uid), None)


@dataclass(frozen=True, slots=True)
class Observation:
    """A source, observed from just before it was opened, over several reads."""

    opened_ns: int
    reads: tuple[Read, ...]

    def readings(self) -> Iterator[tuple[Read, Reading]]:
        for read in self.reads:
            for reading in read.sweep.readings:
                yield read, reading


def identities(devices: Sequence[Device], info: SourceInfo) -> Iterator[str]:
    if not devices:
        yield "no device is listed: a source that finds none raises SourceUnavailableError when it is opened"
    for device in devices:
        for what in ("vendor", "model"):
            if not getattr(device, what).strip():
                yield f"device {device.uid!r} has no {what}"
        if info.vendor and device.vendor != info.vendor:
            yield f"device {device.uid!r} has the vendor {device.vendor!r}, the source declares {info.vendor!r}"
        if device.evidence not in (*info.evidence, Evidence.GAP):
            yield f"device {device.uid!r} has evidence {device.evidence.value}, which the source does not declare"
        elif device.evidence is not info.evidence[0] and not device.evidence_reason.strip():
            yield f"device {device.uid!r} has evidence {device.evidence.value} and no evidence_reason why not better"


def membership(observation: Observation) -> Iterator[str]:
    for read in observation.reads:
        for uid in [*(reading.device for reading in read.sweep.readings), *read.sweep.gauges]:
            if read.device(uid) is None:
                yield f"a reading or gauge names {uid!r}, which devices() does not list"


def intervals(observation: Observation) -> Iterator[str]:
    ends: dict[DeviceUid, int] = {}
    for read, reading in observation.readings():
        where = f"{reading.device}: [{reading.begin_ns}, {reading.end_ns})"
        if reading.end_ns > read.now_ns:
            yield f"{where} ends {reading.end_ns - read.now_ns} ns in the future of the clock that was given"
        if reading.begin_ns < observation.opened_ns:
            yield f"{where} begins {observation.opened_ns - reading.begin_ns} ns before the source was opened"
        last_ns = ends.get(reading.device, reading.begin_ns)
        if reading.begin_ns != last_ns:
            kind = "leaves a hole of" if reading.begin_ns > last_ns else "overlaps by"
            yield f"{where} {kind} {abs(reading.begin_ns - last_ns)} ns behind the reading before it"
        ends[reading.device] = reading.end_ns


def works(observation: Observation) -> Iterator[str]:
    """No more work than the device can do, and uncertainty only for counted pipes."""
    for read, reading in observation.readings():
        where, work = f"{reading.device} until {reading.end_ns}", reading.work
        possible = _possible(read.device(reading.device), reading.end_ns - reading.begin_ns)
        if isinstance(work, Active):
            yield from _impossible(where, work.sm_cycles, possible)
            yield from _impossible(f"{where}, doubt", work.uncertainty_sm_cycles, possible)
            if not work.uncertainty_sm_cycles.keys() <= work.sm_cycles.keys():
                yield f"{where}: doubt about a pipe that was not counted"
        elif isinstance(work, Busy):
            yield from _impossible(where, {"busy": work.sm_cycles}, possible)


def unread(observation: Observation) -> Iterator[str]:
    """A pipe is either read or unread."""
    for _, reading in observation.readings():
        work, counted = reading.work, set[Pipe]()
        if isinstance(work, Active):
            counted = set(work.sm_cycles)
        elif isinstance(work, Growth) and reading.totals is not None:
            counted = set(reading.totals.sm_cycles)
        if isinstance(work, Active | Growth):
            for pipe in counted.intersection(work.unread):
                yield f"{reading.device}: {pipe.value} is counted, and listed as unread"


def totals(observation: Observation) -> Iterator[str]:
    """Running counters of one origin keep their pipes and only grow, no faster than the device can."""
    last: dict[tuple[DeviceUid, str], tuple[int, Totals]] = {}
    for read, reading in observation.readings():
        where, now = f"{reading.device} until {reading.end_ns}", reading.totals
        if now is None:
            if isinstance(reading.work, Growth):
                yield f"{where}: Growth without totals"
            continue
        known = last.get((reading.device, now.origin))
        last[reading.device, now.origin] = (reading.end_ns, now)
        if known is None:
            continue
        then_ns, before = known
        if before.sm_cycles.keys() != now.sm_cycles.keys():
            yield f"{where}: other pipes than before under one origin"
            continue
        if now.elapsed_sm_cycles == before.elapsed_sm_cycles and reading.end_ns - then_ns > COUNTER_REFRESH_NS:
            yield f"{where}: no cycle elapsed in {reading.end_ns - then_ns} ns: counters that stand still are a gap"
        possible = _possible(read.device(reading.device), reading.end_ns - then_ns + COUNTER_REFRESH_NS)
        grown = {pipe.value: cycles - before.sm_cycles[pipe] for pipe, cycles in now.sm_cycles.items()}
        for what, by in {"elapsed": now.elapsed_sm_cycles - before.elapsed_sm_cycles, **grown}.items():
            if by < 0:
                yield f"{where}: {what} fell by {-by} under one origin"
            elif possible is not None and by > possible:
                yield f"{where}: {what} grew by {by} SM-cycles, the device has {possible} in that time"


def coverage(observation: Observation) -> Iterator[str]:
    """Each device is read, with no stronger evidence than promised."""
    found: dict[DeviceUid, set[type]] = {}
    for read, reading in observation.readings():
        found.setdefault(reading.device, set()).add(type(reading.work))
        given = _evidence(reading)
        promised = [device.evidence for device in (*read.before, *read.after) if device.uid == reading.device]
        if given is not None and promised and _STRENGTH[given] < min(_STRENGTH[evidence] for evidence in promised):
            yield f"{reading.device}: gave {given.value}, which is better than the evidence that devices() promises"
    if not observation.reads:
        return
    for device in observation.reads[-1].after:
        kinds = found.get(device.uid)
        if kinds is None:
            yield f"{device.uid}: listed, and not one reading in {len(observation.reads)} reads: silence is not a gap"
        elif kinds == {Gap} and device.evidence is not Evidence.GAP:
            yield f"{device.uid}: promises {device.evidence.value} and gave gaps only"


def work_done(readings: Iterable[Reading]) -> dict[DeviceUid, tuple[int, int, Counter[str]]]:
    """By device: begin, end, and the sum of everything in its readings."""
    done: dict[DeviceUid, tuple[int, int, Counter[str]]] = {}
    for reading in readings:
        begin_ns, _, sums = done.get(reading.device, (reading.begin_ns, 0, Counter[str]()))
        work = reading.work
        if isinstance(work, Active):
            sums.update({f"{work.evidence.value} {pipe.value}": cycles for pipe, cycles in work.sm_cycles.items()})
        elif isinstance(work, Busy):
            sums["busy"] += work.sm_cycles
        elif isinstance(work, Counted):
            sums["flop"] += work.flop
        elif isinstance(work, Gap):
            sums[f"gap {work.reason.value}"] += reading.end_ns - reading.begin_ns
            sums["flop"] += work.counted_flop
        if reading.totals is not None:
            for pipe, cycles in reading.totals.sm_cycles.items():
                sums[f"total {pipe.value}"] = cycles
        done[reading.device] = (begin_ns, reading.end_ns, sums)
    return done


def _evidence(reading: Reading) -> Evidence | None:
    if isinstance(reading.work, Active):
        return reading.work.evidence
    kinds: dict[type, Evidence] = {Growth: Evidence.CYCLES, Counted: Evidence.COUNT, Busy: Evidence.UTILIZATION}
    return kinds.get(type(reading.work))


def _possible(device: Device | None, duration_ns: int) -> int | None:
    """SM-cycles that a device can have; None unless its SM count and clock are known."""
    if device is None or not device.sm_count or not device.sm_clock_max_mhz:
        return None
    return max_plausible_sm_cycles(Limits(device.sm_count, device.sm_clock_max_mhz), duration_ns)


def _impossible(where: str, amounts: Mapping[Pipe, int] | Mapping[str, int], possible: int | None) -> Iterator[str]:
    for what, cycles in amounts.items():
        if possible is not None and cycles > possible:
            name = what.value if isinstance(what, Pipe) else what
            yield f"{where}: {cycles} SM-cycles of {name}, the device has {possible} in that time"

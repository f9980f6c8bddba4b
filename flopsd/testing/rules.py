"""What must be true of a source's devices and readings. Each rule yields a sentence for each breach. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

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
    GapReason,
    Growth,
    Limits,
    Pipe,
    Reading,
    Sweep,
    Totals,
)
from flopsd.core.running_counters import COUNTER_REFRESH_NS
from flopsd.sources import SourceInfo
from flopsd.sources.validate import is_count, unfit_facts

_STRENGTH = {evidence: rank for rank, evidence in enumerate(Evidence)}


@dataclass(frozen=True, slots=True)
class Read:
    """One read: the clock behind it, the devices listed before and behind it, and what it gave."""

    now_ns: int
    before: tuple[Device, ...]
    after: tuple[Device, ...]
    sweep: Sweep

    def device(self, uid: DeviceUid) -> Device | None:
        return next((device for device in (*self.after, *self.before) if device.uid == uid), None)


@dataclass(frozen=True, slots=True)
class Observation:
    """A source from just before it was opened, read several times."""

    opened_ns: int
    reads: tuple[Read, ...]

    def readings(self) -> Iterator[tuple[Read, Reading]]:
        for read in self.reads:
            for reading in read.sweep.readings:
                yield read, reading


def identities(devices: Iterable[Device], info: SourceInfo) -> Iterator[str]:
    listed = tuple(devices)
    if not listed:
        yield "no device is listed: a source that finds none raises SourceUnavailableError when it is opened"
    for uid, times in Counter(device.uid for device in listed).items():
        if times > 1:
            yield f"{times} devices have the uid {uid!r}"
    for device in listed:
        for what in ("uid", "vendor", "model"):
            text: Any = getattr(device, what)
            if not isinstance(text, str) or not text.strip():
                yield f"device {device.uid!r} has the {what} {text!r}, which is not text"
        if not is_count(device.index):
            yield f"device {device.uid!r} has the index {device.index!r}"
        if info.vendor and device.vendor != info.vendor:
            yield f"device {device.uid!r} has the vendor {device.vendor!r}, the source declares {info.vendor!r}"
        for what in ("sm_count", "sm_clock_max_mhz"):
            value = getattr(device, what)
            if value is not None and (not is_count(value) or value == 0):
                yield f"device {device.uid!r} has the {what} {value!r}: unknown is None, never zero"
        evidence: Any = device.evidence
        if not isinstance(evidence, Evidence):
            yield f"device {device.uid!r} has the evidence {evidence!r}, which is not an Evidence"
        elif evidence not in (*info.evidence, Evidence.GAP):
            yield f"device {device.uid!r} has evidence {evidence.value}, which the source does not declare"
        elif evidence is not info.evidence[0] and not device.evidence_reason.strip():
            yield f"device {device.uid!r} has evidence {evidence.value} and no evidence_reason why not better"


def membership(observation: Observation) -> Iterator[str]:
    for read in observation.reads:
        if not is_count(read.sweep.patience_ns):
            yield f"patience_ns is {read.sweep.patience_ns!r}"
        for uid in [*(reading.device for reading in read.sweep.readings), *read.sweep.gauges]:
            if read.device(uid) is None:
                yield f"a reading or gauge names {uid!r}, which devices() does not list"


def intervals(observation: Observation) -> Iterator[str]:
    ends: dict[DeviceUid, int] = {}
    for read, reading in observation.readings():
        where = f"{reading.device}: [{reading.begin_ns}, {reading.end_ns})"
        if not is_count(reading.begin_ns) or not is_count(reading.end_ns):
            yield f"{where} is not in whole nanoseconds"
            continue
        if reading.begin_ns >= reading.end_ns:
            yield f"{where} is empty: where nothing is new, give no reading"
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
    """Counts are counts, of pipes, and no more than the device has."""
    for read, reading in observation.readings():
        where, device = f"{reading.device} until {reading.end_ns}", read.device(reading.device)
        work: Any = reading.work
        possible = _possible(device, reading.end_ns - reading.begin_ns)
        if isinstance(work, Active):
            if work.evidence not in (Evidence.CYCLES, Evidence.ACTIVITY):
                yield f"{where}: Active with evidence {work.evidence!r}"
            yield from _cycles(where, work.sm_cycles, possible)
            yield from _cycles(f"{where}, doubt", work.uncertainty_sm_cycles, possible)
            if not work.uncertainty_sm_cycles.keys() <= work.sm_cycles.keys():
                yield f"{where}: doubt about a pipe that was not counted"
        elif isinstance(work, Busy):
            yield from _cycles(where, {"busy": work.sm_cycles}, possible)
        elif isinstance(work, Counted):
            if not is_count(work.flop):
                yield f"{where}: {work.flop!r} FLOP is not a count"
        elif isinstance(work, Gap):
            reason: Any = work.reason
            if not isinstance(reason, GapReason):
                yield f"{where}: a gap whose reason {reason!r} is not a GapReason"
            if not is_count(work.counted_flop):
                yield f"{where}: {work.counted_flop!r} FLOP in a gap are not a count"
        elif not isinstance(work, Growth):
            yield f"{where}: work is {type(work).__name__}"


def unread(observation: Observation) -> Iterator[str]:
    """A pipe was read or it was not."""
    for _, reading in observation.readings():
        if isinstance(reading.work, Active):
            counted: set[Any] = set(reading.work.sm_cycles)
        elif isinstance(reading.work, Growth):
            counted = set(reading.totals.sm_cycles) if reading.totals is not None else set()
        else:
            continue
        pipes: tuple[Any, ...] = reading.work.unread
        for pipe in pipes:
            if not isinstance(pipe, Pipe):
                yield f"{reading.device}: unread {pipe!r} is not a Pipe"
            elif pipe in counted:
                yield f"{reading.device}: {pipe.value} is counted, and listed as unread"


def totals(observation: Observation) -> Iterator[str]:
    """Running counters of one origin keep their pipes, only grow, and no faster than the device can."""
    last: dict[tuple[DeviceUid, str], tuple[int, Totals]] = {}
    for read, reading in observation.readings():
        where, now = f"{reading.device} until {reading.end_ns}", reading.totals
        if now is None:
            if isinstance(reading.work, Growth):
                yield f"{where}: Growth without totals"
            continue
        if not isinstance(now.origin, str) or not now.origin:
            yield f"{where}: totals of the origin {now.origin!r}"
        yield from _cycles(where, {"elapsed": now.elapsed_sm_cycles}, None)
        yield from _cycles(where, now.sm_cycles, None)
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
        grown = {pipe: cycles - before.sm_cycles[pipe] for pipe, cycles in now.sm_cycles.items()}
        for what, by in [("elapsed", now.elapsed_sm_cycles - before.elapsed_sm_cycles), *grown.items()]:
            if by < 0:
                yield f"{where}: {_name(what)} fell by {-by} under one origin"
            elif possible is not None and by > possible:
                yield f"{where}: {_name(what)} grew by {by} SM-cycles, the device has {possible} in that time"


def counters(observation: Observation) -> Iterator[str]:
    for _, reading in observation.readings():
        absolute: Mapping[Any, Any] = reading.counters
        for name, value in absolute.items():
            if not isinstance(name, str) or not is_count(value):
                yield f"{reading.device}: the counter {name!r} is {value!r}: absolute values are non-negative ints"


def coverage(observation: Observation) -> Iterator[str]:
    """Each device is read, as well as it promised and no better."""
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


def description(facts: Any) -> Iterator[str]:
    yield from unfit_facts(facts)
    if isinstance(facts, Mapping) and "replay" not in facts:
        yield "describe() has no 'replay': None stands for hardware"


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
    """SM-cycles that a device can have, where its SMs and clock are known."""
    if device is None or not device.sm_count or not device.sm_clock_max_mhz:
        return None
    return max_plausible_sm_cycles(Limits(device.sm_count, device.sm_clock_max_mhz), duration_ns)


def _cycles(where: str, amounts: Mapping[Any, Any], possible: int | None) -> Iterator[str]:
    for what, cycles in amounts.items():
        if not isinstance(what, Pipe) and what not in ("busy", "elapsed"):
            yield f"{where}: {what!r} is not a Pipe"
        if not is_count(cycles):
            yield f"{where}: {cycles!r} SM-cycles of {_name(what)} is not a count"
        elif possible is not None and cycles > possible:
            yield f"{where}: {cycles} SM-cycles of {_name(what)}, the device has {possible} in that time"


def _name(what: Any) -> str:
    return what.value if isinstance(what, Pipe) else str(what)

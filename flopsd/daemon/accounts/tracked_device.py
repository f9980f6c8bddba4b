"""One device of this daemon start: its peak rates, its tally, and the source that reads it."""

from __future__ import annotations

import logging
from dataclasses import field, replace
from typing import Any, NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.device_records import IDENTITY, DeviceEntry
from flopsd.core.ledger.rated_tally import RatedTally
from flopsd.core.meter import advance, excess, new_gaps
from flopsd.core.model import Device, Evidence, Gap, GapReason, Gauges, Growth, Limits, Precision, Reading
from flopsd.core.peaks import PeakTable
from flopsd.core.phases import ActivePhase, since
from flopsd.core.rows import Rating
from flopsd.core.tally import Tally
from flopsd.errors import UnknownDeviceError
from flopsd.system.clock import NS_PER_S
from flopsd.system.log_rest import LogRest
from flopsd.telemetry.last_gap import last_gap
from flopsd.telemetry.snapshot import DeviceState

log = logging.getLogger("flopsd")
ENERGY = "energy_mj"
# How long a reading is held, plus three intervals: which job has a device is asked only with a read.
HOLD_NS = 15 * NS_PER_S


class Held(NamedTuple):
    """A reading that is not counted yet, with the phase and the source of the device when the reading came."""

    reading: Reading
    active_phase: ActivePhase
    source: str


@dataclass(slots=True)
class TrackedDevice:
    """A device, its number in the journal, and its state as the snapshot shows it."""

    number: int
    state: DeviceState
    gaps: list[tuple[int, int, GapReason]] = field(default_factory=list)  # since the last checkpoint
    energy_from: str = ""  # the source of its last energy reading
    base: Tally | None = None  # the tally when this journal began; None: it began with the journal
    hold_ns: int = HOLD_NS
    held: list[Held] = field(default_factory=list)  # of time in which the device may have been another job's

    # The next two are read many times a tick: no property of the state is called for them.
    @property
    def entry(self) -> DeviceEntry:
        return self.state.rated[-1].entry

    @property
    def tally(self) -> Tally:
        return self.state.rated[-1].tally

    @property
    def read_until_ns(self) -> int:
        """Up to when the time of the device is accounted for, or will be by held readings."""
        watermark_ns = self.state.rated[-1].tally.watermark_ns
        return max(watermark_ns, self.held[-1].reading.end_ns) if self.held else watermark_ns

    def hold(self, reading: Reading, active_phase: ActivePhase, gauges: Gauges | None = None) -> None:
        """Hold a reading of time in which the device may have been another job's, until `settle` counts it."""
        self.held.append(Held(reading, active_phase, self.entry.source))
        self.state = replace(self.state, gauges=gauges)
        if reading.end_ns - self.held[0].reading.end_ns > self.hold_ns:
            self.give_up_held(active_phase)

    def settle(self, until_ns: int | None) -> None:
        """Count the readings held up to `until_ns`: the device is this job's before and after them. None: count all."""
        gauges = self.state.gauges
        if self.held and until_ns is not None and until_ns - self.held[0].reading.end_ns > self.hold_ns:
            self.give_up_held(self.held[-1].active_phase)
        while self.held and (until_ns is None or self.held[0].reading.end_ns <= until_ns):
            reading, active_phase, source = self.held.pop(0)
            self.count(reading, active_phase, gauges, source)

    def give_up_held(self, active_phase: ActivePhase) -> None:
        """Turn the held readings into a gap: they may be another job's."""
        until_ns = self.read_until_ns
        self.held.clear()
        self.count_gap(until_ns, GapReason.MISSED_READING, active_phase)

    def count(
        self, reading: Reading, active_phase: ActivePhase, gauges: Gauges | None = None, source: str | None = None
    ) -> None:
        """Fold one reading into the tally and note its gaps. `gauges`: current values of the device; `source`: the
        source of the reading, if not the one that reads the device now."""
        state = self.state
        now, newest = state.now, state.gap
        before, reading = now.tally, self._without_older_energy(reading, now, source or now.entry.source)
        after, limits = advance(before, reading, now.rating.limits, active_phase), now.rating.limits
        if isinstance(reading.work, Growth) and isinstance(limits, Limits) and self._is_ahead(after, limits):
            reading = replace(reading, work=Gap(GapReason.OUT_OF_RANGE))
            after = advance(before, reading, limits, active_phase)
        for begin_ns, end_ns, reason in new_gaps(before, after, reading):
            newest = last_gap(newest, begin_ns, end_ns, reason)
            if self.gaps and self.gaps[-1][2] is reason and self.gaps[-1][1] == begin_ns:
                begin_ns = self.gaps.pop()[0]
            self.gaps.append((begin_ns, end_ns, reason))
        if not isinstance(reading.work, Gap):
            gauges = state.gauges if gauges is None else gauges
        elif gauges is not None:  # what is not counted is not shown either
            gauges = None if reading.work.reason is GapReason.STALE else replace(gauges, pipe_activity_ratio={})
        self.state = state.counted(after, gauges, newest)

    def _is_ahead(self, tally: Tally, limits: Limits) -> bool:
        """Whether running counters grew by more in all than the device can do, each time by less than a late renewal
        explains: no ledger could state such a total, for the daemon start or for this segment."""
        cycles = Evidence.CYCLES
        return bool(excess(limits, cycles, tally) or (self.base and excess(limits, cycles, tally, self.base)))

    def _without_older_energy(self, reading: Reading, now: RatedTally, source: str) -> Reading:
        """Return the reading without an energy value that is older than the known one.

        Two sources can read one energy counter. When a second source takes over, its first value may be older than the
        last known one: the counter did not fall, and that energy must not be counted twice."""
        read, known = reading.counters.get(ENERGY), now.tally.counters.get(ENERGY)
        if read is None:
            return reading
        changed, self.energy_from = self.energy_from not in ("", source), source
        if not changed or known is None or read >= known or isinstance(reading.work, Growth):
            return reading  # with cumulative counters a fall is a reset, which the meter must see
        return replace(reading, counters={name: n for name, n in reading.counters.items() if name != ENERGY})

    def count_gap(self, until_ns: int, reason: GapReason, active_phase: ActivePhase) -> None:
        """Count the time up to `until_ns` that is not accounted for yet as a gap."""
        if until_ns > self.read_until_ns:
            take = self.hold if self.held else self.count
            take(Reading(self.entry.device.uid, self.read_until_ns, until_ns, Gap(reason)), active_phase)

    def is_read_by(self, source: str, device: Device) -> bool:
        """Whether `source` already reads the device, with the evidence that `device` states."""
        return source == self.entry.source and _expected(device) == _expected(self.entry.device)

    def identified_by(self, listed: Device, table: PeakTable, precision: Precision | None) -> bool:
        """Rate a device of unknown model by the model in `listed`; return whether that succeeded now. Until then all of
        its time was a gap without a ceiling, so no total falls."""
        if self.state.now.rating.part is not None:
            return False
        try:
            part = table.resolve(listed)
        except UnknownDeviceError:
            return False
        device = replace(self.entry.device, **{name: getattr(listed, name) for name in IDENTITY})
        log.info(
            "device %d (%s) was identified as %s; its peaks are known from now on",
            device.index,
            device.uid,
            device.model,
        )
        entry = replace(self.entry, device=device, part_id=part.id, precision=precision)
        rating = rate(device, table, precision)
        self.state = self.state.described(replace(self.state.now, entry=entry, rating=rating))
        return True

    def is_outgrown_by(self, listed: Device) -> bool:
        """Whether `listed`, a device of the same UUID, has more SMs or a higher clock than the ceiling is based on."""
        limits = self.state.now.rating.limits
        return isinstance(limits, Limits) and (
            (listed.sm_count or 0) > limits.sm_count or (listed.sm_clock_max_mhz or 0) > limits.sm_clock_max_mhz
        )

    @property
    def in_segment(self) -> Tally:
        """The tally in the journal of this segment."""
        return self.tally if self.base is None else since(self.tally, self.base)

    def rotate(self, number: int) -> Tally:
        """Go on in a new journal, as its device `number`; return the empty tally that the device begins with there."""
        self.number, self.base, self.gaps = number, self.tally, []
        self.state = self.state.described(replace(self.state.now, tally=without_open_counters(self.tally)))
        return self.in_segment

    def set_source(self, source: str, listed: Device, rest: LogRest) -> None:
        """Apply a change of source or of expected evidence."""
        why = f" ({listed.evidence_reason})" if listed.evidence_reason else ""
        before = (self.entry.source, self.entry.device.evidence, self.entry.device.evidence_reason)
        if rest.is_due(listed.uid, before, source, listed.evidence, why):
            log.info("device %d: read by source %s, evidence %s%s", listed.index, source, listed.evidence.value, why)
        entry = replace(self.entry, source=source, device=replace(self.entry.device, **_expected(listed)))
        self.state = self.state.described(replace(self.state.now, entry=entry))


def settled_ns(tally: Tally) -> int:
    """Return the time up to which no later reading can change what is known of a device, in ns."""
    read_ns = [tally.watermark_ns - tally.silent_ns]
    read_ns += [] if tally.totals is None else [tally.totals_ns]
    read_ns += [tally.energy_at_ns] if ENERGY in tally.counters else []
    return min(read_ns)


def without_open_counters(tally: Tally) -> Tally:
    """Return the tally to go on from in another journal: without counters whose growth would be that of an open gap."""
    if settled_ns(tally) == tally.watermark_ns:
        return tally
    counters = {name: value for name, value in tally.counters.items() if name != ENERGY}
    return replace(tally, silent_ns=0, counters=counters, energy_at_ns=0, totals=None, totals_ns=0)


def _expected(device: Device) -> dict[str, Any]:
    """Return the fields of a listed device that may change."""
    return {name: getattr(device, name) for name in ("evidence", "evidence_reason", "evidence_fix", "shared")}


def rate(device: Device, table: PeakTable, precision: Precision | None) -> Rating:
    """Return the peak rates of a device and its declared format. A device that is not in the table, or does not match
    its row, is logged; nothing is guessed."""
    try:
        part = table.resolve(device)
    except UnknownDeviceError as fault:
        log.error("%s; %s", fault, fault.hint)
        return Rating(None, None, precision, table)
    whole = device.parent is None
    if whole and device.sm_count is not None and part.sm_count not in (None, device.sm_count):
        log.warning(
            "device %d (%s) has %d SMs, the peak table has %s for a %s; the device's own count is used",
            device.index,
            device.uid,
            device.sm_count,
            part.sm_count,
            part.id,
        )
    if precision is not None and not part.declares(precision):
        log.warning(
            "device %d: a %s has no %s tensor rate; its format counts as undeclared; correct --precision",
            device.index,
            part.id,
            precision.label,
        )
    return Rating(part, table.limits(device, part), precision, table)

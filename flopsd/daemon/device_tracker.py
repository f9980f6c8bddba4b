"""One device of this incarnation: how it is rated, what was counted of it, and who reads it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from flopsd.core.figures import Rating
from flopsd.core.ledger.history_checks import LEAD_NS
from flopsd.core.ledger.journal_codec import DeviceEntry
from flopsd.core.meter import advance, new_gaps
from flopsd.core.model import Device, Gap, GapReason, Gauges, Growth, Precision, Reading
from flopsd.core.peaks import PeakTable
from flopsd.core.phases import ActivePhase
from flopsd.errors import UnknownDeviceError
from flopsd.telemetry.snapshot import DeviceState

log = logging.getLogger("flopsd")
_ENERGY = "energy_mj"
_IDENTITY = ("model", "serial", "pci_bus_id", "pci_device_id", "sm_count", "sm_clock_max_mhz", "driver")


@dataclass(slots=True)
class TrackedDevice:
    """A device, its number in the journal, and its state as the snapshot shows it."""

    number: int
    entry: DeviceEntry
    state: DeviceState
    gaps: list[tuple[int, int, GapReason]] = field(default_factory=list)  # since the last checkpoint
    energy_from: str = ""  # the source that told its energy last

    def count(self, reading: Reading, in_force: ActivePhase, gauges: Gauges | None = None) -> None:
        """Fold one reading into the tally, and keep the gaps that it makes; `gauges` are what the device shows now."""
        before, reading = self.state.tally, self._without_older_energy(reading)
        after = advance(before, reading, self.state.rating.limits, in_force)
        for begin_ns, end_ns, reason in new_gaps(before, after, reading):
            if self.gaps and self.gaps[-1][2] is reason and self.gaps[-1][1] == begin_ns:
                begin_ns = self.gaps.pop()[0]
            self.gaps.append((begin_ns, end_ns, reason))
        if gauges is None and not isinstance(reading.work, Gap):
            gauges = self.state.gauges
        self.state = replace(self.state, tally=after, before=before, gauges=gauges)

    def _without_older_energy(self, reading: Reading) -> Reading:
        """Two sources tell of one energy counter: what another one than before told first may be older than what is
        known. It did not fall, and nothing may be counted from it again."""
        told, known = reading.counters.get(_ENERGY), self.state.tally.counters.get(_ENERGY)
        if told is None:
            return reading
        changed, self.energy_from = self.energy_from not in ("", self.entry.source), self.entry.source
        if not changed or known is None or told >= known or isinstance(reading.work, Growth):
            return reading  # running counters need to see that it fell
        return replace(reading, counters={name: n for name, n in reading.counters.items() if name != _ENERGY})

    def gap(self, until_ns: int, reason: GapReason) -> Reading:
        """A reading that says that nothing is known since the last one."""
        return Reading(self.entry.device.uid, self.state.tally.watermark_ns, until_ns, Gap(reason))

    def count_gap(self, until_ns: int, reason: GapReason, in_force: ActivePhase) -> None:
        """Nothing is known of the time up to `until_ns`, where that is not accounted for yet."""
        if until_ns > self.state.tally.watermark_ns:
            self.count(self.gap(until_ns, reason), in_force)

    def in_time(self, reading: Reading, now_ns: int) -> Reading:
        """The reading, or a gap until now where it tells of time that has not come."""
        if reading.end_ns <= now_ns + LEAD_NS:
            return reading
        ahead_ns = reading.end_ns - now_ns
        log.error("a reading of %s from %s ends %d ns from now: a gap", reading.device, self.entry.source, ahead_ns)
        return self.gap(now_ns, GapReason.OUT_OF_RANGE)

    def is_read_by(self, source: str, device: Device) -> bool:
        """Whether it is read by `source` already, with the evidence that `device` tells."""
        known = self.entry.device
        return (source, device.evidence, device.evidence_reason, device.evidence_fix, device.shared) == (
            self.entry.source,
            known.evidence,
            known.evidence_reason,
            known.evidence_fix,
            known.shared,
        )

    def identified_by(self, told: Device, table: PeakTable, precision: Precision | None) -> bool:
        """Rate it by what `told` says of it, where nobody could before; whether that is news.

        Until then all its time was a gap without a ceiling, so that no total falls.
        """
        if self.state.rating.part is not None:
            return False
        try:
            part = table.resolve(told)
        except UnknownDeviceError:
            return False
        device = replace(self.entry.device, **{name: getattr(told, name) for name in _IDENTITY})
        log.info("device %d (%s) is known now: %s", device.index, device.uid, device.model)
        self.entry = replace(self.entry, device=device, part_id=part.id, precision=precision)
        self.state = replace(self.state, device=device, part_id=part.id, rating=rate(device, table, precision))
        return True

    def read_by(self, source: str, told: Device) -> None:
        """Follow a change of source or of expected evidence."""
        why = f": {told.evidence_reason}" if told.evidence_reason else ""
        log.info("device %d is read by %s, evidence %s%s", told.index, source, told.evidence.value, why)
        device = replace(
            self.entry.device,
            evidence=told.evidence,
            evidence_reason=told.evidence_reason,
            evidence_fix=told.evidence_fix,
            shared=told.shared,
        )
        self.entry = replace(self.entry, source=source, device=device)
        self.state = replace(self.state, source=source, device=device)


def rate(device: Device, table: PeakTable, precision: Precision | None) -> Rating:
    """The row of a device and its declared format; what does not fit is said and not guessed."""
    try:
        part = table.resolve(device)
    except UnknownDeviceError as fault:
        log.error("%s; %s", fault, fault.hint)
        return Rating(None, None, precision)
    whole = device.parent is None
    if whole and device.sm_count is not None and part.sm_count not in (None, device.sm_count):
        log.warning(
            "device %d (%s): %d SMs read, %s expected of a %s; the count that was read is used",
            device.index,
            device.uid,
            device.sm_count,
            part.sm_count,
            part.id,
        )
    if precision is not None and not part.declares(precision):
        log.warning(
            "device %d: a %s has no %s tensor rate; its tensor work counts as undeclared",
            device.index,
            part.id,
            precision.label,
        )
    return Rating(part, table.limits(device, part), precision)

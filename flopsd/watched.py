"""One device of this incarnation: how it is rated, what was counted of it, and who reads it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from flopsd.core.codec import DeviceEntry
from flopsd.core.figures import Rating
from flopsd.core.laws import LEAD_NS
from flopsd.core.meter import advance, new_gaps
from flopsd.core.model import Device, Gap, GapReason, Gauges, Precision, Reading
from flopsd.core.peaks import PeakTable
from flopsd.core.phases import InForce
from flopsd.errors import UnknownDeviceError
from flopsd.snapshot import DeviceState

log = logging.getLogger("flopsd")


@dataclass(slots=True)
class Watched:
    """A device, its number in the journal, and its state as the snapshot shows it."""

    number: int
    entry: DeviceEntry
    state: DeviceState
    gaps: list[tuple[int, int, GapReason]] = field(default_factory=list)  # since the last checkpoint

    def count(self, reading: Reading, in_force: InForce, gauges: Gauges | None = None) -> None:
        """Fold one reading into the tally, and keep the gaps that it makes; `gauges` are what the device shows now."""
        before = self.state.tally
        after = advance(before, reading, self.state.rating.limits, in_force)
        for begin_ns, end_ns, reason in new_gaps(before, after, reading):
            if self.gaps and self.gaps[-1][2] is reason and self.gaps[-1][1] == begin_ns:
                begin_ns = self.gaps.pop()[0]
            self.gaps.append((begin_ns, end_ns, reason))
        if gauges is None and not isinstance(reading.work, Gap):
            gauges = self.state.gauges
        self.state = replace(self.state, tally=after, before=before, gauges=gauges)

    def gap(self, until_ns: int, reason: GapReason) -> Reading:
        """A reading that says that nothing is known since the last one."""
        return Reading(self.entry.device.uid, self.state.tally.watermark_ns, until_ns, Gap(reason))

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

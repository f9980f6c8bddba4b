"""The meter: folds one reading into one tally. Pure arithmetic on ints.

Laws (tests/property/core/test_meter.py):
  - time is conserved: observed + gap = watermark - begin, always;
  - every count only grows;
  - a reading before the watermark changes nothing, so a repeated reading is harmless, unless there was only silence:
    then it counts, and its time is recovered of the gap;
  - splitting a reading changes no total;
  - cumulative counters lose nothing, however many readings of them are missed;
  - what a phase accounts for is part of the whole, and grows as it does;
  - no pipe is active for more cycles than the device has in the time that is known;
  - no more is counted than the device can do in the job's time and one longest execution before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flopsd.core.model import (
    ACCOUNTED_ELSEWHERE,
    UNDECLARED_PHASE,
    Active,
    Busy,
    ChipLimits,
    Counted,
    Evidence,
    Gap,
    GapReason,
    Growth,
    Limits,
    Pipe,
    Reading,
    Totals,
)
from flopsd.core.phases import NO_PHASE, ActivePhase, with_share
from flopsd.core.running_counters import COUNTER_REFRESH_NS, disjoint, growth
from flopsd.core.tally import Tally
from flopsd.core.values import added, ceil_div

# The driver's clock readings are whole MHz, and a boost step can lie between two of them.
CLOCK_TOLERANCE_PPM = 10_000
# Neuron counts an execution when it completes: one longer than the reading's interval is counted in it whole.
LONGEST_EXECUTION_NS = 60_000_000_000
# No device draws more; a counter may be renewed so late, in one step.
MOST_WATTS, ENERGY_LATE_NS = 100_000, 10_000_000_000
_EMPTY = Tally(0, 0)
_WITHOUT_TIME = (Gap, Growth)  # work to which a late reading adds nothing


def max_sm_cycles(limits: Limits, duration_ns: int) -> int:
    """SM-cycles that a device can have in `duration_ns`, rounded up."""
    return ceil_div(limits.sm_count * limits.sm_clock_max_mhz * duration_ns, 1000)


def max_plausible_sm_cycles(limits: Limits, duration_ns: int) -> int:
    """`max_sm_cycles` with the tolerance of the clock's reading."""
    possible = max_sm_cycles(limits, duration_ns)
    return possible + possible * CLOCK_TOLERANCE_PPM // 1_000_000 + 1


def excess(limits: Limits, evidence: Evidence, tally: Tally, base: Tally = _EMPTY) -> tuple[Pipe, int, int] | None:
    """A pipe that was active by `evidence` for more cycles since the tally stood at `base` than the device can have had
    in the time that is known, its cycles and the most possible; None: there is none."""
    known_ns = tally.known_ns(evidence) - base.known_ns(evidence)
    known_ns += COUNTER_REFRESH_NS if evidence is Evidence.CYCLES else 0
    # One extra cycle a reading for rounding; no run has more readings than milliseconds.
    possible = max_plausible_sm_cycles(limits, known_ns) + (tally.span_ns - base.span_ns) // 1_000_000
    for (by, pipe), cycles in tally.active_sm_cycles.items():
        if by is evidence and (more := cycles - base.active_sm_cycles.get((by, pipe), 0)) > possible:
            return pipe, more, possible
    return None


def max_counted_flop(limits: Limits | ChipLimits | None, duration_ns: int) -> int | None:
    """What a vendor's count, which may hold integers, can come to in `duration_ns` and one execution before it."""
    possible_ns = duration_ns + LONGEST_EXECUTION_NS
    if isinstance(limits, ChipLimits):
        return max(limits.flop_per_s, limits.integer_per_s or 0) * possible_ns // 1_000_000_000
    if limits is None or limits.operations_per_cycle is None:
        return None
    return max_sm_cycles(limits, possible_ns) * limits.operations_per_cycle


def advance(
    tally: Tally, reading: Reading, limits: Limits | ChipLimits | None, active: ActivePhase = NO_PHASE
) -> Tally:
    """`tally` after `reading`. `active` is the declared phase, and since when.

    `limits` is None for a device that the peak table does not know: its time becomes a gap.
    A hole before the reading becomes a gap, unless cumulative counters cover it; a reading that overlaps time that was
    read is a gap for the part that remains, since how its work was spread is not known. One that comes late, after its
    time was taken for silence, counts whole.
    """
    late = _is_late(tally, reading)
    if reading.end_ns <= tally.watermark_ns and not late:
        return tally
    after = _advance(tally, reading, limits)
    covers_since_ns = min(tally.watermark_ns, reading.begin_ns) if late else tally.watermark_ns
    if isinstance(reading.work, Growth) and tally.totals is not None:
        covers_since_ns = min(covers_since_ns, tally.totals_ns)
    if active.bucket == UNDECLARED_PHASE or covers_since_ns < active.since_ns:
        return after
    if tally.energy_at_ns < active.since_ns:  # the energy is of time before the phase too
        tally = tally.changed(energy_mj=after.energy_mj, energy_ns=after.energy_ns)
    return with_share(after, tally, active.bucket)


def _advance(tally: Tally, reading: Reading, limits: Limits | ChipLimits | None) -> Tally:
    if isinstance(reading.work, Growth):
        return _grow(tally, reading, reading.work, limits)
    if reading.begin_ns > tally.watermark_ns:
        tally = _gap(tally, reading.begin_ns, _hole_reason(tally))
    elsewhere = isinstance(reading.work, Gap) and reading.work.reason in ACCOUNTED_ELSEWHERE
    if elsewhere:  # what the energy grew by until its next reading is another's
        tally = _without_energy(tally)
    after = _with_absolutes(_apply(tally, reading, limits), reading)
    # Totals would count this time again, or another's work as this one's.
    settled = elsewhere or not isinstance(reading.work, Gap)
    if settled and reading.totals is None and after.totals is not None:
        after = after.changed(totals=None, totals_ns=0)
    return after


def _is_late(tally: Tally, reading: Reading) -> bool:
    """Whether the reading begins in time of which only silence is known so far."""
    return (
        not isinstance(reading.work, _WITHOUT_TIME)
        and tally.watermark_ns - tally.silent_ns <= reading.begin_ns < tally.watermark_ns
    )


def _known(tally: Tally, begin_ns: int, end_ns: int, evidence: Evidence, **counted: Any) -> Tally:
    """`tally` with what was `counted` in the time of a reading: new, or recovered of the silence before the
    watermark."""
    until_ns = max(tally.watermark_ns, end_ns)
    recovered_ns = max(0, min(tally.watermark_ns, end_ns) - begin_ns)
    return tally.changed(
        watermark_ns=until_ns,
        observed_ns=added(tally.observed_ns, {evidence: until_ns - tally.watermark_ns}),
        recovered_ns=added(tally.recovered_ns, {evidence: recovered_ns}) if recovered_ns else tally.recovered_ns,
        silent_ns=until_ns - end_ns,
        **counted,
    )


def _grow(tally: Tally, reading: Reading, work: Growth, limits: Limits | ChipLimits | None) -> Tally:
    """Count what totals grew by since they were last read; all time in between is gap so far."""
    if not isinstance(limits, Limits):
        return _with_absolutes(_gap(tally, reading.end_ns, GapReason.UNKNOWN_DEVICE), reading)
    grown = growth(tally, reading, partial(max_plausible_sm_cycles, limits))
    if grown is GapReason.COUNTER_RESET:  # the energy's counter may have begun anew with them
        tally = _without_energy(tally)
    if grown is None or isinstance(grown, GapReason):
        return _with_absolutes(_gap(tally, reading.end_ns, grown or _hole_reason(tally)), reading)
    unread_ns = tally.unread_ns
    if work.unread:
        unread_ns = added(unread_ns, dict.fromkeys(work.unread, reading.end_ns - tally.totals_ns))
    cycles = added(tally.active_sm_cycles, _of(Evidence.CYCLES, disjoint(grown)))
    return _known(
        _with_absolutes(tally, reading), tally.totals_ns, reading.end_ns, Evidence.CYCLES,
        active_sm_cycles=cycles, unread_ns=unread_ns,
    )  # fmt: skip


def _apply(tally: Tally, reading: Reading, limits: Limits | ChipLimits | None) -> Tally:
    work = reading.work
    if isinstance(work, Gap):
        return _gap(_with_known(tally, reading, work, limits), reading.end_ns, work.reason)
    if reading.begin_ns < tally.watermark_ns and not _is_late(tally, reading):
        return _gap(tally, reading.end_ns, GapReason.OVERLAP)
    duration_ns = reading.end_ns - reading.begin_ns
    if isinstance(work, Counted):
        return _count(tally, reading, duration_ns, work.flop, limits)
    if not isinstance(limits, Limits):
        return _gap(tally, reading.end_ns, GapReason.UNKNOWN_DEVICE)
    possible = max_plausible_sm_cycles(limits, duration_ns)
    if isinstance(work, Active):
        # Nothing may be known of the clock, and both ends of a short reading may be off by half a slow call: the doubt
        # can be more than all cycles that there were.
        if any(not 0 <= cycles <= possible for cycles in work.sm_cycles.values()) or any(
            not 0 <= doubt <= 2 * possible for doubt in work.uncertainty_sm_cycles.values()
        ):
            return _gap(tally, reading.end_ns, GapReason.OUT_OF_RANGE)
        return _known(
            tally, reading.begin_ns, reading.end_ns, work.evidence,
            active_sm_cycles=added(tally.active_sm_cycles, _of(work.evidence, work.sm_cycles)),
            uncertainty_sm_cycles=added(tally.uncertainty_sm_cycles, _of(work.evidence, work.uncertainty_sm_cycles)),
            square_sum=added(tally.square_sum, _of(work.evidence, work.square_sum)),
            unread_ns=added(tally.unread_ns, dict.fromkeys(work.unread, duration_ns)),
        )  # fmt: skip
    assert isinstance(work, Busy)
    clocked = work.clocked_sm_cycles
    # An estimate by the clock may end in the time of the next reading, so that it alone may be above what is possible.
    if not 0 <= work.sm_cycles <= possible or not 0 <= (clocked or 0) <= 2 * possible or work.square_sum < 0:
        return _gap(tally, reading.end_ns, GapReason.OUT_OF_RANGE)
    busy = tally.busy_sm_cycles + work.sm_cycles
    after = _known(tally, reading.begin_ns, reading.end_ns, Evidence.UTILIZATION, busy_sm_cycles=busy)
    if clocked is None:
        return after
    return after.changed(
        sampled_busy_sm_cycles=tally.sampled_busy_sm_cycles + work.sm_cycles,
        clocked_sm_cycles=tally.clocked_sm_cycles + clocked,
        clocked_square_sum=tally.clocked_square_sum + work.square_sum,
    )


def _count(tally: Tally, reading: Reading, duration_ns: int, flop: int, limits: Limits | ChipLimits | None) -> Tally:
    at_once, in_all = (max_counted_flop(limits, ns) for ns in (duration_ns, tally.job_ns + duration_ns))
    if at_once is None or in_all is None:
        return _gap(tally, reading.end_ns, GapReason.UNKNOWN_DEVICE)
    counted = tally.counted_flop + flop
    if not 0 <= flop <= at_once or counted > in_all:
        return _gap(tally, reading.end_ns, GapReason.OUT_OF_RANGE)
    return _known(tally, reading.begin_ns, reading.end_ns, Evidence.COUNT, counted_flop=counted)


def _with_known(tally: Tally, reading: Reading, gap: Gap, limits: Limits | ChipLimits | None) -> Tally:
    """`tally` with what was counted in a gap; without it where it is another's or cannot be right, or where some of it
    may have been counted before."""
    if not gap.counted_flop or gap.reason in ACCOUNTED_ELSEWHERE or reading.begin_ns < tally.watermark_ns:
        return tally
    counted = _count(tally, reading, reading.end_ns - reading.begin_ns, gap.counted_flop, limits)
    return tally.changed(counted_flop=counted.counted_flop)


def _of(evidence: Evidence, cycles: Mapping[Pipe, int]) -> dict[tuple[Evidence, Pipe], int]:
    return {(evidence, pipe): n for pipe, n in cycles.items() if n}


def _hole_reason(tally: Tally) -> GapReason:
    """The reason of a hole before a reading: before the first one the source was still starting."""
    return GapReason.MISSED_READING if tally.span_ns else GapReason.STARTING


def _gap(tally: Tally, until_ns: int, reason: GapReason) -> Tally:
    """Time up to `until_ns` as a gap; nothing where it is accounted for already."""
    more_ns = until_ns - tally.watermark_ns
    if more_ns <= 0:
        return tally
    return tally.changed(
        watermark_ns=until_ns,
        gap_ns=added(tally.gap_ns, {reason: more_ns}),
        silent_ns=tally.silent_ns + more_ns if reason is GapReason.SOURCE_SILENT else 0,
    )


def _without_energy(tally: Tally) -> Tally:
    """`tally` whose energy is counted on from the next value that is read."""
    if "energy_mj" not in tally.counters:
        return tally
    kept = {name: value for name, value in tally.counters.items() if name != "energy_mj"}
    return tally.changed(counters=kept, energy_at_ns=0)


def _with_absolutes(tally: Tally, reading: Reading) -> Tally:
    """New absolute counter values, the energy that passed since the last ones, and the time that it is of. A counter
    that fell has been reset by a driver reload, and one that grew by more than a device can draw was misread: what was
    used is unknown, so nothing is added and counting goes on from the new value."""
    if reading.totals is None and not reading.counters:
        return tally
    read, totals, totals_ns = reading.totals, tally.totals, tally.totals_ns
    if read is not None:  # a source may refill its mapping
        totals = Totals(read.origin, read.elapsed_sm_cycles, dict(read.sm_cycles), read.wrap_at)
        totals_ns = reading.end_ns
    now, before = reading.counters.get("energy_mj"), tally.counters.get("energy_mj")
    energy_mj, energy_ns = tally.energy_mj, tally.energy_ns
    passed_ns = reading.end_ns - tally.energy_at_ns
    if now is not None and before is not None and passed_ns > 0:
        most_mj = MOST_WATTS * (passed_ns + ENERGY_LATE_NS) // 1_000_000
        if 0 <= now - before <= most_mj:
            energy_mj, energy_ns = (energy_mj or 0) + now - before, energy_ns + passed_ns
    return tally.changed(
        totals=totals,
        totals_ns=totals_ns,
        counters={**tally.counters, **reading.counters},
        energy_mj=energy_mj,
        energy_ns=energy_ns,
        energy_at_ns=tally.energy_at_ns if now is None else reading.end_ns,
    )


def new_gaps(before: Tally, after: Tally, reading: Reading) -> list[tuple[int, int, GapReason]]:
    """The gap intervals that `advance` made of `reading`, in order: (begin_ns, end_ns, reason)."""
    if before.gap_ns == after.gap_ns:
        return []
    found: list[tuple[int, int, GapReason]] = []
    from_ns = before.watermark_ns
    grown = {r: ns - before.gap_ns.get(r, 0) for r, ns in after.gap_ns.items()}
    if reading.begin_ns > from_ns and not isinstance(reading.work, Growth):
        reason = _hole_reason(before)
        found.append((from_ns, reading.begin_ns, reason))
        grown[reason] -= reading.begin_ns - from_ns
        from_ns = reading.begin_ns
    found += [(from_ns, after.watermark_ns, reason) for reason, ns in grown.items() if ns]
    return found

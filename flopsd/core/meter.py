"""The meter: folds one reading into one tally. Pure arithmetic on ints.

Laws (tests/property/core/test_meter.py):
 - time is conserved: observed + gap = watermark - begin, always;
 - every count only grows;
 - a reading before the watermark changes nothing, so repeating a reading is harmless. Exception: where the time was
   only silence the reading counts, and its time is recovered from the gap;
 - splitting a reading changes no total;
 - cumulative counters lose nothing, however many of their readings are missed;
 - the share of a phase is part of the whole, and grows with it;
 - no pipe is active for more cycles than the device has in the known time;
 - a vendor's count never exceeds what the device can do in the job's time plus one longest execution before it.
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
from flopsd.core.running_counters import COUNTER_REFRESH_NS, growth
from flopsd.core.tally import Tally
from flopsd.core.values import added

# The driver reports the clock in whole MHz, and a boost step can lie between two readings.
CLOCK_TOLERANCE_PPM = 10_000
# Neuron counts an execution when it completes: one longer than a reading's interval is counted there in full.
LONGEST_EXECUTION_NS = 60_000_000_000
# No device draws more power; an energy counter may be updated this late, in one step.
MOST_WATTS, ENERGY_LATE_NS = 100_000, 10_000_000_000
_WITHOUT_TIME = (Gap, Growth)  # work to which a late reading adds nothing


def max_sm_cycles(limits: Limits, duration_ns: int) -> int:
    """SM-cycles that a device can have in `duration_ns`, rounded up."""
    return -(-limits.sm_count * limits.sm_clock_max_mhz * duration_ns // 1000)


def max_plausible_sm_cycles(limits: Limits, duration_ns: int) -> int:
    """`max_sm_cycles` plus the tolerance of the clock reading."""
    possible = max_sm_cycles(limits, duration_ns)
    return possible + possible * CLOCK_TOLERANCE_PPM // 1_000_000 + 1


def excess(limits: Limits, evidence: Evidence, tally: Tally, base: Tally | None = None) -> tuple[Pipe, int, int] | None:
    """The first pipe that, by `evidence`, was active for more cycles since `base` than the device can have had in the
    known time, with its cycles and the maximum possible; None if there is none."""
    known_ns, span_ns, cycles = tally.known_ns(evidence), tally.span_ns, tally.active_sm_cycles
    if base is not None:
        known_ns, span_ns = known_ns - base.known_ns(evidence), span_ns - base.span_ns
        cycles = {key: n - base.active_sm_cycles.get(key, 0) for key, n in cycles.items()}
    known_ns += COUNTER_REFRESH_NS if evidence is Evidence.CYCLES else 0
    # One extra cycle per reading for rounding; no run has more readings than milliseconds.
    possible = max_plausible_sm_cycles(limits, known_ns) + span_ns // 1_000_000
    for (by, pipe), more in cycles.items():
        if more > possible and by is evidence:
            return pipe, more, possible
    return None


def max_counted_flop(limits: Limits | ChipLimits | None, duration_ns: int) -> int | None:
    """The most that a vendor's count, integers included, can reach in `duration_ns` and one execution before it."""
    possible_ns = duration_ns + LONGEST_EXECUTION_NS
    if isinstance(limits, ChipLimits):
        return max(limits.flop_per_s, limits.integer_per_s or 0) * possible_ns // 1_000_000_000
    if limits is None or limits.operations_per_cycle is None:
        return None
    return max_sm_cycles(limits, possible_ns) * limits.operations_per_cycle


def advance(
    tally: Tally, reading: Reading, limits: Limits | ChipLimits | None, active: ActivePhase = NO_PHASE
) -> Tally:
    """`tally` after `reading`. `active` is the declared phase and when it began.

    `limits` is None for a device that the peak table does not know: its time becomes a gap. A hole before the reading
    becomes a gap, unless cumulative counters cover it. Of a reading that overlaps time already read, the rest becomes a
    gap, since the distribution of its work is not known. A late reading, whose time had been taken for silence, counts
    in full.
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
    if tally.energy_at_ns < active.since_ns:  # the energy includes time before the phase
        tally = tally.changed({"energy_mj": after.energy_mj, "energy_ns": after.energy_ns})
    return with_share(after, tally, active.bucket)


def _advance(tally: Tally, reading: Reading, limits: Limits | ChipLimits | None) -> Tally:
    if isinstance(reading.work, Growth):
        return _grow(tally, reading, reading.work, limits)
    if reading.begin_ns > tally.watermark_ns:
        tally = _gap(tally, reading.begin_ns, _hole_reason(tally))
    elsewhere = isinstance(reading.work, Gap) and reading.work.reason in ACCOUNTED_ELSEWHERE
    if elsewhere:  # energy until its next reading belongs to another job
        tally = _restart_energy(tally)
    after = _with_absolutes(_apply(tally, reading, limits), reading)
    # Otherwise the totals would count this time again, or another job's work as this job's.
    settled = elsewhere or not isinstance(reading.work, Gap)
    if settled and reading.totals is None and after.totals is not None:
        after = after.changed({"totals": None, "totals_ns": 0})
    return after


def _is_late(tally: Tally, reading: Reading) -> bool:
    """Whether the reading begins in time that so far is only silence."""
    return (
        not isinstance(reading.work, _WITHOUT_TIME)
        and tally.watermark_ns - tally.silent_ns <= reading.begin_ns < tally.watermark_ns
    )


def _observed(tally: Tally, begin_ns: int, end_ns: int, evidence: Evidence) -> dict[str, Any]:
    """The fields of `tally` that change by a reading's time: new time, or silence before the watermark that is now
    recovered."""
    before_ns, observed_ns = tally.watermark_ns, tally.observed_ns
    until_ns = max(before_ns, end_ns)
    changes = {
        "watermark_ns": until_ns,
        "observed_ns": {**observed_ns, evidence: observed_ns.get(evidence, 0) + until_ns - before_ns},
        "silent_ns": until_ns - end_ns,
    }
    if begin_ns < before_ns:
        recovered_ns = min(before_ns, end_ns) - begin_ns
        changes["recovered_ns"] = added(tally.recovered_ns, {evidence: recovered_ns})
    return changes


def _grow(tally: Tally, reading: Reading, work: Growth, limits: Limits | ChipLimits | None) -> Tally:
    """Count the growth of the totals since they were last read; so far all time in between is a gap."""
    if not isinstance(limits, Limits):
        return _with_absolutes(_gap(tally, reading.end_ns, GapReason.UNKNOWN_DEVICE), reading)
    grown = growth(tally, reading, partial(max_plausible_sm_cycles, limits))
    if grown is GapReason.COUNTER_RESET:  # the energy counter may have restarted with them
        tally = _restart_energy(tally)
    if grown is None or isinstance(grown, GapReason):
        return _with_absolutes(_gap(tally, reading.end_ns, grown or _hole_reason(tally)), reading)
    assert tally.totals is not None
    assert reading.totals is not None
    if tally.totals.elapsed_sm_cycles == reading.totals.elapsed_sm_cycles:
        return tally  # not renewed yet: a later reading covers this time, too
    changes = _observed(tally, tally.totals_ns, reading.end_ns, Evidence.CYCLES) | _absolutes(tally, reading)
    changes["active_sm_cycles"] = _added(tally.active_sm_cycles, Evidence.CYCLES, grown)
    if work.unread:
        unread_ns = dict.fromkeys(work.unread, reading.end_ns - tally.totals_ns)
        changes["unread_ns"] = added(tally.unread_ns, unread_ns)
    return tally.changed(changes)


def _apply(tally: Tally, reading: Reading, limits: Limits | ChipLimits | None) -> Tally:
    work = reading.work
    if isinstance(work, Gap):
        return _gap(_add_gap_count(tally, reading, work, limits), reading.end_ns, work.reason)
    if reading.begin_ns < tally.watermark_ns and not _is_late(tally, reading):
        return _gap(tally, reading.end_ns, GapReason.OVERLAP)
    duration_ns = reading.end_ns - reading.begin_ns
    if isinstance(work, Counted):
        return _count(tally, reading, duration_ns, work.flop, limits)
    if not isinstance(limits, Limits):
        return _gap(tally, reading.end_ns, GapReason.UNKNOWN_DEVICE)
    possible = max_plausible_sm_cycles(limits, duration_ns)
    if isinstance(work, Active):
        # The clock may be unknown, and each end of a short reading may be off by half a slow driver call, so the
        # uncertainty can exceed all cycles of the interval.
        if any(not 0 <= cycles <= possible for cycles in work.sm_cycles.values()) or any(
            not 0 <= doubt <= 2 * possible for doubt in work.uncertainty_sm_cycles.values()
        ):
            return _gap(tally, reading.end_ns, GapReason.OUT_OF_RANGE)
        return tally.changed(
            {
                **_observed(tally, reading.begin_ns, reading.end_ns, work.evidence),
                "active_sm_cycles": _added(tally.active_sm_cycles, work.evidence, work.sm_cycles),
                "uncertainty_sm_cycles": _added(tally.uncertainty_sm_cycles, work.evidence, work.uncertainty_sm_cycles),
                "square_sum": _added(tally.square_sum, work.evidence, work.square_sum),
                "unread_ns": added(tally.unread_ns, dict.fromkeys(work.unread, duration_ns)),
            }
        )
    assert isinstance(work, Busy)
    clocked = work.clocked_sm_cycles
    # The clock estimate may extend into the next reading's time, so a single one may exceed what is possible.
    if not 0 <= work.sm_cycles <= possible or not 0 <= (clocked or 0) <= 2 * possible or work.square_sum < 0:
        return _gap(tally, reading.end_ns, GapReason.OUT_OF_RANGE)
    changes = _observed(tally, reading.begin_ns, reading.end_ns, Evidence.UTILIZATION)
    changes["busy_sm_cycles"] = tally.busy_sm_cycles + work.sm_cycles
    if clocked is not None:
        changes["sampled_busy_sm_cycles"] = tally.sampled_busy_sm_cycles + work.sm_cycles
        changes["clocked_sm_cycles"] = tally.clocked_sm_cycles + clocked
        changes["clocked_square_sum"] = tally.clocked_square_sum + work.square_sum
    return tally.changed(changes)


def _count(tally: Tally, reading: Reading, duration_ns: int, flop: int, limits: Limits | ChipLimits | None) -> Tally:
    at_once, in_all = (max_counted_flop(limits, ns) for ns in (duration_ns, tally.job_ns + duration_ns))
    if at_once is None or in_all is None:
        return _gap(tally, reading.end_ns, GapReason.UNKNOWN_DEVICE)
    counted = tally.counted_flop + flop
    if not 0 <= flop <= at_once or counted > in_all:
        return _gap(tally, reading.end_ns, GapReason.OUT_OF_RANGE)
    changes = _observed(tally, reading.begin_ns, reading.end_ns, Evidence.COUNT)
    return tally.changed({**changes, "counted_flop": counted})


def _add_gap_count(tally: Tally, reading: Reading, gap: Gap, limits: Limits | ChipLimits | None) -> Tally:
    """`tally` with what was counted in a gap. Unchanged where the count is another job's or impossible, or where part
    of it may have been counted before."""
    if not gap.counted_flop or gap.reason in ACCOUNTED_ELSEWHERE or reading.begin_ns < tally.watermark_ns:
        return tally
    counted = _count(tally, reading, reading.end_ns - reading.begin_ns, gap.counted_flop, limits)
    return tally.changed({"counted_flop": counted.counted_flop})


def _added(
    sums: Mapping[tuple[Evidence, Pipe], int], evidence: Evidence, cycles: Mapping[Pipe, int]
) -> dict[tuple[Evidence, Pipe], int]:
    found = dict(sums)
    for pipe, n in cycles.items():
        if n:
            found[evidence, pipe] = found.get((evidence, pipe), 0) + n
    return found


def _hole_reason(tally: Tally) -> GapReason:
    """The reason of a hole before a reading. Before the first reading the source was still starting."""
    return GapReason.MISSED_READING if tally.span_ns else GapReason.STARTING


def _gap(tally: Tally, until_ns: int, reason: GapReason) -> Tally:
    """Record the time up to `until_ns` as a gap, unless it is already accounted for."""
    more_ns = until_ns - tally.watermark_ns
    if more_ns <= 0:
        return tally
    return tally.changed(
        {
            "watermark_ns": until_ns,
            "gap_ns": added(tally.gap_ns, {reason: more_ns}),
            "silent_ns": tally.silent_ns + more_ns if reason is GapReason.SOURCE_SILENT else 0,
        }
    )


def _restart_energy(tally: Tally) -> Tally:
    """`tally` whose energy counting restarts from the next value that is read."""
    if "energy_mj" not in tally.counters:
        return tally
    kept = {name: value for name, value in tally.counters.items() if name != "energy_mj"}
    return tally.changed({"counters": kept, "energy_at_ns": 0})


def _with_absolutes(tally: Tally, reading: Reading) -> Tally:
    return tally.changed(_absolutes(tally, reading))


def _absolutes(tally: Tally, reading: Reading) -> dict[str, Any]:
    """The fields of `tally` that change by a reading's absolute counter values: these, the energy since the last ones
    and the time that it covers. A counter that fell was reset by a driver reload; one that grew faster than any device
    can draw was misread. In both cases the energy used is unknown: nothing is added, and counting continues from the
    new value."""
    changes: dict[str, Any] = {}
    if (read := reading.totals) is not None:  # copied, since a source may reuse its mapping
        changes["totals"] = Totals(read.origin, read.elapsed_sm_cycles, dict(read.sm_cycles))
        changes["totals_ns"] = reading.end_ns
    if reading.counters:
        changes["counters"] = {**tally.counters, **reading.counters}
    now, before = reading.counters.get("energy_mj"), tally.counters.get("energy_mj")
    if now is None:
        return changes
    passed_ns = reading.end_ns - tally.energy_at_ns
    if before is not None and passed_ns > 0:
        most_mj = MOST_WATTS * (passed_ns + ENERGY_LATE_NS) // 1_000_000
        if 0 <= now - before <= most_mj:
            changes["energy_mj"] = (tally.energy_mj or 0) + now - before
            changes["energy_ns"] = tally.energy_ns + passed_ns
    changes["energy_at_ns"] = reading.end_ns
    return changes


def new_gaps(before: Tally, after: Tally, reading: Reading) -> list[tuple[int, int, GapReason]]:
    """The gap intervals that `advance` made from `reading`, in order: (begin_ns, end_ns, reason)."""
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

"""The meter: folds one reading into one tally. Pure arithmetic on ints.

Laws (tests/property/test_meter.py):
  - time is conserved: observed + gap = watermark - begin, always;
  - every field only grows;
  - a reading that lies before the watermark changes nothing, so replays are harmless;
  - splitting a reading changes no total;
  - no pipe is active for more cycles than the device has in the observed time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from flopsd.core.flop import ceil_div
from flopsd.core.model import Active, Busy, Counted, Evidence, Gap, GapReason, Limits, Reading, Tally

K = TypeVar("K")

# The driver's clock readings are whole MHz, and a boost step can lie between two of them.
CLOCK_TOLERANCE_PPM = 10_000


def max_sm_cycles(limits: Limits, duration_ns: int) -> int:
    """SM-cycles that a device can have in `duration_ns`, rounded up."""
    return ceil_div(limits.sm_count * limits.sm_clock_max_mhz * duration_ns, 1000)


def advance(tally: Tally, reading: Reading, limits: Limits | None) -> Tally:
    """`tally` after `reading`.

    `limits` is None for a device that the peak table does not know: its time becomes a gap.
    A hole before the reading becomes a gap, a reading that overlaps the watermark is not counted
    for the part that remains, since nobody knows how its work was spread.
    """
    if reading.end_ns <= tally.watermark_ns:
        return tally
    if reading.begin_ns > tally.watermark_ns:
        tally = _gap(tally, reading.begin_ns, _hole_reason(tally))
    return _with_counters(_apply(tally, reading, limits), reading.counters)


def _apply(tally: Tally, reading: Reading, limits: Limits | None) -> Tally:
    work = reading.work
    if isinstance(work, Gap):
        return _gap(tally, reading.end_ns, work.reason)
    if reading.begin_ns < tally.watermark_ns:
        return _gap(tally, reading.end_ns, GapReason.OVERLAP)
    if limits is None:
        return _gap(tally, reading.end_ns, GapReason.UNKNOWN_DEVICE)
    duration_ns = reading.end_ns - reading.begin_ns
    possible = max_sm_cycles(limits, duration_ns)
    possible += possible * CLOCK_TOLERANCE_PPM // 1_000_000 + 1
    if isinstance(work, Active):
        if any(not 0 <= cycles <= possible for cycles in work.sm_cycles.values()):
            return _gap(tally, reading.end_ns, GapReason.OUT_OF_RANGE)
        return replace(
            tally,
            watermark_ns=reading.end_ns,
            observed_ns=_plus(tally.observed_ns, {work.evidence: duration_ns}),
            active_sm_cycles=_plus(
                tally.active_sm_cycles,
                {(work.evidence, pipe): cycles for pipe, cycles in work.sm_cycles.items() if cycles},
            ),
        )
    if isinstance(work, Counted):
        if work.flop < 0:
            return _gap(tally, reading.end_ns, GapReason.OUT_OF_RANGE)
        return replace(
            tally,
            watermark_ns=reading.end_ns,
            observed_ns=_plus(tally.observed_ns, {Evidence.COUNT: duration_ns}),
            counted_flop=tally.counted_flop + work.flop,
        )
    assert isinstance(work, Busy)
    if not 0 <= work.sm_cycles <= possible:
        return _gap(tally, reading.end_ns, GapReason.OUT_OF_RANGE)
    return replace(
        tally,
        watermark_ns=reading.end_ns,
        observed_ns=_plus(tally.observed_ns, {Evidence.UTILIZATION: duration_ns}),
        busy_sm_cycles=tally.busy_sm_cycles + work.sm_cycles,
    )


def _hole_reason(tally: Tally) -> GapReason:
    """Why nothing covers the time before a reading: before the first one the source was still starting."""
    return GapReason.UNREAD if tally.span_ns else GapReason.STARTING


def _gap(tally: Tally, until_ns: int, reason: GapReason) -> Tally:
    return replace(
        tally,
        watermark_ns=until_ns,
        gap_ns=_plus(tally.gap_ns, {reason: until_ns - tally.watermark_ns}),
    )


def _with_counters(tally: Tally, absolute: Mapping[str, int]) -> Tally:
    """New absolute counter values, and the energy that passed since the last ones.

    A counter that fell has been reset by a driver reload: what it lost is unknown, so nothing is
    added and counting goes on from the new value.
    """
    if not absolute:
        return tally
    energy_mj, now, before = tally.energy_mj, absolute.get("energy_mj"), tally.counters.get("energy_mj")
    if now is not None:
        energy_mj = (energy_mj or 0) + (now - before if before is not None and now >= before else 0)
    return replace(tally, counters={**tally.counters, **absolute}, energy_mj=energy_mj)


def _plus(totals: Mapping[K, int], more: Mapping[K, int]) -> Mapping[K, int]:
    grown = dict(totals)
    for key, value in more.items():
        grown[key] = grown.get(key, 0) + value
    return grown


def new_gaps(before: Tally, after: Tally, reading: Reading) -> list[tuple[int, int, GapReason]]:
    """The gap intervals that `advance` made of `reading`, in order: (begin_ns, end_ns, reason)."""
    if before.gap_ns == after.gap_ns:
        return []
    found: list[tuple[int, int, GapReason]] = []
    from_ns = before.watermark_ns
    if reading.begin_ns > from_ns:
        found.append((from_ns, reading.begin_ns, _hole_reason(before)))
        from_ns = reading.begin_ns
    grown = {r: ns - before.gap_ns.get(r, 0) for r, ns in after.gap_ns.items()}
    grown[_hole_reason(before)] = grown.get(_hole_reason(before), 0) - (from_ns - before.watermark_ns)
    found += [(from_ns, after.watermark_ns, reason) for reason, ns in grown.items() if ns]
    return found

"""Growth of free-running counters between two readings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flopsd.core.model import GapReason, Pipe, Reading, Totals
from flopsd.core.tally import Tally

# GPM counters are updated every 100 ms (nvml.h): the part of an interval that one reading misses is in the next.
COUNTER_REFRESH_NS = 200_000_000
RESET_MIN_NS = 3_000_000_000  # no reset of a GPU between two readings is faster without making a reading fail
# HMMA is the tensor work that is neither DMMA nor IMMA (DCGM#252), so sub-pipes are parts of all tensor activity. Some
# are read one after another (DCGM#169). This tolerance, of all cycles, equals the self-test's for a counter.
SUB_PIPES_TOLERANCE_PPM = 50_000


def growth(
    tally: Tally, reading: Reading, most_sm_cycles: Callable[[int], int]
) -> Mapping[Pipe, int] | GapReason | None:
    """Growth by pipe since the totals were last read, TENSOR without its sub-pipes, or the reason why it is not known;
    None: nothing to subtract from. `most_sm_cycles` returns the most cycles that the device can have in a number of ns.
    """
    now, before = reading.totals, tally.totals
    if now is None or before is None or now.origin != before.origin:
        return None
    duration_ns = reading.end_ns - tally.totals_ns
    possible = most_sm_cycles(duration_ns + COUNTER_REFRESH_NS)
    is_hole = reading.begin_ns > tally.totals_ns
    may_have_wrapped = is_hole and now.pipe_range is not None and now.pipe_range <= possible
    found = None if may_have_wrapped else _differences(before, now, possible)
    if found is None or _energy_fell(tally, reading):
        return GapReason.COUNTER_RESET
    elapsed, grown = found
    if not elapsed and duration_ns > COUNTER_REFRESH_NS:  # also if they stood still while nobody read them
        return GapReason.COUNTER_STALLED
    was_unread = is_hole or duration_ns >= RESET_MIN_NS
    if was_unread and before.elapsed_sm_cycles < now.elapsed_sm_cycles <= possible:
        return GapReason.COUNTER_RESET  # reset while unread: they may have grown past their old values since
    if grown and max(grown.values()) > possible:
        return GapReason.OUT_OF_RANGE
    return _disjoint(elapsed, grown)


def _differences(before: Totals, now: Totals, possible: int) -> tuple[int, dict[Pipe, int]] | None:
    """Growth of the elapsed cycles and of each pipe, across the wrap of a counter that fell; None where a wrap does not
    explain the values. A counter that may have passed its whole range in the meantime is not used."""
    earlier = before.sm_cycles
    elapsed_at, pipe_at = now.wrap_at or (None, None)
    if elapsed_at is not None and min(elapsed_at, pipe_at or elapsed_at) <= possible:
        return None
    elapsed = _difference(before.elapsed_sm_cycles, now.elapsed_sm_cycles, elapsed_at, possible)
    try:
        grown = {pipe: cycles - earlier[pipe] for pipe, cycles in now.sm_cycles.items()}
    except KeyError:
        return None
    if len(grown) < len(earlier):
        return None
    if grown and min(grown.values()) < 0:
        grown = {pipe: _difference(earlier[pipe], cycles, pipe_at, possible) for pipe, cycles in now.sm_cycles.items()}
        if min(grown.values()) < 0:
            return None
    return None if elapsed < 0 else (elapsed, grown)


def _difference(before: int, now: int, wrap_at: int | None, possible: int) -> int:
    over = None if wrap_at is None or not now < before < wrap_at else now - before + wrap_at
    return now - before if over is None or over > possible else over


def _disjoint(elapsed: int, grown: dict[Pipe, int]) -> Mapping[Pipe, int] | GapReason:
    """The same growth, with TENSOR reduced to what no tensor sub-pipe accounts for; the reason why it is not known,
    where the sub-pipes grew by more than all tensor activity did."""
    if Pipe.TENSOR not in grown:
        return grown
    parts = grown.get(Pipe.TENSOR_HMMA, 0) + grown.get(Pipe.TENSOR_IMMA, 0) + grown.get(Pipe.TENSOR_DFMA, 0)
    rest = grown[Pipe.TENSOR] - parts
    if -rest * 1_000_000 > elapsed * SUB_PIPES_TOLERANCE_PPM:
        return GapReason.CONTRADICTORY
    grown[Pipe.TENSOR] = max(0, rest)
    return grown


def _energy_fell(tally: Tally, reading: Reading) -> bool:
    """Whether the energy counter fell: a driver reload or GPU reset zeroes it together with the others."""
    now, before = reading.counters.get("energy_mj"), tally.counters.get("energy_mj")
    return now is not None and before is not None and now < before

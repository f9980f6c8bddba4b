"""What counters that run without a reader grew by between two readings of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flopsd.core.model import GapReason, Pipe, Reading, Totals
from flopsd.core.tally import Tally

# GPM counters are renewed each 100 ms (nvml.h), so what one reading misses of its interval the next one has.
COUNTER_REFRESH_NS = 200_000_000
RESET_MIN_NS = 3_000_000_000  # no reset of a GPU between two readings passes sooner without a reading that fails
# HMMA is the tensor work that is neither DMMA nor IMMA (DCGM#252), so sub-pipes are parts of any tensor activity. Some
# are read one after another (DCGM#169): as much of all cycles as the self-test lets a counter be off its percentage.
SUB_PIPES_TOLERANCE_PPM = 50_000


def growth(
    tally: Tally, reading: Reading, most_sm_cycles: Callable[[int], int]
) -> Mapping[Pipe, int] | GapReason | None:
    """Growth by pipe since totals were last read, or why that is not known; None: there is nothing to subtract.
    `most_sm_cycles`: what the device can have at most in so many ns."""
    now, before = reading.totals, tally.totals
    if now is None or before is None or now.origin != before.origin:
        return None
    duration_ns = reading.end_ns - tally.totals_ns
    possible = most_sm_cycles(duration_ns + COUNTER_REFRESH_NS)
    found = _differences(before, now, possible)
    if found is None or _energy_fell(tally, reading):
        return GapReason.COUNTER_RESET
    elapsed, grown = found
    if not elapsed and duration_ns > COUNTER_REFRESH_NS:  # also where they stood while nobody read them
        return GapReason.COUNTER_STALLED
    was_unread = reading.begin_ns > tally.totals_ns or duration_ns >= RESET_MIN_NS
    if was_unread and before.elapsed_sm_cycles < now.elapsed_sm_cycles <= possible:
        return GapReason.COUNTER_RESET  # while they were not read: they may have grown past their old values since
    if grown and max(grown.values()) > possible:
        return GapReason.OUT_OF_RANGE
    return GapReason.CONTRADICTORY if _sub_pipes_exceed(elapsed, grown) else grown


def _differences(before: Totals, now: Totals, possible: int) -> tuple[int, Mapping[Pipe, int]] | None:
    """Elapsed cycles and those of each pipe, over the end of a counter's range where it fell; None where that does not
    explain the values. A counter that may have gone through its whole range in the meantime says nothing of it."""
    earlier = before.sm_cycles
    if now.sm_cycles.keys() != earlier.keys():
        return None
    elapsed_at, pipe_at = now.wrap_at or (None, None)
    if elapsed_at is not None and min(elapsed_at, pipe_at or elapsed_at) <= possible:
        return None
    elapsed = _difference(before.elapsed_sm_cycles, now.elapsed_sm_cycles, elapsed_at, possible)
    grown = {pipe: cycles - earlier[pipe] for pipe, cycles in now.sm_cycles.items()}
    if grown and min(grown.values()) < 0:
        grown = {pipe: _difference(earlier[pipe], cycles, pipe_at, possible) for pipe, cycles in now.sm_cycles.items()}
        if min(grown.values()) < 0:
            return None
    return None if elapsed < 0 else (elapsed, grown)


def _difference(before: int, now: int, wrap_at: int | None, possible: int) -> int:
    over = None if wrap_at is None or not now < before < wrap_at else now - before + wrap_at
    return now - before if over is None or over > possible else over


def disjoint(grown: Mapping[Pipe, int]) -> dict[Pipe, int]:
    """The same growth; what no tensor sub-pipe accounts for under TENSOR."""
    if Pipe.TENSOR not in grown:
        return dict(grown)
    return {**grown, Pipe.TENSOR: max(0, grown[Pipe.TENSOR] - _sub_pipes(grown))}


def _sub_pipes(grown: Mapping[Pipe, int]) -> int:
    return grown.get(Pipe.TENSOR_HMMA, 0) + grown.get(Pipe.TENSOR_IMMA, 0) + grown.get(Pipe.TENSOR_DFMA, 0)


def _sub_pipes_exceed(elapsed: int, grown: Mapping[Pipe, int]) -> bool:
    """Whether the tensor sub-pipes grew by more than any tensor activity did."""
    if Pipe.TENSOR not in grown:
        return False
    beyond = _sub_pipes(grown) - grown[Pipe.TENSOR]
    return beyond * 1_000_000 > elapsed * SUB_PIPES_TOLERANCE_PPM


def _energy_fell(tally: Tally, reading: Reading) -> bool:
    """A driver reload or a GPU reset takes the energy counter back to zero, and the others with it."""
    now, before = reading.counters.get("energy_mj"), tally.counters.get("energy_mj")
    return now is not None and before is not None and now < before

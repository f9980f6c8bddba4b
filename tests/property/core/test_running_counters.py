"""Growth of running counters against the rule in small steps, each on its own."""

from collections.abc import Mapping

from hypothesis import example, given
from hypothesis import strategies as st

from flopsd.core.model import GapReason, Growth, Pipe, Reading, Totals
from flopsd.core.running_counters import COUNTER_REFRESH_NS, RESET_MIN_NS, SUB_PIPES_TOLERANCE_PPM, growth
from flopsd.core.tally import Tally

SUB_PIPES = (Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA)
NS = 10**9
POSSIBLE = 100  # cycles in any time
cycles = st.one_of(st.integers(0, 30), st.integers(0, 130), st.integers(950, 1000))
pipes = st.dictionaries(st.sampled_from([Pipe.TENSOR, Pipe.TENSOR_HMMA, Pipe.TENSOR_DFMA, Pipe.FP32]), cycles)
wraps = st.sampled_from([None, (1000, 1000), (1000, 200), (90, 1000), (1000, 0)])
ranges = st.sampled_from([None, None, POSSIBLE, POSSIBLE + 1])
moments = st.sampled_from([1, COUNTER_REFRESH_NS, COUNTER_REFRESH_NS + 1, NS, RESET_MIN_NS])


def grown(before: int, now: int, wrap_at: int | None) -> int:
    wraps = wrap_at is not None and now < before < wrap_at
    return now - before + wrap_at if wraps and wrap_at and now - before + wrap_at <= POSSIBLE else now - before


def by_steps(before: Totals, now: Totals, passed_ns: int, *, unread: bool) -> Mapping[Pipe, int] | GapReason:
    elapsed_at, pipe_at = now.wrap_at or (None, None)
    if set(before.sm_cycles) != set(now.sm_cycles):
        return GapReason.COUNTER_RESET
    if unread and now.pipe_range is not None and now.pipe_range <= POSSIBLE:
        return GapReason.COUNTER_RESET
    if elapsed_at is not None and min(elapsed_at, pipe_at or elapsed_at) <= POSSIBLE:
        return GapReason.COUNTER_RESET
    elapsed = grown(before.elapsed_sm_cycles, now.elapsed_sm_cycles, elapsed_at)
    each = {pipe: grown(before.sm_cycles[pipe], n, pipe_at) for pipe, n in now.sm_cycles.items()}
    if elapsed < 0 or any(n < 0 for n in each.values()):
        return GapReason.COUNTER_RESET
    if elapsed == 0 and passed_ns > COUNTER_REFRESH_NS:
        return GapReason.COUNTER_STALLED
    may_be_reset = unread or passed_ns >= RESET_MIN_NS
    if may_be_reset and before.elapsed_sm_cycles < now.elapsed_sm_cycles <= POSSIBLE:
        return GapReason.COUNTER_RESET
    if any(n > POSSIBLE for n in each.values()):
        return GapReason.OUT_OF_RANGE
    if Pipe.TENSOR in each:
        parts = sum(each.get(pipe, 0) for pipe in SUB_PIPES)
        if (parts - each[Pipe.TENSOR]) * 1_000_000 > elapsed * SUB_PIPES_TOLERANCE_PPM:
            return GapReason.CONTRADICTORY
        each[Pipe.TENSOR] = max(0, each[Pipe.TENSOR] - parts)
    return each


@given(pipes, st.one_of(st.none(), pipes), cycles, cycles, wraps, moments, st.booleans(), ranges)
@example({Pipe.TENSOR: 5}, {Pipe.TENSOR: 9}, 950, 990, None, NS, True, POSSIBLE)
@example({Pipe.TENSOR: 5}, {Pipe.TENSOR: 9}, 950, 990, None, NS, False, POSSIBLE)
@example({Pipe.TENSOR: 5}, {Pipe.TENSOR: 9}, 950, 990, None, NS, True, POSSIBLE + 1)
@example({Pipe.TENSOR: 5}, {Pipe.FP32: 5}, 1, 20, None, NS, False, None)
@example({Pipe.TENSOR: 5, Pipe.FP32: 5}, {Pipe.FP32: 5}, 1, 20, None, NS, False, None)
@example({Pipe.FP32: 5}, {Pipe.TENSOR: 5, Pipe.FP32: 5}, 1, 20, None, NS, False, None)
@example({Pipe.TENSOR: 0, Pipe.TENSOR_HMMA: 0}, {Pipe.TENSOR: 20, Pipe.TENSOR_HMMA: 21}, 0, 20, None, NS, False, None)
@example({Pipe.TENSOR: 0, Pipe.TENSOR_HMMA: 0}, {Pipe.TENSOR: 20, Pipe.TENSOR_HMMA: 22}, 0, 20, None, NS, False, None)
def test_growth_is_that_of_the_rule_in_steps(
    earlier: dict[Pipe, int], more: dict[Pipe, int] | None, elapsed_before: int, elapsed: int,
    wrap_at: tuple[int, int] | None, passed_ns: int, unread: bool,
    pipe_range: int | None,
) -> None:  # fmt: skip
    read = {pipe: n + 7 for pipe, n in earlier.items()} if more is None else more
    before, now = Totals("boot", elapsed_before, earlier), Totals("boot", elapsed, read, wrap_at, pipe_range)
    at_ns = 5 * NS
    tally = Tally(0, at_ns, totals=before, totals_ns=at_ns)
    reading = Reading("GPU-0", at_ns + unread, at_ns + passed_ns, Growth(), totals=now)
    if reading.begin_ns >= reading.end_ns:
        return
    copies = dict(earlier), dict(read)
    assert growth(tally, reading, lambda _: POSSIBLE) == by_steps(before, now, passed_ns, unread=unread)
    assert (earlier, read) == copies

"""What the contract suite finds nothing against, the meter takes whole: no time or work of it is turned into a gap."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

import flopsd.testing.rules as rules
from flopsd.core.model import Active, Busy, Counted, Evidence, Gap, GapReason, Growth, Pipe, Reading, Sweep, Totals
from flopsd.testing.rules import Observation, Read
from tests.support.strategies import H100, LIMITS, run, works

DEVICE = replace(H100, evidence=Evidence.CYCLES)


@st.composite
def told(draw: st.DrawFn) -> list[Reading]:
    """Readings of one device, mostly sound: now and then a hole, an overlap, too much work or a counter that falls."""
    readings, at_ns, total = [], 0, 0
    for _ in range(draw(st.integers(1, 8))):
        begin_ns = max(0, at_ns + draw(st.sampled_from([0] * 9 + [-5, 5])))
        at_ns = begin_ns + draw(st.integers(1, 30)) * 100_000_000
        work: Active | Busy | Counted | Gap | Growth = draw(works(at_ns - begin_ns))
        totals = None
        if draw(st.sampled_from([False] * 3 + [True])):
            total += draw(st.sampled_from([0, 10**6, 10**9, 10**9, 10**9, -(10**6), 10**14]))
            work, totals = Growth(), Totals("boot", max(0, total), {Pipe.TENSOR: max(0, total)})
        elif isinstance(work, Busy) and draw(st.sampled_from([False] * 9 + [True])):
            work = Busy(work.sm_cycles + 10**14)
        readings.append(Reading(DEVICE.uid, begin_ns, at_ns, work, {}, totals))
    return readings


def problems(readings: list[Reading]) -> list[str]:
    reads = tuple(Read(r.end_ns, (DEVICE,), (DEVICE,), Sweep((r,))) for r in readings)
    observation = Observation(0, reads)
    return [*rules.intervals(observation), *rules.works(observation), *rules.totals(observation)]


@given(told())
def test_what_the_suite_passes_the_meter_takes_whole(readings: list[Reading]) -> None:
    if problems(readings):
        return
    tally = run(readings, limits=LIMITS)
    allowed = {GapReason.STARTING} | {r.work.reason for r in readings if isinstance(r.work, Gap)}
    if any(isinstance(r.work, Growth) for r in readings):
        allowed.add(GapReason.MISSED_READING)  # until there are totals to subtract from
    assert set(tally.gap_ns) <= allowed
    assert tally.span_ns == readings[-1].end_ns


@given(told(), st.integers(0, 7), st.sampled_from([-1, 1]))
def test_a_shifted_boundary_is_always_found(readings: list[Reading], at: int, by_ns: int) -> None:
    if problems(readings) or len(readings) < 2:
        return
    at = at % (len(readings) - 1) + 1
    readings[at] = replace(readings[at], begin_ns=readings[at].begin_ns + by_ns)
    assert problems(readings)

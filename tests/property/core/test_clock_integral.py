"""The integral of a sampled clock: exact where it is known, and never further off than its doubt."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.clock_integral import Cycles, integrate

MHZ = st.integers(210, 2062)
STEPS = st.lists(st.tuples(st.integers(1_000_000, 900_000_000), MHZ), min_size=1, max_size=12)


def truth(steps: list[tuple[int, int]], begin_ns: int, end_ns: int) -> Fraction:
    """Cycles of a clock that holds each (duration, MHz) in turn, the last for ever."""
    total, at_ns = Fraction(0), 0
    for duration_ns, mhz in [*steps[:-1], (10**18, steps[-1][1])]:
        part_ns = min(end_ns, at_ns + duration_ns) - max(begin_ns, at_ns)
        total += Fraction(max(0, part_ns) * mhz, 1000)
        at_ns += duration_ns
    return total


@given(STEPS, st.integers(0, 3 * 10**9), st.integers(0, 3 * 10**9))
def test_samples_at_every_step_bound_the_truth(steps: list[tuple[int, int]], one_ns: int, other_ns: int) -> None:
    begin_ns, end_ns = sorted((one_ns, other_ns))
    samples, at_ns = [], 0
    for duration_ns, mhz in steps:
        samples.append((at_ns, mhz))
        at_ns += duration_ns
    found = integrate(samples, begin_ns, end_ns)
    assert found is not None
    assert abs(found.cycles - truth(steps, begin_ns, end_ns)) <= found.doubt_cycles + 1


@given(MHZ, st.lists(st.integers(0, 10**10), min_size=1, max_size=9), st.integers(0, 10**10), st.integers(0, 10**10))
def test_a_constant_clock_is_exact_wherever_it_was_sampled(
    mhz: int, times: list[int], one_ns: int, other_ns: int
) -> None:
    begin_ns, end_ns = sorted((one_ns, other_ns))
    assert integrate([(at_ns, mhz) for at_ns in sorted(times)], begin_ns, end_ns) == Cycles(
        mhz * (end_ns - begin_ns) // 1000, 0
    )


@given(STEPS, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_splitting_an_interval_changes_nothing(steps: list[tuple[int, int]], a: int, b: int, c: int) -> None:
    samples, at_ns = [], 0
    for duration_ns, mhz in steps:
        samples.append((at_ns, mhz))
        at_ns += duration_ns
    begin_ns, middle_ns, end_ns = sorted((a, b, c))
    whole, parts = (
        integrate(samples, begin_ns, end_ns),
        [integrate(samples, begin_ns, middle_ns), integrate(samples, middle_ns, end_ns)],
    )
    assert whole is not None
    assert abs(whole.cycles - sum(part.cycles for part in parts if part)) <= 1


def test_without_a_sample_nothing_is_known() -> None:
    assert integrate([], 0, 10) is None

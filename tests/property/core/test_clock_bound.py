"""The bound on randomly timed clock readings: it holds for clocks that know the slots but not the draws."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.clock_bound import deviation

IDLE_MHZ, MAX_MHZ = 210, 1980
RANGE = MAX_MHZ - IDLE_MHZ
Clock = Callable[[float], float]  # MHz by time, in slots


def run(clock: Clock, truth: Callable[[int], float], slots: int, seed: int) -> tuple[float, int, int]:
    """The error of the sum, the sum of squares, and a slot's range, in MHz x slots."""
    dice = random.Random(seed)
    error, squares, prediction = 0.0, 0, (IDLE_MHZ + MAX_MHZ) // 2
    for slot in range(slots):
        read = round(clock(slot + dice.random()))
        error += read - truth(slot)
        squares += (read - prediction) ** 2
        prediction = read
    return error, squares, RANGE


def square_wave(period: float, high_share: float, phase: float) -> tuple[Clock, Callable[[int], float]]:
    """A clock in step with the slots; and its exact mean over each slot."""

    def at(time: float) -> float:
        return MAX_MHZ if (time / period + phase) % 1.0 < high_share else IDLE_MHZ

    def until(time: float) -> float:
        laps, part = divmod(time / period + phase, 1.0)
        return (laps * high_share + min(part, high_share)) * period

    return at, lambda slot: IDLE_MHZ + RANGE * (until(slot + 1) - until(slot))


@given(
    st.sampled_from([0.5, 1.0, 2.0, 3.0, 12.0, 12.0001, 37.0, 720.0]),
    st.floats(0.01, 0.99),
    st.floats(0, 1),
    st.integers(1, 3000),
    st.integers(0, 2**32),
)
def test_no_clock_that_ignores_the_draws_exceeds_the_bound(
    period: float, high_share: float, phase: float, slots: int, seed: int
) -> None:
    clock, truth = square_wave(period, high_share, phase)
    error, squares, width = run(clock, truth, slots, seed)
    assert abs(error) <= deviation(squares, width, slots * width) + slots  # a reading is rounded to a whole MHz


@given(st.integers(0, 2**32), st.integers(1, 400))
def test_no_clock_that_follows_past_draws_exceeds_the_bound(seed: int, slots: int) -> None:
    """It runs high for the part of the next slot in which the last draw was lucky."""
    dice = random.Random(seed)
    error, squares, prediction, last = 0.0, 0, IDLE_MHZ, 0.5
    for _ in range(slots):
        draw = dice.random()
        read = MAX_MHZ if (draw < 0.5) == (last < 0.5) else IDLE_MHZ
        error += read - (IDLE_MHZ + MAX_MHZ) / 2
        squares += (read - prediction) ** 2
        prediction, last = read, draw
    assert abs(error) <= deviation(squares, RANGE, slots * RANGE)


@given(
    st.integers(0, 10**30),
    st.integers(0, 10**30),
    st.integers(1, 10**12),
    st.integers(0, 10**16),
    st.integers(0, 10**16),
)
def test_the_deviation_grows_with_the_observed_squares(one: int, more: int, slot: int, whole: int, longer: int) -> None:
    assert deviation(one, slot, whole) <= deviation(one + more, slot, whole + longer)


@given(st.integers(0, 10**30), st.integers(1, 10**12), st.integers(0, 10**16))
def test_the_deviation_is_never_below_the_formula(squares: int, slot: int, whole: int) -> None:
    grid = [0.8, *(2.0**-k for k in range(1, 20))]
    spread = squares / slot**2
    limit = math.log(2 * 2 * len(grid) * 1e6)
    exact = min((limit + min(spread * (-math.log1p(-a) - a), whole / slot * a * a / 8)) / a for a in grid) * slot
    assert deviation(squares, slot, whole) >= exact * (1 - 1e-12)


@pytest.mark.parametrize(("hours", "points"), [(1 / 6, 7), (1, 3), (8, 1)])
def test_the_width_of_the_deviation(hours: float, points: float) -> None:
    """Eighteen slots per second of the most variable clock, at its maximum in one slot and at zero in the next."""
    slots = int(hours * 3600 * 18)
    width = 2 * deviation(slots * MAX_MHZ**2, MAX_MHZ, slots * MAX_MHZ) / (slots * MAX_MHZ) * 100
    print(f"{hours:.2g} hours: {width:.2f} points from low to high")
    assert width < points


def test_without_slots_there_is_no_deviation() -> None:
    assert deviation(0, 0, 0) == 0


@pytest.mark.parametrize("squares", [4**n for n in range(18)])
def test_the_bound_is_close_to_the_best_of_the_published_one_on_its_grid(squares: int) -> None:
    widest = 10**6
    best = min(
        widest * (math.log(80e6) + squares * (-math.log(1 - a) - a)) / a for a in (0.8, *(0.5**k for k in range(1, 20)))
    )
    assert best <= deviation(squares * widest**2, widest, 10**40) <= 1.12 * best

"""Numbers of a report with the exact ones beside them, and the scales of its charts."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from flopsd.core.model import Figures
from flopsd.report.charts import Axis, axis_of, bands, linear_ticks, logarithm, round_number
from flopsd.report.numbers import NO_UPPER_BOUND, duration, energy, flop, interval

NUMBERS = st.integers(0, 10**40 - 1)


@given(NUMBERS)
def test_the_exact_number_stands_beside_the_shown_one(number: int) -> None:
    shown = interval(Figures(number, number, number))
    assert shown.measured is not None
    assert shown.high is not None
    assert {shown.low.exact, shown.measured.exact, shown.high.exact} == {f"{number} FLOP"}


def test_a_threshold_keeps_its_fraction() -> None:
    assert flop(Fraction(10**25, 3)).exact == f"{10**25}/3 FLOP"


def test_what_is_not_known_is_said() -> None:
    shown = interval(Figures(5, None, None))
    assert shown.measured is None
    assert shown.high is None
    assert shown.ends == f"at least 5 FLOP; {NO_UPPER_BOUND}"


def test_a_time_and_an_energy_keep_their_exact_value() -> None:
    assert energy(Fraction(252, 10)).exact == "25.2 J"
    assert duration(Fraction(1, 3) * 3).exact == "1 s"


@given(st.lists(st.integers(1, 10**40), min_size=1, max_size=6))
def test_an_axis_holds_all_its_numbers_in_their_order(numbers: list[int]) -> None:
    axis = axis_of(numbers)
    assert axis is not None
    assert all(axis.low < logarithm(number) < axis.high for number in numbers)
    places = [axis.at(number) for number in sorted(numbers)]
    assert places == sorted(places)
    assert 2 <= len(axis.ticks) <= 8
    assert all(3 <= tick.at <= 97 for tick in axis.ticks)


def test_an_axis_of_nothing_is_none_and_zero_stands_at_its_edge() -> None:
    assert axis_of([0]) is None
    assert Axis(20, 26).at(0) == 3.0
    assert Axis(20, 26).at(10**40) == 97.0


def test_stretches_that_touch_are_one_and_stay_within() -> None:
    found = bands([(0, 10), (10, 20), (50, 60), (90, 200), (-5, -1)], 0, 100)
    assert [(band.at, band.width) for band in found] == [(0, 20), (50, 10), (90, 10)]
    assert bands([(0, 1)], 5, 5) == ()


@given(st.integers(0, 10**40))
@example(6)  # where a fourth, cut off, is less than a sixth
@example(7)
def test_steps_are_round_and_few(top: int) -> None:
    ticks = linear_ticks(top)
    assert ticks[0] == 0
    assert len(ticks) <= 6
    assert all(tick <= top for tick in ticks)
    assert all(len(round_number(tick)) < 12 for tick in ticks)

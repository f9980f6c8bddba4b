"""Numbers of a report: what is rounded still holds, and nothing that is unknown looks like a number."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flopsd.core.model import Figures
from flopsd.report.charts import Axis, axis_of, bands, linear_ticks, logarithm, round_number
from flopsd.report.numbers import (
    DOWN,
    NO_UPPER_BOUND,
    TIMES,
    UP,
    duration,
    energy,
    fraction,
    grouped,
    interval,
    percent,
    power,
    scientific,
    times,
)

NUMBERS = st.integers(0, 10**40 - 1)
DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def value(text: str) -> Fraction:
    """A shown number read back."""
    if text.isascii():
        return Fraction(Decimal(text))
    mantissa, _, exponent = text.translate(DIGITS).rpartition(f" {TIMES} ")
    return Fraction(Decimal(mantissa or "1")) * Fraction(10) ** int(exponent[2:])


@given(NUMBERS)
def test_a_lower_end_is_never_shown_higher_nor_an_upper_end_lower(number: int) -> None:
    low, high = value(scientific(number, DOWN)), value(scientific(number, UP))
    assert low <= number <= high
    assert high - low <= Fraction(max(number, 1), 100)


@given(NUMBERS)
def test_the_exact_number_stands_beside_the_shown_one(number: int) -> None:
    shown = interval(Figures(number, number, number))
    assert shown.measured is not None
    assert shown.high is not None
    assert {shown.low.exact, shown.measured.exact, shown.high.exact} == {f"{number} FLOP"}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "10³"),
        (6_505_252_184_471_040, f"6.51 {TIMES} 10¹⁵"),
        (10**25, "10²⁵"),
        (10**25 + 1, f"1.00 {TIMES} 10²⁵"),
        (999_999, f"1.00 {TIMES} 10⁶"),
        (Fraction(10**23, 3), f"3.33 {TIMES} 10²²"),
    ],
)
def test_numbers_are_shown_so(number: int | Fraction, text: str) -> None:
    assert scientific(number) == text


def test_a_threshold_keeps_its_fraction() -> None:
    assert fraction(Fraction(10**25, 3)).exact == f"{10**25}/3 FLOP"


def test_what_is_not_known_is_said() -> None:
    shown = interval(Figures(5, None, None))
    assert shown.measured is None
    assert shown.high is None
    assert shown.ends == f"at least 5 FLOP; {NO_UPPER_BOUND}"


@given(st.integers(0, 10**12))
def test_a_share_is_rounded_outward(ppm: int) -> None:
    low, high = (Decimal(percent(ppm, way).removesuffix(" %")) for way in (DOWN, UP))
    assert low <= Decimal(ppm) / 10_000 <= high


def test_shares_are_shown_so() -> None:
    assert [percent(ppm) for ppm in (0, 1, 12_345, 736_842, 1_000_000, 12_345_678)] == [
        "0 %", "0.0001 %", "1.23 %", "73.7 %", "100 %", "1235 %"
    ]  # fmt: skip
    assert times(8_010_000) == "8.01 times"
    assert times(5 * 10**18) == f"5.00 {TIMES} 10¹² times"


def test_times_and_energies_take_the_unit_that_suits_them() -> None:
    assert [duration(Fraction(s)).text for s in (0, 38, 600, 7200, 1_000_000)] == ["0 s", "38 s", "10 min", "2 h", "11.6 days"]  # fmt: skip
    assert [energy(Fraction(j)).text for j in (25, 756_000, 7_200_000, 10**11)] == ["25 J", "210 Wh", "2 kWh", "27.8 MWh"]  # fmt: skip
    assert energy(Fraction(252, 10)).exact == "25.2 J"
    assert duration(Fraction(1, 3) * 3).exact == "1 s"
    assert grouped(1234567).replace("\u202f", " ") == "1 234 567"
    assert power(-1) == "10⁻¹"


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
    assert Axis(20, 26, (), "").at(0) == 3.0
    assert Axis(20, 26, (), "").at(10**40) == 97.0


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


@given(st.integers(10**12, 10**20))
def test_a_multiple_beyond_a_million_is_rounded_outward_too(ppm: int) -> None:
    low, high = (value(times(ppm, rounding).removesuffix(" times")) for rounding in (DOWN, UP))
    assert low * 10**6 <= ppm <= high * 10**6

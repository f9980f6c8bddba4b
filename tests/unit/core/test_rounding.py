"""Rounding to significant figures, and the number notation: exact, ASCII, and outward where a number is a bound; in
a report with the exact number next to it, and on the scales of its charts."""

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.figures import Figures
from flopsd.core.rounding import (
    DAY_S,
    YEAR_S,
    Towards,
    flop_number,
    format_duration,
    format_energy,
    format_flop,
    format_percent,
    format_rate,
    format_share,
    grouped,
    plain,
    scientific,
    share_at_most,
    significant,
)
from flopsd.report.contents.charts import axis_of, logarithm
from flopsd.report.numbers import NO_UPPER_BOUND, duration, energy, flop, interval

numbers = st.one_of(
    st.integers(1, 10**30).map(Fraction), st.fractions(min_value=Fraction(1, 10**12), max_value=10**30).filter(bool)
)


@given(numbers, st.integers(1, 8))
def test_rounding_is_within_half_a_unit_of_the_last_place(number: Fraction, figures: int) -> None:
    digits, exponent = significant(number, figures)
    unit = Fraction(10) ** exponent
    assert abs(digits * unit - number) <= unit / 2
    assert len(str(digits)) == figures


@given(numbers, st.integers(1, 8))
def test_outward_rounding_encloses_the_number(number: Fraction, figures: int) -> None:
    low, high = significant(number, figures, Towards.DOWN), significant(number, figures, Towards.UP)
    assert low[0] * Fraction(10) ** low[1] <= number <= high[0] * Fraction(10) ** high[1]
    assert high[0] * Fraction(10) ** high[1] - low[0] * Fraction(10) ** low[1] <= Fraction(10) ** high[1]


@given(numbers, st.integers(1, 8))
def test_both_notations_state_the_rounded_number(number: Fraction, figures: int) -> None:
    digits, exponent = significant(number, figures)
    rounded = digits * Fraction(10) ** exponent
    mantissa, _, power = scientific(number, figures).partition("x10^")
    assert Fraction(mantissa) * Fraction(10) ** int(power) == rounded
    mantissa, _, power = plain(number, figures).partition("x10^")
    assert Fraction(mantissa) * Fraction(10) ** int(power or "0") == rounded


@given(st.integers(0, 10**40 - 1))
def test_a_lower_bound_is_never_rounded_up_nor_an_upper_bound_down(number: int) -> None:
    low, high = value(flop_number(number, Towards.DOWN)), value(flop_number(number, Towards.UP))
    assert low <= number <= high
    assert high - low <= Fraction(max(number, 1), 100)


@given(st.integers(0, 10**12))
def test_a_percentage_is_rounded_outward(ppm: int) -> None:
    low, high = (
        Fraction(format_percent(Fraction(ppm, 10**6), way).removesuffix(" %").replace(" ", ""))
        for way in (Towards.DOWN, Towards.UP)
    )
    assert low * 10_000 <= ppm <= high * 10_000


TEXTS: list[tuple[Callable[[], str], str]] = [
    (lambda: scientific(23 * 10**24, 2), "2.3x10^25"),
    (lambda: scientific(225 * 10**23, 2), "2.2x10^25"),  # half to even
    (lambda: scientific(235 * 10**23, 2), "2.4x10^25"),
    (lambda: scientific(996 * 10**22, 2), "1.0x10^25"),  # carries
    (lambda: scientific(7, 1), "7x10^0"),
    (lambda: scientific(0, 2), "0"),
    (
        lambda: scientific(10**23 - 1, 2),
        "1.0x10^23",
    ),  # not above the threshold that it looks like: verdicts use exact numbers
    (lambda: plain(Fraction(123, 10), 2), "12"),
    (lambda: plain(Fraction(1234, 100_000), 2), "0.012"),
    (lambda: plain(370_000, 2), "370000"),
    (lambda: plain(4_200_000, 2), "4.2x10^6"),
    (lambda: plain(0, 2), "0"),
    (lambda: format_flop(None), "unknown"),
    (lambda: format_flop(0), "0 FLOP"),
    (lambda: format_flop(999), "999 FLOP"),
    (lambda: format_flop(1000), "10^3 FLOP"),
    (lambda: format_flop(6_505_252_184_471_040), "6.51x10^15 FLOP"),
    (lambda: format_flop(10**25), "10^25 FLOP"),
    (lambda: format_flop(10**25 + 1), "1.00x10^25 FLOP"),
    (lambda: format_flop(999_999), "1.00x10^6 FLOP"),
    (lambda: format_flop(Fraction(10**23, 3)), "3.33x10^22 FLOP"),
    (lambda: format_flop(Fraction(1, 3)), "0.333 FLOP"),
    (lambda: format_rate(None), "unknown"),
    (lambda: format_rate(0), "0 FLOP/s"),
    (lambda: format_rate(10**8), "10^8 FLOP/s"),
    (lambda: format_rate(1_234_567_890), "0.00123 TFLOP/s"),
    (lambda: format_rate(812 * 10**12), "812 TFLOP/s"),
    (lambda: format_rate(1234 * 10**12), "1.23 PFLOP/s"),
    (lambda: format_rate(10**20), "100 000 PFLOP/s"),
    (lambda: format_percent(Fraction(0, 10**6), Towards.DOWN), "0 %"),
    (lambda: format_percent(Fraction(1, 10**6), Towards.DOWN), "0.0001 %"),
    (lambda: format_percent(Fraction(99_999, 10**8), Towards.DOWN), "0.0999 %"),
    (lambda: format_percent(Fraction(1_999, 10**6), Towards.DOWN), "0.19 %"),
    (lambda: format_percent(Fraction(12_345, 10**6), Towards.DOWN), "1.23 %"),
    (lambda: format_percent(Fraction(9_999, 10**5), Towards.DOWN), "9.99 %"),
    (lambda: format_percent(Fraction(10_001, 10**5), Towards.DOWN), "10 %"),
    (lambda: format_percent(Fraction(10_099, 10**5), Towards.DOWN), "10 %"),
    (lambda: format_percent(Fraction(736_842, 10**6), Towards.DOWN), "73.6 %"),
    (lambda: format_percent(Fraction(999_999, 10**6), Towards.DOWN), "99.9 %"),
    (lambda: format_percent(Fraction(1_000_000, 10**6), Towards.DOWN), "100 %"),
    (lambda: format_duration(Fraction("0")), "0 s"),
    (lambda: format_duration(Fraction("0.00001")), "under 0.1 ms"),
    (lambda: format_duration(Fraction("0.08")), "80 ms"),
    (lambda: format_duration(Fraction("0.9985")), "998 ms"),
    (lambda: format_duration(Fraction("1.5")), "1.5 s"),
    (lambda: format_duration(Fraction("52.4")), "52 s"),
    (lambda: format_duration(Fraction("336")), "5.6 min"),
    (lambda: format_duration(Fraction("11520")), "3.2 h"),
    (lambda: format_duration(Fraction("1000000")), "12 days"),
    (lambda: format_duration(Fraction("70000000")), "2.2 years"),
    (lambda: format_duration(Fraction("1000000000000")), "over 10 000 years"),
    (lambda: format_duration(Fraction("-52")), "-52 s"),
    (lambda: format_energy(Fraction(0)), "0 J"),
    (lambda: format_energy(Fraction(25)), "25 J"),
    (lambda: format_energy(Fraction(756_000)), "210 Wh"),
    (lambda: format_energy(Fraction(7_200_000)), "2 kWh"),
    (lambda: format_energy(Fraction(10**11)), "27.8 MWh"),
    (lambda: format_energy(Fraction("25.2")), "25.2 J"),
    (lambda: grouped(1_234_567), "1 234 567"),
]


@pytest.mark.parametrize(("made", "text"), TEXTS)
def test_numbers_are_formatted_as_expected(made: Callable[[], str], text: str) -> None:
    assert made() == text


THRESHOLD = Fraction(10**25)


@pytest.mark.parametrize(
    ("part", "share", "most"),
    [
        (0, "0 %", "at most 0 % of the threshold"),
        (15_151_515 * 10**12, "1/660,000", "at most 1/660,000 of the threshold"),
        (10**23, "1 %", "at most 1 % of the threshold"),
        (62_345 * 10**20, "62.3 %", "at most 62.4 % of the threshold"),
        (421 * 10**23, "4.21 times", "at most 4.21 times the threshold"),
        (1, "1/1.0x10^25", "at most 1/1.0x10^25 of the threshold"),
    ],
)
def test_a_share_of_a_threshold_is_a_factor_where_a_percentage_is_meaningless(part: int, share: str, most: str) -> None:
    assert format_share(part, THRESHOLD) == share
    assert share_at_most(part, THRESHOLD) == most


@given(st.integers(1, 10**30))
def test_upper_bound_is_never_rounded_down_against_its_threshold(part: int) -> None:
    text = share_at_most(part, THRESHOLD).removeprefix("at most ").removesuffix("the threshold")
    if text.startswith("1/"):
        assert part * value(text.removeprefix("1/").replace(",", "").replace("of", "")) <= THRESHOLD
    elif "%" in text:
        assert part * 100 <= THRESHOLD * value(text.replace("% of", ""))
    else:
        assert part <= THRESHOLD * value(text.replace("times", ""))


@given(st.fractions(min_value=0, max_value=10**11))
def test_a_duration_is_rounded_in_the_requested_direction(seconds: Fraction) -> None:
    low, high = seconds_in(format_duration(seconds, Towards.DOWN)), seconds_in(format_duration(seconds, Towards.UP))
    assert low <= seconds <= high


_SECONDS = {
    "ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600), "days": Fraction(DAY_S),
    "years": Fraction(YEAR_S),
}  # fmt: skip


def value(text: str) -> Fraction:
    """`1.23x10^24`, `10^24` or `660 000`."""
    mantissa, power, exponent = text.replace(" ", "").rpartition("10^")
    if not power:
        return Fraction(exponent)
    return Fraction(mantissa.removesuffix("x") or "1") * Fraction(10) ** int(exponent)


def seconds_in(text: str) -> Fraction:
    """`under 0.1 ms` is read as its bound."""
    number, _, unit = text.removeprefix("under ").rpartition(" ")
    return value(number) * _SECONDS[unit]


NUMBERS = st.integers(0, 10**40 - 1)


@given(NUMBERS)
def test_the_exact_number_accompanies_the_rounded_one(number: int) -> None:
    shown = interval(Figures(number, number, number))
    assert shown.measured is not None
    assert shown.high is not None
    assert {shown.low.exact, shown.measured.exact, shown.high.exact} == {f"{number} FLOP"}


def test_exact_values_are_kept_and_unknown_ones_are_shown_as_unknown() -> None:
    assert flop(Fraction(10**25, 3)).exact == f"{10**25}/3 FLOP"
    assert energy(Fraction(252, 10)).exact == "25.2 J"
    assert duration(Fraction(1, 3) * 3).exact == "1 s"
    shown = interval(Figures(5, None, None))
    assert (shown.measured, shown.high) == (None, None)
    assert shown.ends == f"at least 5 FLOP; {NO_UPPER_BOUND}"


@given(st.lists(st.integers(1, 10**40), min_size=1, max_size=6))
def test_an_axis_contains_its_numbers_in_order(numbers: list[int]) -> None:
    axis = axis_of(numbers)
    assert axis is not None
    assert all(axis.low < logarithm(number) < axis.high for number in numbers)
    places = [axis.at(number) for number in sorted(numbers)]
    assert places == sorted(places)
    assert 2 <= len(axis.ticks) <= 8
    assert all(3 <= tick.at <= 97 for tick in axis.ticks)

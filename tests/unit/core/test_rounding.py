"""Rounding to significant figures: exact, and never off by more than half a unit of the last place."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.rounding import Towards, magnitude, plain, scientific, significant

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
def test_outward_rounding_encloses(number: Fraction, figures: int) -> None:
    low, high = significant(number, figures, Towards.DOWN), significant(number, figures, Towards.UP)
    assert low[0] * Fraction(10) ** low[1] <= number <= high[0] * Fraction(10) ** high[1]
    assert high[0] * Fraction(10) ** high[1] - low[0] * Fraction(10) ** low[1] <= Fraction(10) ** high[1]


@given(numbers, st.integers(1, 8))
def test_both_texts_say_the_rounded_number(number: Fraction, figures: int) -> None:
    digits, exponent = significant(number, figures)
    rounded = digits * Fraction(10) ** exponent
    mantissa, _, power = scientific(number, figures).partition("x10^")
    assert Fraction(mantissa) * Fraction(10) ** int(power) == rounded
    mantissa, _, power = plain(number, figures).partition("x10^")
    assert Fraction(mantissa) * Fraction(10) ** int(power or "0") == rounded


@given(numbers)
def test_the_order_of_magnitude(number: Fraction) -> None:
    assert Fraction(10) ** magnitude(number) <= number < Fraction(10) ** (magnitude(number) + 1)


@pytest.mark.parametrize(
    ("number", "figures", "text"),
    [
        (23 * 10**24, 2, "2.3x10^25"),
        (225 * 10**23, 2, "2.2x10^25"),  # half to even
        (235 * 10**23, 2, "2.4x10^25"),
        (996 * 10**22, 2, "1.0x10^25"),  # carries
        (7, 1, "7x10^0"),
        (0, 2, "0"),
        (10**23 - 1, 2, "1.0x10^23"),  # not above the threshold that it looks like: verdicts are on exact numbers
    ],
)
def test_scientific(number: int, figures: int, text: str) -> None:
    assert scientific(number, figures) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Fraction(123, 10), "12"),
        (Fraction(1234, 100_000), "0.012"),
        (370_000, "370000"),
        (4_200_000, "4.2x10^6"),
        (0, "0"),
    ],
)
def test_plain(number: Fraction, text: str) -> None:
    assert plain(number, 2) == text


@pytest.mark.parametrize(("number", "figures"), [(-1, 2), (5, 0)])
def test_what_cannot_be_rounded_is_refused(number: int, figures: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        significant(number, figures)

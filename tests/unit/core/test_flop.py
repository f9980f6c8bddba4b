"""FLOP numbers: exact in, readable out."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.flop import ceil_div, format_flop, parse_flop
from flopsd.core.rounding import Towards


@pytest.mark.parametrize(("text", "flop"), [("1e25", 10**25), ("989.4e12", 989_400_000_000_000), ("0", 0), (7, 7)])
def test_exact_counts(text: object, flop: int) -> None:
    assert parse_flop(text) == flop


@pytest.mark.parametrize("value", [1e25, True, None, "1.5", "-1", -1, "1e", "ten", "1e25\n", "0x10", "1e999", "٣"])
def test_everything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="count|whole number|negative"):
        parse_flop(value)


@pytest.mark.parametrize(
    ("flop", "text"),
    [(None, "unknown"), (0, "0 FLOP"), (999, "999 FLOP"), (10**15, "1.000 PFLOP"), (12_345 * 10**21, "12.345 YFLOP"),
     (33_333_333_333_333_333_333_333, "33.333 ZFLOP")],
)  # fmt: skip
def test_for_people(flop: int | None, text: str) -> None:
    assert format_flop(flop) == text


@given(st.integers(0, 10**40))
def test_a_bound_is_rounded_so_that_it_still_holds(flop: int) -> None:
    scale = {prefix: Fraction(1000) ** at for at, prefix in enumerate(("", *"kMGTPEZYR"))}

    def value(towards: Towards) -> Fraction:
        number, unit = format_flop(flop, towards=towards).split()
        return Fraction(number) * scale[unit.removesuffix("FLOP")]

    assert value(Towards.DOWN) <= flop <= value(Towards.UP)


@given(st.integers(), st.integers(1))
def test_ceil_div(numerator: int, denominator: int) -> None:
    quotient = ceil_div(numerator, denominator)
    assert (quotient - 1) * denominator < numerator <= quotient * denominator

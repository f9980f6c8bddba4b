"""FLOP counts as people write them, exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.values import ceil_div, parse_flop


@pytest.mark.parametrize(("text", "flop"), [("1e25", 10**25), ("989.4e12", 989_400_000_000_000), ("0", 0), (7, 7)])
def test_exact_counts(text: object, flop: int) -> None:
    assert parse_flop(text) == flop


@pytest.mark.parametrize("value", [1e25, True, None, "1.5", "-1", -1, "1e", "ten", "1e25\n", "0x10", "1e999", "٣"])
def test_everything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="count|whole number|negative"):
        parse_flop(value)


@given(st.integers(), st.integers(1))
def test_ceil_div(numerator: int, denominator: int) -> None:
    quotient = ceil_div(numerator, denominator)
    assert (quotient - 1) * denominator < numerator <= quotient * denominator

"""What status and verify print of bounds: rounded so that it still holds."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.model import Figures
from flopsd.core.rounding import Towards
from flopsd.report.ledger_text import coverage_share, figures_text, share_text
from flopsd.telemetry.status_text import coverage_text, crossing_text


@given(st.integers(0, 10**9))
def test_a_share_is_rounded_the_way_that_it_is_told(ppm: int) -> None:
    low, high = (Fraction(share_text(ppm, towards).split()[0]) for towards in (Towards.DOWN, Towards.UP))
    assert low * 10_000 <= ppm <= high * 10_000


@pytest.mark.parametrize(("ppm", "text"), [(123_449, "12.4 %"), (1_000_400, "100.1 %"), (999, "0.0999 %")])
def test_at_most_is_never_less(ppm: int, text: str) -> None:
    assert share_text(ppm, Towards.UP) == text


def test_figures_are_bounds_as_shown_too() -> None:
    text = figures_text(Figures(1_000_499_999, 1_000_400_000, 1_000_400_000))
    assert text.split("\n")[1:3] == ["  at least   1.000 GFLOP", "  at most    1.001 GFLOP"]


@pytest.mark.parametrize(("ppm", "text"), [(1_000_000, "100.00 %"), (999_999, "99.99 %"), (0, "0.00 %")])
def test_only_what_is_whole_is_called_whole(ppm: int, text: str) -> None:
    assert coverage_share(ppm) == text


def test_status_rounds_coverage_down_too() -> None:
    told = {"knownSeconds": "999999.999999999", "jobSeconds": "1000000.000000000"}
    assert coverage_text(told).startswith("99.99 % of")


@pytest.mark.parametrize(
    ("earliest", "latest", "text"),
    [
        (259_200, 4 * 86_400 - 1, "crossed in 3 days to 4 days at this rate"),
        (3_599, 3_599, "crossed in less than an hour to 1 hour at this rate"),
        (86_399, 172_799, "crossed in 23 hours to 48 hours at this rate"),
        (0, 90 * 60, "may be crossed already, certainly in 2 hours at this rate"),
        (315_569_519, 315_569_521, "crossed in 3652 days to 11 years at this rate"),
    ],
)
def test_a_crossing_is_not_told_later_than_its_earliest_nor_sooner_than_its_latest(
    earliest: int, latest: int, text: str
) -> None:
    assert crossing_text({"earliestSeconds": str(earliest), "latestSeconds": str(latest)}) == text

"""What status prints of coverage and crossings: rounded so that it still holds."""

from __future__ import annotations

import pytest

from flopsd.report.threshold_text import crossing_text
from flopsd.telemetry.status_text import coverage_text


def test_status_rounds_coverage_down_too() -> None:
    told = {"knownSeconds": "999999.999999999", "jobSeconds": "1000000.000000000"}
    assert coverage_text(told).startswith("99.9 % of")


@pytest.mark.parametrize(
    ("earliest", "latest", "text"),
    [
        (259_200, 4 * 86_400 - 1, "crossed in 3 days to 4 days at this rate"),
        (3_599, 3_600, "crossed in 59 min to 60 min at this rate"),
        (86_399, 172_799, "crossed in 23 h to 48 h at this rate"),
        (0, 90 * 60, "may be crossed already, certainly within 90 min at this rate"),
        (315_569_519, 315_569_521, "crossed in 9.9 years to 11 years at this rate"),
    ],
)
def test_a_crossing_is_not_told_later_than_its_earliest_nor_sooner_than_its_latest(
    earliest: int, latest: int, text: str
) -> None:
    assert crossing_text({"earliestSeconds": str(earliest), "latestSeconds": str(latest)}) == text

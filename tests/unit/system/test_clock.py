"""Values that the clocks of a machine may have."""

import time

import pytest

from flopsd.core.values import utc_ns
from flopsd.system.clock import SystemClock, file_stamp, rfc3339


def test_a_clock_before_1970_reads_1970(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: -86_400_000_000_000)
    assert rfc3339(SystemClock().wall_ns()) == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (999, "1970-01-01T00:00:00.000000Z"),
        (1_790_000_000_000_001_000, "2026-09-21T14:13:20.000001Z"),
        (253_402_300_799_999_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_is_written_rounded_down_to_a_microsecond(wall_ns: int, text: str) -> None:
    assert rfc3339(wall_ns) == text
    assert file_stamp(wall_ns) == text.replace("-", "").replace(":", "").replace(".", "")
    assert utc_ns(text) == wall_ns // 1000 * 1000


@pytest.mark.parametrize("wall_ns", [10**22, 10**27, -(10**22), 10**60])
def test_a_time_of_no_year_is_refused_whatever_its_size(wall_ns: int) -> None:
    with pytest.raises(OverflowError):
        rfc3339(wall_ns)

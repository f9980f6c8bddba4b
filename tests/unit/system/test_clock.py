"""What the clocks of a machine may say."""

import time

import pytest

from flopsd.system.clock import SystemClock, rfc3339


def test_a_clock_before_1970_is_at_1970(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: -86_400_000_000_000)
    assert rfc3339(SystemClock().wall_ns()) == "1970-01-01T00:00:00.000000Z"

"""The self-test of running counters: what it says where nothing can be told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flopsd.core.model import Pipe
from flopsd.sources.nvml.counter_calibration import Calibration, Scale, SelfTest, SelfTestFailedError, judge

SMS = 132
SOUND = SelfTest(1000, {Pipe.TENSOR: 500}, {Pipe.TENSOR: 0.5}, 0, 2000, 2000)  # averaged over the SMs


def test_counters_that_fit_give_their_scale() -> None:
    assert judge(SOUND, SMS) == Calibration(Scale(SMS), Scale(SMS))


@pytest.mark.parametrize("active", [0, 5])
def test_an_interval_without_elapsed_cycles_tells_nothing(active: int) -> None:
    """The counters are up to 100 ms old: two samples may show the same. Any scale would fit zero."""
    assert judge(replace(SOUND, elapsed=0, active={Pipe.TENSOR: active}), SMS) is None


def test_a_clock_that_stood_still_tells_nothing() -> None:
    assert judge(replace(SOUND, window_cycles=0, window_elapsed_after=0), SMS) is None


def test_counters_that_contradict_the_percentages_fail() -> None:
    with pytest.raises(SelfTestFailedError, match=r"tensor 0\.3000 for 0\.5000"):
        judge(replace(SOUND, active={Pipe.TENSOR: 300}), SMS)


def test_counters_that_are_differences_are_told_even_where_two_of_them_are_alike() -> None:
    with pytest.raises(SelfTestFailedError, match="differences between samples"):
        judge(replace(SOUND, elapsed=0, window_elapsed_before=2000), SMS)

"""The self-test of running counters: what it says where nothing can be told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flopsd.core.model import Pipe
from flopsd.sources.nvml.counter_calibration import (
    Calibration,
    Scale,
    SelfTest,
    SelfTestFailedError,
    contradicts,
    judge,
    remembered,
)

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


@pytest.mark.parametrize("pipes", [Scale(SMS), Scale(1), Scale(1, 4)])
@pytest.mark.parametrize("elapsed", [Scale(SMS), Scale(1), Scale(1, 4)])
def test_an_origin_names_its_calibration(pipes: Scale, elapsed: Scale) -> None:
    one = Calibration(pipes, elapsed)
    assert remembered(one.origin, SMS) == one
    assert remembered(one.origin + ", since boot 7", SMS) == one
    assert remembered(one.origin + "7", SMS) is None
    assert remembered(None, SMS) is None
    assert remembered(one.origin, SMS, "others") is None
    found = one.totals(400, {Pipe.TENSOR: 200})
    assert found.elapsed_sm_cycles == 400 * elapsed.times // elapsed.per
    assert found.sm_cycles == {Pipe.TENSOR: 200 * pipes.times // pipes.per}


@pytest.mark.parametrize(
    ("active", "is_contradiction"), [(500, False), (550, False), (450, False), (551, True), (449, True)]
)
def test_proven_counters_may_differ_from_the_percentage_by_five_percent_of_all_cycles(
    active: int, is_contradiction: bool
) -> None:
    trial = replace(SOUND, active={Pipe.TENSOR: active})
    assert contradicts(Calibration(Scale(1), Scale(1)), trial) is is_contradiction


@pytest.mark.parametrize(("grown", "fits"), [(2000, True), (1000, True), (3000, True), (999, False), (3001, False)])
def test_elapsed_cycles_may_differ_from_the_clock_by_half(grown: int, fits: bool) -> None:
    trial = replace(SOUND, window_elapsed_before=10**9, window_elapsed_after=10**9 + grown)
    if fits:
        assert judge(trial, SMS) == Calibration(Scale(SMS), Scale(SMS))
    else:
        with pytest.raises(SelfTestFailedError, match="while the SM clock ran 2000 cycles on 132 SMs"):
            judge(trial, SMS)


@pytest.mark.parametrize(("ratio", "tells"), [(0.01, True), (0.0099, False)])
def test_a_percentage_below_one_tells_no_scale(ratio: float, tells: bool) -> None:
    trial = replace(SOUND, active={Pipe.TENSOR: 10}, ratios={Pipe.TENSOR: ratio})
    assert (judge(trial, SMS) is not None) is tells


def test_pipes_that_ask_for_different_scales_fail() -> None:
    trial = replace(SOUND, active={Pipe.TENSOR: 500, Pipe.FP32: 500 * SMS}, ratios={Pipe.TENSOR: 0.5, Pipe.FP32: 0.5})
    with pytest.raises(SelfTestFailedError, match=r"tensor 0\.5000 for 0\.5000, fp32 66"):
        judge(trial, SMS)

"""The units of running counters: the self-test of their scale against percentages and clock."""

from typing import Any

import pytest

from flopsd.core.meter import max_plausible_sm_cycles
from flopsd.core.model import Limits, Pipe, Totals
from flopsd.sources.nvml.counter_calibration import (
    Calibration,
    SampleInterval,
    Scale,
    SelfTestFailedError,
    Window,
    calibration_named,
    contradicts,
    growth,
    judge,
    width,
)

SMS, MHZ = 132, 1000
SECOND = 10**9
SOUND = SampleInterval(1000, {Pipe.TENSOR: 500}, {Pipe.TENSOR: 0.5})  # averaged over the SMs
RAN = 10**11  # cycles of one SM in the judged time
WINDOW = Window(RAN, RAN, 0, 0, 100 * SECOND)


def judged(trial: SampleInterval, window: Window = WINDOW) -> Calibration | None:
    return judge(trial, window, SMS, MHZ)


def test_matching_counters_give_their_scale_and_stopped_ones_give_none() -> None:
    assert judged(SOUND) == Calibration(Scale(SMS), Scale(SMS))
    for active in (0, 5):  # counters can be 100 ms old: two samples may show the same value, and any scale fits zero
        assert judged(SOUND._replace(elapsed=0, active={Pipe.TENSOR: active})) is None
    assert judged(SOUND, WINDOW._replace(cycles=0, elapsed=0)) is None, "a clock that stood still"
    for ratio, decides in ((0.01, True), (0.0099, False)):
        trial = SOUND._replace(active={Pipe.TENSOR: 10}, ratios={Pipe.TENSOR: ratio})
        assert (judged(trial) is not None) is decides, "a percentage below one"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"active": {Pipe.TENSOR: 300}}, r"tensor 0\.3000 for 0\.5000"),
        ({"active": {Pipe.TENSOR: 500, Pipe.FP32: 500 * SMS}, "ratios": {Pipe.TENSOR: 0.5, Pipe.FP32: 0.5}},
         r"tensor 0\.5000 for 0\.5000, fp32 66"),  # they imply different scales
    ],
)  # fmt: skip
def test_counters_that_contradict_the_percentages_or_each_other_fail(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(SelfTestFailedError, match=words):
        judged(SOUND._replace(**changed))


@pytest.mark.parametrize("pipes", [Scale(SMS), Scale(1), Scale(1, 4)])
@pytest.mark.parametrize("elapsed", [Scale(SMS), Scale(1), Scale(1, 4)])
def test_an_origin_names_its_calibration(pipes: Scale, elapsed: Scale) -> None:
    one = Calibration(pipes, elapsed)
    assert calibration_named(one.origin, SMS) == one
    assert calibration_named(one.origin + ", since boot 7", SMS) == one
    assert calibration_named(one.origin + "7", SMS) is None
    assert calibration_named(None, SMS) is None
    assert calibration_named(one.origin, SMS, "others") is None
    found = one.totals(400, {Pipe.TENSOR: 200})
    assert found.elapsed_sm_cycles == 400 * elapsed.times // elapsed.per
    assert found.sm_cycles == {Pipe.TENSOR: 200 * pipes.times // pipes.per}


@pytest.mark.parametrize(
    ("ratio", "active", "is_contradiction"),
    [
        (0.5, 500, False), (0.5, 535, False), (0.5, 465, False), (0.5, 536, True), (0.5, 464, True),
        (0.1, 115, False), (0.1, 85, False), (0.1, 116, True), (0.1, 84, True), (0.9, 950, False), (0.9, 951, True),
    ],
)  # fmt: skip
def test_proven_counters_may_differ_from_the_percentage_by_a_twentieth_and_one_percent(
    ratio: float, active: int, is_contradiction: bool
) -> None:
    trial = SOUND._replace(active={Pipe.TENSOR: active}, ratios={Pipe.TENSOR: ratio})
    assert contradicts(Calibration(Scale(1), Scale(1)), trial) is is_contradiction


@pytest.mark.parametrize(("ratio", "is_contradiction"), [(0.0, False), (0.0099, False), (0.01, True), (0.04, True)])
def test_a_proven_counter_may_not_stand_still_while_its_pipe_is_active(ratio: float, is_contradiction: bool) -> None:
    trial = SampleInterval(10_000, {Pipe.TENSOR: 0, Pipe.FP64: 400}, {Pipe.TENSOR: ratio, Pipe.FP64: 0.04})
    assert contradicts(Calibration(Scale(1), Scale(1)), trial) is is_contradiction


STALE = 10**8 * MHZ // 1000  # the most that a counter 100 ms old can lack


@pytest.mark.parametrize(
    ("off", "doubt", "fits"),
    [
        (RAN // 10 - STALE, 0, True), (RAN // 10 - STALE + 1, 0, None), (RAN // 10 + STALE, 0, None),
        (RAN // 10 + STALE + 1, 0, False), (RAN // 10 - STALE - 999, 1000, None), (0, RAN // 10 - STALE, True),
        (0, RAN // 10, None),
    ],
)  # fmt: skip
def test_elapsed_cycles_may_differ_from_the_clock_by_a_tenth_plus_its_doubt(
    off: int, doubt: int, fits: bool | None
) -> None:
    for sign in (1, -1):
        window = WINDOW._replace(elapsed=RAN + sign * off, doubt_cycles=doubt)
        if fits is False:
            with pytest.raises(SelfTestFailedError, match="while 132 SMs ran 100000000000 cycles each"):
                judged(SOUND, window)
        else:
            assert judged(SOUND, window) == (Calibration(Scale(SMS), Scale(SMS)) if fits else None)


@pytest.mark.parametrize(("more", "blames_clock"), [(0, True), (1, False)])
def test_the_clock_is_blamed_only_for_cycles_that_the_part_can_have(more: int, blames_clock: bool) -> None:
    most = max_plausible_sm_cycles(Limits(SMS, MHZ), WINDOW.duration_ns + 10**8)
    with pytest.raises(SelfTestFailedError) as failed:
        judged(SOUND, WINDOW._replace(cycles=RAN // 2, elapsed=most + more))
    assert failed.value.blames_clock is blames_clock


def test_a_randomly_polled_clock_has_a_doubt_of_its_deviation() -> None:
    """Ten seconds are never enough if the clock varied; a hundred are, however much it varied."""
    ten_seconds = Window(RAN // 10, RAN // 10, 0, 0, 10 * SECOND)
    assert judged(SOUND, ten_seconds) is not None
    assert judged(SOUND, ten_seconds._replace(square_sum=1)) is None
    assert judged(SOUND, WINDOW._replace(square_sum=RAN**2)) is not None


@pytest.mark.parametrize(
    ("before", "now", "bits", "grown"),
    [
        (5, 7, None, 2), (2**32 - 5, 7, 32, 12), (2**32 - 5, 7, None, 12 - 2**32), (2**48 - 5, 7, 48, 12),
        (2**48 - 5, 7, 32, 12 - 2**48), (2**30, 7, 32, 7 - 2**30),
    ],
)  # fmt: skip
def test_a_counter_that_wraps_at_its_width_did_not_fall(before: int, now: int, bits: int, grown: int) -> None:
    assert growth(before, now, bits) == grown

    values = (0, 2**32 - 1, 2**32, 2**40 - 1, 2**40, 2**48 - 1, 2**48)
    assert [width(n) for n in values] == [32, 32, 40, 40, 48, 48, None]


def test_counters_wrap_where_their_own_scale_does() -> None:
    calibration = Calibration(pipes=Scale(1, 4), elapsed=Scale(132))
    assert calibration.totals(5, {Pipe.FP64: 8}, 32) == Totals(calibration.origin, 660, {Pipe.FP64: 2})
    assert calibration.totals(5, {Pipe.FP64: 8}, 32).wrap_at == (132 * 2**32, 2**30)
    assert calibration.totals(5, {Pipe.FP64: 8}).wrap_at is None
    for largest, bits in ((2**32 - 1, 32), (2**32, 40), (2**47, 48)):
        found = calibration.totals(5, {Pipe.FP64: 8, Pipe.FP32: largest})
        assert found.pipe_range == 2**bits // 4, "of the pipes alone"
    assert calibration.totals(5, {Pipe.FP64: 8, Pipe.FP32: 2**48}).pipe_range is None

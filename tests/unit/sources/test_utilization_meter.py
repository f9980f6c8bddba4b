"""The ceiling from a driver's samples of utilisation: the time that each covers, and which reads are gaps."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import Busy, Evidence, Gap, GapReason, Gauges, Limits, Reading, Totals
from flopsd.sources.nvml.driver import UnusableError
from flopsd.sources.nvml.polled_clock import Moments
from flopsd.sources.nvml.utilization_meter import UtilizationMeter
from flopsd.testing import FakeClock
from tests.support.story import A100

SECOND, MS = 10**9, 10**6
LIMITS = Limits(108, 1410)
BEGIN = 1000 * SECOND


@dataclass
class Gpu:
    limits: Limits | None = LIMITS
    clock: FakeClock = field(default_factory=FakeClock)
    samples: list[tuple[int, int]] = field(default_factory=list)  # ms since the begin, percent
    mhz: int | None = 1200
    energy_mj: int | None = 7
    limit_mw: int | None = 400_000
    asked_ms: list[int] = field(default_factory=list)  # the times since which samples were asked for

    def __post_init__(self) -> None:
        driver: Any = SimpleNamespace(
            clock=self.clock,
            utilization_samples=self._since,
            sm_clock_mhz=lambda handle, max_mhz: self.mhz if (handle, max_mhz) == ("handle", 1410) else None,
            counters=lambda handle: {"energy_mj": self.energy_mj} if handle == "handle" and self.energy_mj else {},
            lib=SimpleNamespace(nvmlDeviceGetEnforcedPowerLimit=lambda _: self.limit_mw),
            optional=lambda call, *arguments: call(*arguments),
            moment_of=lambda _, *slot: Moments().of(*slot),
        )
        self.meter = UtilizationMeter(driver, A100, "first", self.limits, ("no GPM", "a fix"))
        self.meter.reach("handle")

    def _since(self, handle: object, since_ns: int) -> list[tuple[int, int]]:
        assert handle == "handle"
        self.asked_ms.append((since_ns - BEGIN) // MS)
        return [(BEGIN + ms * MS, percent) for ms, percent in self.samples if BEGIN + ms * MS > since_ns]

    def next_poll_ns(self, until_ns: int) -> int | None:
        return self.meter.next_poll_ns(self.clock.boottime_ns(), until_ns)

    def read(self, at_ms: int, *samples: tuple[int, int]) -> tuple[Reading | None, Gauges | None]:
        self.samples += samples
        self.clock.advance(BEGIN + at_ms * MS - self.clock.boottime_ns())
        return self.meter.read()


def reading(begin_ms: int, end_ms: int, work: Busy | Gap) -> Reading:
    return Reading(A100.uid, BEGIN + begin_ms * MS, BEGIN + end_ms * MS, work, {"energy_mj": 7})


def busy(percent_ms: int) -> Busy:
    """Work at an unknown clock before its first poll: at the maximum."""
    return Busy(max_sm_cycles(LIMITS, -(-percent_ms * MS // 100)))


def test_readings_are_contiguous_and_end_at_the_newest_sample() -> None:
    gpu = Gpu()
    assert gpu.meter.evidence == (Evidence.UTILIZATION, "no GPM", "a fix")
    polls, due_ns = [gpu.meter.polls], [gpu.next_poll_ns(BEGIN + SECOND)]
    assert gpu.read(1000, (900, 30)) == (reading(0, 1000, Gap(GapReason.STARTING)), Gauges({}, 0.3, 1200))
    polls, due_ns = [*polls, gpu.meter.polls], [*due_ns, gpu.next_poll_ns(BEGIN + 2 * SECOND)]
    assert (polls, [ns is not None for ns in due_ns]) == ([False, True], [False, True])
    assert gpu.read(2000, (1100, 50), (1900, 20)) == (
        reading(1000, 1900, busy(51 * 100 + 21 * 800)), Gauges({}, 0.2, 1200)
    )  # fmt: skip
    assert gpu.read(2100) == (None, Gauges({}, None, 1200))
    assert gpu.read(3000, (2900, 100)) == (reading(1900, 2900, busy(100 * 1000)), Gauges({}, 1.0, 1200))
    assert gpu.asked_ms == [0, 1000, 1900, 1900]


def test_a_sample_that_is_older_than_was_asked_for_makes_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()
    gpu.read(1000)
    monkeypatch.setattr(gpu.meter._driver, "utilization_samples", lambda *_: [(BEGIN + 950 * MS, 40)])
    assert gpu.read(1050) == (None, Gauges({}, 0.4, 1200))


@pytest.mark.parametrize(
    ("samples", "percent_ms"),
    [
        (((2000, 0),), 1000), (((2000, 99),), 100 * 1000), (((2000, 100),), 100 * 1000),
        (((2001, 0),), 1000 + 100),  # a sample covers a second at most
        (((1500, 9), (3000, 9)), 10 * 500 + 10 * 1000 + 100 * 500),
        (((1500, 9), (1500, 80), (2000, 9)), 10 * 1000),  # the first of two with the same stamp
        # The driver's buffer lost some: one covers at most the shortest period and, as it may be late, a fourth more.
        (((3000, 0), (3200, 0), (3450, 0), (3701, 0)), 250 + 100 * 1750 + 200 + 250 + 250 + 100),
    ],
)  # fmt: skip
def test_each_sample_covers_the_time_since_the_previous_one(
    samples: tuple[tuple[int, int], ...], percent_ms: int
) -> None:
    gpu = Gpu()
    gpu.read(1000)
    assert gpu.read(4000, *samples)[0] == reading(1000, samples[-1][0], busy(percent_ms))


@pytest.mark.parametrize(("percent", "is_known"), [(-1, False), (0, True), (100, True), (101, False)])
@pytest.mark.parametrize("is_last", [True, False])
def test_utilisation_over_100_percent_is_out_of_range_and_not_shown(
    percent: int, is_known: bool, is_last: bool
) -> None:
    samples = ((1500, percent),) if is_last else ((1500, percent), (1900, 50))
    gpu = Gpu()
    gpu.read(1000)
    if is_known:
        assert gpu.read(2000, *samples)[0] is not None
    else:
        with pytest.raises(UnusableError, match="OUT_OF_RANGE"):
            gpu.read(2000, *samples)
    other = Gpu()
    _, shown = other.read(1600, *samples)
    assert shown == Gauges({}, None if percent == 101 and is_last else samples[-1][1] / 100, 1200)


@pytest.mark.parametrize(("at_ms", "stalls"), [(3999, False), (4000, True)])
@pytest.mark.parametrize("samples", [(), ((999, 50),), ((1000, 50),)])
def test_no_new_sample_for_three_seconds_is_a_stall(
    at_ms: int, stalls: bool, samples: tuple[tuple[int, int], ...]
) -> None:
    gpu = Gpu()
    gpu.read(1000, *samples)
    gpu.samples = []
    if not stalls:
        assert gpu.read(at_ms) == (None, Gauges({}, None, 1200))
        return
    with pytest.raises(UnusableError, match="COUNTER_STALLED"):
        gpu.read(at_ms)
    totals, why = Totals("x", 1, {}), GapReason.COUNTER_STALLED
    expected = Reading(A100.uid, BEGIN + SECOND, BEGIN + 4 * SECOND, Gap(why), {}, totals)
    assert gpu.meter.fail(why, totals) == expected
    assert not gpu.meter.polls
    assert gpu.read(5000)[0] == reading(4000, 5000, Gap(why)), "until it is read again"
    assert gpu.read(6000, (5900, 0))[0] == reading(5000, 5900, busy(900))


@pytest.mark.parametrize(
    ("percents", "watts", "later_ms", "is_contradicted"),
    [
        ((0, 10), 250, 0, True), ((0, 11), 250, 0, False), ((0, 0), 215, 0, False), ((0, 0), 225, 0, True),
        ((0, 0), 250, 300, False),  # what it drew was perhaps drawn after the last sample
        ((0, 0), 330, 300, True), ((0, 0), None, 0, False),
    ],
)  # fmt: skip
def test_samples_of_an_unused_gpu_that_draws_much_power_are_no_ceiling(
    percents: tuple[int, int], watts: int | None, later_ms: int, is_contradicted: bool
) -> None:
    gpu = Gpu(energy_mj=None if watts is None else 10**6)
    gpu.read(1000)
    if gpu.energy_mj is not None and watts is not None:
        gpu.energy_mj += watts * (1000 + later_ms)
    samples = tuple(zip((1500, 2000), percents, strict=True))
    if not is_contradicted:
        assert gpu.read(2000 + later_ms, *samples)[0] is not None
        return
    with pytest.raises(UnusableError, match="CONTRADICTORY"):
        gpu.read(2000 + later_ms, *samples)


def test_samples_stay_contradicted_until_the_power_falls_or_they_show_work() -> None:
    for after, percent, is_contradicted in ((205, 0, True), (195, 0, False), (390, 50, False)):
        gpu = Gpu(energy_mj=10**6)
        gpu.read(1000)
        assert gpu.energy_mj is not None
        gpu.energy_mj += 300_000
        with pytest.raises(UnusableError, match="CONTRADICTORY"):
            gpu.read(2000, (2000, 0))
        gpu.meter.fail(GapReason.CONTRADICTORY)
        gpu.read(3000, (3000, 0))
        gpu.energy_mj += after * 1000
        if not is_contradicted:
            assert gpu.read(4000, (4000, percent))[0] is not None
            continue
        with pytest.raises(UnusableError, match="CONTRADICTORY"):
            gpu.read(4000, (4000, percent))


def test_without_limits_there_is_no_ceiling_and_no_poll() -> None:
    gpu = Gpu(None)
    gpu.read(1000)
    assert not gpu.meter.polls
    assert gpu.read(2000, (1900, 50))[0] == reading(1000, 1900, Busy(0))


def test_the_polled_clock_limits_the_ceiling_only_where_it_is_lower() -> None:
    for percent, is_lower in ((100, True), (20, False)):
        gpu, works = Gpu(), list[Busy | Gap | None]()
        for second in range(1, 5):
            until_ns = BEGIN + second * SECOND
            while (due_ns := gpu.next_poll_ns(until_ns)) is not None:
                gpu.clock.advance(due_ns - gpu.clock.boottime_ns())
                gpu.meter.poll()
            found, _ = gpu.read(second * 1000, (second * 1000, percent))
            works.append(found and found.work)  # type: ignore[arg-type]
        ceiling = busy((min(percent + 1, 100)) * 1000)
        assert works[:2] == [Gap(GapReason.STARTING), ceiling], "the clock of the first slots was not known before"
        for work in works[2:]:
            assert isinstance(work, Busy)
            assert work.sm_cycles == ceiling.sm_cycles
            if is_lower:
                assert work == Busy(ceiling.sm_cycles, 1200 * 10**6 * 108, 18 * 108**2)
            else:
                assert work == ceiling

"""SM clocks beside another source, on the stand-in: how long they are kept, and when the driver is let go."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from flopsd.sources.nvml.sm_clock import SmClocks, open_clocks
from flopsd.system.clock import NS_PER_S
from tests.support.scenario import Fault, Scenario, Segment, a100
from tests.support.sim import SharedClock, simulated
from tests.support.strategies import table

KEEP_S = 10


STEADY = (a100((Segment(1000, mhz=1230),)),)


@pytest.fixture
def clock(tmp_path: Path) -> SharedClock:
    return SharedClock(tmp_path / "clock")


def opened(clock: SharedClock) -> SmClocks:
    clocks = open_clocks(clock, table(), KEEP_S * NS_PER_S)
    assert clocks is not None
    return clocks


def test_samples_are_kept_for_as_long_as_was_asked_and_then_forgotten(
    clock: SharedClock, standin: Path, tmp_path: Path
) -> None:
    scenario = Scenario(STEADY)
    uid = scenario.uuid(0)
    with simulated(standin, tmp_path, scenario, clock):
        clocks = opened(clock)
        for _ in range(3 * KEEP_S):
            clock.advance(NS_PER_S)
            clocks.poll([uid])
        now_ns = clock.boottime_ns()
        assert list(clocks.of(uid)) == [(now_ns - age_s * NS_PER_S, 1230) for age_s in range(KEEP_S, -1, -1)]
        assert list(clocks.of("GPU-of-another-node")) == []
        clock.advance(60 * KEEP_S * NS_PER_S)
        clocks.poll([uid])
        assert list(clocks.of(uid)) == [(clock.boottime_ns(), 1230)], "after a long silence only the newest"
        clocks.close()


def test_a_driver_that_was_loaded_anew_is_read_anew(clock: SharedClock, standin: Path, tmp_path: Path) -> None:
    """The stand-in, as NVML, reads the machine when its first user starts: only if all let go is a new one seen."""
    lost = Scenario((a100((Segment(1000, mhz=1230),), (Fault(5_000, 10**9, "gpu_lost"),)),))
    with simulated(standin, tmp_path, lost, clock):
        clocks = opened(clock)
        clocks.poll([lost.uuid(0)])
        assert len(clocks.of(lost.uuid(0))) == 1
        clock.advance(6 * NS_PER_S)
        clocks.poll([lost.uuid(0)])
        assert not clocks.is_open, "a fault lets go of the driver"
    healthy = Scenario((a100((Segment(1000, mhz=1320),)),))
    with simulated(standin, tmp_path, healthy, clock):
        clock.advance(NS_PER_S)
        clocks.poll([healthy.uuid(0)])
        assert clocks.of(healthy.uuid(0))[-1] == (clock.boottime_ns(), 1320)
        clocks.close()


def test_what_is_closed_twice_lets_go_once(clock: SharedClock, standin: Path, tmp_path: Path) -> None:
    """NVML counts its users: another one in the same process must not lose its hold."""
    with simulated(standin, tmp_path, Scenario(STEADY), clock):
        pynvml.nvmlInit()
        clocks = opened(clock)
        clocks.close()
        clocks.close()
        assert not clocks.is_open
        assert pynvml.nvmlDeviceGetCount() == 1
        pynvml.nvmlShutdown()
        with pytest.raises(pynvml.NVMLError):
            pynvml.nvmlDeviceGetCount()


def test_without_a_driver_there_are_no_clocks(clock: SharedClock, standin: Path, tmp_path: Path) -> None:
    with simulated(standin, tmp_path, Scenario(STEADY, driver_from_ms=1_000), clock):
        assert open_clocks(clock, table(), NS_PER_S) is None

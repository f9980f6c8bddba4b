"""SM clocks of GPUs that another source meters: the cycles between two times, and the unknown part."""

import threading
from contextlib import nullcontext

import pynvml
import pytest

from flopsd.core.clock_integral import Cycles
from flopsd.sources.nvml.gpu_threads import PATIENCE_SECONDS
from flopsd.sources.nvml.sm_clock import SmClocks
from flopsd.testing import FakeClock
from tests.support.nvml_answers import HANDLE, NvmlFault, library
from tests.support.strategies import table

SECOND, NOT_OFFERED = 10**9, pynvml.NVML_ERROR_NOT_SUPPORTED
MOST = 1010  # MHz: the tolerance of 1000


class Clocked:
    """A GPU whose clock is read each second: at 700, 800 and 600 MHz."""

    def __init__(self, keep_s: int = 99) -> None:
        self.clock, self.mhz, self.took_ns = FakeClock(0), 0, 0
        lib = library(nvmlDeviceGetClockInfo=self._answer)
        self.users = 0
        lib.nvmlInit, lib.nvmlShutdown = lambda: self._use(1), lambda: self._use(-1)
        lib.nvmlDeviceGetHandleByUUID = lambda _uid: HANDLE
        self.lib, self.clocks = lib, SmClocks(lib, self.clock, table(), keep_s * SECOND)

    def _use(self, more: int) -> None:
        self.users += more

    def _answer(self, _kind: int) -> int:
        self.clock.advance(self.took_ns)
        return self.mhz

    def reads(self, *clocks: int) -> "Clocked":
        for mhz in clocks:
            self.mhz = mhz
            self.clocks.read({"GPU-1": 1000, "GPU-3": 1000})
            self.clock.advance(SECOND)
        return self


@pytest.mark.parametrize(
    ("begin_ms", "end_ms", "parts", "unknown_ms"),
    [
        (0, 2000, 2, 0), (0, 1000, 1, 0), (1000, 2000, 1, 0),
        # A part counts where its middle is. The half of it outside, and time that no part covers, are unknown.
        (500, 1500, 1, 1000), (501, 1501, 1, 998), (499, 1501, 2, 998),
        (0, 4000, 2, 2000), (0, 4001, 0, 0), (5000, 6000, 0, 0),
    ],
)  # fmt: skip
def test_cycles_come_from_the_surrounding_reads_with_doubt_for_uncovered_time(
    begin_ms: int, end_ms: int, parts: int, unknown_ms: int
) -> None:
    clocks = Clocked().reads(700, 800, 600).clocks
    found = clocks.cycles("GPU-1", begin_ms * 1_000_000, end_ms * 1_000_000)
    doubt = parts * (800_000_000 + 1) + unknown_ms * MOST * 1000
    assert found == (Cycles(800_000 * (end_ms - begin_ms), doubt) if parts else None)
    assert clocks.cycles("GPU-2", 0, SECOND) is None


def test_old_clock_reads_are_forgotten() -> None:
    clocks = Clocked(keep_s=2).reads(700, 800, 600, 500).clocks
    known = [clocks.cycles("GPU-1", at * SECOND, (at + 1) * SECOND) is not None for at in range(4)]
    assert known == [False, True, True, False]


@pytest.mark.parametrize(("took_ns", "is_one"), [(50_000_000, True), (50_000_001, False)])
def test_a_slow_clock_read_is_discarded(took_ns: int, is_one: bool) -> None:
    one = Clocked().reads(700)
    one.took_ns = took_ns // 2  # for each of the two GPUs
    one.reads(800)
    begin_ns = SECOND if is_one else SECOND // 2
    assert (one.clocks.cycles("GPU-1", 0, begin_ns) is not None) is is_one


@pytest.mark.parametrize("fault", [NvmlFault(15), ZeroDivisionError()])
def test_a_driver_fault_releases_the_driver_and_other_errors_are_raised(fault: Exception) -> None:
    def fail(*_: object) -> int:
        raise fault

    one = Clocked().reads(700, 800)
    answer, one.lib.nvmlDeviceGetClockInfo = one.lib.nvmlDeviceGetClockInfo, fail
    with nullcontext() if isinstance(fault, NvmlFault) else pytest.raises(ZeroDivisionError):
        one.reads(600)
    is_let_go = isinstance(fault, NvmlFault)
    assert (one.users, one.clocks.is_open) == ((0, False) if is_let_go else (1, True))
    assert (one.clocks.cycles("GPU-1", 0, SECOND) is None) is is_let_go
    one.lib.nvmlDeviceGetClockInfo = answer
    assert one.reads(500, 400).users == 1
    one.clocks.close()
    assert one.users == 0


def test_the_driver_is_not_shut_down_while_a_clock_read_hangs() -> None:
    one, answer = Clocked().reads(700), threading.Event()
    one.lib.nvmlDeviceGetClockInfo = lambda *_: 700 if answer.wait() else 0
    one.reads(800)
    one.clocks.close()
    assert one.users == 1, "it may call the driver yet"
    answer.set()


def test_a_lost_gpu_does_not_affect_the_clock_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Clocked().reads(700, 800)
    lost = object()
    answer = one.lib.nvmlDeviceGetClockInfo
    handles: dict[str, object] = {"GPU-1": lost, "GPU-3": HANDLE}

    def clock_of(handle: object, kind: int) -> int:
        if handle is lost:
            raise NvmlFault(15)
        return int(answer(handle, kind))

    monkeypatch.setattr(one.lib, "nvmlDeviceGetHandleByUUID", handles.__getitem__)
    one.clocks.close()
    monkeypatch.setattr(one.lib, "nvmlDeviceGetClockInfo", clock_of)
    one.reads(700, 800, 600)
    assert one.users == 1
    assert one.clocks.cycles("GPU-1", 2 * SECOND, 4 * SECOND) is None
    assert one.clocks.cycles("GPU-3", 2 * SECOND, 4 * SECOND) is not None
    handles["GPU-1"] = HANDLE
    one.reads(700, 800)
    assert one.clocks.cycles("GPU-1", 5 * SECOND, 6 * SECOND) is not None, "it is back"


def test_clocks_are_polled_between_two_reads() -> None:
    one = Clocked().reads(700, 800)
    until_ns = 2 * SECOND + 58_000_000
    one.mhz, moments = 900, [2 * SECOND]
    while (due_ns := one.clocks.poll(until_ns)) is not None:
        moments.append(due_ns)
        one.clock.advance(due_ns - one.clock.boottime_ns())
    assert len(moments) == 2, "both at one moment"
    one.clock.advance(until_ns - moments[-1])
    one.reads(600)
    expected = Cycles(900 * 1_058_000, 900 * 1_000_000 + 1, (100 * 58_000) ** 2 + 1)
    assert one.clocks.cycles("GPU-1", SECOND, until_ns) == expected


def test_a_gpu_that_answers_slowly_is_not_polled() -> None:
    one = Clocked().reads(700)
    one.took_ns = round(PATIENCE_SECONDS * SECOND)
    one.reads(800)
    assert one.clocks.poll(one.clock.boottime_ns() + SECOND) is None

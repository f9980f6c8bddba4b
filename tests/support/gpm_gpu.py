"""A simulated GPU for its GPM meter, read by read: the driver answers as the test sets."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from flopsd.core.model import Device, Limits, Pipe, Reading
from flopsd.sources.nvml.gpm import Metrics
from flopsd.sources.nvml.gpm_meter import GpmMeter
from flopsd.sources.nvml.polled_clock import Moments
from flopsd.testing import FakeClock
from tests.support.nvml_answers import NvmlFault
from tests.support.story import H100

SMS, MHZ = 132, 1000
SECOND = 10**9
IDLE = dict.fromkeys((Pipe.TENSOR, Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA, Pipe.FP64, Pipe.FP32), 0.0)


@dataclass
class Gpu:
    """A GPU at a steady clock. Its counters are in SM-cycles; `counted` are the pipes that have a counter."""

    counted: tuple[Pipe, ...] = (Pipe.TENSOR, Pipe.TENSOR_HMMA)
    clock: FakeClock = field(default_factory=FakeClock)
    elapsed: int = 10**12
    counters: dict[Pipe, int] = field(default_factory=dict)
    ratios: dict[Pipe, float] = field(default_factory=lambda: dict(IDLE))
    mhz: int | None = MHZ
    utilization: float | None = 0.5
    power: float | None = 0.5
    driver: str = "595.91.07"
    device: Device = H100
    vector_share: float = 0.5  # activity of the vector pipes as a share of the tensor pipe's
    handle: object = "first"
    is_polled: bool = True
    took_ns: list[int] = field(default_factory=list)  # durations of the next calls for a sample
    faults: list[int | None] = field(
        default_factory=list
    )  # errors of the next calls for a sample; None: the call succeeds
    streams: bool | Exception = True
    made: list[str] = field(default_factory=list)  # calls that change state

    def __post_init__(self) -> None:
        self.counters = dict.fromkeys(self.counted, 10**12)
        driver: Any = SimpleNamespace(
            version=self.driver,
            clock=self.clock,
            lib=SimpleNamespace(
                NVMLError=NvmlFault, nvmlGpmQueryIfStreamingEnabled=self._streaming,
                nvmlGpmSetStreamingEnabled=lambda handle, on: self.made.append(f"stream {handle} {on}"),
            ),
            optional=lambda call, *arguments: call(*arguments),
            counters=lambda handle: {"reads": 7} if handle == self.handle else {},
            utilization_ratio=lambda _: self.utilization,
            power_ratio=lambda _: self.power,
            moment_of=lambda _, *slot: Moments().of(*slot),
            sm_clock_mhz=lambda handle, _: self.mhz if handle == self.handle else None,
        )  # fmt: skip
        self.meter = GpmMeter(driver, self.gpm("gpm"), self.device, self.handle, Limits(SMS, MHZ), lambda: None)

    def gpm(self, name: str) -> Any:
        return SimpleNamespace(
            sample=self._sample,
            keep=lambda: None,
            release=lambda: self.made.append(f"release {name}"),
            metrics=self._metrics,
            split_off=frozenset(),
        )

    def _sample(self) -> None:
        self.clock.advance(self.took_ns.pop(0) if self.took_ns else 0)
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise NvmlFault(fault)

    def _streaming(self, handle: object) -> bool:
        assert handle == self.handle
        if isinstance(self.streams, Exception):
            raise self.streams
        return self.streams

    def _metrics(self) -> Metrics:
        return Metrics(dict(self.ratios), (), self.elapsed, dict(self.counters))

    def runs(self, share: float, seconds: float = 1.0, counted_share: float | None = None) -> Reading:
        """Do tensor work in `share` of all cycles, and read. The counters may show another share."""
        ns = round(seconds * SECOND)
        cycles = SMS * MHZ * ns // 1000
        self.elapsed += cycles
        for pipe in self.counters:
            part = self.vector_share if pipe.value.startswith("fp") else 1.0
            self.counters[pipe] += round(cycles * (share if counted_share is None else counted_share) * part)
        vector = {pipe for pipe in self.counted if pipe.value.startswith("fp")} | {Pipe.FP32}
        shares = {Pipe.TENSOR: share, Pipe.TENSOR_HMMA: share, **dict.fromkeys(vector, share * self.vector_share)}
        self.ratios = {**IDLE, **shares}
        until_ns = self.clock.boottime_ns() + ns
        while self.is_polled and (due_ns := self.meter.next_poll_ns(self.clock.boottime_ns(), until_ns)) is not None:
            self.clock.advance(due_ns - self.clock.boottime_ns())
            self.meter.poll()
        self.clock.advance(until_ns - self.clock.boottime_ns())
        reading, _ = self.meter.read()
        assert reading is not None
        return reading

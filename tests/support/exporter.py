"""A dcgm-exporter that shows any page a test sets, behind a real HTTP server; and a source that reads it on a clock
stepped by hand, with a meter behind it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from flopsd.core.figures import Figures
from flopsd.core.meter import advance
from flopsd.core.model import Evidence, Limits, Precision, Reading
from flopsd.core.rows import Rating
from flopsd.core.tally import Tally
from flopsd.sources.dcgm.source import DcgmSource
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.authorities import Answer, serving
from tests.support.sim import pass_time, total
from tests.support.strategies import table

A100_UID = "GPU-5a4d0000-0000-4000-8000-000000000000"  # the first GPU of the NVML stand-in: both name the same device
TENSOR, CLOCK, UTIL = "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_GPU_UTIL"
HMMA, IMMA, DFMA = (f"DCGM_FI_PROF_PIPE_TENSOR_{kind}_ACTIVE" for kind in ("HMMA", "IMMA", "DFMA"))
FP64, FP32, FP16 = (f"DCGM_FI_PROF_PIPE_{kind}_ACTIVE" for kind in ("FP64", "FP32", "FP16"))
ENERGY, POWER, LIMIT = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_POWER_MGMT_LIMIT"
ELAPSED, MMA = "DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL", "DCGM_FI_PROF_MMA_CYCLES_ACTIVE_TOTAL"


def gpu(
    values: Mapping[str, object],
    uid: str = A100_UID,
    model: str = "NVIDIA A100-SXM4-80GB",
    index: int = 0,
    more: str = "",
) -> str:
    """The lines of one GPU, with HELP and TYPE as the exporter writes them. `more` holds further labels."""
    labels = (
        f'gpu="{index}",UUID="{uid}",pci_bus_id="00000000:1A:00.0",device="nvidia{index}",modelName="{model}",'
        f'Hostname="node-7",DCGM_FI_DRIVER_VERSION="595.91.07"{more}'
    )
    lines: list[str] = []
    for name, value in values.items():
        kind = "counter" if "TOTAL" in name else "gauge"
        lines += [f"# HELP {name} Some help, in words.", f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}"]
    return "\n".join(lines) + "\n"


class Exporter:
    """The current answer: a page, or an HTTP status."""

    def __init__(self) -> None:
        self.page: Callable[[], str] = str
        self.status = 200
        self._serving = serving(self._answer)
        self.url = f"{self._serving.__enter__()}/metrics"

    def _answer(self, *_: object) -> Answer:
        return self.status, self.page().encode(), {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}

    def shows(self, text: str) -> None:
        self.page = lambda: text

    def stop(self) -> None:
        self._serving.__exit__(None, None, None)


@contextmanager
def exporting(text: str) -> Iterator[Exporter]:
    exporter = Exporter()
    exporter.shows(text)
    try:
        yield exporter
    finally:
        exporter.stop()


A100_NAME, H100_NAME = "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"
A100, H100 = Limits(108, 1410), Limits(132, 1980)
BUSY = {TENSOR: 0.93, CLOCK: 1230, UTIL: 100, ENERGY: 1_000_000}
BF16 = Precision((("bf16", 1_000_000),), "test")


class Bench:
    """A source on a clock stepped by hand. The meter behind it checks the invariants of every reading."""

    def __init__(
        self, exporter: Exporter, interval_s: float = 30, clock: FakeClock | None = None, **how: object
    ) -> None:
        self.exporter, self.clock, self.energy = exporter, clock or FakeClock(), 1_000_000
        self.source = DcgmSource(self.clock, table(), exporter.url, interval_s, **how)  # type: ignore[arg-type]
        self.tally = Tally(self.clock.boottime_ns(), self.clock.boottime_ns())
        self.limits: Limits | None = A100

    def read(self, seconds: float = 1) -> list[Reading]:
        pass_time(self.source, self.clock, round(seconds * NS_PER_S))
        readings = [reading for reading in self.source.read().readings if reading.device == A100_UID]
        for reading in readings:
            assert reading.begin_ns == self.tally.watermark_ns
            assert reading.begin_ns < reading.end_ns <= self.clock.boottime_ns()
            self.tally = advance(self.tally, reading, self.limits)
        return readings

    def collects(self, values: Mapping[str, object], after_s: float = 30, model: str = A100_NAME) -> list[Reading]:
        """Read each second. After `after_s` the page shows `values` and more energy used, and one more read counts
        them."""
        found: list[Reading] = []
        for _ in range(round(after_s) - 1):
            found += self.read()
        self.energy += 9_000_000
        self.exporter.shows(gpu({**values, ENERGY: self.energy}, model=model))
        return found + self.read()

    def figures(self, part: str = "a100-sxm4-80gb") -> Figures:
        return total(self.tally, Rating(table().parts[part], self.limits, BF16, table()))


def device_of(bench: Bench) -> tuple[Evidence, str, str]:
    (device,) = bench.source.devices()
    return device.evidence, device.evidence_reason, device.evidence_fix

"""A DCGM source on a clock stepped by hand, with a meter behind it."""

from __future__ import annotations

from collections.abc import Mapping

from flopsd.core.figures import Rating
from flopsd.core.meter import advance
from flopsd.core.model import (
    Evidence,
    Figures,
    Limits,
    Precision,
    Reading,
    Tally,
)
from flopsd.sources.dcgm.source import DcgmSource
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.exporter import (
    A100_UID,
    CLOCK,
    ENERGY,
    TENSOR,
    UTIL,
    Exporter,
    gpu,
)
from tests.support.fold import total
from tests.support.strategies import table

A100_NAME, H100_NAME = "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"
A100, H100 = Limits(108, 1410), Limits(132, 1980)
BUSY = {TENSOR: 0.93, CLOCK: 1230, UTIL: 100, ENERGY: 1_000_000}
BF16 = Precision((("bf16", 1_000_000),), "test")


class Bench:
    """A source on a clock stepped by hand, with a meter behind it that checks what every reading must be."""

    def __init__(
        self, exporter: Exporter, interval_s: float = 30, clock: FakeClock | None = None, **how: object
    ) -> None:
        self.exporter, self.clock, self.energy = exporter, clock or FakeClock(), 1_000_000
        self.source = DcgmSource(self.clock, table(), exporter.url, interval_s, **how)  # type: ignore[arg-type]
        self.tally = Tally(self.clock.boottime_ns(), self.clock.boottime_ns())
        self.limits: Limits | None = A100

    def read(self, seconds: float = 1) -> list[Reading]:
        self.clock.advance(round(seconds * NS_PER_S))
        readings = [reading for reading in self.source.read().readings if reading.device == A100_UID]
        for reading in readings:
            assert reading.begin_ns == self.tally.watermark_ns
            assert reading.begin_ns < reading.end_ns <= self.clock.boottime_ns()
            self.tally = advance(self.tally, reading, self.limits)
        return readings

    def collects(self, values: Mapping[str, object], after_s: float = 30, model: str = A100_NAME) -> list[Reading]:
        """Reads each second; after `after_s` the page shows `values`, more energy used, and one more read counts it."""
        found: list[Reading] = []
        for _ in range(round(after_s) - 1):
            found += self.read()
        self.energy += 9_000_000
        self.exporter.shows(gpu({**values, ENERGY: self.energy}, model=model))
        return found + self.read()

    def figures(self, part: str = "a100-sxm4-80gb") -> Figures:
        return total(self.tally, Rating(table().parts[part], self.limits, BF16), table())


def device_of(bench: Bench) -> tuple[Evidence, str, str]:
    (device,) = bench.source.devices()
    return device.evidence, device.evidence_reason, device.evidence_fix

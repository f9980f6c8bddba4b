"""A dcgm-exporter of simulated GPUs: the contents of its page at a moment, in closed form, whether healthy or
faulty."""

import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flopsd.core.model import Pipe
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support import exporter as fields
from tests.support.scenario import Fault, Gpu, Scenario, Segment

MS = 1_000_000
RATIOS = {
    fields.HMMA: Pipe.TENSOR_HMMA, fields.IMMA: Pipe.TENSOR_IMMA, fields.DFMA: Pipe.TENSOR_DFMA,
    fields.FP64: Pipe.FP64, fields.FP32: Pipe.FP32, fields.FP16: Pipe.FP16,
}  # fmt: skip
COUNTERS = {
    Pipe.TENSOR_HMMA: "HMMA", Pipe.TENSOR_IMMA: "IMMA", Pipe.TENSOR_DFMA: "DFMA",
    Pipe.FP64: "FP64", Pipe.FP32: "FP32", Pipe.FP16: "FP16",
}  # fmt: skip
_COUNTERS_APART = [f"DCGM_FI_PROF_{kind}_CYCLES_ACTIVE_TOTAL" for kind in ("HMMA", "IMMA", "DFMA")]
BEFORE = 10**12  # cycles of one SM and of each pipe before the epoch


@dataclass(frozen=True)
class Exporter:
    """The exporter's way of collecting: it collects every `interval_ms`, while --dcgm-interval states `stated_ms`.
    Faults affect all GPUs: `down` and `hang` the server; with `frozen` it collects nothing; `no_prof`, `blank` and
    `garbage` affect the values; with `gone` the last GPU is not on the page; running counters `reset`, jump
    (`ahead`), or stand still and catch up (`stood`), or those of tensor activity alone do (`stands`). Of two exporters
    behind one address one is a collection behind (`older`); each second collection lacks the kinds of tensor activity
    (`split`)."""

    interval_ms: int = 5000
    stated_ms: int = 5000
    offset_ms: int = 0
    left_out: frozenset[str] = frozenset()
    torn_ms: int = 0  # for that long the page is half old while it is renewed
    util_ms: int = 167  # the time that a sample of utilisation covers
    counters: int = 0  # cycle counters 1084 to 1096, one unit for each cycle of an SM; 0: none
    faults: tuple[Fault, ...] = ()


class ShownExporter:
    """A substitute for urllib's opener: it answers with the current page, on a clock stepped by hand."""

    def __init__(self, exporter: Exporter, gpus: Sequence[Gpu], clock: FakeClock) -> None:
        self.exporter, self.gpus, self.clock = exporter, gpus, clock
        self.machine, self.epoch_ns = Scenario(tuple(gpus)), clock.boottime_ns()
        self.seen: set[tuple[int, int]] = set()  # the spans covered by the collections that it showed
        self._body = b""

    def open(self, *_: object, **__: object) -> "ShownExporter":
        """Raises URLError where it does not answer."""
        self.clock.advance(3 * MS)
        now_ns = self.clock.boottime_ns() - self.epoch_ns
        kinds = {fault.kind for fault in self.exporter.faults if is_at(fault, now_ns)}
        if "hang" in kinds:
            self.clock.advance(2 * NS_PER_S)
            raise urllib.error.URLError(TimeoutError("timed out"))
        if "down" in kinds:
            raise urllib.error.URLError(ConnectionRefusedError("refused"))
        self._body = self._page(now_ns, kinds).encode()
        self.clock.advance(3 * MS)
        return self

    def read1(self, _: int) -> bytes:
        body, self._body = self._body, b""
        return body

    def __enter__(self) -> "ShownExporter":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def seen_seconds(self) -> float:
        """The time that the collections cover, with overlaps counted once."""
        total, until = 0, -(10**18)
        for begin_ns, end_ns in sorted(self.seen):
            total += max(0, end_ns - max(begin_ns, until))
            until = max(until, end_ns)
        return total / NS_PER_S

    def _collection(self, ns: int) -> tuple[int, int]:
        """The time that the newest collection at a moment covers."""
        faults, every_ns, offset_ns = self.exporter.faults, self.exporter.interval_ms * MS, self.exporter.offset_ms * MS
        end_ns = (ns - offset_ns) // every_ns * every_ns + offset_ns
        if any(fault.kind == "older" and is_at(fault, ns) for fault in faults) and ns // NS_PER_S % 3 == 0:
            end_ns -= every_ns
        while any(fault.kind == "frozen" and is_at(fault, end_ns) for fault in faults):
            end_ns -= every_ns
        began = [fault.to_ms * MS for fault in faults if fault.kind == "down" and fault.to_ms * MS <= end_ns]
        return max(end_ns - every_ns, min(max(began, default=-(10**12)), end_ns - MS)), end_ns

    def _page(self, now_ns: int, kinds: set[str]) -> str:
        begin_ns, end_ns = self._collection(now_ns)
        self.seen.add((begin_ns, end_ns))
        old = self._collection(begin_ns) if now_ns - end_ns < self.exporter.torn_ms * MS else None
        shown = [at for at in range(len(self.gpus)) if at == 0 or at < len(self.gpus) - 1 or "gone" not in kinds]
        return "".join(self._gpu(at, kinds, begin_ns, end_ns, old) for at in shown)

    def _gpu(self, at: int, kinds: set[str], begin_ns: int, end_ns: int, old: tuple[int, int] | None) -> str:
        values = self._values(self.gpus[at], begin_ns, end_ns)
        if old is not None:
            earlier = self._values(self.gpus[at], *old)
            values = {name: earlier[name] if half % 2 else value for half, (name, value) in enumerate(values.items())}
        if "no_prof" in kinds:
            values = {name: value for name, value in values.items() if "PROF" not in name}
        if "blank" in kinds:
            values = {name: blank(name) if "PROF" in name else value for name, value in values.items()}
        if "split" in kinds and end_ns // (self.exporter.interval_ms * MS) % 2:
            apart = {fields.HMMA, fields.IMMA, fields.DFMA, *_COUNTERS_APART}
            values = {name: value for name, value in values.items() if name not in apart}
        if "stands" in kinds:
            since_ms = next(fault.from_ms for fault in self.exporter.faults if fault.kind == "stands")
            stood = self._counters(self.gpus[at], since_ms * MS)
            values |= {name: count for name, count in stood.items() if "MMA" in name}
        if "garbage" in kinds:
            values[fields.TENSOR] = 1.7
        shown = {name: value for name, value in values.items() if name not in self.exporter.left_out}
        return fields.gpu(shown, self.machine.uuid(at), self.gpus[at].name, at)

    def _values(self, gpu: Gpu, begin_ns: int, end_ns: int) -> dict[str, Any]:
        elapsed = cycles(gpu, end_ns) - cycles(gpu, begin_ns)
        ratios = {name: gpu.sm_cycles(pipe, begin_ns, end_ns, 1) / elapsed for name, pipe in RATIOS.items()}
        ratios[fields.TENSOR] = ratios[fields.HMMA] + ratios[fields.IMMA] + ratios[fields.DFMA]
        util_ns = self.exporter.util_ms * MS
        busy_ns = sum(b - a for a, b, now in spans(gpu, end_ns - util_ns, end_ns) if any(now.ratios().values()))
        return {
            fields.CLOCK: next(spans(gpu, end_ns, end_ns + 1))[2].mhz, fields.UTIL: 100 * busy_ns // util_ns,
            **{name: f"{float(ratio):.6f}" for name, ratio in ratios.items()},
            fields.POWER: 300, fields.LIMIT: 700, **self._counters(gpu, end_ns),
        }  # fmt: skip

    def _counters(self, gpu: Gpu, at_ns: int) -> Mapping[str, int]:
        """The running counters in a collection."""
        since_ns, before = 0, BEFORE
        for fault in self.exporter.faults:
            if fault.from_ms * MS > at_ns:
                continue
            if fault.kind == "reset":
                since_ns, before = max(since_ns, fault.from_ms * MS), 0
            if fault.kind == "ahead":
                before += 10**15
            if fault.kind == "stood" and is_at(fault, at_ns):
                at_ns = max(since_ns, fault.from_ms * MS)
        energy_mj = (0 if since_ns else 10**9) + (at_ns - since_ns) // MS
        if not self.exporter.counters:
            return {fields.ENERGY: energy_mj}
        done = {pipe: before + gpu.sm_cycles(pipe, since_ns, at_ns, 1) for pipe in COUNTERS}
        tensor = done[Pipe.TENSOR_HMMA] + done[Pipe.TENSOR_IMMA] + done[Pipe.TENSOR_DFMA]
        found = {f"DCGM_FI_PROF_{name}_CYCLES_ACTIVE_TOTAL": done[pipe] for pipe, name in COUNTERS.items()}
        found |= {fields.ELAPSED: before + cycles(gpu, at_ns) - cycles(gpu, since_ns), fields.MMA: tensor}
        return {
            fields.ENERGY: energy_mj, **{name: int(self.exporter.counters * count) for name, count in found.items()}
        }  # fmt: skip


def blank(name: str) -> object:
    """DCGM's blank value of a whole number, or of a floating-point one."""
    return 9223372036854775792 if name.endswith("TOTAL") else 140737488355328.0


def is_at(fault: Fault, ns: int) -> bool:
    return fault.from_ms * MS <= ns < fault.to_ms * MS


def spans(gpu: Gpu, begin_ns: int, end_ns: int) -> Iterator[tuple[int, int, Segment]]:
    """A GPU's activity from one moment to another, segment by segment."""
    period_ns = sum(segment.ms for segment in gpu.segments) * MS
    at_ns = begin_ns // period_ns * period_ns
    while at_ns < end_ns:
        for segment in gpu.segments:
            a, b = max(at_ns, begin_ns), min(at_ns + segment.ms * MS, end_ns)
            if a < b:
                yield a, b, segment
            at_ns += segment.ms * MS


def cycles(gpu: Gpu, ns: int) -> Fraction:
    """Cycles of one SM from the epoch to a moment, which may precede it."""
    laps, left = divmod(ns, sum(segment.ms for segment in gpu.segments) * MS)
    total = Fraction(laps * sum(segment.ms * MS * segment.mhz for segment in gpu.segments), 1000)
    for segment in gpu.segments:
        part = min(left, segment.ms * MS)
        total += Fraction(part * segment.mhz, 1000)
        left -= part
    return total

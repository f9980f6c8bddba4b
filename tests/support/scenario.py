"""Scenarios for the stand-in NVML, and their true values in closed form, in exact fractions."""

import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from flopsd.core.model import GapReason, Pipe
from flopsd.system.clock import SystemClock

SOURCE = Path(__file__).resolve().parent.parent / "standin" / "nvml.c"
LIBRARY = "libnvidia-ml.so.1"
# Faults that hide a GPU or give wrong values for it, and the gap reason by which each is detected.
LIES = (
    ("counters_disabled", GapReason.COUNTERS_DISABLED), ("stalled", GapReason.COUNTER_STALLED),
    ("fell", GapReason.COUNTER_RESET), ("contradict", GapReason.CONTRADICTORY), ("range", GapReason.OUT_OF_RANGE),
    ("nan", GapReason.NOT_A_NUMBER), ("infinite", GapReason.NOT_A_NUMBER), ("zero", GapReason.ZERO_AT_FULL_LOAD),
    ("gpu_lost", GapReason.DEVICE_LOST), ("timeout", GapReason.DRIVER_TIMEOUT), ("unknown", GapReason.DRIVER_ERROR),
    ("no_permission", GapReason.NO_PERMISSION),
)  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """A GPU's activity for `ms`: clock, utilisation in percent, watts, and activity ratio by pipe."""

    ms: int
    mhz: int = 1755
    util: int | None = None  # None: fully utilised while any pipe is active
    watts: int | None = None  # None: 100 when idle, and up to 600 more by the busiest pipe
    hmma: float = 0.0
    imma: float = 0.0
    dfma: float = 0.0
    fp64: float = 0.0
    fp32: float = 0.0
    fp16: float = 0.0
    any_tensor: float | None = None  # None: the sum of the tensor pipes

    def ratios(self) -> dict[Pipe, Fraction]:
        return {
            Pipe.TENSOR_HMMA: Fraction(str(self.hmma)),
            Pipe.TENSOR_IMMA: Fraction(str(self.imma)),
            Pipe.TENSOR_DFMA: Fraction(str(self.dfma)),
            Pipe.FP64: Fraction(str(self.fp64)),
            Pipe.FP32: Fraction(str(self.fp32)),
            Pipe.FP16: Fraction(str(self.fp16)),
        }

    def line(self) -> str:
        any_tensor = self.hmma + self.imma + self.dfma if self.any_tensor is None else self.any_tensor
        values = (any_tensor, self.hmma, self.imma, self.dfma, 0, self.fp64, self.fp32, self.fp16)
        busiest = max(values)
        util = self.util if self.util is not None else 100 if busiest else 0
        watts = self.watts if self.watts is not None else round(100 + 600 * min(1, busiest))
        return f"seg {self.ms} {self.mhz} {util} {watts} " + " ".join(f"{v:g}" for v in values)


BUSY = (Segment(1000, hmma=0.5, util=100, watts=500),)


@dataclass(frozen=True)
class Fault:
    from_ms: int
    to_ms: int
    kind: str


@dataclass(frozen=True)
class Slice:
    """A MIG device: its GPU and compute instances, its SMs, its compute slices out of its GPU instance's, and its
    load."""

    gi: int
    sms: int
    segments: tuple[Segment, ...]
    ci: int = 0
    of: str = "1/1"
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Process:
    """A process that the driver lists on a GPU, by the id that the driver gives it."""

    from_ms: int
    to_ms: int
    pid: int


@dataclass(frozen=True)
class Gpu:
    """One simulated GPU; from the epoch on its segments repeat for ever."""

    name: str
    pci: int
    cores: int
    arch: int
    cc: str
    max_mhz: int
    gpm: bool
    segments: tuple[Segment, ...]
    faults: tuple[Fault, ...] = ()
    mig: bool = False
    counters: str = (
        "none"  # running cycle counters, by scale: average, sum, quarter; delta and wrong are not running counters
    )
    factor: float = 1.0  # factor by which running cycle counters are off
    bits: int = 0  # width at which they wrap
    pipe_bits: int = 0  # width at which those of the pipes wrap; 0: as `bits`
    before_epoch: int = 7 * 10**12  # cycles of one SM between boot and epoch
    appears_ms: int = 0  # not listed before then
    moves_ms: int | None = None  # listed last from then on
    clock_samples_ms: int = 0
    slices: tuple[Slice, ...] = ()
    processes: tuple[Process, ...] = ()

    def sm_cycles(self, pipe: Pipe, begin_ns: int, end_ns: int, sms: int) -> Fraction:
        """Exact SM-cycles of a pipe in [begin_ns, end_ns) since the epoch."""
        return self._until(pipe, end_ns, sms) - self._until(pipe, begin_ns, sms)

    def _until(self, pipe: Pipe, ns: int, sms: int) -> Fraction:
        period_ns = sum(s.ms for s in self.segments) * 1_000_000
        laps, left = divmod(max(0, ns), period_ns)
        total = Fraction(0)
        for segment in self.segments:
            rate = segment.ratios()[pipe] * segment.mhz * sms / 1000
            part = min(left, segment.ms * 1_000_000)
            total += rate * (laps * segment.ms * 1_000_000 + part)
            left -= part
        return total


def h100(segments: tuple[Segment, ...], faults: tuple[Fault, ...] = (), **changed: object) -> Gpu:
    facts = {"name": "NVIDIA H100 80GB HBM3", "pci": 0x233010DE, "cores": 132 * 128, "arch": 9, "cc": "9.0",
             "max_mhz": 1980, "gpm": True, **changed}  # fmt: skip
    return Gpu(segments=segments, faults=faults, **facts)  # type: ignore[arg-type]


def a100(segments: tuple[Segment, ...], faults: tuple[Fault, ...] = (), **changed: Any) -> Gpu:
    return Gpu("NVIDIA A100-SXM4-80GB", 0x20B210DE, 108 * 64, 7, "8.0", 1410, False, segments, faults, **changed)


@dataclass
class Scenario:
    """GPUs on one time axis that begins at `epoch_ns` of CLOCK_BOOTTIME."""

    gpus: tuple[Gpu, ...]
    driver_from_ms: int = 0
    confidential: str | None = (
        None  # confidential computing: off, on, devtools; None: the driver does not support the query
    )
    driver: str = "595.91.07"
    epoch_ns: int = field(default_factory=lambda: SystemClock().boottime_ns())

    def uuid(self, index: int) -> str:
        return f"GPU-5a4d0000-0000-4000-8000-{index:012d}"

    def write(self, path: Path) -> Path:
        lines = [f"epoch_ns {self.epoch_ns}", f"driver {self.driver}", f"driver_from_ms {self.driver_from_ms}"]
        lines += [] if self.confidential is None else [f"confidential {self.confidential}"]
        for index, gpu in enumerate(self.gpus):
            lines += [
                f"gpu uuid={self.uuid(index)} serial=165{index:07d} "
                f"pci={gpu.pci:08X} bus=00000000:{16 + index:02X}:00.0 "
                f"cores={gpu.cores} arch={gpu.arch} cc={gpu.cc} max_mhz={gpu.max_mhz} gpm={gpu.gpm:d} mig={gpu.mig:d}",
                f"name {gpu.name}",
                f"counters {gpu.counters}",
                f"clock_samples {gpu.clock_samples_ms}",
                f"factor {gpu.factor:.17g}",
                f"bits {gpu.bits}",
                f"pipe_bits {gpu.pipe_bits}",
                f"before {gpu.before_epoch}",
                f"appears {gpu.appears_ms}",
                *([] if gpu.moves_ms is None else [f"moves {gpu.moves_ms}"]),
                *_behaviour(gpu.segments, gpu.faults),
                *(f"process {p.from_ms} {p.to_ms} {p.pid}" for p in gpu.processes),
            ]
            for part in gpu.slices:
                uuid = f"MIG-5a4d0000-0000-4000-8000-{index:06d}{part.gi:03d}{part.ci:03d}"
                lines += [
                    f"slice gi={part.gi} ci={part.ci} sms={part.sms} of={part.of} uuid={uuid}",
                    *_behaviour(part.segments, part.faults),
                ]
        path.write_text("\n".join(lines) + "\n")
        return path


def _behaviour(segments: tuple[Segment, ...], faults: tuple[Fault, ...]) -> list[str]:
    return [*(segment.line() for segment in segments), *(f"fault {f.from_ms} {f.to_ms} {f.kind}" for f in faults)]


def compile_standin(folder: Path, *defines: str) -> Path:
    """Compile the stand-in into `folder`; a dynamic loader that looks there first finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / LIBRARY
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden",
         f"-Wl,-soname,{LIBRARY}", *(f"-D{d}" for d in defines), "-o", str(library), str(SOURCE), "-lm"],
        check=True,
    )  # fmt: skip
    return library

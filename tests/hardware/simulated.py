"""The same suite without a GPU: the stand-in driver executes a known number of FLOP at known times.

The simulated GPU repeats a lap in which every load has its slot after an idle stretch. A load whose slot comes too
soon for its bracket waits for the next lap, so that a slow machine makes it late but never wrong.
"""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import replace
from pathlib import Path

from flopsd.core.model import Pipe
from flopsd.core.part import Part
from flopsd.system.clock import NS_PER_S, Clock
from tests.hardware.loads import Done, MissedError, Spec
from tests.support.scenario import LIBRARY, Gpu, Scenario, Segment, compile_standin, h100

IDLE_MS = 1000
EARLY_NS, LATE_NS = 500_000_000, 400_000_000  # a bracket is opened this long before the slot, and no later than that
SMS = 132
PART = "h100-sxm5-80gb"
RATIO = 0.9
_FIELDS = {
    "fp64": ("dfma", Pipe.TENSOR_DFMA), "fp32": ("fp32", Pipe.FP32), "bf16": ("hmma", Pipe.TENSOR_HMMA),
    "fp16": ("hmma", Pipe.TENSOR_HMMA), "int8": ("imma", Pipe.TENSOR_IMMA),
}  # fmt: skip


class Simulation:
    """The simulated machine; must be made before anything loads NVML in this process."""

    def __init__(self, specs: tuple[Spec, ...], out: Path, clock: Clock, part: Part) -> None:
        """Compile the stand-in into `out`, where this process and its children find it. Needs a C compiler."""
        self._clock, self._part = clock, part
        self._slots: dict[str, tuple[int, int]] = {}
        segments: list[Segment] = []
        at_ms = 0
        for spec in specs:
            busy_ms = round(spec.seconds * 1000)
            busy = Segment(busy_ms)
            if spec.format:
                busy = replace(busy, util=100, watts=600, **{_FIELDS[spec.format][0]: RATIO})  # type: ignore[arg-type]
            segments += [Segment(IDLE_MS), busy]
            self._slots[spec.name] = ((at_ms + IDLE_MS) * 1_000_000, (at_ms + IDLE_MS + busy_ms) * 1_000_000)
            at_ms += IDLE_MS + busy_ms
        self.lap_ns = at_ms * 1_000_000
        self._gpu: Gpu = h100(tuple(segments))
        self._scenario = Scenario((self._gpu,), epoch_ns=clock.boottime_ns())
        self.uid = self._scenario.uuid(0)
        library = compile_standin(out / "standin")
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)  # the soname that pynvml asks the loader for
        os.environ["LD_LIBRARY_PATH"] = str(library.parent)
        os.environ["NVML_STANDIN_SCENARIO"] = str(self._scenario.write(out / "scenario.txt"))
        assert library.name == LIBRARY

    def load(self, spec: Spec) -> SimulatedLoad:
        return SimulatedLoad(spec, self, self._clock)

    def next_slot(self, spec: Spec, now_ns: int) -> tuple[int, int]:
        """Boot times of the next slot that begins late enough for a bracket."""
        begin_ns, end_ns = self._slots[spec.name]
        zero = self._scenario.epoch_ns
        laps = max(0, -(-(now_ns + LATE_NS - zero - begin_ns) // self.lap_ns))
        return zero + begin_ns + laps * self.lap_ns, zero + end_ns + laps * self.lap_ns

    def flop(self, spec: Spec, begin_ns: int, end_ns: int) -> int:
        """The simulated GPU's work between two boot times, in closed form."""
        if spec.format is None:
            return 0
        pipe, zero = _FIELDS[spec.format][1], self._scenario.epoch_ns
        rates = {**self._part.vector_flop_per_cycle, **self._part.tensor_flop_per_cycle}
        rate = self._part.vector_flop_per_cycle["fp32"] if spec.format == "fp32" else rates[spec.format]
        return round(self._gpu.sm_cycles(pipe, begin_ns - zero, end_ns - zero, SMS) * rate)


class SimulatedLoad:
    """One slot of the lap."""

    def __init__(self, spec: Spec, simulation: Simulation, clock: Clock) -> None:
        self.spec = spec
        self._simulation, self._clock = simulation, clock
        self._slot = (0, 0)

    def prepare(self) -> None:
        self._slot = self._simulation.next_slot(self.spec, self._clock.boottime_ns())
        self._until(self._slot[0] - EARLY_NS)

    def run(self) -> Done:
        begin_ns, end_ns = self._slot
        if self._clock.boottime_ns() >= begin_ns:
            raise MissedError(f"{self.spec.name}: its time had come before the bracket was open")
        self._until(end_ns)
        return Done(begin_ns, end_ns, 1, self._simulation.flop(self.spec, begin_ns, end_ns))

    def release(self) -> None:
        pass

    def _until(self, ns: int) -> None:
        never = threading.Event()
        while (left_ns := ns - self._clock.boottime_ns()) > 0:
            self._clock.wait(never, left_ns / NS_PER_S)

"""The loads in PyTorch. Every number format is asked for the way its users ask for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flopsd.system.clock import NS_PER_S, Clock
from tests.hardware.flop import Shape, gemm_flop, sparse_gemm_flop, training_step_flop
from tests.hardware.loads import Done, Spec, UnavailableError
from tests.hardware.plan import TRANSFORMER
from tests.hardware.transformer import training_step

WARM_UP_STEPS = 3
BATCH_SECONDS = 0.2  # work queued at a time: long against a launch, short against a load
MIB = 1 << 20
# What PyTorch raises for an operation that chip, build or memory does not offer.
_REFUSALS = (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError, ImportError)


@dataclass(frozen=True, slots=True)
class Work:
    """One step of a load, and its FLOP."""

    step: Callable[[], object]
    flop_per_step: int
    counted_flop_per_step: int | None = None


class TorchLoad:
    """A load on `device`, such as cuda:0; also on the CPU, where only its arithmetic can be checked."""

    def __init__(self, spec: Spec, device: str, clock: Clock, shape: Shape = TRANSFORMER) -> None:
        self.spec = spec
        self._device, self._clock, self._shape = device, clock, shape
        self._work: Work | None = None
        self._batch = 1

    def prepare(self) -> None:
        import torch

        try:
            self._work = BUILDERS[self.spec.kind](torch, self.spec, self._device, self._shape)
            for _ in range(WARM_UP_STEPS):
                self._work.step()
            self._finish(torch)
            self._batch = 1
            while (took_ns := self._timed(torch)) < BATCH_SECONDS * NS_PER_S / 2 and self.spec.kind != "idle":
                self._batch = max(self._batch + 1, int(self._batch * min(10.0, BATCH_SECONDS * NS_PER_S / took_ns)))
        except _REFUSALS as fault:
            self.release()
            raise UnavailableError(f"{type(fault).__name__}: {(str(fault).splitlines() or [''])[0][:200]}") from fault

    def run(self) -> Done:
        import torch

        assert self._work is not None, "prepare comes first"
        begin_ns = self._clock.boottime_ns()
        until_ns, steps = begin_ns + round(self.spec.seconds * NS_PER_S), 0
        if self.spec.kind == "idle":
            self._clock.wait(threading.Event(), self.spec.seconds)
        while self._clock.boottime_ns() < until_ns:
            self._timed(torch)
            steps += self._batch
        return Done(
            begin_ns, self._clock.boottime_ns(), steps, self._work.flop_per_step, self._work.counted_flop_per_step
        )

    def release(self) -> None:
        import torch

        self._work = None
        if self._device != "cpu":
            torch.cuda.empty_cache()

    def _timed(self, torch: Any) -> int:
        """Run one batch to its end; nanoseconds it took."""
        assert self._work is not None
        began_ns = self._clock.boottime_ns()
        for _ in range(self._batch):
            self._work.step()
        self._finish(torch)
        return max(1, self._clock.boottime_ns() - began_ns)

    def _finish(self, torch: Any) -> None:
        if self._device != "cpu":
            torch.cuda.synchronize(self._device)


def _gemm(torch: Any, spec: Spec, device: str, _shape: Shape) -> Work:
    n = spec.size
    flop = gemm_flop(n, n, n)
    if spec.format == "int8":
        a, b = (torch.randint(-127, 128, (n, n), device=device, dtype=torch.int8) for _ in range(2))
        return Work(lambda: torch._int_mm(a, b.t()), flop)
    if spec.format == "fp8":
        a, b = (torch.randn(n, n, device=device).to(torch.float8_e4m3fn) for _ in range(2))
        one = torch.ones((), device=device)
        return Work(
            lambda: torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True),
            flop,
        )
    names = {"fp64": "float64", "fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    # Of FP32 this decides the pipe: "highest" is FP32 arithmetic, "high" is TF32.
    torch.set_float32_matmul_precision("high" if spec.format == "tf32" else "highest")
    dtype = getattr(torch, names[str(spec.format)])
    a, b, c = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(3))
    return Work(lambda: torch.mm(a, b, out=c), flop)


def _sparse(torch: Any, spec: Spec, device: str, _shape: Shape) -> Work:
    n = spec.size
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    a.view(-1, 4)[:, :2] = 0
    packed = torch.sparse.to_sparse_semi_structured(a)
    return Work(lambda: torch.mm(packed, b), sparse_gemm_flop(n, n, n))


def _training(torch: Any, spec: Spec, device: str, shape: Shape) -> Work:
    from torch.utils.flop_counter import FlopCounterMode

    how = {"checkpointing": "ckpt" in spec.variant, "lora": "lora" in spec.variant}
    step = training_step(torch, shape, device, **how)
    with FlopCounterMode(display=False) as counter:
        step()
    return Work(step, training_step_flop(shape, **how), int(counter.get_total_flops()))


def _copy(torch: Any, spec: Spec, device: str, _shape: Shape) -> Work:
    source, target = (torch.randn(spec.size * MIB // 4, device=device) for _ in range(2))
    return Work(lambda: target.copy_(source), 0)


def _add(torch: Any, spec: Spec, device: str, _shape: Shape) -> Work:
    count = spec.size * MIB // 4
    a, b, c = (torch.randn(count, device=device) for _ in range(3))
    return Work(lambda: torch.add(a, b, out=c), count)


def _idle(_torch: Any, _spec: Spec, _device: str, _shape: Shape) -> Work:
    return Work(lambda: None, 0)


BUILDERS: Mapping[str, Callable[[Any, Spec, str, Shape], Work]] = {
    "gemm": _gemm,
    "sparse": _sparse,
    "training": _training,
    "copy": _copy,
    "add": _add,
    "idle": _idle,
}

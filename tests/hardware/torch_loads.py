"""The loads in PyTorch, which requests every number format as users do, and a small transformer in plain functions."""

import importlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flopsd.system.clock import NS_PER_S, Clock
from tests.hardware.loads import Done, Shape, Spec, UnavailableError, gemm_flop, sparse_gemm_flop, training_step_flop
from tests.hardware.plan import TRANSFORMER

LEARNING_RATE = 1e-4


def training_step(torch: Any, shape: Shape, device: str, *, checkpointing: bool, lora: bool) -> Callable[[], None]:
    """A function that does one training step in BF16, the loss in FP32."""
    model = _Model(torch, shape, device, checkpointing=checkpointing, lora=lora)
    optimizer = torch.optim.SGD(model.trained, lr=LEARNING_RATE)
    place = {"device": device, "dtype": torch.int64}
    tokens = torch.randint(0, shape.vocabulary, (shape.batch, shape.sequence), **place)
    targets = torch.randint(0, shape.vocabulary, (shape.batch * shape.sequence,), **place)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = model.forward(tokens).float().view(-1, shape.vocabulary)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        # Early stop would omit a checkpointed layer's last product: the closed form counts whole layers.
        with torch.utils.checkpoint.set_checkpoint_early_stop(False):
            loss.backward()
        optimizer.step()

    return step


class _Model:
    """Decoder-only, with LoRA and activation checkpointing. It uses functions rather than modules, so that no
    PyTorch is needed until it runs. Attention is two explicit matrix products: fused kernels recompute internally
    and skip masked blocks, so their FLOP could not be stated."""

    def __init__(self, torch: Any, shape: Shape, device: str, *, checkpointing: bool, lora: bool) -> None:
        importlib.import_module("torch.utils.checkpoint")  # `import torch` does not load it in every version
        self._torch, self._shape, self._checkpointing = torch, shape, checkpointing
        self.trained: list[Any] = []

        def weight(rows: int, columns: int, *, trained: bool, zero: bool = False) -> Any:
            scale = 0.0 if zero else 0.02
            values = (torch.randn(rows, columns, device=device) * scale).to(torch.bfloat16)
            values.requires_grad_(trained)
            if trained:
                self.trained.append(values)
            return values

        self._embedding = weight(shape.vocabulary, shape.width, trained=not lora)
        self._head = weight(shape.vocabulary, shape.width, trained=not lora)
        self._layers = []
        for _ in range(shape.layers):
            layer = {name: weight(outputs, inputs, trained=not lora) for name, inputs, outputs in shape.linears}
            if lora:
                for name, inputs, outputs in shape.linears:
                    layer[f"{name}.down"] = weight(shape.rank, inputs, trained=True)
                    layer[f"{name}.up"] = weight(outputs, shape.rank, trained=True, zero=True)
            self._layers.append(layer)

    def forward(self, tokens: Any) -> Any:
        torch = self._torch
        x = torch.nn.functional.embedding(tokens, self._embedding)
        for layer in self._layers:
            if self._checkpointing:
                with torch.utils.checkpoint.set_checkpoint_early_stop(False):
                    x = torch.utils.checkpoint.checkpoint(self._layer, x, layer, use_reentrant=False)
            else:
                x = self._layer(x, layer)
        return torch.nn.functional.linear(self._norm(x), self._head)

    def _layer(self, x: Any, layer: dict[str, Any]) -> Any:
        torch, shape = self._torch, self._shape
        wide = (shape.batch, shape.sequence, shape.heads, shape.width // shape.heads)
        q, k, v = (part.view(wide).transpose(1, 2) for part in self._linear(self._norm(x), layer, "qkv").chunk(3, -1))
        scores = q @ k.transpose(-1, -2) * wide[3] ** -0.5
        ahead = torch.ones(shape.sequence, shape.sequence, dtype=torch.bool, device=x.device).triu(1)
        mixed = torch.softmax(scores.masked_fill(ahead, float("-inf")), -1) @ v
        x = x + self._linear(mixed.transpose(1, 2).reshape(x.shape), layer, "out")
        up = torch.nn.functional.gelu(self._linear(self._norm(x), layer, "up"))
        return x + self._linear(up, layer, "down")

    def _linear(self, x: Any, layer: dict[str, Any], name: str) -> Any:
        linear = self._torch.nn.functional.linear
        y = linear(x, layer[name])
        if f"{name}.down" in layer:
            y = y + linear(linear(x, layer[f"{name}.down"]), layer[f"{name}.up"])
        return y

    def _norm(self, x: Any) -> Any:
        return x * (x.float().pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt().to(x.dtype)


WARM_UP_STEPS = 3
BATCH_SECONDS = 0.2  # work queued at a time: long compared with a launch, short compared with a load
MIB = 1 << 20
# Errors that PyTorch raises for an operation that chip, build or memory does not support.
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
        """Run one batch to its end; returns its nanoseconds."""
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
    # For FP32 this decides the pipe: "highest" is FP32 arithmetic, "high" is TF32.
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
    "gemm": _gemm, "sparse": _sparse, "training": _training, "copy": _copy, "add": _add, "idle": _idle,
}  # fmt: skip

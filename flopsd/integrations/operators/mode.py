"""A dispatch mode that adds up the FLOP of each operator that PyTorch dispatches. Tensors pass through unchanged.

In regions of torch.compile it sees the calls of the compiled code, and does not affect the compilation.
"""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from flopsd.integrations.modules.products import tensors_of
from flopsd.integrations.operators.formulas import formula_of

MAX_WORDS = 16
# Operators whose results Python may use to decide what runs next, and products whose row count is in a tensor.
_READS = frozenset(
    {"_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "unique_dim", "_unique", "_unique2",
     "unique_consecutive", "unique_dim_consecutive", "_grouped_mm", "_scaled_grouped_mm", "_scaled_grouped_mm_v2"}
)  # fmt: skip
_QUESTIONS = frozenset(
    {"is_contiguous", "is_strides_like_format", "is_non_overlapping_and_dense", "size", "stride", "storage_offset",
     "numel", "dim", "layout", "device"}
)  # fmt: skip
_BACKENDS = ("CPU", "CUDA", "XPU")
_FORMATS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}
Device = Any  # a torch.device


class OperatorFlop:
    """The FLOP of operators, by device and tensor-core format (None: not on tensor cores), and those recomputed."""

    def __init__(self) -> None:
        self.flop: dict[tuple[Device, str | None], int] = defaultdict(int)
        self.again: dict[Device, int] = defaultdict(int)
        self.spare: list[tuple[Device, str | None, int, bool]] = []  # of `flop`: see `Formula`
        self.words: set[str] = set()
        self.reads_content = False  # so another pass with these shapes may run other operators
        self.captured = False  # some operators were captured into a CUDA graph: the counts are incomplete
        self._lock = threading.Lock()  # a backward pass has a thread for each device

    def add(self, device: Device, format_: str | None, flop: int, spare: int, *, again: bool) -> None:
        with self._lock:
            self.flop[device, format_] += flop
            if again:
                self.again[device] += flop
            if spare:
                self.spare.append((device, format_, spare, again))

    def without_spare(self) -> OperatorFlop:
        """The counts that passes with these shapes have whether or not they have masks."""
        found = OperatorFlop()
        found.flop.update(self.flop)
        found.again.update(self.again)
        found.words, found.reads_content, found.captured = self.words, self.reads_content, self.captured
        for device, format_, spare, again in self.spare:
            found.flop[device, format_] -= spare
            found.again[device] -= spare if again else 0
        return found

    def say(self, words: str) -> None:
        if len(self.words) < MAX_WORDS:
            self.words.add(words)

    @property
    def total(self) -> int:
        return sum(self.flop.values())

    def by_device(self) -> dict[Device, dict[str, int]]:
        """The counters that a training process declares."""
        found: dict[Device, dict[str, int]] = {}
        for (device, _), flop in self.flop.items():
            counters = found.setdefault(device, {"operator_flop": 0})
            counters["operator_flop"] += flop
        for device, flop in self.again.items():
            found[device]["recomputed_operator_flop"] = flop
        return found


class CountingMode(TorchDispatchMode):
    """Adds to `counted` until the mode is left. `again`: all of it is recomputation; `backward`: operators that run
    with gradients enabled are. `failed` is called after an error in counting, which does not affect the operator."""

    supports_higher_order_operators = True

    def __init__(
        self, counted: OperatorFlop, failed: Callable[[], None], *, again: bool = False, backward: bool = False
    ) -> None:
        super().__init__()
        self._counted, self._failed, self._again, self._backward = counted, failed, again, backward

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True  # otherwise torch.compile would run everything eagerly

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        named = named or {}
        kind = _kind(operator)
        if kind is _Kind.HIGHER_ORDER:
            return self._of_higher_order(operator, arguments, named)
        if types and any(hasattr(one, "__tensor_flatten__") for one in types):
            return NotImplemented  # a distributed or quantized tensor calls operators on its parts: these are counted
        if types and any(issubclass(one, FakeTensor) for one in types):
            return operator(*arguments, **named)  # computes shapes only
        if kind is _Kind.QUESTION:
            return NotImplemented
        if kind is _Kind.MADE_OF_OTHERS:
            with self:
                output = operator.decompose(*arguments, **named)
            if output is not NotImplemented:
                return output
        output = operator(*arguments, **named)
        try:
            self._count(operator, kind, arguments, named, output)
        except Exception:  # noqa: BLE001 (logged there)
            self._failed()
        return output

    def _count(self, operator: Any, kind: _Kind, arguments: Any, named: Mapping[str, Any], output: Any) -> None:
        if kind is _Kind.READ or (kind is _Kind.INDEX and any(_is_mask(one) for one in arguments[1])):
            self._counted.reads_content = True
        if is_capturing():  # nothing is computed yet, and the device must not be read
            self._counted.captured = True
            return
        found = formula_of(operator, arguments, named, output)
        if found.words is not None:
            self._counted.say(found.words)
        if found.flop:
            tensor = next(tensors_of((arguments, named)))
            again = self._again or (self._backward and torch.is_grad_enabled())
            self._counted.add(tensor.device, _format(tensor), found.flop, found.spare, again=again)

    def _of_higher_order(self, operator: Any, arguments: Any, named: Any) -> Any:
        if operator.name() == "inductor_compiled_code":
            with self:
                return arguments[0](arguments[1])
        self._counted.say(f"{operator.name()} has no formula")
        return operator(*arguments, **named)


def is_capturing() -> bool:
    """Whether this thread's kernels become a CUDA graph instead of running."""
    return bool(torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


class _Kind(Enum):
    HIGHER_ORDER = "calls functions"
    QUESTION = "about a tensor: nothing is computed"
    MADE_OF_OTHERS = "its parts are dispatched"
    READ = "its result is read by Python, or has as many rows as a tensor says"
    INDEX = "READ where it is indexed by a mask"
    OTHER = "any other"


@functools.cache  # called for every operator of a pass, a few hundred different ones
def _kind(operator: Any) -> _Kind:
    if isinstance(operator, torch._ops.HigherOrderOperator):
        return _Kind.HIGHER_ORDER
    name = operator._schema.name.partition("::")[2]
    if name.startswith("sym_") or name in _QUESTIONS:
        return _Kind.QUESTION
    has_kernel = functools.partial(torch._C._dispatch_has_kernel_for_dispatch_key, operator.name())
    # Some, such as silu_backward, also have a kernel, whose results differ in the last bits. None of these multiplies.
    if has_kernel("CompositeImplicitAutograd") and not any(map(has_kernel, _BACKENDS)):
        return _Kind.MADE_OF_OTHERS
    if name in _READS:
        return _Kind.READ
    return _Kind.INDEX if name == "index" else _Kind.OTHER


def _format(tensor: Any) -> str | None:
    """The format in which tensor cores multiply, by the type of an operator's first tensor; None for others."""
    dtype = tensor.dtype
    if dtype is torch.float32:
        reduced = tensor.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
        return "tf32" if reduced else None
    name = str(dtype)
    return _FORMATS.get(dtype) or next((to for of, to in (("float8", "fp8"), ("float4", "fp4")) if of in name), None)

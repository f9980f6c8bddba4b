"""The suite's loads, their FLOP in closed form, and the settings around them: `Spec` describes a load, `Load` runs
it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

# One multiply-add is 2 FLOP; matrix products only, no vector work.


def gemm_flop(m: int, n: int, k: int) -> int:
    """A dense product of m x k by k x n."""
    return 2 * m * n * k


def sparse_gemm_flop(m: int, n: int, k: int) -> int:
    """The same with a 2:4-sparse left side: the executed FLOP, which are half of the dense product's."""
    return m * n * k


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder-only transformer without biases; attention as two plain matrix products a layer."""

    layers: int
    width: int
    heads: int
    sequence: int
    batch: int
    hidden: int
    vocabulary: int
    rank: int  # of the LoRA matrices

    @property
    def linears(self) -> tuple[tuple[str, int, int], ...]:
        """(name, inputs, outputs) of a layer's linear maps, in order."""
        d, f = self.width, self.hidden
        return (("qkv", d, 3 * d), ("out", d, d), ("up", d, f), ("down", f, d))


def training_step_flop(shape: Shape, *, checkpointing: bool, lora: bool) -> int:
    """One step, forward and backward. With checkpointing every layer runs forward twice. With LoRA the weights are
    frozen, so their gradients are not computed; neither is the gradient of the first layer's input, which nothing
    needs."""
    tokens, d, r = shape.batch * shape.sequence, shape.width, shape.rank
    dense = sum(gemm_flop(tokens, b, a) for _, a, b in shape.linears)
    attention = 2 * gemm_flop(tokens, shape.sequence, d)  # scores and values, over all heads
    head = gemm_flop(tokens, shape.vocabulary, d)
    low_rank = sum(gemm_flop(tokens, r, a) + gemm_flop(tokens, b, r) for _, a, b in shape.linears) if lora else 0
    forward = dense + attention + low_rank
    if lora:
        backward = dense + 2 * attention + 2 * low_rank
        unneeded = gemm_flop(tokens, d, 3 * d) + gemm_flop(tokens, d, r)
        total = shape.layers * (forward + backward) - unneeded + 2 * head
    else:
        total = 3 * (shape.layers * forward + head)
    return total + (shape.layers * forward if checkpointing else 0)


class UnavailableError(Exception):
    """A load that this machine, PyTorch or missing permission rules out. The text gives the reason."""


class MissedError(Exception):
    """A simulated load whose time had passed before its bracket was closed; it can be retried."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One load. `format` is that of the counted arithmetic; None where nothing is counted."""

    kind: str  # gemm, sparse, training, add, copy, idle
    format: str | None
    size: int  # matrix edge; MiB of one buffer; layers of the transformer
    seconds: float
    variant: str = ""  # for training: plain, lora, lora+ckpt, or ckpt for activation checkpointing
    setting: str = ""  # clock:MHZ or power:PERCENT, applied around the load where that is permitted

    @property
    def name(self) -> str:
        parts = (self.kind, self.format, self.variant, str(self.size) if self.size else "", f"{self.seconds:g}s",
                 self.setting)  # fmt: skip
        return "-".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Done:
    """The work of a load between two boot times. `counted_flop_per_step` is PyTorch's own count, where one was made."""

    begin_ns: int
    end_ns: int
    steps: int
    flop_per_step: int
    counted_flop_per_step: int | None = None

    @property
    def flop(self) -> int:
        return self.steps * self.flop_per_step


class Load(Protocol):
    """One load on one GPU. `prepare` and `release` may compute too: they are outside the bracket."""

    @property
    def spec(self) -> Spec: ...

    def prepare(self) -> None:
        """Allocate and warm up. Raises UnavailableError."""

    def run(self) -> Done:
        """Work for `spec.seconds`, and return when all of it is finished. Raises MissedError."""

    def release(self) -> None:
        """Free the memory."""


LEFT = "settings are left as they are; --change-settings allows this load"
_SECONDS = 60


class Knobs:
    """The settings of one GPU. If `allowed` is false, no tool is ever called."""

    def __init__(self, uid: str, *, allowed: bool, power_limit_mw: int | None) -> None:
        self.allowed = allowed
        self._uid, self._power_limit_mw = uid, power_limit_mw

    @contextmanager
    def applied(self, setting: str) -> Iterator[None]:
        """`setting` is in force inside the `with`. Raises UnavailableError if it is not allowed, or refused."""
        if not setting:
            yield
            return
        if not self.allowed:
            raise UnavailableError(LEFT)
        kind, _, amount = setting.partition(":")
        if kind == "clock":
            change, undo = ["-lgc", f"{amount},{amount}"], ["-rgc"]
        elif kind == "power" and self._power_limit_mw:
            watts = self._power_limit_mw // 1000
            change, undo = ["-pl", str(watts * int(amount) // 100)], ["-pl", str(watts)]
        else:
            raise UnavailableError(f"{setting}: the driver gives no power limit")
        self._ask(change)
        try:
            yield
        finally:
            self._ask(undo)

    def _ask(self, arguments: list[str]) -> None:
        command = ["nvidia-smi", "-i", self._uid, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as fault:
            raise UnavailableError(f"{' '.join(command)}: {fault}") from fault
        if done.returncode:
            raise UnavailableError(f"refused: {' '.join(command)}: {(done.stdout + done.stderr).strip()[:200]}")

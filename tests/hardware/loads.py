"""What the suite runs: a `Spec` says which load, a `Load` does it. PyTorch or the simulation is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class UnavailableError(Exception):
    """A load that this machine, PyTorch or permission does not offer. The text says why."""


class MissedError(Exception):
    """A simulated load whose time had passed before its bracket was closed; it can be tried again."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One load. `format` is that of the arithmetic that is counted, None where nothing is."""

    kind: str  # gemm, sparse, training, add, copy, idle
    format: str | None
    size: int  # matrix edge; MiB of one buffer; layers of the transformer
    seconds: float
    variant: str = ""  # of training: plain, lora, lora+ckpt, or ckpt for activation checkpointing
    setting: str = ""  # clock:MHZ or power:PERCENT, applied around the load where that is permitted

    @property
    def name(self) -> str:
        parts = (self.kind, self.format, self.variant, str(self.size) if self.size else "", f"{self.seconds:g}s",
                 self.setting)  # fmt: skip
        return "-".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Done:
    """What a load did between two boot times. `counted_flop_per_step` is PyTorch's own count, where it was taken."""

    begin_ns: int
    end_ns: int
    steps: int
    flop_per_step: int
    counted_flop_per_step: int | None = None

    @property
    def flop(self) -> int:
        return self.steps * self.flop_per_step


class Load(Protocol):
    """One load on one GPU. `prepare` and `release` may compute too: they lie outside the bracket."""

    @property
    def spec(self) -> Spec: ...

    def prepare(self) -> None:
        """Allocate and warm up. Raises UnavailableError."""

    def run(self) -> Done:
        """Work for `spec.seconds`; all of it is finished on return. Raises MissedError."""

    def release(self) -> None:
        """Give the memory back."""

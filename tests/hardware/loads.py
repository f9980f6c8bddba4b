"""What the suite runs, and the settings around it: a `Spec` says which load, a `Load` does it, `Knobs` change the GPU."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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


LEFT = "settings are left as they are; --change-settings allows this load"
_SECONDS = 60


class Knobs:
    """The settings of one GPU. With `allowed` false nothing is ever called."""

    def __init__(self, uid: str, *, allowed: bool, power_limit_mw: int | None) -> None:
        self.allowed = allowed
        self._uid, self._power_limit_mw = uid, power_limit_mw

    @contextmanager
    def applied(self, setting: str) -> Iterator[None]:
        """`setting` in force inside the `with`. Raises UnavailableError: not allowed, or refused."""
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
            raise UnavailableError(f"{setting}: the driver tells no power limit")
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

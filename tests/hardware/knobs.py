"""Clock locks and power caps around a load, through nvidia-smi, undone afterwards. Only where it was asked for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.hardware.loads import UnavailableError

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

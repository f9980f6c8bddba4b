"""A process that does for the daemon what must not be in it: the libraries that sign. It is never waited for."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from flopsd.system.clock import NS_PER_S, Clock

CHILD_SECONDS = 120.0
MAX_OUTPUT_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended. `code` is None where it took too long and was killed. `err` is its stderr on one line."""

    code: int | None
    out: str
    err: str


class Child:
    """One process in a session of its own, killed with its children when it takes too long."""

    def __init__(
        self, command: Sequence[str], clock: Clock, *, output: bool = False, seconds: float = CHILD_SECONDS
    ) -> None:
        """Starts it, for at most `seconds`. `output`: keep its stdout. Raises OSError."""
        self._clock, self._started_ns, self._seconds = clock, clock.boottime_ns(), seconds
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if output else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> Ended | None:
        """How it ended; None while it runs."""
        code = self._process.poll()
        if code is None:
            if self._clock.boottime_ns() - self._started_ns <= self._seconds * NS_PER_S:
                return None
            self.kill()
            return Ended(None, "", f"it took more than {self._seconds:g} s and was killed")
        lines = (line.removeprefix("flopsd: ").removeprefix("WARNING: ") for line in _rest(self._process.stderr))
        return Ended(code, "\n".join(_rest(self._process.stdout)), "; ".join(line for line in lines if line))

    def kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass  # it hangs in the kernel, on a dead disk for instance, and ends when the kernel returns
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


def _rest(pipe: IO[bytes] | None) -> list[str]:
    """The lines in the pipe of a process that ended, without waiting for more."""
    if pipe is None:
        return []
    with pipe:
        os.set_blocking(pipe.fileno(), False)
        try:
            data = os.read(pipe.fileno(), MAX_OUTPUT_BYTES)
        except BlockingIOError:
            data = b""
    return data.decode("utf-8", "replace").splitlines()

"""A child process for what must stay out of the daemon: the libraries that sign. The daemon never waits for it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.process_groups import kill_group

IDLE_SECONDS, MOST_SECONDS = 120.0, 24 * 3600.0
# Less than this is no progress: a process that waits for an answer may read a little again and again.
STEP_BYTES = 1 << 20
# At the end, what was written is synced to the disk at this speed or faster, without further reads or writes.
SYNCED_BYTES_PER_S = 5_000_000
MAX_OUTPUT_BYTES = 8192
NOT_STARTED = 127  # as in shells
_NUMBER = re.compile(r"\d+")


class Ended(NamedTuple):
    """How a child ended. `code` is None if it hung and was killed. `err` is its stderr on one line, or how it failed if
    it wrote nothing there; `said` is its stderr alone."""

    code: int | None
    out: str
    err: str
    said: str = ""


class ChildProcess:
    """One process at a time, in a session of its own, killed with its children when it hangs. Its time is not limited
    while it works: sealing a journal of months takes long on a busy node. It hangs if it has neither read nor written
    for `idle_seconds`, or runs for a day. One thread calls it."""

    def __init__(
        self, command: Sequence[str], what: str, clock: Clock, *, output: bool = False,
        idle_seconds: float = IDLE_SECONDS, files: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """`what`: a name, such as `the sealing process`. `output`: keep its stdout. `files`: open files it inherits."""
        self._command, self._what, self._clock = command, what, clock
        self._output, self._idle_seconds, self._files = output, idle_seconds, files
        self._process: subprocess.Popen[bytes] | None = None
        self._not_started: Ended | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a process was started whose end `ended` has not returned yet."""
        return self._process is not None or self._not_started is not None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self, *more: str) -> None:
        """Start a process, with `more` arguments. If it cannot be started, `ended` returns why."""
        self._started_ns = self._moved_ns = self._clock.boottime_ns()
        self._moved_bytes = 0
        try:
            self._process = subprocess.Popen(
                [*self._command, *more],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._output else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=self._files,
                start_new_session=True,
            )
        except OSError as fault:
            self._not_started = Ended(NOT_STARTED, "", f"{self._what} cannot be started: {fault.strerror}")

    def ended(self) -> Ended | None:
        """Return how the process ended, once; None while it runs."""
        if self._not_started is not None:
            ended, self._not_started = self._not_started, None
            return ended
        process = self._process
        if process is None:
            return None
        code = process.poll()
        if code is None:
            if (why := self._hangs(process.pid)) is None:
                return None
            self.stop()
            return Ended(None, "", f"{self._what} {why} and was killed")
        self._process = None
        lines = (line.removeprefix("flopsd: ").removeprefix("WARNING: ") for line in _remaining_lines(process.stderr))
        err = "; ".join(line for line in lines if line)
        failed = f"{self._what} ended with {code}" if code else ""
        return Ended(code, "\n".join(_remaining_lines(process.stdout)), err or failed, err)

    def stop(self) -> None:
        """Kill the process, if there is one."""
        process, self._process, self._not_started = self._process, None, None
        if process is not None:
            kill_group(process)

    def _hangs(self, pid: int) -> str | None:
        """Return how the process hangs; None if it does not."""
        now_ns = self._clock.boottime_ns()
        if now_ns - self._started_ns > MOST_SECONDS * NS_PER_S:
            return f"took more than {MOST_SECONDS / 3600:g} h"
        idle_seconds = self._idle_seconds + self._moved_bytes / SYNCED_BYTES_PER_S
        if now_ns - self._moved_ns <= idle_seconds * NS_PER_S:
            return None
        moved = moved_bytes(pid)
        if moved - self._moved_bytes < STEP_BYTES:
            return f"did nothing for {idle_seconds:.0f} s"
        self._moved_ns, self._moved_bytes = now_ns, moved
        return None


def is_new_fault(text: str, before: str) -> bool:
    """Whether a fault differs from the last one in more than its numbers: times, ports, segments differ at each try."""
    return _NUMBER.sub("", text) != _NUMBER.sub("", before)


def moved_bytes(pid: int) -> int:
    """Return how many bytes a process has read and written so far; 0 if the kernel does not say."""
    try:
        text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
        facts = dict(line.split(": ") for line in text.splitlines())
        return int(facts["rchar"]) + int(facts["wchar"])
    except (OSError, ValueError, LookupError):
        return 0


def _remaining_lines(pipe: IO[bytes] | None) -> list[str]:
    """Return the lines in the pipe of a process that ended, without waiting for more."""
    if pipe is None:
        return []
    with pipe:
        os.set_blocking(pipe.fileno(), False)
        try:
            data = os.read(pipe.fileno(), MAX_OUTPUT_BYTES)
        except BlockingIOError:
            data = b""
    return data.decode("utf-8", "replace").splitlines()

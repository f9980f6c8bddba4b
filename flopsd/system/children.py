"""The processes that a launcher started: which have ended, and how; which were stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection

from flopsd.system.clock import NS_PER_S, Clock

KILL_SECONDS = 2.0  # a killed process ends at once, unless it hangs in the kernel


class Children:
    """The children of this process, which waits for the signals `awaited`. They include SIGCHLD, and are blocked."""

    def __init__(self, clock: Clock, log: Callable[[str], None], awaited: Collection[int]) -> None:
        self._clock, self._log, self._awaited = clock, log, awaited
        self.running: set[int] = set()
        self._codes: dict[int, int] = {}
        self._stopped: dict[int, int] = {}  # the signal that stopped each

    def reap(self) -> None:
        """Collect all children that ended or were stopped, and orphans that we adopted."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self.running:
                continue
            if os.WIFSTOPPED(status):
                self._stopped[pid] = os.WSTOPSIG(status)
            else:
                self.running.discard(pid)  # any process may get this number next
                self._codes[pid] = os.waitstatus_to_exitcode(status)

    def has_ended(self, pid: int) -> bool:
        return pid in self._codes

    def take_code(self, pid: int) -> int:
        """Return the exit code of a child that ended, negative for a signal. To be called once for a child."""
        return self._codes.pop(pid)

    def take_stop(self, pid: int) -> int | None:
        """Return the signal that stopped a child since the last call; None: it was not stopped."""
        return self._stopped.pop(pid, None)

    def wait_for(self, pid: int, name: str, seconds: float) -> int:
        """Return the exit code of a child. Kill it after `seconds`; leave it behind if even that does not end it."""
        if self._ends(pid, seconds):
            return self.take_code(pid)
        self._log(f"{name} did not end within {seconds:.0f} s and is killed")
        os.kill(pid, signal.SIGKILL)
        if not self._ends(pid, KILL_SECONDS):
            self._log(f"{name} hangs in the kernel, on a dead disk or driver; process {pid} is left behind")
        return -signal.SIGKILL

    def _ends(self, pid: int, seconds: float) -> bool:
        """Whether a child ends within `seconds`. A child that a process of the job stopped is continued, so that it can
        end. Signals are dropped: the job that they were for has ended."""
        deadline_ns = self._clock.boottime_ns() + round(seconds * NS_PER_S)
        self.reap()
        while pid not in self._codes and (left := deadline_ns - self._clock.boottime_ns()) > 0:
            if self.take_stop(pid) is not None:
                os.kill(pid, signal.SIGCONT)
            signal.sigtimedwait(self._awaited, left / NS_PER_S)
            self.reap()
        return pid in self._codes

"""The processes that a launcher has started: which of them ended, and how; which one was stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection

from flopsd.system.clock import NS_PER_S, Clock

KILL_SECONDS = 2.0  # a killed process ends at once, unless it hangs in the kernel


class Children:
    """Of one process, which waits for the signals `awaited`, SIGCHLD among them; they are blocked."""

    def __init__(self, clock: Clock, log: Callable[[str], None], awaited: Collection[int]) -> None:
        self._clock, self._log, self._awaited = clock, log, awaited
        self.running: set[int] = set()
        self._codes: dict[int, int] = {}
        self._stopped: dict[int, int] = {}  # the signal that stopped each

    def reap(self) -> None:
        """Collect all that ended or were stopped, and orphans that we adopted."""
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
                self.running.discard(pid)  # the next process with this number may be any
                self._codes[pid] = os.waitstatus_to_exitcode(status)

    def has_ended(self, pid: int) -> bool:
        return pid in self._codes

    def take_code(self, pid: int) -> int:
        """The exit code of one that ended, negative for a signal. It can be asked once."""
        return self._codes.pop(pid)

    def take_stop(self, pid: int) -> int | None:
        """The signal that stopped it since this was asked."""
        return self._stopped.pop(pid, None)

    def wait_for(self, pid: int, name: str, seconds: float) -> int:
        """The exit code of a child. It is killed after `seconds`, and left behind if even that does not end it."""
        if self._ends(pid, seconds):
            return self.take_code(pid)
        self._log(f"{name} did not end within {seconds:.0f} s and is killed")
        os.kill(pid, signal.SIGKILL)
        if not self._ends(pid, KILL_SECONDS):
            self._log(f"{name} hangs in the kernel, on a dead disk or driver; process {pid} is left behind")
        return -signal.SIGKILL

    def _ends(self, pid: int, seconds: float) -> bool:
        """Whether a child ends within `seconds`; one that a process of the job has stopped is continued for that.
        Signals are dropped: the job that they were for has ended."""
        deadline_ns = self._clock.boottime_ns() + round(seconds * NS_PER_S)
        self.reap()
        while pid not in self._codes and (left := deadline_ns - self._clock.boottime_ns()) > 0:
            if self.take_stop(pid) is not None:
                os.kill(pid, signal.SIGCONT)
            signal.sigtimedwait(self._awaited, left / NS_PER_S)
            self.reap()
        return pid in self._codes

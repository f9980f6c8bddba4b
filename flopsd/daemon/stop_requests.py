"""Everything that can end a run: signals, --duration, and the pipe of the launcher under `flopsd exec`."""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from flopsd.daemon.loop import Daemon
from flopsd.errors import FlopsdError
from flopsd.settings.schema import Settings
from flopsd.system.clock import Clock
from flopsd.system.guarded_child import START, stat_fields

log = logging.getLogger("flopsd")
JOB_POLL_SECONDS = 1.0


class StopRequests:
    """Stops the attached daemon. A signal that comes earlier is kept.

    `lifeline` is the pipe from `flopsd exec`, None without it: the run ends when a line in it says so. A signal then
    ends nothing: a service manager or Slurm signals every process of the job, which goes on until it has saved its
    state. If the pipe closes, the launcher was killed: the run ends with the job, which may go on, or by a signal.
    """

    def __init__(self, lifeline: int | None) -> None:
        self.child_exit_code: int | None = None
        self.code_secrets: list[bytes] = []  # the launcher's, for the ledger to disclose
        self.is_near = False  # whether the job was asked to stop, so that the platform may soon kill everything
        self._lifeline = lifeline
        self._job_fd = -1  # pidfd of the job's process; negative: none
        self._job = 0  # its process id
        self._job_began: bytes | None = None
        self._is_alone = False  # the launcher is gone
        self._daemon: Daemon | None = None
        self._early = ""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # nohup and our launcher ignore SIGHUP: it stays ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def attach(self, daemon: Daemon, settings: Settings, clock: Clock) -> None:
        """Let requests stop `daemon`, including one that has come already."""
        self._daemon = daemon
        if self._early:
            daemon.stop(self._early)
        lifeline, seconds = self._lifeline, settings.duration_seconds
        if lifeline is not None:  # under exec the job decides how long
            self._start("lifeline", lambda: self._read_lifeline(lifeline, daemon))
        elif seconds is not None:
            self._start("duration", lambda: self._stop_after(seconds, clock, daemon))

    def _on_signal(self, number: int, _: object) -> None:
        name = signal.Signals(number).name.lower()
        if self._lifeline is not None and not self._is_alone:
            self.is_near = True
        elif self._daemon is None:
            self._early = self._early or name
        else:
            self._daemon.stop(name)

    @staticmethod
    def _start(name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread. Raises FlopsdError if no thread can be started."""
        try:
            threading.Thread(target=work, name=name, daemon=True).start()
        except RuntimeError as fault:
            hint = "allow this user or container more processes and threads"
            raise FlopsdError(f"flopsd cannot run: {fault}", hint=hint) from fault

    @staticmethod
    def _stop_after(seconds: float, clock: Clock, daemon: Daemon) -> None:
        clock.wait(threading.Event(), seconds)
        daemon.stop("duration")

    def _read_lifeline(self, lifeline: int, daemon: Daemon) -> None:
        with os.fdopen(lifeline, "r", encoding="ascii") as pipe:
            for line in pipe:
                if line.startswith("exit "):
                    self.child_exit_code = int(line.removeprefix("exit "))
                    daemon.stop("job_ended")
                    return
                if line.startswith("secret "):
                    self.code_secrets.append(bytes.fromhex(line.removeprefix("secret ")))
                elif line.startswith("job "):
                    self._job = int(line.removeprefix("job "))
                    self._job_fd, self._job_began = _pidfd(self._job), _start_ticks(self._job)
                else:
                    self.is_near = True
        self._is_alone = True
        self._await_job()
        daemon.stop("launcher_gone")

    def _await_job(self) -> None:
        """Wait until the job's process has ended; its compute is metered until then, as before."""
        if not self._has_ended(0):
            log.error(
                "the launcher was killed and its job goes on: it is metered until it ends, then the ledger is sealed; "
                "`kill %d` ends the metering now",
                os.getpid(),
            )
        while not self._has_ended(JOB_POLL_SECONDS):
            pass

    def _has_ended(self, seconds: float) -> bool:
        """Whether the job's process has ended or ends within `seconds`. Before Linux 5.3 only its entry in /proc shows
        that."""
        if self._job_fd < 0:
            threading.Event().wait(seconds)
            return self._job_began is None or _start_ticks(self._job) != self._job_began
        ends = select.poll()
        ends.register(self._job_fd, select.POLLIN)
        return bool(ends.poll(round(seconds * 1000)))


def _start_ticks(pid: int) -> bytes | None:
    """Return when a process began, in the kernel's ticks since boot; None: there is none, or it is a zombie."""
    try:
        fields = stat_fields(Path("/proc", str(pid), "stat").read_bytes())
        return None if fields[0] in (b"Z", b"X") else fields[START]
    except (OSError, IndexError):
        return None


def _pidfd(pid: int) -> int:
    """Return a pidfd, which can be read once the process has ended; -1: no such process, or no pidfds here."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1

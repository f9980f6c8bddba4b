"""`flopsd exec`: runs the job, and the daemon as a second process.

The launcher only supervises these two children. The job has its own process group and receives the signals that the
launcher receives; its exit code is returned whatever happens to the metering. The daemon is restarted when it dies, and
receives the job's exit code through a pipe when the job ends. If the launcher is killed, the pipe closes; the daemon
then meters until the job ends, and seals without the launcher.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field

from flopsd.core.dataclass import dataclass
from flopsd.journal.codes import SECRET_BYTES
from flopsd.journal.head import KNOWN_BYTES
from flopsd.system.children import KILL_SECONDS, Children
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.nameless_file import nameless_file
from flopsd.system.process_groups import (
    TERMINAL_STOPS,
    adopt_orphans,
    group_is_alive,
    how_ended,
    own_children,
    pass_terminal,
    signal_group,
    stop_with,
)
from flopsd.system.users import User

# Every signal that batch systems, users and timers send to a job. Excluded are those that faults of our own raise and
# those that Python ignores. Terminal stops are excluded too: they reach the job directly.
FORWARDED = signal.valid_signals() - {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD, *TERMINAL_STOPS),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),
    *(signal.SIGPIPE, signal.SIGXFSZ),
}
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.2, 30.0
RESERVE_SECONDS, POLL_SECONDS = 20.0, 0.2
SHORTEST_WINDOW_SECONDS = 10.0  # the default of `docker stop`
_HANDLED = {*FORWARDED, signal.SIGCHLD, signal.SIGCONT}
Mask = Iterable[int]


@dataclass(slots=True)
class Launcher:
    """One job and its daemon. Flags for the daemon's end of the pipe, the head file and the time when the job began are
    appended to `daemon_command`."""

    daemon_command: Sequence[str]
    seal_command: Sequence[str] | None  # seals a journal that the daemon could not seal; None: no sealing
    clock: Clock
    stop_seconds: float
    log: Callable[[str], None]
    user: User | None = None  # the job's user; None: our own
    files: Sequence[int] = ()  # open file descriptors that the daemon and the sealer inherit
    window_seconds: float | None = None  # from SIGTERM until the platform kills; None: unknown
    _daemon: subprocess.Popen[bytes] | None = None
    _pipe: int = -1
    _code_secret: bytes = field(default_factory=lambda: os.urandom(SECRET_BYTES))  # of the journal's codes
    _head_file: int = -1  # not inherited by the job: the daemon writes there what its journal contains
    _restart_ns: int | None = None
    _backoff_seconds: float = FIRST_BACKOFF_SECONDS
    _started_ns: int = 0
    _job_began_ns: int = 0  # no later than its first instruction: the first daemon's account begins here
    _children: Children = field(init=False)
    _stop_ns: int | None = None  # when the job got SIGTERM
    _job: int | None = None

    def __post_init__(self) -> None:
        self._children = Children(self.clock, self.log, _HANDLED)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run `command` to its end and return its exit code; 128 + N if signal N ended it; 127 or 126, as shells do, if
        it cannot be started."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, the kernel keeps no exit codes
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        adopt_orphans()  # a process that detaches itself from the job still belongs to it
        self._head_file = nameless_file("flopsd-head")
        self._job_began_ns = self.clock.boottime_ns()
        self._start_daemon(before)
        try:
            job = self._start_job(command, environment, before)
        except OSError as fault:
            self._discard_daemon()
            return cannot_run(command, fault, self.log, "; nothing was metered, and no ledger is sealed")
        self._children.running.add(job.pid)
        self._job = job.pid
        self._send(f"job {job.pid}")
        pass_terminal(os.getpgrp(), job.pid)
        status = self._supervise(job.pid, before)
        pass_terminal(job.pid, os.getpgrp())
        code = status if status >= 0 else 128 - status
        self._finish(code)
        self._log_processes_left()
        return code

    def _start_job(self, command: Sequence[str], environment: Mapping[str, str], mask: Mask) -> subprocess.Popen[bytes]:
        """Raises OSError."""
        user = self.user
        return subprocess.Popen(
            command,
            env={**environment, **({} if user is None else user.environment())},
            preexec_fn=_unblock(mask, group=True),
            # Files that we inherited open are meant for the job, such as bash's <(...), a jobserver or MPI's PMI_FD.
            close_fds=False,
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else user.groups,
        )

    def _supervise(self, job: int, mask: Mask) -> int:
        """Forward signals and restart the daemon until the job ends; return its exit code, negative for a signal."""
        while not self._children.has_ended(job) or self._is_saving(job):
            received = self._wait_for_signal(POLL_SECONDS if self._children.has_ended(job) else None)
            if received == signal.SIGCHLD:
                self._children.reap()
                if (how := self._children.take_stop(job)) in TERMINAL_STOPS:
                    stop_with(job, how)
            elif received == signal.SIGCONT:  # by fg, which gives us the terminal to pass on, or by bg
                pass_terminal(os.getpgrp(), job)
                signal_group(job, signal.SIGCONT)
            elif received is not None:
                if received == signal.SIGTERM and self._stop_ns is None:
                    self._stop_ns = self.clock.boottime_ns()
                    self._send("stopping")
                if not signal_group(job, received):
                    self.log(
                        f"signal {received} cannot be passed on: the job now runs as another user, as by sudo; that "
                        "user or root can send it"
                    )
            if self._daemon is not None and self._children.has_ended(self._daemon.pid):
                self._daemon_died()
            if self._restart_ns is not None and self.clock.boottime_ns() >= self._restart_ns:
                self._start_daemon(mask)
        return self._children.take_code(job)

    def _is_saving(self, job: int) -> bool:
        """Whether processes of the job's group are still running after SIGTERM, and there is time to wait for them. A
        wrapper such as SageMaker's `train` ends at SIGTERM at once while the script that it started saves its state; if
        we are process 1 and end, that script is killed."""
        if self._stop_ns is None:
            return False
        window = SHORTEST_WINDOW_SECONDS if self.window_seconds is None else self.window_seconds
        until_ns = self._stop_ns + round((window - _reserve_seconds(window)) * NS_PER_S)
        return self.clock.boottime_ns() < until_ns and group_is_alive(job)

    def _seconds_left(self, keep: float = 0.0) -> float:
        """Return the seconds that a step of stopping may take, at least 1; `keep` seconds are left for later steps."""
        if self._stop_ns is None or self.window_seconds is None:
            return self.stop_seconds
        used = (self.clock.boottime_ns() - self._stop_ns) / NS_PER_S
        return min(self.stop_seconds, max(1.0, self.window_seconds - keep - used))

    def _wait_for_signal(self, at_most: float | None) -> int | None:
        if self._restart_ns is not None:
            left = max(0.0, (self._restart_ns - self.clock.boottime_ns()) / NS_PER_S)
            at_most = left if at_most is None else min(left, at_most)
        if at_most is None:
            return int(signal.sigwait(_HANDLED))
        found = signal.sigtimedwait(_HANDLED, at_most)
        return None if found is None else found.si_signo

    def _discard_daemon(self) -> None:
        """Kill the daemon, which has hardly started: without a job there is nothing to meter."""
        if self._daemon is not None:
            self._daemon.kill()
            self._children.wait_for(self._daemon.pid, "the daemon", KILL_SECONDS)
            self._close_pipe()

    def _send(self, word: str) -> None:
        try:
            os.write(self._pipe, f"{word}\n".encode("ascii"))
        except OSError:
            pass  # no daemon now: a new one gets the message when it starts, and sealing does not need it

    def _start_daemon(self, mask: Mask) -> None:
        self._restart_ns, self._started_ns = None, self.clock.boottime_ns()
        try:
            read_end, write_end = os.pipe()
        except OSError as fault:
            self._cannot_start_daemon(fault)
            return
        os.write(write_end, self._code_secret)  # never as an argument or variable, which others can read
        try:
            self._daemon = subprocess.Popen(
                [
                    *self.daemon_command,
                    *("--lifeline", str(read_end)),
                    *("--head-file", str(self._head_file)),
                    *("--job-began", str(self._job_began_ns)),
                ],
                pass_fds=(read_end, self._head_file, *self.files),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_unblock(mask, deaf=True),
            )
        except OSError as fault:
            self._cannot_start_daemon(fault)
            os.close(write_end)
        else:
            self._children.running.add(self._daemon.pid)
            self._pipe = write_end
            if self._job is not None:
                self._send(f"job {self._job}")
            if self._stop_ns is not None:
                self._send("stopping")
        finally:
            os.close(read_end)

    def _cannot_start_daemon(self, fault: OSError) -> None:
        self.log(
            f"METERING IS OFF: the daemon cannot be started: {fault.strerror}; the job goes on, flopsd tries again"
        )
        self._plan_restart()

    def _daemon_died(self) -> None:
        assert self._daemon is not None
        code = self._children.take_code(self._daemon.pid)
        self._close_pipe()
        self._daemon = None
        self.log(
            f"METERING INTERRUPTED: the daemon ended with {how_ended(code)}; the job goes on and the daemon is "
            "restarted; the time between is a gap unless the counters cover it"
        )
        if self.clock.boottime_ns() - self._started_ns > LONGEST_BACKOFF_SECONDS * NS_PER_S:
            self._backoff_seconds = FIRST_BACKOFF_SECONDS
        self._plan_restart()

    def _plan_restart(self) -> None:
        self._restart_ns = self.clock.boottime_ns() + round(self._backoff_seconds * NS_PER_S)
        self._backoff_seconds = min(self._backoff_seconds * 2, LONGEST_BACKOFF_SECONDS)

    def _finish(self, code: int) -> None:
        """Send the daemon the job's exit code. If it does not seal in time, seal what is in its journal."""
        sealed = False
        if self._daemon is not None:
            self._send(f"secret {self._code_secret.hex()}")  # it is disclosed in the ledger
            self._send(f"exit {code}")
            self._close_pipe()
            seconds = self._seconds_left(keep=_reserve_seconds(self.window_seconds or 0) / 2)
            sealed = self._children.wait_for(self._daemon.pid, "the daemon", seconds) == 0
        if sealed or self.seal_command is None:
            return
        known = os.pread(self._head_file, KNOWN_BYTES, 0).decode("utf-8", "replace").rstrip("\n ")
        if not known:  # any journal in the folder is an earlier job's: its ledger would hold nothing of this one
            self.log(
                "NOT SEALED: see above; this `flopsd exec` wrote no record; if it is a part of another one's job, the "
                "other one meters it"
            )
            return
        self.log("the daemon did not seal the ledger; `flopsd exec` now seals what is in its journal")
        kept = "the journal is kept, seal it with `flopsd seal`"
        try:
            sealer = self._start_sealer([*self.seal_command, "--known-journal", known])
        except OSError as fault:
            self.log(f"NOT SEALED: {fault}; {kept}")
            return
        if ended := self._children.wait_for(sealer.pid, "sealing", self._seconds_left()):
            why = "see above" if ended > 0 else f"the sealing process ended with {how_ended(ended)}"
            self.log(f"NOT SEALED: {why}; {kept}")

    def _log_processes_left(self) -> None:
        """Log which processes of the job still run. Called after the seal: helpers that end with the job are gone."""
        self._children.reap()
        left = own_children() - self._children.running
        if left:  # or a child of the daemon, which is being killed because its driver hung
            self.clock.wait(threading.Event(), POLL_SECONDS)
            self._children.reap()
            left &= own_children()
        if left:
            self.log(
                f"processes of the job still run ({', '.join(map(str, sorted(left)))}): metering ended when its "
                "command did, and what they have computed since is in no figure of this run; use a command that waits "
                "for them"
            )

    def _start_sealer(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Raises OSError."""
        read_end, write_end = os.pipe()
        with os.fdopen(read_end), os.fdopen(write_end, "wb", buffering=0) as pipe:
            pipe.write(self._code_secret)
            sealer = subprocess.Popen(
                [*command, "--code-secret", str(read_end)],
                pass_fds=(read_end, *self.files),
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard output is the job's
                preexec_fn=_unblock(set(), deaf=True),
            )
        self._children.running.add(sealer.pid)
        return sealer

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def cannot_run(command: Sequence[str], fault: OSError, log: Callable[[str], None], outcome: str = "") -> int:
    """Log why the command cannot be run, and the outcome; return the exit code that shells use for it."""
    log(f"cannot run {command[0]}: {fault.strerror}{outcome}")
    return 127 if isinstance(fault, FileNotFoundError) else 126


def _unblock(mask: Mask, *, group: bool = False, deaf: bool = False) -> Callable[[], None]:
    """Return a `preexec_fn` that restores the signal mask with which the launcher was started. `deaf`: ignore the
    signals for the job, since Slurm sends them to every process of a step and they must not end ours."""

    def prepare() -> None:
        if group:
            os.setpgid(0, 0)
        if deaf:
            for number in FORWARDED - {signal.SIGTERM, signal.SIGINT}:
                signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return prepare


def _reserve_seconds(window: float) -> float:
    """Return the seconds of the window that are kept for the final reading and the seal, however long the job takes."""
    return min(RESERVE_SECONDS, window / 3)

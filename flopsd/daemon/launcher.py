"""`flopsd exec`: runs the job, with the daemon as a second process beside it.

The launcher does nothing but look after two children. The job has a process group of its own, gets the
signals that the launcher gets, and its exit code is returned whatever happens to the metering. The daemon
is started again when it dies, and told the job's exit code through a pipe when the job ends; should the
launcher itself be killed, the pipe closes and the daemon seals on its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flopsd.system.clock import NS_PER_S, Clock

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.2, 30.0
RESERVE_SECONDS, POLL_SECONDS = 20.0, 0.2
KILL_SECONDS = 2.0  # a killed process is gone at once, unless the kernel does not let go of it
SHORTEST_WINDOW_SECONDS = 10.0  # what `docker stop` gives where nobody says otherwise
TERMINAL_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)  # SIGSTOP is somebody's who will continue the job
_WATCHED = {*FORWARDED, signal.SIGCHLD, signal.SIGCONT}
Mask = Iterable[int]


@dataclass(slots=True)
class Launcher:
    """One job and its daemon. `daemon_command` gets the flag that names its end of the pipe appended."""

    daemon_command: Sequence[str]
    seal_command: Sequence[str] | None  # closes a journal whose daemon could not seal it; None: no sealing
    clock: Clock
    stop_seconds: float
    say: Callable[[str], None]
    window_seconds: float | None = None  # from SIGTERM until the platform kills; None: not known
    _daemon: subprocess.Popen[bytes] | None = None
    _pipe: int = -1
    _restart_ns: int | None = None
    _backoff_seconds: float = FIRST_BACKOFF_SECONDS
    _started_ns: int = 0
    _reaped: dict[int, int] = field(default_factory=dict)
    _stopped: dict[int, int] = field(default_factory=dict)  # by which signal
    _stop_ns: int | None = None  # when the job was told to end

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run `command` to its end and return its exit code; 128 + N where signal N ended it.

        127 and 126, as shells have it, where it cannot be started.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where our parent ignores it, the kernel keeps no exit codes
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        self._start_daemon(before)
        try:
            job = subprocess.Popen(command, env=dict(environment), preexec_fn=_unblock(before, group=True))
        except OSError as fault:
            code = cannot_run(command, fault, self.say)
            self._finish(code)
            return code
        _pass_terminal(os.getpgrp(), job.pid)
        status = self._look_after(job.pid, before)
        _pass_terminal(job.pid, os.getpgrp())
        code = status if status >= 0 else 128 - status
        self._finish(code)
        return code

    def _look_after(self, job: int, mask: Mask) -> int:
        """Forward signals and restart the daemon until the job ends; its exit code, negative for a signal."""
        while job not in self._reaped or self._is_saving(job):
            received = self._wait_for_signal(POLL_SECONDS if job in self._reaped else None)
            if received == signal.SIGCHLD:
                self._reap()
                if (how := self._stopped.pop(job, None)) in TERMINAL_STOPS:
                    _stop_too(job, how)
            elif received == signal.SIGCONT:  # in the foreground, where the terminal is ours to give, or behind it
                _pass_terminal(os.getpgrp(), job)
                _signal_group(job, signal.SIGCONT)
            elif received is not None:
                if received == signal.SIGTERM and self._stop_ns is None:
                    self._stop_ns = self.clock.boottime_ns()
                    self._tell("stopping")
                _signal_group(job, received)
            if self._daemon is not None and self._daemon.pid in self._reaped:
                self._daemon_died()
            if self._restart_ns is not None and self.clock.boottime_ns() >= self._restart_ns:
                self._start_daemon(mask)
        return self._reaped.pop(job)

    def _is_saving(self, job: int) -> bool:
        """Whether a job that was told to end left processes of its group behind, and there is time to wait for them.

        A wrapper such as SageMaker's `train` dies of SIGTERM at once, while the script that it started saves its
        state; that one would be killed with us where we are process 1.
        """
        if self._stop_ns is None:
            return False
        window = SHORTEST_WINDOW_SECONDS if self.window_seconds is None else self.window_seconds
        until_ns = self._stop_ns + round((window - _reserve_seconds(window)) * NS_PER_S)
        return self.clock.boottime_ns() < until_ns and _group_lives(job)

    def _seconds_left(self, keep: float = 0.0) -> float:
        """The time that a step of stopping may take, `keep` of the window left over; there is always a second."""
        if self._stop_ns is None or self.window_seconds is None:
            return self.stop_seconds
        gone = (self.clock.boottime_ns() - self._stop_ns) / NS_PER_S
        return min(self.stop_seconds, max(1.0, self.window_seconds - keep - gone))

    def _wait_for_signal(self, at_most: float | None) -> int | None:
        if self._restart_ns is not None:
            left = max(0.0, (self._restart_ns - self.clock.boottime_ns()) / NS_PER_S)
            at_most = left if at_most is None else min(left, at_most)
        if at_most is None:
            return int(signal.sigwait(_WATCHED))
        found = signal.sigtimedwait(_WATCHED, at_most)
        return None if found is None else found.si_signo

    def _tell(self, word: str) -> None:
        try:
            os.write(self._pipe, f"{word}\n".encode("ascii"))
        except OSError:
            pass  # it died just now, or there is none: a new one is told, and a journal is sealed without it

    def _reap(self) -> None:
        """All children that ended or were stopped, orphans that were left to us included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self._stopped[pid] = os.WSTOPSIG(status)
            else:
                self._reaped[pid] = os.waitstatus_to_exitcode(status)

    def _start_daemon(self, mask: Mask) -> None:
        self._restart_ns, self._started_ns = None, self.clock.boottime_ns()
        read_end, write_end = os.pipe()
        try:
            self._daemon = subprocess.Popen(
                [*self.daemon_command, "--lifeline", str(read_end)],
                pass_fds=(read_end,),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_unblock(mask),
            )
        except OSError as fault:
            self.say(f"METERING IS OFF: the daemon cannot be started: {fault.strerror}; the job goes on")
            os.close(write_end)
            self._plan_restart()
        else:
            self._pipe = write_end
            if self._stop_ns is not None:
                self._tell("stopping")
        finally:
            os.close(read_end)

    def _daemon_died(self) -> None:
        assert self._daemon is not None
        code = self._reaped.pop(self._daemon.pid)
        self._close_pipe()
        self._daemon = None
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.say(f"METERING INTERRUPTED: the daemon ended with {how}; it is started again, the job goes on")
        if self.clock.boottime_ns() - self._started_ns > LONGEST_BACKOFF_SECONDS * NS_PER_S:
            self._backoff_seconds = FIRST_BACKOFF_SECONDS
        self._plan_restart()

    def _plan_restart(self) -> None:
        self._restart_ns = self.clock.boottime_ns() + round(self._backoff_seconds * NS_PER_S)
        self._backoff_seconds = min(self._backoff_seconds * 2, LONGEST_BACKOFF_SECONDS)

    def _finish(self, code: int) -> None:
        """Tell the daemon that the job ended; if it cannot seal in time, seal what it left in the journal."""
        sealed = False
        if self._daemon is not None:
            self._tell(f"exit {code}")
            self._close_pipe()
            seconds = self._seconds_left(keep=_reserve_seconds(self.window_seconds or 0) / 2)
            sealed = self._await_child(self._daemon.pid, "the daemon", seconds) == 0
        if sealed or self.seal_command is None:
            return
        self.say("the daemon did not seal the ledger; sealing what its journal holds")
        try:
            sealer = subprocess.Popen(self.seal_command, stdin=subprocess.DEVNULL, preexec_fn=_unblock(set()))
        except OSError as fault:
            self.say(f"NOT SEALED: {fault}")
            return
        if self._await_child(sealer.pid, "sealing", self._seconds_left()) != 0:
            self.say("NOT SEALED: see above; the journal is kept and `flopsd seal` can still seal it")

    def _await_child(self, pid: int, name: str, seconds: float) -> int:
        """The exit code of a child, which is killed when it takes longer, and left where even that does not end it."""
        if self._is_reaped(pid, seconds):
            return self._reaped.pop(pid)
        self.say(f"{name} does not end within {seconds:g} s and is killed")
        os.kill(pid, signal.SIGKILL)
        if not self._is_reaped(pid, KILL_SECONDS):
            self.say(f"{name} hangs in the kernel, on a dead disk or driver, and is left behind: process {pid}")
        return -signal.SIGKILL

    def _is_reaped(self, pid: int, seconds: float) -> bool:
        """Whether a child ends within `seconds`. Signals for a job that is over have nobody to go to."""
        deadline_ns = self.clock.boottime_ns() + round(seconds * NS_PER_S)
        self._reap()
        while pid not in self._reaped and (left := deadline_ns - self.clock.boottime_ns()) > 0:
            signal.sigtimedwait(_WATCHED, left / NS_PER_S)
            self._reap()
        return pid in self._reaped

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def cannot_run(command: Sequence[str], fault: OSError, say: Callable[[str], None]) -> int:
    """Say why the command does not run; the exit code that shells have for it."""
    say(f"cannot run {command[0]}: {fault.strerror}")
    return 127 if isinstance(fault, FileNotFoundError) else 126


def _unblock(mask: Mask, *, group: bool = False) -> Callable[[], None]:
    """What a child does before it becomes its program: have the signal mask that the launcher was started with."""

    def prepare() -> None:
        if group:
            os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return prepare


def _signal_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        pass  # it ended meanwhile; its SIGCHLD is on the way


def _reserve_seconds(window: float) -> float:
    """What final reading and sealing get of the window, however long the job takes."""
    return min(RESERVE_SECONDS, window / 3)


def _group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user, and alive
    return True


def _stop_too(job: int, how: int) -> None:
    """The terminal stopped the job, as by Ctrl-Z: take it back and stop too, with all that the shell started with us,
    so that its `fg` and `bg` have somebody to continue. That we are continued is told by SIGCONT.
    """
    if how != signal.SIGTSTP and _has_terminal(job):
        _signal_group(job, signal.SIGCONT)  # it was faster to ask for the terminal than we to give it
        return
    _pass_terminal(job, os.getpgrp())
    os.killpg(os.getpgrp(), signal.SIGTSTP)
    if how == signal.SIGTSTP and signal.SIGCONT not in signal.sigpending():  # no shell is there, and none was stopped
        _pass_terminal(os.getpgrp(), job)
        _signal_group(job, signal.SIGCONT)


def _has_terminal(group: int) -> bool:
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == group
    except OSError:
        return False  # a terminal that is not ours, or gone


def _pass_terminal(giver: int, taker: int) -> None:
    """Make `taker` the terminal's foreground group, so that it reads the keyboard, where that is `giver` now."""
    if not _has_terminal(giver):
        return
    old = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        os.tcsetpgrp(0, taker)
    except OSError:
        pass
    signal.signal(signal.SIGTTOU, old)

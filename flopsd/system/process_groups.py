"""Processes and their groups, and the terminal's foreground group, as a shell handles them for job control."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
TERMINAL_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)  # not SIGSTOP: its sender continues the job too


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent ends, such as a process that detaches itself. The caller must
    wait for them. Only on Linux; elsewhere nothing changes."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_group(leader: int, number: int) -> bool:
    """Send a signal; return False if we may not, since the whole group runs as another user, as by sudo."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        pass  # the group ended meanwhile
    except PermissionError:
        return False
    return True


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a child that leads a group, with what it started there, and close our ends of its pipes."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(timeout=5)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass  # it hangs in the kernel, for instance on a dead disk, and ends when the kernel returns
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def group_is_alive(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # alive, of another user
    return True


def own_children() -> set[int]:
    """Return the children of this process, and orphans that it adopted; none if the kernel does not list them."""
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()}
    except OSError:
        return set()


def pass_terminal(giver: int, taker: int) -> None:
    """Make `taker` the terminal's foreground group, so that it reads the keyboard, if that is `giver` now."""
    if not _has_terminal(giver):
        return
    old = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        os.tcsetpgrp(0, taker)
    except OSError:
        pass
    signal.signal(signal.SIGTTOU, old)


def stop_with(job: int, stopped_by: int) -> None:
    """After the terminal stopped the group `job`, as by Ctrl-Z, take the terminal back and stop our own group too. The
    shell that started our group then continues it by `fg` or `bg`, which arrives here as SIGCONT. If something other
    than a terminal stopped the job, it also continues it, and our group, which may include a caller, is not stopped."""
    has_terminal = _has_terminal(job)
    if stopped_by != signal.SIGTSTP and has_terminal:
        signal_group(job, signal.SIGCONT)  # the job used the terminal before it was given it
        return
    if not has_terminal and (stopped_by == signal.SIGTSTP or not _is_below_terminal()):
        return
    pass_terminal(job, os.getpgrp())
    os.killpg(os.getpgrp(), signal.SIGTSTP)
    if stopped_by == signal.SIGTSTP and signal.SIGCONT not in signal.sigpending():  # no shell: we were not stopped
        pass_terminal(os.getpgrp(), job)
        signal_group(job, signal.SIGCONT)


def _is_below_terminal() -> bool:
    """Whether there is a terminal that stops background groups, whatever our streams are."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _has_terminal(group: int) -> bool:
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == group
    except OSError:
        return False  # not our terminal, or gone


def how_ended(code: int) -> str:
    """Return how a process ended, by the return code from `subprocess` or `os.waitstatus_to_exitcode`."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"

"""A program that we start and that never outlives us, however we end.

Its process group also holds a shell, which waits until a pipe closes whose other end only we have open, and then kills
the group. That works even after we got SIGKILL, and for a program that hangs. PR_SET_PDEATHSIG would not do: it fires
when the thread that forked ends, and threads of sources come and go.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# Runs a program; $1 is the pipe's descriptor, opened by its path, since some shells redirect single digits only.
_GUARDED = '(exec </dev/fd/"$1"; read -r _; kill -KILL 0) >/dev/null 2>&1 & shift; {before}exec "$@"'
# systemd's socket activation: the listening socket that is standard input becomes descriptor 3.
_WITH_SOCKET = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; "


@dataclass(frozen=True, slots=True)
class Cost:
    """The CPU time that a process has used so far, and the memory that it has now."""

    cpu_ns: int = 0
    memory_bytes: int = 0


class GuardedChild:
    """One start of a program, with its output in pipes for this process to read."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        listener: int | None = None,
        one_output: bool = False,
    ) -> None:
        """`listener`: a listening socket that the program takes over by systemd's protocol. `one_output`: stderr goes
        to stdout. Raises OSError."""
        self._lifeline: int | None
        guard, self._lifeline = os.pipe()
        script = _GUARDED.format(before="" if listener is None else _WITH_SOCKET)
        try:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", script, "sh", str(guard), *command],
                stdin=subprocess.DEVNULL if listener is None else listener,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if one_output else subprocess.PIPE,
                env=env,
                pass_fds=(guard,),
                start_new_session=True,  # Ctrl-C in the terminal is for us, and the group is only the child's
            )
        except OSError:
            os.close(self._lifeline)
            raise
        finally:
            os.close(guard)

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def cost(self) -> Cost | None:
        """Return the cost so far; None if the program has ended, or /proc does not say."""
        try:
            fields = stat_fields((Path("/proc") / str(self.process.pid) / "stat").read_bytes())
            ticks, pages = int(fields[UTIME]) + int(fields[STIME]), int(fields[RSS])
        except (OSError, ValueError, IndexError):
            return None
        return Cost(ticks * (10**9 // os.sysconf("SC_CLK_TCK")), pages * os.sysconf("SC_PAGE_SIZE"))

    def end(self) -> None:
        """Kill the program and what it started. Harmless if that was done."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)  # the shell in the group then kills the group
        self.process.kill()


# Indices into what `stat_fields` returns, by proc(5).
UTIME, STIME, START, VSIZE, RSS = 11, 12, 19, 20, 21


def stat_fields(stat: bytes) -> list[bytes]:
    """Return the fields of /proc/PID/stat after the name in parentheses, which may contain anything."""
    return stat.rpartition(b")")[2].split()

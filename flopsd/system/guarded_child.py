"""A program that we start and that never outlives us, however we end.

Its process group holds a shell beside it that waits for the end of a pipe of which we alone have the other end, and
then kills the group: also after a SIGKILL of ours, and also a program that hangs. PR_SET_PDEATHSIG would not do: it
follows the thread that forked, and threads of sources come and go.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# A program run with $1 the pipe's descriptor. It is opened by its path, since some shells redirect single digits only.
_GUARDED = '(exec </dev/fd/"$1"; read -r _; kill -KILL 0) >/dev/null 2>&1 & shift; {before}exec "$@"'
# systemd's socket activation: the listening socket that is standard input becomes descriptor 3.
_WITH_SOCKET = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; "


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process has used so far, and the memory that it has now."""

    cpu_ns: int = 0
    memory_bytes: int = 0


class GuardedChild:
    """One start of a program, its output in pipes that are this process's to read."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        listener: int | None = None,
        one_output: bool = False,
    ) -> None:
        """`listener`: a listening socket that it takes over by systemd's protocol. `one_output`: stderr is in stdout.
        Raises OSError."""
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
                start_new_session=True,  # a Ctrl-C in the terminal is for us, and the group is the child's alone
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
        """None where it has ended, or /proc does not say."""
        try:
            fields = stat_fields((Path("/proc") / str(self.process.pid) / "stat").read_bytes())
            ticks, pages = int(fields[UTIME]) + int(fields[STIME]), int(fields[RSS])
        except (OSError, ValueError, IndexError):
            return None
        return Cost(ticks * (10**9 // os.sysconf("SC_CLK_TCK")), pages * os.sysconf("SC_PAGE_SIZE"))

    def end(self) -> None:
        """Kill it and what it started. Harmless where that was done."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)  # the shell beside it kills the group
        self.process.kill()


# Of what `stat_fields` gives, by proc(5).
UTIME, STIME, START, VSIZE, RSS = 11, 12, 19, 20, 21


def stat_fields(stat: bytes) -> list[bytes]:
    """The fields of /proc/PID/stat after the name in parentheses, which may hold anything."""
    return stat.rpartition(b")")[2].split()

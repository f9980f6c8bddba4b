"""Rolling seals: every so often a child process seals the journal so far, and the daemon only starts and reaps it.

The libraries that sign never enter the daemon. A child has a session of its own, is killed when it takes too long,
and there is never a second one; whatever becomes of it, metering goes on.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace

from flopsd.system.clock import NS_PER_S, Clock
from flopsd.telemetry.snapshot import JournalState, Snapshot

log = logging.getLogger("flopsd")
CHILD_SECONDS = 120.0
RETRY_SECONDS = 300.0
HURRY_SECONDS = 10.0
MAX_TOLD_BYTES = 8192


class RollingSeals:
    """Starts `command` at most once every `every_seconds`. One thread calls it."""

    def __init__(
        self, command: Sequence[str], every_seconds: float, checkpoint_seconds: float, clock: Clock, *, overdue: bool
    ) -> None:
        """`checkpoint_seconds`: how long after one checkpoint the next can come. `overdue`: the journal holds an
        earlier incarnation, which may never have been sealed."""
        self._command, self._clock = command, clock
        self._every_ns, self._slack_ns = round(every_seconds * NS_PER_S), round(checkpoint_seconds * NS_PER_S)
        self._due_ns = clock.boottime_ns() + (0 if overdue else self._every_ns)
        self._child: subprocess.Popen[bytes] | None = None
        self._started_ns = 0
        self._fresh = False  # a checkpoint is durable that no child has seen
        self._told = ""
        self._last_seal_wall_ns: int | None = None
        self._failures = 0

    def keeping(self) -> JournalState:
        """How sealing stands now. Safe from any thread."""
        return JournalState(self._clock.wall_ns(), self._every_ns, self._last_seal_wall_ns, self._failures)

    def checkpointed(self) -> None:
        """Say that a checkpoint is durable."""
        self._fresh = True

    def each_tick(self) -> None:
        """Start, reap or kill the child.

        Only what is in the journal is sealed, so a child starts right behind the last checkpoint before a seal is
        due: no more than `every_seconds` of a run are ever without one, but for the time that sealing takes.
        """
        now_ns = self._clock.boottime_ns()
        if self._child is not None:
            self._look_after(self._child, now_ns)
        elif self._fresh and now_ns + self._slack_ns >= self._due_ns:
            self._start(now_ns)

    def hurry(self) -> bool:
        """Say that all may be killed soon: seal now, then often. True if one is due and wants a checkpoint."""
        now_ns, hurry_ns = self._clock.boottime_ns(), round(HURRY_SECONDS * NS_PER_S)
        if self._every_ns > hurry_ns:
            self._every_ns, self._slack_ns, self._due_ns = hurry_ns, 0, now_ns
        return self._child is None and now_ns >= self._due_ns

    def stop(self) -> None:
        """Kill the child, if there is one: whoever asks is about to seal the whole."""
        if self._child is not None:
            self._kill(self._child)

    def _start(self, now_ns: int) -> None:
        self._fresh, self._started_ns, self._due_ns = False, now_ns, now_ns + self._every_ns
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as fault:
            self._failed(f"the sealing process cannot be started: {fault.strerror}")

    def _look_after(self, child: subprocess.Popen[bytes], now_ns: int) -> None:
        code = child.poll()
        if code is None:
            if now_ns - self._started_ns > CHILD_SECONDS * NS_PER_S:
                self._kill(child)
                self._failed(f"it took more than {CHILD_SECONDS:g} s and was killed")
            return
        told = _result_of(child)
        self._child = None
        if code != 0:
            self._failed(told or f"the sealing process ended with {code}")
            return
        if told:
            log.warning("%s", told)
        if self._told:
            log.warning("rolling seals succeed again")
        self._told, self._last_seal_wall_ns = "", self._clock.wall_ns()

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(timeout=5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass  # it hangs in the kernel, on a dead disk for instance, and dies when that lets go of it
        if child.stderr is not None:
            child.stderr.close()
        self._child = None

    def _failed(self, why: str) -> None:
        retry_ns = self._started_ns + min(self._every_ns, round(RETRY_SECONDS * NS_PER_S))
        self._due_ns, self._failures = min(self._due_ns, retry_ns), self._failures + 1
        if why != self._told:
            log.error("NO ROLLING SEAL: %s; metering goes on, and sealing is tried again", why)
        self._told = why


def shown(snapshot: Snapshot, rolling: RollingSeals | None, clock: Clock) -> Snapshot:
    """The snapshot with what only the moment of looking tells. Safe from any thread."""
    return replace(snapshot, keeping=JournalState(clock.wall_ns()) if rolling is None else rolling.keeping())


def _result_of(child: subprocess.Popen[bytes]) -> str:
    """What a child that ended said on stderr, on one line, without waiting for more."""
    assert child.stderr is not None
    with child.stderr as pipe:
        os.set_blocking(pipe.fileno(), False)
        try:
            said = os.read(pipe.fileno(), MAX_TOLD_BYTES)
        except BlockingIOError:
            said = b""
    lines = (
        line.removeprefix("flopsd: ").removeprefix("WARNING: ") for line in said.decode("utf-8", "replace").splitlines()
    )
    return "; ".join(line for line in lines if line)

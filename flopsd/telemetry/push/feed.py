"""The daemon's side of pushing: start the pusher, send it pages through a pipe, and read its state.

Before the run's end nothing here waits for the pusher: while the pipe is full, pages are skipped, since a later page
has the same totals. The pusher ends with the pipe, so it does not outlive its daemon.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Sequence

from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.process_groups import how_ended, kill_group
from flopsd.telemetry.push.frames import Page, encode_frame, read_some
from flopsd.telemetry.push.states import PushState, parse_state

log = logging.getLogger("flopsd")
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 300.0
LAST_PUSH_SECONDS = 12.0  # a little more than the pusher's own limit


class Feed:
    """Keeps one pusher running. `render` returns the current page. To be called by one thread."""

    def __init__(
        self, command: Sequence[str], every_seconds: float, render: Callable[[], bytes], clock: Clock, *,
        begins_run: bool = False,
    ) -> None:  # fmt: skip
        """`begins_run`: no earlier daemon start can have pushed pages of this run."""
        self._command, self._render, self._clock = command, render, clock
        self._first = begins_run
        self._every_ns = round(every_seconds * NS_PER_S)
        self._child: subprocess.Popen[bytes] | None = None
        self._start_ns = self._due_ns = clock.boottime_ns()
        self._started_ns, self._backoff_seconds = 0, FIRST_BACKOFF_SECONDS
        self._unsent, self._unread = memoryview(b""), b""
        self._states: dict[str, PushState] = {}

    @property
    def states(self) -> tuple[PushState, ...]:
        """The state of each target, as last reported. Any thread may read it."""
        return tuple(self._states.values())

    def each_tick(self) -> None:
        """Start the pusher if it is not running, and send it a page if one is due."""
        now_ns = self._clock.boottime_ns()
        if self._child is None and now_ns >= self._start_ns:
            self._start(now_ns)
        if self._child is None:
            return
        self._listen(self._child)
        if self._child.poll() is not None:
            self._ended(self._child, now_ns)
            return
        self._write(self._child)
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + self._every_ns
            if not self._unsent:
                self._offer(self._child, last=False)

    def finish(self) -> None:
        """Send the last page of the run. Call `end` afterwards to wait for it."""
        if self._child is not None and self._child.poll() is not None:
            self._kill(self._child)
        if self._child is None:
            self._states.clear()
            self._start(self._clock.boottime_ns())
        if self._child is not None:
            self._offer(self._child, last=True)

    def end(self, seconds: float) -> None:
        """Give the pusher up to `seconds` to deliver the last page, then end it."""
        child, deadline_ns = self._child, self._clock.boottime_ns() + round(seconds * NS_PER_S)
        if child is None:
            return
        pause = threading.Event()
        while child.poll() is None and self._clock.boottime_ns() < deadline_ns:
            self._write(child)
            self._listen(child)
            self._clock.wait(pause, 0.02)
        if child.poll() is None:
            log.error("the pushing process did not end within %.1f s and is killed", seconds)
        self._listen(child)
        self._kill(child)

    def _start(self, now_ns: int) -> None:
        self._started_ns = self._due_ns = now_ns
        self._unsent, self._unread = memoryview(b""), b""
        try:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
        except OSError as fault:
            log.error("NOT PUSHED: the pushing process cannot be started: %s; metering goes on", fault.strerror)
            self._plan(now_ns)
            return
        assert self._child.stdin is not None and self._child.stdout is not None  # noqa: PT018 - for the type checker
        os.set_blocking(self._child.stdin.fileno(), False)
        os.set_blocking(self._child.stdout.fileno(), False)
        try:
            fcntl.fcntl(self._child.stdin.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
        except OSError:
            pass  # over the user's limit: a large page goes through in parts

    def _offer(self, child: subprocess.Popen[bytes], *, last: bool) -> None:
        frame = encode_frame(Page(self._render(), self._clock.wall_ns(), last, self._first))
        self._first = False  # even if this page is lost: nothing shows whether it was
        if last and self._unsent:  # complete the page that is partly written
            frame = bytes(self._unsent) + frame
        self._unsent = memoryview(frame)
        self._write(child)

    def _write(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdin is not None
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(child.stdin.fileno(), self._unsent) :]
        except BlockingIOError:
            pass  # the pipe is full
        except OSError:
            self._unsent = memoryview(b"")  # the pusher is gone; the next tick notices

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        found = read_some(child.stdout.fileno())
        if not found:
            return
        *lines, self._unread = (self._unread + found).split(b"\n")
        self._unread = self._unread[-(1 << 16) :]
        for line in lines:
            try:
                state = parse_state(line)
            except ValueError:
                log.debug("unexpected line from the pushing process: %r", line)
                continue
            self._states[state.target] = state

    def _ended(self, child: subprocess.Popen[bytes], now_ns: int) -> None:
        self._kill(child)
        if now_ns - self._started_ns > LONGEST_BACKOFF_SECONDS * NS_PER_S:
            self._backoff_seconds = FIRST_BACKOFF_SECONDS
        log.error(
            "PUSHING INTERRUPTED: the pushing process ended with %s; it is started again in %g s, metering goes on",
            how_ended(child.returncode),
            self._backoff_seconds,
        )
        self._plan(now_ns)

    def _plan(self, now_ns: int) -> None:
        self._start_ns = now_ns + round(self._backoff_seconds * NS_PER_S)
        self._backoff_seconds = min(self._backoff_seconds * 2, LONGEST_BACKOFF_SECONDS)

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        kill_group(child)
        self._child = None

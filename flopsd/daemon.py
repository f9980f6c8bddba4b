"""The daemon: one pump thread a source -> inbox -> one writer -> journal and snapshot.

A pump that hangs in a driver stalls nobody but itself: the writer notices the silence and accounts for
it. Nothing here reads hardware, and no view of the snapshot can touch a total.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from flopsd.clock import NS_PER_S, Clock
from flopsd.core.model import GapReason
from flopsd.core.sessions import Event
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.hearing import Message
from flopsd.sources import Source, ask, read_source
from flopsd.writer import Writer

log = logging.getLogger("flopsd")
REOPEN_SECONDS, REOPEN_SECONDS_MAX = 5.0, 60.0  # doubled each time that nothing of its kind is here
FIRST_READ_SECONDS = 0.2  # GPM wants 100 ms between samples; nobody should wait a whole interval for a first figure
FINAL_READ_SECONDS = 5.0


class Pump(threading.Thread):
    """Reads one source at fixed times and posts what it gave. Never raises, never exits before `stop`."""

    def __init__(
        self,
        name: str,
        opener: Callable[[], Source],
        post: Callable[[Message], None],
        clock: Clock,
        interval_seconds: float,
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"pump-{name}", daemon=True)
        self.source_name = name
        self.finished = threading.Event()
        self._opener, self._post, self._clock = opener, post, clock
        self._interval_ns, self._stop_event = round(interval_seconds * NS_PER_S), stop
        self._source: Source | None = None
        self._reopen_seconds, self._absent = REOPEN_SECONDS, False
        self._described = False  # whether the writer knows what the open source says of itself

    def run(self) -> None:
        due_ns = self._clock.boottime_ns()
        while True:
            stopping = self._stop_event.is_set()
            first = self._source is None
            if self._source is not None or not stopping:
                self._once()
            if stopping:
                break
            # A tick that took too long is followed by the next regular one: no burst to catch up.
            now_ns = self._clock.boottime_ns()
            if self._source is None:
                due_ns = now_ns + max(self._interval_ns, round(self._reopen_seconds * NS_PER_S))
                longer = min(2 * self._reopen_seconds, REOPEN_SECONDS_MAX)
                self._reopen_seconds = longer if self._absent else REOPEN_SECONDS
            elif first:
                due_ns = now_ns + min(self._interval_ns, round(FIRST_READ_SECONDS * NS_PER_S))
            else:
                due_ns += self._interval_ns * max(1, -(-(now_ns - due_ns) // self._interval_ns))
            self._clock.wait(self._stop_event, (due_ns - now_ns) / NS_PER_S)
        if self._source is not None:
            try:
                ask(self._source, self._source.close)
            except SourceError as fault:
                log.warning("%s", fault)  # all that it read is posted already
        self.finished.set()
        self._post(Message(self.source_name, -1))  # wakes the writer; see Daemon.run

    def _once(self) -> None:
        """Open the source or read it, and post the outcome."""
        began_ns = self._clock.boottime_ns()
        opened: Mapping[str, Any] | None = None
        try:
            if self._source is None:
                self._source, self._described = self._opener(), False
            if not self._described:
                opened = ask(self._source, self._source.describe)
            sweep = read_source(self._source)
            devices = tuple(ask(self._source, self._source.devices))
        except SourceError as fault:
            reason = GapReason.SOURCE_DOWN if isinstance(fault, SourceUnavailableError) else GapReason.DRIVER_ERROR
            absent = self._absent = isinstance(fault, SourceUnavailableError) and fault.absent
            hint = f"; {fault.hint}" if fault.hint and not absent else ""
            at_ns = self._clock.boottime_ns()
            self._post(Message(self.source_name, at_ns, fault=f"{fault}{hint}", reason=reason, absent=absent))
            return
        ended_ns, self._described = self._clock.boottime_ns(), True
        self._post(
            Message(
                self.source_name,
                ended_ns,
                devices,
                sweep,
                read_seconds=(ended_ns - began_ns) / NS_PER_S,
                opened=opened,
            )
        )


class Daemon:
    """Pumps and writer together. `run` returns when it was told to stop, with the reason."""

    def __init__(
        self,
        writer: Writer,
        sources: Mapping[str, Callable[[], Source]],
        clock: Clock,
        interval_seconds: float,
        tick_seconds: float | None = None,
    ) -> None:
        """`tick_seconds`: the longest time between two ticks, where that is to be less than the interval."""
        self.writer = writer
        self._clock = clock
        self._tick_seconds = min(interval_seconds, tick_seconds or interval_seconds)
        self._inbox: queue.SimpleQueue[Message | Event | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._why = ""
        self.stopped_ns: int | None = None  # when the end was asked for
        self._pumps = [
            Pump(name, opener, self._inbox.put, clock, interval_seconds, self._stop) for name, opener in sources.items()
        ]

    def stop(self, why: str) -> None:
        """Ask for the end. Safe in a signal handler and from any thread; the first reason counts."""
        if not self._why:
            self._why, self.stopped_ns = why, self._clock.boottime_ns()
        self._inbox.put(None)

    def hear(self, event: Event) -> None:
        """What a training process declares. Safe from any thread."""
        self._inbox.put(event)

    def run(self, each_tick: Callable[[], None]) -> str:
        """Meter until stopped, then take the final readings. `each_tick` runs in this thread after each message."""
        for pump in self._pumps:
            pump.start()
        while not self._why:
            self._step(self._tick_seconds)
            each_tick()
        self._stop.set()
        deadline_ns = self._clock.boottime_ns() + round(FINAL_READ_SECONDS * NS_PER_S)
        while any(not pump.finished.is_set() for pump in self._pumps) or not self._inbox.empty():
            left = (deadline_ns - self._clock.boottime_ns()) / NS_PER_S
            if left <= 0:
                log.error(
                    "no final reading from %s: it hangs in its driver",
                    ", ".join(pump.source_name for pump in self._pumps if not pump.finished.is_set()),
                )
                break
            self._step(left)
        return self._why

    def _step(self, seconds: float) -> None:
        try:
            message = self._inbox.get(timeout=seconds)
        except queue.Empty:
            self.writer.tick()
            return
        if isinstance(message, Message):
            if message.at_ns >= 0:
                self.writer.take(message)
        elif message is not None:
            self.writer.hear(message)

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

from flopsd.core.model import GapReason
from flopsd.core.session_protocol import Event
from flopsd.daemon.source_tracker import Message
from flopsd.daemon.writer import Writer
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import Source, close_source, devices_of, facts_of, read_source
from flopsd.sources.validate import shown
from flopsd.system.clock import NS_PER_S, Clock

log = logging.getLogger("flopsd")
REOPEN_SECONDS, REOPEN_SECONDS_MAX = 5.0, 60.0  # doubled each time that nothing of its kind is here
FIRST_READ_SECONDS = 0.2  # GPM wants 100 ms between samples; nobody should wait a whole interval for a first figure
FINAL_READ_SECONDS = 5.0


class SourceReader(threading.Thread):
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
            close_source(self._source)
        self.finished.set()
        self._post(Message(self.source_name, -1))  # wakes the writer; see Daemon.run

    def describe_again(self) -> None:
        """The writer did not take what the source says of itself. Safe from any thread."""
        self._described = False

    def _once(self) -> None:
        """Open the source or read it, and post the outcome."""
        began_ns = self._clock.boottime_ns()
        opened: Mapping[str, Any] | None = None
        try:
            if self._source is None:
                self._source, self._described = self._opener(), False
            if not self._described:
                opened = facts_of(self._source)
            sweep = read_source(self._source, self._clock)
            devices = devices_of(self._source)
        except BaseException as fault:  # noqa: BLE001, whatever it is: if this thread ended, nobody would ask again
            self._post(self._outage(fault))
            return
        ended_ns = self._clock.boottime_ns()
        if opened is not None:
            self._described = True
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

    def _outage(self, fault: BaseException) -> Message:
        down = self._source is None or isinstance(fault, SourceUnavailableError)
        absent = self._absent = isinstance(fault, SourceUnavailableError) and bool(fault.absent)
        words = f"source {self.source_name!r} failed: {shown(fault, 1000)}"
        if isinstance(fault, SourceError):
            words = f"{fault}; {fault.hint}" if fault.hint and not absent else str(fault)
        return Message(
            self.source_name,
            self._clock.boottime_ns(),
            fault=words.encode("utf-8", "backslashreplace").decode("utf-8"),  # pages and metrics show it
            reason=GapReason.SOURCE_DOWN if down else GapReason.DRIVER_ERROR,
            absent=absent,
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
        self._told: dict[str, str] = {}  # the last fault of each kind
        self.stopped_ns: int | None = None  # when the end was asked for
        self._pumps = [
            SourceReader(name, opener, self._inbox.put, clock, interval_seconds, self._stop)
            for name, opener in sources.items()
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
            self._attempt("what is shown", each_tick)
        self._stop.set()
        deadline_ns = self._clock.boottime_ns() + round(FINAL_READ_SECONDS * NS_PER_S)
        while any(not pump.finished.is_set() for pump in self._pumps) or not self._inbox.empty():
            left = (deadline_ns - self._clock.boottime_ns()) / NS_PER_S
            if left <= 0 and self._inbox.empty():  # what was read is taken in, however long the disk took
                log.error(
                    "no final reading from %s: it hangs in its driver",
                    ", ".join(pump.source_name for pump in self._pumps if not pump.finished.is_set()),
                )
                break
            self._step(max(0.0, left))
        return self._why

    def _step(self, seconds: float) -> None:
        try:
            message = self._inbox.get(timeout=seconds)
        except queue.Empty:
            self._attempt("an account of the time that passed", self.writer.tick)
            return
        if isinstance(message, Message):
            if message.at_ns >= 0:
                self._take(message)
        elif message is not None:
            self._attempt("what a training process declares", lambda: self.writer.hear(message))

    def _take(self, message: Message) -> None:
        """Fold a message in. One that cannot be is an outage of its source: the others are metered on."""
        fault = self._attempt(f"what source {message.source!r} sent", lambda: self.writer.take(message))
        if not fault:
            return
        for pump in self._pumps:
            if pump.source_name == message.source and message.opened is not None:
                pump.describe_again()  # no reading without what says whether it is a replay
        outage = Message(message.source, message.at_ns, fault=fault, reason=GapReason.DRIVER_ERROR)
        self._attempt(f"the outage of source {message.source!r}", lambda: self.writer.take(outage))

    def _attempt(self, what: str, call: Callable[[], None]) -> str:
        """The fault of `call`, in words; empty where there is none. Metering goes on, whatever it is."""
        try:
            call()
        except Exception as fault:  # nobody else would account for the time of the other devices
            words = f"metering goes on without {what}: {shown(fault, 1000)}"
            if self._told.get(what) != words:
                log.error("%s", words, exc_info=fault)
            self._told[what] = words
            return words
        self._told.pop(what, None)
        return ""

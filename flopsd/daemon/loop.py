"""The daemon's threads: one reader for each source -> inbox -> one writer -> journal and snapshot.

A reader that hangs in a driver does not delay the others: the writer notices its silence and counts the time as a gap.
Only readers touch hardware, and nothing that reads the snapshot can change a total.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from flopsd.core.model import GapReason
from flopsd.core.session_protocol import Event, NotServed, SessionClosed
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.writing.writer import Writer
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import Source
from flopsd.sources.calls import (
    before_last_read,
    close_source,
    devices_of,
    facts_of,
    facts_version_of,
    poll_source,
    read_source,
)
from flopsd.sources.validate import Checked, shown
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.randomness import random_below

log = logging.getLogger("flopsd")
REOPEN_SECONDS, REOPEN_SECONDS_MAX = 5.0, 60.0  # doubles each time no device of this kind is found
FIRST_READ_SECONDS = 0.2  # an early first figure; GPM needs 100 ms between samples
FINAL_READ_SECONDS = 5.0
POLL_PAUSE_NS = 200_000
MOST_WAITING = 100  # messages and events; handling one event may take milliseconds
_REASONS = frozenset(one.value for one in GapReason)
APART_NS = 200_000_000  # least time between two reads: GPM needs 100 ms between samples


class SourceReader:
    """Reads one source once an interval, at a random moment that no load can predict, and posts the results. Its thread
    never raises. It ends after `stop`, or if no device of its kind is found: `look_again` then starts a new one."""

    def __init__(
        self, name: str, opener: Callable[[], Source], post: Callable[[Message], None], clock: Clock,
        interval_seconds: float, stop: threading.Event,
    ) -> None:  # fmt: skip
        self.source_name = name
        self.finished = threading.Event()  # set once the thread has ended
        self._opener, self._post, self._clock = opener, post, clock
        self._interval_ns, self._stop_event = round(interval_seconds * NS_PER_S), stop
        self._source: Source | None = None
        self._checked = Checked()
        self._reopen_seconds, self._absent = REOPEN_SECONDS, False
        self._due_ns = clock.boottime_ns()
        self._described = False  # whether the writer has the facts of the open source
        self._facts_version: str | None = None  # of the facts last sent

    def start(self) -> None:
        """Read from now on, in a new thread."""
        self.finished.clear()
        try:
            threading.Thread(target=self._run, name=f"source-{self.source_name}", daemon=True).start()
        except RuntimeError as fault:  # the limit of threads is reached; later there may be room
            self._due_ns = self._clock.boottime_ns() + round(REOPEN_SECONDS * NS_PER_S)
            self._post(self._outage(fault, None))
            self.finished.set()

    def look_again(self) -> None:
        """Start a new thread if the last one found no device and the next look is due."""
        if self.finished.is_set() and self._clock.boottime_ns() >= self._due_ns:
            self.start()

    def _run(self) -> None:
        due_ns, is_tried = self._clock.boottime_ns(), False
        while True:
            stopping = self._stop_event.is_set()
            first = self._source is None
            if self._source is not None and stopping:
                before_last_read(self._source)
            if self._source is not None or not (stopping and is_tried):  # even a short run's time is a device's
                self._once(stopping=stopping)
                is_tried = True
            if stopping:
                break
            # A read that took too long is followed by the next regular one, without a burst to catch up.
            now_ns = self._clock.boottime_ns()
            if self._source is None:
                due_ns = now_ns + max(self._interval_ns, round(self._reopen_seconds * NS_PER_S))
                longer = min(2 * self._reopen_seconds, REOPEN_SECONDS_MAX)
                self._reopen_seconds = longer if self._absent else REOPEN_SECONDS
                if self._absent:  # a thread that only waits would keep its memory
                    self._due_ns = due_ns
                    break
            elif first:
                due_ns = now_ns + min(self._interval_ns, round(FIRST_READ_SECONDS * NS_PER_S))
            else:
                due_ns += self._interval_ns * max(1, -(-(now_ns - due_ns) // self._interval_ns))
            self._wait(due_ns if first else due_ns + self._offset_ns())
        if self._source is not None:
            close_source(self._source)
        self.finished.set()
        self._post(Message(self.source_name, -1))  # wakes the writer; see Daemon.run

    def _offset_ns(self) -> int:
        """Return a random offset, up to a quarter of the interval either way: no load can keep step with the reads."""
        spread_ns = min(self._interval_ns // 4, max(0, self._interval_ns - APART_NS) // 2)
        return random_below(2 * spread_ns + 1) - spread_ns

    def _wait(self, due_ns: int) -> None:
        """Wait until the next read is due, and poll the source in between if it asks for polls."""
        while not self._stop_event.is_set():
            poll_ns = None if self._source is None else poll_source(self._source, due_ns)
            now_ns = self._clock.boottime_ns()
            until_ns = due_ns if poll_ns is None else max(poll_ns, now_ns + POLL_PAUSE_NS)
            self._clock.wait(self._stop_event, (min(until_ns, due_ns) - now_ns) / NS_PER_S)
            if until_ns >= due_ns:
                return

    def describe_again(self) -> None:
        """Send the source's facts again with the next reading. Safe from any thread."""
        self._described = False

    def _once(self, *, stopping: bool) -> None:
        """Open the source or read it, and post the outcome."""
        began_ns = self._clock.boottime_ns()
        opened: Mapping[str, Any] | None = None
        try:
            if self._source is None:
                self._source, self._described, self._checked = self._opener(), False, Checked()
            if not self._described:
                opened = facts_of(self._source)
            sweep = read_source(self._source, self._clock, self._checked)
            devices = devices_of(self._source, self._checked)
        except BaseException as fault:  # noqa: BLE001, this thread must go on, or the source is never read again
            self._post(self._outage(fault, self._new_facts(is_last=stopping)))
            return
        ended_ns = self._clock.boottime_ns()
        if opened is not None:
            self._described = True
        opened = self._new_facts(is_last=stopping) or opened
        took = (ended_ns - began_ns) / NS_PER_S
        self._post(Message(self.source_name, ended_ns, devices, sweep, read_seconds=took, opened=opened))

    def _new_facts(self, *, is_last: bool) -> Mapping[str, Any] | None:
        """Return a source's facts if their version changed; also at the last read, for what the changes have cost."""
        version = facts_version_of(self._source)
        if self._source is None or version is None or (version == self._facts_version and not is_last):
            return None
        try:
            facts = facts_of(self._source)
        except SourceError:  # tried again with the next reading
            return None
        self._facts_version = version
        return facts

    def _outage(self, fault: BaseException, opened: Mapping[str, Any] | None) -> Message:
        down = self._source is None or isinstance(fault, SourceUnavailableError)
        absent = self._absent = isinstance(fault, SourceUnavailableError) and not fault.is_failure
        reason = GapReason.SOURCE_DOWN if down else GapReason.DRIVER_ERROR
        text = f"source {self.source_name!r} failed: {shown(fault, 1000)}"
        if isinstance(fault, SourceError):
            text = str(fault) if absent else fault.with_hint
            if fault.reason in _REASONS:
                reason = GapReason(fault.reason)
        return Message(
            self.source_name,
            self._clock.boottime_ns(),
            fault=text.encode("utf-8", "backslashreplace").decode("utf-8"),  # valid UTF-8 for the page and metrics
            reason=reason,
            absent=absent,
            none_here=isinstance(fault, SourceUnavailableError) and bool(fault.absent),
            opened=opened,
        )


class Daemon:
    """The source readers and the writer. `run` returns after `stop`, with the reason given to it."""

    def __init__(
        self, writer: Writer, sources: Mapping[str, Callable[[], Source]], clock: Clock, interval_seconds: float,
        tick_seconds: float | None = None,
    ) -> None:  # fmt: skip
        """`tick_seconds`: the longest time between two ticks, if it must be shorter than the time between readings."""
        self.writer = writer
        self._clock = clock
        apart_seconds = 1.5 * interval_seconds  # the longest time between two reads at random moments
        self._tick_seconds = min(apart_seconds, tick_seconds or apart_seconds)
        self._ticked()
        self._inbox: queue.SimpleQueue[Message | Event | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._why = ""
        self._logged: dict[str, str] = {}  # the last fault of each kind of work
        self.stopped_ns: int | None = None  # when `stop` was first called
        self._readers = [
            SourceReader(name, opener, self._inbox.put, clock, interval_seconds, self._stop)
            for name, opener in sources.items()
        ]

    def stop(self, why: str) -> None:
        """End `run`. Safe in a signal handler and from any thread; the first reason counts."""
        if not self._why:
            self._why, self.stopped_ns = why, self._clock.boottime_ns()
        self._inbox.put(None)

    def post_event(self, event: Event) -> None:
        """Queue a declaration of a training process for the writer. Safe from any thread."""
        self._inbox.put(event)

    def is_behind(self) -> bool:
        """Whether the inbox is so full that reading from training processes must wait. Safe from any thread."""
        return self._inbox.qsize() >= MOST_WAITING

    def run(self, each_tick: Callable[[], None]) -> str:
        """Meter until stopped, then take the final readings. `each_tick` runs in this thread after each message."""
        for reader in self._readers:
            reader.start()
        while not self._why:
            self._step(self._tick_seconds)
            for reader in self._readers:
                reader.look_again()
            self._attempt("the background tasks", each_tick)
        self._stop.set()
        deadline_ns = self._clock.boottime_ns() + round(FINAL_READ_SECONDS * NS_PER_S)
        while hanging := [reader.source_name for reader in self._readers if not reader.finished.is_set()]:
            left = (deadline_ns - self._clock.boottime_ns()) / NS_PER_S
            if left <= 0:
                log.error(
                    "no final reading from source %s, whose driver hangs; its time since the last reading is a gap",
                    ", ".join(hanging),
                )
                break
            self._step(min(left, self._tick_seconds))
        # Count all readings that have arrived, however slow the disk, but nothing that processes send from now on.
        for _ in range(self._inbox.qsize()):
            self._step(0.0)
        return self._why

    def take_last_events(self) -> None:
        """Take what training processes sent until their server stopped. That it closed their connections ends no
        phase."""
        until_ns = self._clock.boottime_ns() + round(FINAL_READ_SECONDS * NS_PER_S)
        for _ in range(self._inbox.qsize()):
            event = self._inbox.get()
            if event is None or isinstance(event, Message | SessionClosed):
                continue
            if self._clock.boottime_ns() >= until_ns:
                self._take_event(NotServed())
                return
            self._take_event(event)

    def _take_event(self, event: Event) -> None:
        self._attempt("a declaration of a training process", lambda: self.writer.take_event(event))

    def _step(self, seconds: float) -> None:
        try:
            message = self._inbox.get(timeout=seconds)
        except queue.Empty:
            self._tick()
            return
        if isinstance(message, Message):
            if message.at_ns >= 0:
                self._take(message)
                self._ticked()
        elif message is not None:
            self._take_event(message)
            if self._clock.boottime_ns() >= self._tick_due_ns:  # constant events must not hide a source's silence
                self._tick()

    def _tick(self) -> None:
        self._attempt("the account of the time without readings", self.writer.tick)
        self._ticked()

    def _ticked(self) -> None:
        self._tick_due_ns = self._clock.boottime_ns() + round(self._tick_seconds * NS_PER_S)

    def _take(self, message: Message) -> None:
        """Fold a message in. A failure counts as an outage of its source; the other sources go on."""
        fault = self._attempt(f"a message of source {message.source!r}", lambda: self.writer.take(message))
        if not fault:
            return
        for reader in self._readers:
            if reader.source_name == message.source and message.opened is not None:
                reader.describe_again()  # no reading is counted until facts say whether it is a replay
        outage = Message(message.source, message.at_ns, fault=fault, reason=GapReason.DRIVER_ERROR)
        self._attempt(f"the gap of source {message.source!r}", lambda: self.writer.take(outage))

    def _attempt(self, what: str, call: Callable[[], None]) -> str:
        """Return the text of what `call` raised, empty if it succeeded. Metering goes on either way."""
        try:
            call()
        except Exception as fault:  # the time of the other devices still has to be accounted for
            text = f"internal error in {what}: {shown(fault, 1000)}; metering goes on without it"
            if self._logged.get(what) != text:
                log.error("%s; please report this with the traceback", text, exc_info=fault)
            self._logged[what] = text
            return text
        self._logged.pop(what, None)
        return ""

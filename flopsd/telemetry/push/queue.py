"""One receiver: its queue, its thread and its retries, independent of other receivers."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from flopsd.errors import PushError
from flopsd.settings.push_targets import Target
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.telemetry.push.http import Http
from flopsd.telemetry.push.pages import Parsed, Series, with_states
from flopsd.telemetry.push.states import PushState

log = logging.getLogger("flopsd")
REQUEST_SECONDS = 10.0
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 60.0
KEPT_PAGES = 240  # an hour at the default interval: Prometheus accepts nothing older


class Sender(Protocol):
    """The protocol of one kind of receiver. Only the newest `keeps` pages are worth sending."""

    keeps: int

    def encode(self, parsed: Parsed) -> Any:
        """The page in the form that `send` takes."""

    def send(self, encoded: Any, seconds: float) -> None:
        """Raises PushError."""


class TimedSender:
    """A sender whose samples carry their time, so that a receiver can get missed pages later."""

    keeps = KEPT_PAGES
    headers: ClassVar[Mapping[str, str]]

    def __init__(self, target: Target, http: Http) -> None:
        self._target, self._http, self._series = target, http, Series()

    def send(self, body: bytes, seconds: float) -> None:
        """Raises PushError."""
        self._http.request("POST", self._target.url, self.headers, body, seconds)


class SendQueue:
    """Passes pages to one sender, oldest first, on its own thread."""

    def __init__(
        self, name: str, open_sender: Callable[[], Sender], clock: Clock, report: Callable[[PushState], None]
    ) -> None:
        self.name = name
        self._clock, self._report = clock, report
        self._queue: deque[Any] = deque()
        self._changed = threading.Condition()
        self._hurry = threading.Event()
        self._deadline_ns: int | None = None
        self._successes, self._failures, self._dropped = 0, Counter[str](), 0
        self._last_success_wall_ns: int | None = None
        self._complaint = ""
        self.done = threading.Event()  # the last page went through or was given up
        try:
            self._sender: Sender | None = open_sender()
        except PushError as fault:
            self._sender = None
            self._failed(fault)
            self._report(self.state)
            self.done.set()
            return
        threading.Thread(target=self._work, name=f"push-{name}", daemon=True).start()

    @property
    def state(self) -> PushState:
        counts = (self._successes, dict(self._failures), self._dropped, len(self._queue))
        return PushState(self.name, *counts, self._last_success_wall_ns)

    @property
    def all_sent(self) -> bool:
        """Whether all is done and nothing was left in the queue."""
        return self._sender is not None and self.done.is_set() and not self._queue

    def offer(self, parsed: Parsed, states: Sequence[PushState]) -> None:
        """Add a page; if there are too many, drop the oldest."""
        if self._sender is None:
            return
        encoded = self._sender.encode(with_states(parsed, states))
        with self._changed:
            self._queue.append(encoded)
            while len(self._queue) > self._sender.keeps:
                self._queue.popleft()
                self._dropped += self._sender.keeps > 1  # a gateway has only a current state: nothing is lost
            self._changed.notify()

    def finish(self, deadline_ns: int) -> None:
        """No more pages follow. Try each waiting page once more, without pauses, until `deadline_ns` of boot time."""
        with self._changed:
            self._deadline_ns = deadline_ns
            self._hurry.set()
            self._changed.notify()

    def _work(self) -> None:
        assert self._sender is not None
        backoff_seconds = FIRST_BACKOFF_SECONDS
        while True:
            with self._changed:
                while not self._queue and self._deadline_ns is None:
                    self._changed.wait()
                if not self._queue:
                    break
                encoded = self._queue[0]
            hurried = self._deadline_ns is not None
            failed = self._attempt(self._sender, encoded)
            if failed is None or failed.final:
                with self._changed:
                    # A full queue may have dropped it meanwhile.
                    if self._queue and self._queue[0] is encoded:
                        self._queue.popleft()
                backoff_seconds = FIRST_BACKOFF_SECONDS
            elif hurried:
                log.error(
                    "%s did not get the last page (%d in the queue): %s", self.name, len(self._queue), self._complaint
                )
                self._dropped += len(self._queue)
            self._report(self.state)
            if failed is None or failed.final:
                continue
            if hurried:
                break
            # Hundreds of nodes must not retry at the same moment.
            self._clock.wait(self._hurry, backoff_seconds * random.uniform(0.5, 1.0))
            backoff_seconds = min(2 * backoff_seconds, LONGEST_BACKOFF_SECONDS)
        self.done.set()

    def _attempt(self, sender: Sender, encoded: Any) -> PushError | None:
        seconds = REQUEST_SECONDS
        if self._deadline_ns is not None:
            seconds = min(seconds, (self._deadline_ns - self._clock.boottime_ns()) / NS_PER_S)
        try:
            if seconds <= 0:
                raise PushError("no time is left", reason="timeout")
            sender.send(encoded, seconds)
        except PushError as fault:
            self._failed(fault)
            return fault
        except Exception as fault:
            log.exception("pushing to %s failed unexpectedly", self.name)
            found = PushError(repr(fault), reason="not_possible", final=True)
            self._failed(found)
            return found
        self._successes += 1
        self._last_success_wall_ns = self._clock.wall_ns()
        if self._complaint:
            log.warning("pushing to %s succeeds again", self.name)
        self._complaint = ""
        return None

    def _failed(self, fault: PushError) -> None:
        with self._changed:
            self._failures[fault.reason] += 1
            self._dropped += fault.final
        if str(fault) != self._complaint:
            log.error("NOT PUSHED to %s: %s; metering goes on", self.name, fault.with_hint)
        self._complaint = str(fault)

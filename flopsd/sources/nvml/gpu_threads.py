"""Makes driver calls, one GPU after another in one thread, and goes past a call that hangs.

A call that hangs keeps its thread, and its result comes with a later round; the calls behind it go on in a new thread.
A GPU whose last call took long gets a thread of its own, so that no other GPU waits for it again. On a machine where
nothing hangs there is a single thread.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeAlias

from flopsd.system.clock import NS_PER_S, Clock

log = logging.getLogger("flopsd")
PATIENCE_SECONDS = 0.25  # a healthy GPU answers all calls of one read in some ten milliseconds
GRACE_SECONDS = 0.05  # for a GPU that was slow before, once the others have answered
SAMPLING_MAX_NS = 50_000_000  # the time of a sample that took longer is not known well enough
_Call: TypeAlias = Callable[[], Any]


class GpuThreads:
    """Makes calls by key, such as a GPU; never two of one key at once. Not thread-safe itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done: deque[tuple[Hashable, object, float]] = deque()
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()  # an item for each round of calls that ended
        self._thread: _CallThread | None = None
        self._running: set[Hashable] = set()
        self._slow: set[Hashable] = set()

    @property
    def hanging(self) -> frozenset[Hashable]:
        """Keys whose call has not ended yet."""
        return frozenset(self._running)

    def is_slow(self, key: Hashable) -> bool:
        """Whether the last call of `key` took long, or still hangs."""
        return key in self._slow or key in self._running

    def run(self, calls: Mapping[Hashable, _Call], patience_seconds: float = 0.0) -> list[tuple[Hashable, Any]]:
        """Make the calls. Return by key their results, and those of earlier calls that ended since the last round; the
        exception, if a call raised one. A key whose last call hangs is left out. `patience_seconds`: how much longer
        than GRACE_SECONDS to wait for slow keys."""
        while not self._ended.empty():
            self._ended.get()  # of earlier rounds
        results = self._take_results()
        calls = {key: call for key, call in calls.items() if key not in self._running}
        alone = {key: call for key, call in calls.items() if key in self._slow}
        for key, call in alone.items():
            self._make([(key, call)], self._new_thread(), last=True)
        waiting, idle = self._start([(key, call) for key, call in calls.items() if key not in alone]), 0
        while waiting & self._running:
            has_ended, found = self._await(PATIENCE_SECONDS / 2), self._take_results()
            results += found
            idle = 0 if has_ended or found else idle + 1
            if idle == 2:  # no call has ended for so long
                waiting, idle = self._leave_hanging_call(), 0
        end_ns = self._clock.boottime_ns() + round((GRACE_SECONDS + patience_seconds) * NS_PER_S)
        while calls.keys() & self._running and self._await((end_ns - self._clock.boottime_ns()) / NS_PER_S):
            results += self._take_results()
        return results

    def close(self) -> None:
        """End the thread that waits for calls."""
        if self._thread is not None:
            self._thread.make([], last=True)

    def _start(self, calls: list[tuple[Hashable, _Call]]) -> set[Hashable]:
        if calls and self._thread is None:
            self._thread = self._new_thread()
        return self._make(calls, self._thread) if calls else set()

    def _make(
        self, calls: list[tuple[Hashable, _Call]], thread: _CallThread | None, *, last: bool = False
    ) -> set[Hashable]:
        """Let a thread make calls; return their keys. Without a thread none are made: the next round has them again."""
        keys = set[Hashable]() if thread is None else {key for key, _ in calls}
        self._running.update(keys)
        if thread is not None:
            thread.make(calls, last=last)
        return keys

    def _new_thread(self) -> _CallThread | None:
        try:
            return _CallThread(self._clock, self._done, self._ended)
        except RuntimeError as fault:
            log.error("%s: GPUs that wait behind a slow one are not read now, but at the next read", fault)
            return None

    def _leave_hanging_call(self) -> set[Hashable]:
        """Leave the thread to the call and give the calls behind it to another thread; return their keys."""
        assert self._thread is not None
        behind = self._thread.leave()
        self._thread = None
        self._running.difference_update(key for key, _ in behind)
        return self._start(behind)

    def _await(self, seconds: float) -> bool:
        """Wait at most `seconds` until a thread has made all its calls; return whether one has."""
        try:
            self._ended.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return False
        return True

    def _take_results(self) -> list[tuple[Hashable, Any]]:
        """Return the results of calls that ended since the last look."""
        results = []
        while self._done:
            key, given, took = self._done.popleft()
            self._running.discard(key)
            (self._slow.add if took >= PATIENCE_SECONDS else self._slow.discard)(key)
            results.append((key, given))
        return results


class _CallThread:
    """A thread that makes rounds of calls in order. It puts each result into `done`, with the seconds that it took, and
    one item into `ended` after each round, so that a waiting thread is woken once a round and not at each call."""

    def __init__(
        self, clock: Clock, done: deque[tuple[Hashable, object, float]], ended: queue.SimpleQueue[None]
    ) -> None:
        self._clock, self._done, self._ended = clock, done, ended
        self._rounds: queue.SimpleQueue[tuple[deque[tuple[Hashable, _Call]], bool]] = queue.SimpleQueue()
        self._calls: deque[tuple[Hashable, _Call]] = deque()
        threading.Thread(target=self._run, name="nvml", daemon=True).start()

    def make(self, calls: Iterable[tuple[Hashable, _Call]], *, last: bool) -> None:
        """Make calls; `last`: end after them. Not to be called while an earlier round is being made."""
        self._calls = deque(calls)
        self._rounds.put((self._calls, last))

    def leave(self) -> list[tuple[Hashable, _Call]]:
        """End after the call that is being made; return the calls behind it."""
        behind = []
        try:
            while True:
                behind.append(self._calls.popleft())
        except IndexError:  # the thread takes from it too
            self.make([], last=True)
            return behind

    def _run(self) -> None:
        is_last = False
        while not is_last:
            calls, is_last = self._rounds.get()
            while True:
                try:
                    key, call = calls.popleft()
                except IndexError:  # all are made, or were given to another thread
                    break
                began_ns = self._clock.boottime_ns()
                given: object
                try:
                    given = call()
                except BaseException as fault:  # noqa: BLE001 - it is raised, or logged, where the result is taken
                    given = fault
                self._done.append((key, given, (self._clock.boottime_ns() - began_ns) / NS_PER_S))
            self._ended.put(None)

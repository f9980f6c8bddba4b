"""Calls of the driver, one GPU after another in one thread, and past a call that hangs.

A call that hangs keeps its thread, and what it gives comes with a later round; the GPUs behind it go on in a new
thread. A GPU whose last call took long has a thread of its own, so that nobody waits for it again. On a machine where
nothing hangs there is a single thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

from flopsd.system.clock import NS_PER_S, Clock

PATIENCE_SECONDS = 0.25  # a healthy GPU answers all calls of one read in some ten milliseconds
GRACE_SECONDS = 0.05  # for one that was slow before, where others have answered
SAMPLING_MAX_NS = 50_000_000  # of a sample that took longer it is not known well enough what time it is of
_Call: TypeAlias = Callable[[], Any]


class GpuThreads:
    """Makes calls by key, such as a GPU; never two of one key at once. Not thread-safe itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done: queue.SimpleQueue[tuple[Hashable, object, float]] = queue.SimpleQueue()
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
        """What the calls gave, and what earlier ones gave since the last round; where one raised, the exception.

        A key whose last call hangs is left out. `patience_seconds`: how much longer than GRACE_SECONDS to wait for
        those that are slow.
        """
        results: list[tuple[Hashable, Any]] = []
        while not self._done.empty():
            self._take(results, None)
        calls = {key: call for key, call in calls.items() if key not in self._running}
        alone = {key: call for key, call in calls.items() if key in self._slow}
        for key, call in alone.items():
            _CallThread(self._clock, self._done).end_after([(key, call)])
        self._running.update(calls)
        waiting = self._start([(key, call) for key, call in calls.items() if key not in alone])
        while waiting & self._running:
            if not self._take(results, PATIENCE_SECONDS):
                waiting = self._go_past()
        end_ns = self._clock.boottime_ns() + round((GRACE_SECONDS + patience_seconds) * NS_PER_S)
        while (calls.keys() & self._running) and self._take(
            results, max(0.0, (end_ns - self._clock.boottime_ns()) / NS_PER_S)
        ):
            pass
        return results

    def close(self) -> None:
        """End the thread that waits for calls."""
        if self._thread is not None:
            self._thread.end_after([])

    def _start(self, calls: list[tuple[Hashable, _Call]]) -> set[Hashable]:
        if calls:
            if self._thread is None:
                self._thread = _CallThread(self._clock, self._done)
            self._thread.make(calls)
        return {key for key, _ in calls}

    def _go_past(self) -> set[Hashable]:
        """Leave the thread to its call and give the calls behind it to another; their keys."""
        assert self._thread is not None
        behind = self._thread.leave()
        self._thread = None
        return self._start(behind)

    def _take(self, results: list[tuple[Hashable, Any]], seconds: float | None) -> bool:
        """Take one result, waited for at most `seconds`; false: there is none."""
        try:
            key, given, took = self._done.get(timeout=seconds)
        except queue.Empty:
            return False
        self._running.discard(key)
        (self._slow.add if took >= PATIENCE_SECONDS else self._slow.discard)(key)
        results.append((key, given))
        return True


class _CallThread:
    """A thread that makes calls in order and puts what each gave into `done`, with the seconds that it took."""

    def __init__(self, clock: Clock, done: queue.SimpleQueue[tuple[Hashable, object, float]]) -> None:
        self._clock, self._done = clock, done
        self._calls: queue.SimpleQueue[tuple[Hashable, _Call] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="nvml", daemon=True).start()

    def make(self, calls: list[tuple[Hashable, _Call]]) -> None:
        for call in calls:
            self._calls.put(call)

    def end_after(self, calls: list[tuple[Hashable, _Call]]) -> None:
        self.make(calls)
        self._calls.put(None)

    def leave(self) -> list[tuple[Hashable, _Call]]:
        """End after the call that is being made; the calls behind it."""
        behind = []
        while not self._calls.empty():
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                break  # the thread took it meanwhile
            if call is not None:
                behind.append(call)
        self._calls.put(None)
        return behind

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            key, call = item
            began_ns = self._clock.boottime_ns()
            given: object
            try:
                given = call()
            except BaseException as fault:  # noqa: BLE001 - it is raised, or logged, where the result is taken
                given = fault
            self._done.put((key, given, (self._clock.boottime_ns() - began_ns) / NS_PER_S))

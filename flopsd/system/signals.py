"""Waiting for signals without a handler.

A handler must not set a threading.Event: it may interrupt a thread that holds the event's lock, and then deadlock.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def awaited(*numbers: signal.Signals) -> Iterator[Callable[[float], signal.Signals | None]]:
    """Block `numbers` in the calling thread and in threads that it starts; yields a function that waits for one. The
    function takes a timeout in seconds and returns the signal, or None after the timeout. Signals that arrived and were
    not waited for are dropped at the end of the block."""

    def wait(seconds: float) -> signal.Signals | None:
        found = signal.sigtimedwait(numbers, max(0.0, seconds))
        return None if found is None else signal.Signals(found.si_signo)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield wait
    finally:
        while wait(0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

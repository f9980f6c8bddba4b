"""Signals as something to wait for.

A handler must not set a threading.Event: it runs in the thread that may just be inside that event's own lock, which
is then never free again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def awaited(*numbers: signal.Signals) -> Iterator[Callable[[float], signal.Signals | None]]:
    """Keep `numbers` back from the calling thread, and from all that it starts; gives what waits for one of them.

    That takes the longest time in seconds, and gives the signal, or None when the time is over. Whatever has come
    by the end and was not waited for is dropped.
    """

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

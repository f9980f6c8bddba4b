"""The memory of this process: protects it from other processes of the same user, and keeps little of it unused. Linux
with glibc; elsewhere nothing changes."""

from __future__ import annotations

import gc

PR_SET_DUMPABLE = 4
_M_TRIM_THRESHOLD, _M_ARENA_MAX = -1, -8  # of malloc.h


def protect_memory() -> bool:
    """From now on, no process without CAP_SYS_PTRACE may read this one's memory or descriptors or attach to it, and no
    core is dumped. A program that this process executes is not protected. Return False if the system cannot do it."""
    import ctypes

    try:
        return int(ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)) == 0
    except (OSError, AttributeError):
        return False


def use_little_memory() -> None:
    """Let all threads allocate from one heap, and release free memory at its end: Python runs one thread at a time, and
    each further heap holds free memory of its own (0.7 MB of 29 in all). Call this before any other thread runs.

    Until `started`, garbage collection is off: imported objects stay, and to scan them ten times takes 6 % of a
    start."""
    import ctypes

    gc.disable()
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_TRIM_THRESHOLD, 128 * 1024)  # the default, which would otherwise grow with the largest block


def started() -> None:
    """Turn garbage collection on, without the objects that exist already."""
    gc.freeze()
    gc.enable()


def collect_rarely() -> None:
    """Collect garbage after 20 000 new objects instead of 700. Verifying a ledger makes thousands, nearly all of which
    are freed without the collector, whose looking at them took 2 to 4 % of a merge."""
    gc.set_threshold(20_000)

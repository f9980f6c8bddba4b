"""How this process uses memory: that no other process of the same user reads it, and that little of it stays unused.
Linux with glibc; elsewhere nothing changes."""

from __future__ import annotations

import gc

PR_SET_DUMPABLE = 4
_M_TRIM_THRESHOLD, _M_ARENA_MAX = -1, -8  # of malloc.h


def protect_memory() -> bool:
    """No process without CAP_SYS_PTRACE may read this one's memory or descriptors or attach to it from now on, and no
    core is dumped. A program that this process executes is not protected. False where the system cannot do it."""
    import ctypes

    try:
        return int(ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)) == 0
    except (OSError, AttributeError):
        return False


def begin_lean() -> None:
    """Let all threads allocate from one heap, and give back what is free at its end: Python lets one thread run at a
    time, and each further heap holds free memory of its own (0.7 MB of 29 together). Before any other thread runs.

    Until `started`, no garbage is looked for: what a program imports stays, and to look through it ten times on the way
    takes 6 % of a start."""
    import ctypes

    gc.disable()
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_TRIM_THRESHOLD, 128 * 1024)  # the usual one, which would otherwise grow with the largest block


def started() -> None:
    """Look for garbage from now on, and not among what is here already."""
    gc.freeze()
    gc.enable()

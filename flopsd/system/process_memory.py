"""Keeps other processes of the same user out of this process's memory. Linux only."""

from __future__ import annotations

PR_SET_DUMPABLE = 4


def protect_memory() -> bool:
    """No process without CAP_SYS_PTRACE may read this one's memory or descriptors or attach to it from now on, and no
    core is dumped. A program that this process executes is not protected. False where the system cannot do it."""
    import ctypes

    try:
        return int(ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)) == 0
    except (OSError, AttributeError):
        return False

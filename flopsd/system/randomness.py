"""Numbers that nobody can know before."""

from __future__ import annotations

from random import SystemRandom


def random_below(limit: int) -> int:
    """As `secrets.randbelow`, without OpenSSL, which that loads."""
    return SystemRandom().randrange(limit)

"""Numbers that nobody can know before."""

from __future__ import annotations

import os

_BYTES = 16  # so many that no number below a limit is likelier than another by more than 1 in 10^20


def random_below(limit: int) -> int:
    """As `secrets.randbelow`, without OpenSSL, which that loads."""
    return int.from_bytes(os.urandom(_BYTES), "big") % limit

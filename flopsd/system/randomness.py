"""Numbers that nobody can predict."""

from __future__ import annotations

import os

_BYTES = 16  # enough that no number below a limit is likelier than another by more than 1 in 10^20


def random_below(limit: int) -> int:
    """Return a random int from 0 to below `limit`, as `secrets.randbelow` does, but without loading OpenSSL."""
    return int.from_bytes(os.urandom(_BYTES), "big") % limit

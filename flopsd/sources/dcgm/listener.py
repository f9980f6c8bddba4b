"""Checks whose server listens at a port of this machine: a job can listen where no exporter does, and show anything."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from flopsd.errors import SourceError

_LISTEN = "0A"


def require_user(url: str, users: Collection[int]) -> None:
    """Raises SourceError if a user other than `users` listens at the port of `url` on this machine. Who listens in
    another network namespace, or on another machine, is not known."""
    other = next((uid for uid in _listeners(urlsplit(url).port) if uid not in users), None)
    if other is not None:
        raise SourceError(
            f"a process of user {other} answers at {url}; if that user is the job's, its values cannot be trusted",
            hint="run dcgm-exporter as root or as flopsd's user; or, if you trust that user, give its address by "
            "--dcgm-url with the name localhost",
        )


def _listeners(port: int | None) -> list[int]:
    """Return the users that listen at a port, by the kernel's tables, in which listening sockets come first."""
    found = []
    for table in ("tcp", "tcp6"):
        with suppress(OSError, ValueError, IndexError), Path("/proc/self/net", table).open(encoding="ascii") as lines:
            next(lines, None)
            for _, address, _, state, _, _, _, uid, *_ in map(str.split, lines):
                if state != _LISTEN:
                    break
                if int(address.rpartition(":")[2], 16) == port:
                    found.append(int(uid))
    return found

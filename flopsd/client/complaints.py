"""What is logged of calls that have no effect. Objects of the training may raise anything when they are looked at or
printed, as some configurations do: that must not end the training."""

from __future__ import annotations

import logging

log = logging.getLogger("flopsd.client")
_MOST = 16


class Complaints:
    """Logs each complaint once, and not too many."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def once(self, what: str) -> None:
        if what not in self._logged and len(self._logged) < _MOST:
            self._logged.add(what)
            log.warning("%s", what)

    def ignored(self, call: str, fault: Exception) -> None:
        """Log that a call is ignored: an argument does not fit, or has raised something itself."""
        is_unfit = isinstance(fault, ValueError | TypeError | RecursionError)
        self.once(f"{call}: ignored: {fault if is_unfit else shown(fault)}")


def shown(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except Exception:  # noqa: BLE001 - whatever its __repr__ raises
        return f"an object of type {type(value).__name__}"

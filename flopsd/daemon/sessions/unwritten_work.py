"""Counters of training processes that the journal does not have yet, and how many of them it gets at a time.

Counters are absolute, so waiting loses nothing: the next record has them, and the last record of a journal has all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flopsd.system.clock import NS_PER_S

RECORD_BYTES = 256 * 1024  # of declarations, or of counters, in one record of the journal, which may have 4 MiB
# Of counters, on average. A process with the callback has 400 bytes of them, and 64 processes can be connected.
BYTES_A_MINUTE = 64 * 1024
LATE_NS = 300 * NS_PER_S


class UnwrittenWork:
    """The sessions whose counters wait to be written, in order. One thread owns it."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._waiting: dict[str, None] = {}  # the longest waiting first
        self._left, self._counted_ns = RECORD_BYTES, now_ns()  # bytes that may be written, and up to when they grew
        self._behind_since_ns: int | None = None  # since when checkpoints leave counters out

    def note(self, name: str) -> None:
        """Note that the counters of a session changed."""
        self._waiting.setdefault(name)

    def replace(self, names: Iterable[str]) -> None:
        """Note that the journal has all counters except those of `names`."""
        self._waiting = dict.fromkeys(names)

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    @property
    def is_late(self) -> bool:
        """Whether checkpoints left counters out for so long that the journal cannot be made whole for each seal."""
        return self._behind_since_ns is not None and self._now_ns() - self._behind_since_ns >= LATE_NS

    def piece(self, record_of: Callable[[str], dict[str, Any]], *, whole: bool) -> list[dict[str, Any]]:
        """Return the counters for the next record: of as many sessions as fit it and, unless `whole`, as the average
        rate allows by now."""
        most = RECORD_BYTES if whole else self._allowed()
        piece: list[dict[str, Any]] = []
        size = 0
        for name in self._waiting:
            record = record_of(name)
            size += size_of(record)
            if size > most and (piece or not whole):
                break
            piece.append(record)
        return piece

    def written(self, piece: Iterable[Mapping[str, Any]], *, whole: bool) -> None:
        """Note that the journal has what `piece` returned."""
        self._left = self._allowed()
        for record in piece:
            self._left = max(0, self._left - size_of(record))
            self._waiting.pop(record["id"], None)
        if not whole:
            self._behind_since_ns = None if self.is_empty else self._behind_since_ns or self._now_ns()

    def _allowed(self) -> int:
        now_ns = self._now_ns()
        grown, rest_ns = divmod((now_ns - self._counted_ns) * BYTES_A_MINUTE, 60 * NS_PER_S)
        self._counted_ns = now_ns - rest_ns // BYTES_A_MINUTE
        self._left = min(RECORD_BYTES, self._left + grown)
        return self._left


def size_of(value: object) -> int:
    """Return the bytes that `value` takes in a journal."""
    return len(json.dumps(value))

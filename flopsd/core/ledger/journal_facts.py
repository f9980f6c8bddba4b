"""The identity of a journal file. Pure."""

from __future__ import annotations

from typing import NamedTuple


class JournalFacts(NamedTuple):
    """The facts that identify a journal file."""

    sha256: str
    size_bytes: int
    records: int
    head_sha256: str  # chain hash of its last record

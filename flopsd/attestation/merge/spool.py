"""Child entries and their claims in a table on disk, so that memory stays bounded; they are read back sorted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from flopsd.core.ledger.merged_claims import Claim, DeviceClaims
from flopsd.core.ledger.merged_entry import Entry, sort_key

CACHE_KIB = 4096
_SCHEMA = """
CREATE TABLE child (number INTEGER PRIMARY KEY, run TEXT, rank INTEGER, node TEXT, sha256 TEXT, label TEXT, entry TEXT);
CREATE TABLE claim (what INTEGER, key TEXT, child INTEGER, claim TEXT);
"""
_ORDER = "child.run, child.rank, child.node, child.sha256, child.label"


class Spool:
    """A table on disk that is deleted with its folder. Raises sqlite3.Error if the disk is full."""

    def __init__(self, folder: Path) -> None:
        self._base = sqlite3.connect(folder / "children.sqlite", isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{CACHE_KIB}"):
            self._base.execute(f"PRAGMA {pragma}")
        self._base.executescript(_SCHEMA)
        self._base.execute("BEGIN")
        self.count = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def add(self, entry: Entry, label: str, claims: Iterable[Claim]) -> None:
        """Store a child, its claims, and its name in messages."""
        shown = label.encode(errors="backslashreplace").decode()  # a file name need not be UTF-8
        row = (*sort_key(entry), shown, json.dumps(entry, separators=(",", ":")))
        self._base.execute("INSERT INTO child VALUES (NULL, ?, ?, ?, ?, ?, ?)", row)
        self.count += 1
        times = ((c, json.dumps([c.boot_id, c.begin_ns, c.end_ns, c.wall_offset_ns])) for c in claims)
        rows = ((c.what, c.key, self.count, text) for c, text in times)
        self._base.executemany("INSERT INTO claim VALUES (?, ?, ?, ?)", rows)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Every child's entry as one line of JSON, and its label, in the order of `sort_key`."""
        yield from self._base.execute(f"SELECT entry, label FROM child ORDER BY {_ORDER}")

    def claimed(self) -> Iterator[DeviceClaims]:
        """Every claim, sorted by what and key."""
        rows = self._base.execute(
            "SELECT what, key, claim, child.number, child.label FROM claim JOIN child ON claim.child = child.number"
            f" ORDER BY what, key, {_ORDER}"
        )
        for what, key, claim, number, label in rows:
            yield DeviceClaims(Claim(what, key, *json.loads(claim)), number, label)

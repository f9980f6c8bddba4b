"""Which vectors decide a clause: those that break it, and the valid ones that `clauses.json` beside them names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from conformance.vectors import Vector

NAME = "clauses.json"


def decided(root: Path, vectors: Sequence[Vector]) -> dict[str, list[str]]:
    """Names of vectors by clause. A pattern that no vector has is an error."""
    found: dict[str, list[str]] = {}
    for vector in vectors:
        if vector.expected["clause"] is not None:
            found.setdefault(vector.expected["clause"], []).append(vector.name)
    for clause, patterns in json.loads((root / NAME).read_bytes())["decided"].items():
        for pattern in patterns:
            named = [vector.name for vector in vectors if fnmatch(vector.name, pattern)]
            if not named:
                raise ValueError(f"{NAME}: {clause} names {pattern!r}, which no vector is")
            found.setdefault(clause, []).extend(named)
    return found


def undecided(root: Path) -> dict[str, str]:
    """Clauses that no vector can decide, and why."""
    reasons: dict[str, str] = json.loads((root / NAME).read_bytes())["undecided"]
    return reasons

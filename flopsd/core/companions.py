"""Companions of a ledger: peak tables and policies that the ledger names by SHA-256 and flopsd does not ship. Their
file names contain the digest, so that one ledger can have several and a reader knows which to open. Pure."""

from __future__ import annotations

import re

PEAKS, POLICY = "peaks", "policy"  # also the options that take such a file
MAX_COMPANION_BYTES = 1 << 20
_NAME = re.compile(r"(peaks|policy)-([0-9a-f]{16})\.yaml")
_BESIDE = re.compile(rf".+\.{_NAME.pattern}")


def companion_name(kind: str, sha256: str) -> str:
    """The companion's file name, without the prefix `NAME.` that it has next to a ledger NAME.json."""
    return f"{kind}-{sha256[:16]}.yaml"


def is_companion_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def has_companion_name(file_name: str) -> bool:
    """Whether a file has the name of some ledger's companion."""
    return _BESIDE.fullmatch(file_name) is not None


def kind_of(name: str) -> str:
    return name.partition("-")[0]


def name_has_digest(name: str, sha256: str) -> bool:
    """Whether `name` is that of a file with this digest."""
    return companion_name(kind_of(name), sha256) == name

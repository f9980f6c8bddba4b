"""Companions of a ledger: peak tables and policies that it names by SHA-256 and that flopsd does not ship. Their names
have the digest, so that several lie beside one ledger and a reader knows which to open. Pure."""

from __future__ import annotations

import re

PEAKS, POLICY = "peaks", "policy"  # also the options that accept one by hand
MAX_COMPANION_BYTES = 1 << 20
_NAME = re.compile(r"(peaks|policy)-([0-9a-f]{16})\.yaml")
_BESIDE = re.compile(rf".+\.{_NAME.pattern}")


def companion_name(kind: str, sha256: str) -> str:
    """Its file's name, which a ledger NAME.json has as `NAME.` before it."""
    return f"{kind}-{sha256[:16]}.yaml"


def is_companion_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def has_companion_name(file_name: str) -> bool:
    """Whether a file is named as the companion of some ledger."""
    return _BESIDE.fullmatch(file_name) is not None


def kind_of(name: str) -> str:
    return name.partition("-")[0]


def bears_digest(name: str, sha256: str) -> bool:
    """Whether it is the name of a file with that digest."""
    return companion_name(kind_of(name), sha256) == name

"""Small readers that evidence shares: base64 and texts out of an item, files of bounded size."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flopsd.errors import EvidenceError


def encode64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def text_of(data: Mapping[str, Any], name: str) -> str:
    """A member that must be text. Raises EvidenceError."""
    found = data.get(name)
    if not isinstance(found, str):
        raise EvidenceError(f"it has no text {name!r}")
    return found


def bytes_of(data: Mapping[str, Any], name: str) -> bytes:
    """A member that must be base64. Raises EvidenceError."""
    try:
        return base64.b64decode(text_of(data, name).encode("ascii"), validate=True)
    except (UnicodeError, binascii.Error) as fault:
        raise EvidenceError(f"its {name!r} is not base64") from fault


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """A whole file of at most `limit_bytes`. Raises EvidenceError naming it."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as fault:
        raise EvidenceError(f"{path}: {fault.strerror}") from fault
    if len(data) > limit_bytes:
        raise EvidenceError(f"{path} has more than {limit_bytes} bytes")
    return data

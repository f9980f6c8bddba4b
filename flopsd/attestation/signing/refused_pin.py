"""A PIN that a token refused, noted in the state folder, so that no later seal there gives it to the token again.

A token locks after a few wrong PINs, and a run is sealed many times. The note holds no PIN: a salted, slow hash of the
token's identity and the PIN. Whoever can read the note could still guess a short PIN from it; that is the user who can
read the PIN itself. It is removed when the token accepts a PIN.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from flopsd.core.untrusted import parse_json
from flopsd.errors import NotVerifiedError
from flopsd.system.atomic_files import replace_file
from flopsd.system.regular_files import read_at_most

log = logging.getLogger("flopsd")
ITERATIONS = 200_000
MAX_NOTE_BYTES = 4096


def refused_before(note: Path, token: Sequence[str], pin: str) -> str | None:
    """Why `token`, given by its identity, refused this very PIN earlier; None if `note` does not say so."""
    try:
        record = parse_json(read_at_most(note, MAX_NOTE_BYTES), str(note))
        reason, salt, digest = (str(record[name]) for name in ("reason", "salt", "digest"))
        same = hmac.compare_digest(_digest(token, pin, bytes.fromhex(salt)), bytes.fromhex(digest))
    except (OSError, NotVerifiedError, LookupError, TypeError, ValueError):
        return None
    return reason if same else None


def note_refusal(note: Path, token: Sequence[str], pin: str, reason: str) -> None:
    """Write `note`, mode 0600. A failure is logged."""
    salt = os.urandom(16)
    record = {"reason": reason, "salt": salt.hex(), "digest": _digest(token, pin, salt).hex()}
    try:
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(note, json.dumps(record).encode("ascii") + b"\n", 0o600)
    except OSError as fault:
        log.warning("cannot write %s: %s; the next seal gives the refused PIN to the token again", note, fault.strerror)


def forget_refusal(note: Path) -> None:
    """Remove `note`, since the token accepted a PIN."""
    try:
        note.unlink(missing_ok=True)
    except OSError as fault:
        log.debug("cannot remove %s: %s", note, fault.strerror)


def _digest(token: Sequence[str], pin: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", json.dumps([*token, pin]).encode("ascii"), salt, ITERATIONS)

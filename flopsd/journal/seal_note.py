"""A note of the newest seal of a state folder's journal, written by the sealing process for the daemon to journal."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.untrusted import parse_json
from flopsd.errors import NotVerifiedError
from flopsd.journal.framing import line_ends_at
from flopsd.system.atomic_files import replace_file
from flopsd.system.regular_files import read_at_most
from flopsd.system.sha256 import sha256

MAX_NOTE_BYTES = 1 << 20


def write_note(path: Path, seal: EarlierSeal) -> None:
    """Raises OSError."""
    replace_file(path, json.dumps(seal.for_journal(0)).encode("ascii") + b"\n", 0o600)


def read_note(path: Path) -> EarlierSeal | None:
    """Read the note; None if there is none, or the file is no note."""
    try:
        record = parse_json(read_at_most(path, MAX_NOTE_BYTES), str(path))
        return EarlierSeal.from_record(record) if isinstance(record, dict) else None
    except (OSError, NotVerifiedError, KeyError, ValueError):
        return None


def _may_be_stamped(seal: EarlierSeal) -> bool:
    """Whether a seal has no stamp, or one with the digest of its head: a false stamp would make every later ledger
    invalid. The signer of a stamp is not checked, since that takes packages that the daemon does not load."""
    if seal.token is None:
        return True
    try:
        stamp = base64.b64decode(seal.token.encode("ascii"), validate=True)
    except ValueError:  # includes UnicodeError and binascii.Error
        return False
    return sha256(bytes.fromhex(seal.head_sha256)).digest() in stamp


def noted_seal(path: Path, journal: int, size_bytes: int) -> EarlierSeal | None:
    """Return the seal in a note, if it is a seal of the open `journal` of this size: a record with its chain hash ends
    at its size, and its stamp, if any, is of that hash. Any process of this user can write a note."""
    seal = read_note(path)
    if seal is None or not 0 < seal.size_bytes <= size_bytes or not _may_be_stamped(seal):
        return None
    try:
        return seal if line_ends_at(journal, seal.size_bytes, seal.head_sha256) else None
    except OSError:
        return None

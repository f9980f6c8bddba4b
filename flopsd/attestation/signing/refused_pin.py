"""Note a PIN that a token refused in the state folder, so that no later seal there gives it to the token again.

A token locks after a few wrong PINs, and a run is sealed many times. The note does not hold the PIN but a salted, slow
hash of the token's identity and the PIN. A short PIN could be guessed from it, but only by the user who can read the
note, who can read the PIN too. The note is removed when the token accepts a PIN.
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


class RefusedPin:
    """A PIN that a token refused, noted at `path`, or if that cannot be written, in `memory`: a file descriptor that
    the daemon shares with the processes that it starts."""

    def __init__(self, path: Path, memory: int | None = None) -> None:
        self.path, self._memory = path, memory

    def reason(self, token: Sequence[str], pin: str) -> str | None:
        """Why `token`, given by its identity, refused this PIN earlier; None if no refusal is noted."""
        try:
            noted = read_at_most(self.path, MAX_NOTE_BYTES)
        except OSError:
            noted = b""
        kept = b"" if self._memory is None else os.pread(self._memory, MAX_NOTE_BYTES, 0)
        return _reason(noted, token, pin) or _reason(kept, token, pin)

    def note(self, token: Sequence[str], pin: str, reason: str) -> None:
        """Note a refusal in a file of mode 0600. A failure to write is logged."""
        salt = os.urandom(16)
        record = {"reason": reason, "salt": salt.hex(), "digest": _digest(token, pin, salt).hex()}
        text = json.dumps(record).encode("ascii") + b"\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.path, text, 0o600)
        except OSError as fault:
            self._keep(text)
            again = "the next seal" if self._memory is None else "the next daemon, not this one,"
            log.warning(
                "cannot write %s: %s; %s will send the refused PIN to the token again", self.path, fault.strerror, again
            )

    def forget(self) -> None:
        """Remove the note, since the token accepted a PIN. A failure is logged."""
        self._keep(b"")
        try:
            self.path.unlink(missing_ok=True)
        except OSError as fault:
            log.debug("cannot remove %s: %s", self.path, fault.strerror)

    def _keep(self, text: bytes) -> None:
        if self._memory is not None:
            os.ftruncate(self._memory, 0)
            os.pwrite(self._memory, text, 0)


def _reason(note: bytes, token: Sequence[str], pin: str) -> str | None:
    try:
        record = parse_json(note, "the note of a refused PIN")
        reason, salt, digest = (str(record[name]) for name in ("reason", "salt", "digest"))
        same = hmac.compare_digest(_digest(token, pin, bytes.fromhex(salt)), bytes.fromhex(digest))
    except (NotVerifiedError, LookupError, TypeError, ValueError):
        return None
    return reason if same else None


def _digest(token: Sequence[str], pin: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", json.dumps([*token, pin]).encode("ascii"), salt, ITERATIONS)

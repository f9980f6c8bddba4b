"""Add the signature of a second party that has verified the ledger. The payload does not change."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flopsd.attestation.ledger_files import LEDGER_MODE
from flopsd.attestation.signed_statement import read_ledger
from flopsd.attestation.signing.base import SigningKey
from flopsd.attestation.signing.dsse import pae, sign_message, verify_signatures
from flopsd.attestation.verify import Verified
from flopsd.core.dataclass import dataclass
from flopsd.core.envelope import encode64, parse_envelope
from flopsd.core.untrusted import parse_json
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.system.atomic_files import replace_file


@dataclass(frozen=True, slots=True)
class Countersigned:
    """The ledger, whether a signature was added (False: the key's was present already), and how many it has now."""

    ledger: Path
    added: bool
    signatures: int


def countersign(verified: Verified, ledger: Path, key: SigningKey, output: Path | None = None) -> Countersigned:
    """Add the signature of `key` to the verified `ledger`, and write the file to `output`, by default in place. All
    other fields of the envelope and its signatures are kept. Raises NotVerifiedError if the file has changed since it
    was verified, SigningKeyError, LedgerError."""
    data = before = read_ledger(ledger)
    envelope = parse_envelope(data)
    changed = NotVerifiedError(
        f"{ledger} was changed after it was verified", hint="find out which process changes it, then try again"
    )
    if envelope.payload != verified.payload:
        raise changed
    target = output or ledger
    is_same = target.absolute() == ledger.absolute()
    if not is_same and os.path.lexists(target):
        raise LedgerError(f"{target} exists", hint="nothing was changed; give -o another name")
    message = pae(envelope)
    present = any(key.public.verifies(message, signature) for _, signature in envelope.signatures)
    count = len(envelope.signatures)
    if not present:
        data, count = _with_signature(data, key.public.keyid, sign_message(message, key)), count + 1
        again = parse_envelope(data)
        verify_signatures(again, [key.public], 1)
        if again.payload != verified.payload:
            raise LedgerError(f"adding a signature would change the payload of {ledger}")
        if is_same and read_ledger(ledger) != before:  # sealed again while a slow key service signed
            raise changed
    if not present or not is_same:
        try:
            replace_file(target, data, LEDGER_MODE)
        except OSError as fault:
            raise LedgerError(f"cannot write the ledger {target}: {fault.strerror}") from fault
    return Countersigned(target, not present, count)


def _with_signature(data: bytes, keyid: str, signature: bytes) -> bytes:
    """The envelope file with one more signature, in the layout that sealing writes; unknown fields are kept."""
    document: dict[str, Any] = parse_json(data, "the ledger")
    document["signatures"].append({"keyid": keyid, "sig": encode64(signature)})
    return json.dumps(document, indent=1).encode("ascii") + b"\n"

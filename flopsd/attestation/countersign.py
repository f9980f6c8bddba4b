"""A second party's signature on a ledger that it has verified. Not one byte of the payload changes."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flopsd.attestation.signing.base import SigningKey
from flopsd.attestation.signing.dsse import fresh_signature, good_signature, pae, verify_signatures
from flopsd.attestation.verify import Verified, read_ledger
from flopsd.core.envelope import parse_envelope
from flopsd.core.untrusted import parse_json
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.system.atomic_files import replace_file


@dataclass(frozen=True, slots=True)
class Countersigned:
    """Where the ledger lies, and whether this key's signature was added or already there."""

    ledger: Path
    added: bool
    signatures: int


def countersign(verified: Verified, ledger: Path, key: SigningKey, output: Path | None = None) -> Countersigned:
    """Add the signature of `key` to `ledger`, which `verified` says was verified, and put it at `output`, or in place.

    All other members of envelope and signatures are kept. Raises NotVerifiedError where the file is no longer the
    verified one, SigningKeyError, LedgerError.
    """
    data = read_ledger(ledger)
    envelope = parse_envelope(data)
    if envelope.payload != verified.payload:
        raise NotVerifiedError(f"{ledger} was changed after it was verified", hint="find out by whom, then try again")
    target = output or ledger
    message = pae(envelope)
    present = any(good_signature(key.public, message, signature) for _, signature in envelope.signatures)
    count = len(envelope.signatures)
    if not present:
        data, count = _with_signature(data, key.public.keyid, fresh_signature(envelope, key)), count + 1
        again = parse_envelope(data)
        verify_signatures(again, [key.public], 1)
        if again.payload != verified.payload:
            raise LedgerError(f"the payload of {ledger} would not stay what it is")
    if not present or target.absolute() != ledger.absolute():
        try:
            replace_file(target, data)
        except OSError as fault:
            raise LedgerError(f"cannot write the ledger {target}: {fault.strerror}") from fault
    return Countersigned(target, not present, count)


def _with_signature(data: bytes, keyid: str, signature: bytes) -> bytes:
    """The envelope file with one signature more, laid out as sealing does it; what it does not know stays."""
    document: dict[str, Any] = parse_json(data, "the ledger")
    document["signatures"].append({"keyid": keyid, "sig": base64.b64encode(signature).decode("ascii")})
    return json.dumps(document, indent=1).encode("ascii") + b"\n"

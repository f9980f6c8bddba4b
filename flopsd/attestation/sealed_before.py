"""Whether a journal is sealed already. Sealing it again would give other bytes: another time, other evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flopsd.attestation.ledger_files import journal_beside, public_key_beside
from flopsd.attestation.signing.dsse import verify_signatures
from flopsd.attestation.signing.public_key import PublicKey
from flopsd.core.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.journal_facts import JournalFacts
from flopsd.core.untrusted import parse_json
from flopsd.errors import NotVerifiedError
from flopsd.system.known_files import known_file
from flopsd.system.regular_files import read_at_most


def sealed_before(
    ledger: Path, journal: JournalFacts, key: PublicKey, secrets: Mapping[str, bytes]
) -> tuple[Mapping[str, Any], EarlierSeal] | None:
    """The predicate of the ledger at `ledger` and its seal, if `key` signed it, it seals just this journal, which lies
    beside it, and it discloses all `secrets` of the journal's codes; else None."""
    try:
        envelope = parse_envelope(read_at_most(ledger, MAX_ENVELOPE_BYTES))
        verify_signatures(envelope, [key], 1)
        predicate: Mapping[str, Any] = parse_json(envelope.payload, "the payload")["predicate"]
        method = predicate["method"]
        same = method["journal"]["sha256"] == journal.sha256 == known_file(journal_beside(ledger)).sha256
        whole = public_key_beside(ledger).read_bytes() == key.pem
        payload_sha256 = hashlib.sha256(envelope.payload).hexdigest()
        seal = EarlierSeal(journal.size_bytes, journal.head_sha256, payload_sha256, str(method["sealedAt"]), None)
        disclosed = set(method["codeSecrets"]) >= {secret.hex() for secret in secrets.values()}
    except (OSError, NotVerifiedError, LookupError, TypeError):
        return None
    return (predicate, seal) if same and whole and disclosed else None

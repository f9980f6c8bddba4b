"""Open a ledger file: check its signatures and read its statement. No figure is verified yet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.attestation.signing.dsse import verify_signatures
from flopsd.core.dataclass import dataclass
from flopsd.core.envelope import MAX_ENVELOPE_BYTES, Envelope, parse_envelope
from flopsd.core.ledger.statement import PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE
from flopsd.core.untrusted import parse_json
from flopsd.core.values import shown
from flopsd.errors import NotVerifiedError
from flopsd.journal.segments import ENDING
from flopsd.system.file_presence import is_folder
from flopsd.system.regular_files import first_bytes, open_regular

if TYPE_CHECKING:
    from flopsd.attestation.signing.public_key import PublicKey

ZIP_BEGINS = b"PK\x03\x04"
_BUNDLE_BEGINS_WITHIN = 64 * 1024  # bytes: a key or a chain of certificates is before the envelope
_OF_ANY_VERSION = re.compile(r"#compute-ledger-v[0-9]+\Z")
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
Parse = Callable[[bytes, str, str], Any]


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement with valid signatures and its file. Its figures are not verified yet."""

    path: Path
    statement: Mapping[str, Any]
    keyids: tuple[str, ...]
    payload_sha256: str
    envelope: Envelope
    keys: tuple[PublicKey, ...] = ()

    @property
    def not_signed_by(self) -> tuple[str, ...]:
        """Key ids of the given keys that have no valid signature on the envelope."""
        return tuple(dict.fromkeys(key.keyid for key in self.keys if key.keyid not in self.keyids))

    @property
    def kind(self) -> str:
        """`node`, `job` or `lineage`."""
        return str(self.statement["predicate"].get("kind"))


def open_ledger(
    ledger: Path, keys: Sequence[PublicKey], threshold: int = 1, *, parse: Parse = parse_json
) -> SignedStatement:
    """Check the signatures of `ledger`, and read its statement with `parse`. Raises NotVerifiedError."""
    envelope = parse_envelope(read_ledger(ledger))
    keyids = verify_signatures(envelope, keys, threshold)
    digest = hashlib.sha256(envelope.payload).hexdigest()
    return SignedStatement(ledger, statement_in(envelope, parse), tuple(sorted(keyids)), digest, envelope, tuple(keys))


def read_ledger(ledger: Path) -> bytes:
    """The bytes of a ledger file, at most MAX_ENVELOPE_BYTES + 1. Raises NotVerifiedError."""
    try:
        with open_regular(ledger) as file:
            found = first_bytes(file, MAX_ENVELOPE_BYTES + 1)
    except OSError as fault:
        hint = "name one of the ledgers in it, NAME.json" if is_folder(ledger) else ""
        raise NotVerifiedError(f"cannot read the ledger {ledger}: {fault.strerror}", hint=hint) from fault
    if is_other := _other_file(ledger, found):
        try:
            parse_envelope(found)
        except NotVerifiedError as fault:
            words, hint = is_other
            raise NotVerifiedError(f"{ledger} {words}", hint=hint, code=fault.code, path=fault.path) from fault
    return found


def _other_file(ledger: Path, data: bytes) -> tuple[str, str] | None:
    """For a file of a known kind that users take for a ledger: what it is, and what to do. Else None."""
    if ledger.name.endswith(ENDING):
        return "is a journal, not a ledger", f"name the ledger next to it, {ledger.name.removesuffix(ENDING)}.json"
    if data.startswith(ZIP_BEGINS):
        return "is a ZIP archive", "unpack it, and name a ledger in it"
    if data.startswith(_BYTE_ORDER_MARKS):
        return (
            "begins with a byte order mark: an editor or a shell saved it again",
            "get the file as it was sealed, for instance in an archive",
        )
    if data.find(b'"dsseEnvelope"', 0, _BUNDLE_BEGINS_WITHIN) >= 0:
        return "is a Sigstore bundle", "its envelope is the ledger: jq .dsseEnvelope BUNDLE > ledger.json"
    if not data:
        return "is empty", "get it again, from where it was sealed"
    if not data.lstrip().startswith(b"{"):
        return "is not a ledger, which is a JSON object", "name NAME.json, next to the public key NAME.pub"
    return None


def refuse_other_type(envelope: Envelope) -> None:
    """Raises NotVerifiedError if the payload type of the envelope is not that of a statement."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise NotVerifiedError(
            f"the payload has type {envelope.payload_type!r:.100}, not {PAYLOAD_TYPE!r}",
            code="payload_type",
            path="envelope",
        )


def is_of_some_version(statement: object) -> bool:
    """Whether a statement is a ledger's, of this or another version of the format."""
    named = statement.get("predicateType") if isinstance(statement, dict) else None
    return isinstance(named, str) and _OF_ANY_VERSION.search(named) is not None


def statement_in(envelope: Envelope, parse: Parse = parse_json) -> Mapping[str, Any]:
    """The statement in an envelope; signatures are not checked. Raises NotVerifiedError if it is not a ledger's."""
    refuse_other_type(envelope)
    signed = parse(envelope.payload, "the payload", "payload")
    if not isinstance(signed, dict) or signed.get("_type") != STATEMENT_TYPE:
        raise NotVerifiedError(
            f"the payload is not an in-toto statement of type {STATEMENT_TYPE!r}",
            code="statement_type",
            path="statement._type",
        )
    if signed.get("predicateType") != PREDICATE_TYPE:
        raise NotVerifiedError(
            f"the predicate has type {shown(signed.get('predicateType'))}, not {PREDICATE_TYPE!r}",
            code="predicate_type",
            path="statement.predicateType",
            hint="a newer flopsd reads it" if is_of_some_version(signed) else "",
        )
    if not isinstance(signed.get("predicate"), dict):
        raise NotVerifiedError("the statement has no predicate", code="statement_malformed", path="statement.predicate")
    return signed

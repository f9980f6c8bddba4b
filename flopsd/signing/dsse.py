"""DSSE over the exact payload bytes: signing, and our own loop over distinct public keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flopsd.core.envelope import Envelope, encode_envelope, parse_envelope
from flopsd.core.ledger import PAYLOAD_TYPE
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.signing.keys import SigningKey

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey


def sign(payload: bytes, key: SigningKey) -> bytes:
    """The envelope file over `payload`, verified with the public key before it is returned."""
    signer = key.signer
    envelope = Envelope(payload, PAYLOAD_TYPE, ())
    signature = bytes.fromhex(signer.sign(pae(envelope)).signature)
    data = encode_envelope(payload, PAYLOAD_TYPE, [(signer.public_key.keyid, signature)])
    if verify_signatures(parse_envelope(data), [signer.public_key], 1) != {signer.public_key.keyid}:
        raise LedgerError("the fresh signature does not verify")
    return data


def pae(envelope: Envelope) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    from securesystemslib.dsse import Envelope as Dsse

    encoded: bytes = Dsse(envelope.payload, envelope.payload_type, {}).pae()
    return encoded


def verify_signatures(envelope: Envelope, keys: Sequence[SSlibKey], threshold: int) -> set[str]:
    """Key ids of the distinct public keys with a good signature; keyids in the envelope are ignored.

    Raises NotVerifiedError when they are fewer than `threshold`.
    """
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.signer import Signature

    good: set[str] = set()
    signed = pae(envelope)
    distinct = {key.keyid: key for key in keys}  # the keyid here is the digest of the key itself
    for _, raw in envelope.signatures:
        for keyid, key in distinct.items():
            try:
                key.verify_signature(Signature(keyid, raw.hex()), signed)
            except UnverifiedSignatureError:
                continue
            good.add(keyid)
    if len(good) < threshold:
        raise NotVerifiedError(
            f"{len(good)} of the given keys signed this ledger, {threshold} must have: "
            "wrong key, or the ledger was changed"
        )
    return good

"""DSSE over the exact payload bytes: signing, and our own loop over distinct public keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flopsd.attestation.signing.base import SigningKey
from flopsd.core.envelope import Envelope, encode_envelope, parse_envelope
from flopsd.core.ledger.statement import PAYLOAD_TYPE
from flopsd.errors import LedgerError, NotVerifiedError

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

MAX_SIGNATURES = 64  # each is tried with each key, over the whole payload


def sign(payload: bytes, key: SigningKey) -> bytes:
    """The envelope file over `payload`, verified with the public key before it is returned.

    Raises SigningKeyError, and LedgerError where the signature does not verify.
    """
    signature = fresh_signature(Envelope(payload, PAYLOAD_TYPE, ()), key)
    data = encode_envelope(payload, PAYLOAD_TYPE, [(key.public.keyid, signature)])
    verify_signatures(parse_envelope(data), [key.public], 1)
    return data


def fresh_signature(envelope: Envelope, key: SigningKey) -> bytes:
    """A signature of `key` over the payload, which verifies. Raises SigningKeyError, LedgerError."""
    return sign_message(pae(envelope), key)


def sign_message(message: bytes, key: SigningKey) -> bytes:
    """A signature of `key` over `message`, which verifies. Raises SigningKeyError, LedgerError."""
    signature = key.sign(message)
    if not good_signature(key.public, message, signature):
        raise LedgerError(
            f"the fresh signature by {key.describe()} does not verify with its public key {key.public.keyid[:16]}…",
            hint="where the public key comes from a file, it is the one of another key",
        )
    return signature


def good_signature(key: SSlibKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature` over `message` is one of `key`: Ed25519, or ECDSA over SHA-256 in DER."""
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.signer import Signature

    try:
        key.verify_signature(Signature(key.keyid, signature.hex()), message)
    except UnverifiedSignatureError:
        return False
    return True


def pae(envelope: Envelope) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    from securesystemslib.dsse import Envelope as Dsse

    encoded: bytes = Dsse(envelope.payload, envelope.payload_type, {}).pae()
    return encoded


def verify_signatures(envelope: Envelope, keys: Sequence[SSlibKey], threshold: int) -> set[str]:
    """Key ids of the distinct public keys with a good signature; keyids in the envelope are ignored.

    Raises NotVerifiedError when they are fewer than `threshold`.
    """
    if len(envelope.signatures) > MAX_SIGNATURES:
        raise NotVerifiedError(
            f"the ledger has {len(envelope.signatures)} signatures, more than the {MAX_SIGNATURES} that are tried"
        )
    signed = pae(envelope)
    distinct = {key.keyid: key for key in keys}  # the keyid here is the digest of the key itself
    good = {
        keyid
        for keyid, key in distinct.items()
        if any(good_signature(key, signed, signature) for _, signature in envelope.signatures)
    }
    if len(good) < threshold:
        raise NotVerifiedError(
            f"{len(good)} of the given keys signed this ledger, {threshold} must have: "
            "wrong key, or the ledger was changed"
        )
    return good

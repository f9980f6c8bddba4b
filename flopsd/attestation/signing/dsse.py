"""DSSE over the exact payload bytes: sign, and verify with distinct public keys, regardless of the key ids named."""

from __future__ import annotations

from collections.abc import Sequence

from flopsd.attestation.signing.base import SigningKey, key_faults
from flopsd.attestation.signing.public_key import PublicKey
from flopsd.core.envelope import Envelope, encode_envelope
from flopsd.core.ledger.statement import PAYLOAD_TYPE
from flopsd.core.values import is_digest
from flopsd.errors import NotVerifiedError, SigningKeyError

_TOO_FEW = "too_few_signatures"


def sign(payload: bytes, key: SigningKey) -> bytes:
    """The envelope file over `payload`. Raises SigningKeyError if signing fails or the signature does not verify."""
    signature = sign_message(pae(Envelope(payload, PAYLOAD_TYPE, ())), key)
    return encode_envelope(payload, PAYLOAD_TYPE, [(key.public.keyid, signature)])


def sign_message(message: bytes, key: SigningKey) -> bytes:
    """A signature of `key` over `message`, verified with its public key. Raises SigningKeyError."""
    with key_faults(key.describe()):
        signature = key.sign(message)
    if not key.public.verifies(message, signature):
        raise SigningKeyError(
            f"the new signature by {key.describe()} does not verify with the public key {short_id(key.public.keyid)}",
            hint="if the public key was read from a file, it belongs to another private key",
            reason="public_key",
        )
    return signature


def pae(envelope: Envelope) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    kind = envelope.payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(envelope.payload), envelope.payload)


def verify_signatures(envelope: Envelope, keys: Sequence[PublicKey], threshold: int) -> set[str]:
    """The key ids of the distinct public keys with a good signature; key ids in the envelope are not trusted. Raises
    NotVerifiedError if there are fewer than `threshold`."""
    signed = pae(envelope)
    distinct = {key.keyid: key for key in keys}  # the keyid here is the digest of the key itself
    good = {
        keyid
        for keyid, key in distinct.items()
        if any(key.verifies(signed, signature) for _, signature in envelope.signatures)
    }
    if len(good) < threshold:
        raise _not_signed(envelope, list(distinct), good, threshold)
    return good


def _not_signed(envelope: Envelope, given: Sequence[str], good: set[str], threshold: int) -> NotVerifiedError:
    """The error for too few good signatures. The key ids in the envelope only help to find the missing key."""
    named = [keyid for keyid, _ in envelope.signatures]
    invalid = [keyid for keyid in given if keyid in named and keyid not in good]
    if invalid and not good:
        return NotVerifiedError(
            f"the signature of key {short_id(invalid[0])} is invalid: the ledger was changed after it "
            "was signed, or this key did not sign it",
            hint="ask the signer for the original file",
            code=_TOO_FEW,
            path="envelope",
        )
    ids = ", ".join(map(short_id, given))
    if good:
        missing = ", ".join(short_id(keyid) for keyid in given if keyid not in good)
        detail = ", ".join(map(short_id, sorted(good))) + (f"; not by {missing}" if missing else "")
        if invalid:
            detail += f", though the ledger names {', '.join(map(short_id, invalid))} as a signer"
        return NotVerifiedError(
            f"signed by {len(good)} of the given keys ({detail}), {threshold} signatures are required",
            hint="give the public key of every signer with --key; `flopsd key show FILE` prints the id of a key",
            code=_TOO_FEW,
            path="envelope",
        )
    signers = ", ".join(short_id(keyid) if is_digest(keyid) else "a key without an id" for keyid in named[:4])
    noun = "key is" if len(given) == 1 else "keys are"
    changed = "" if all(map(is_digest, named)) else "changed after it was signed, or "
    return NotVerifiedError(
        f"{changed}signed by a different key: {signers}; the given {noun} {ids or 'none'}",
        hint="give the signer's public key; `flopsd key show FILE` prints the id of a key",
        code=_TOO_FEW,
        path="envelope",
    )


def short_id(keyid: str) -> str:
    """A key id as shown in messages."""
    return f"{keyid[:16]}…"

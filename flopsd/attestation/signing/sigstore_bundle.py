"""The Sigstore bundle v0.3: an envelope with one signature, in the form that cosign and other Sigstore tools read.

A bundle holds exactly one signature; cosign refuses a bundle whose signature has a keyid. Specification:
https://docs.sigstore.dev/about/bundle/
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from flopsd.attestation.signing.dsse import short_id, verify_signatures
from flopsd.core.envelope import Envelope, encode64
from flopsd.errors import NotVerifiedError

if TYPE_CHECKING:
    from flopsd.attestation.signing.public_key import PublicKey

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def signature_by(envelope: Envelope, key: PublicKey) -> int | None:
    """The index of the signature that the key made; None if it made none."""
    for index, signature in enumerate(envelope.signatures):
        if verify_signatures(replace(envelope, signatures=(signature,)), [key], 0):
            return index
    return None


def sigstore_bundle(envelope: Envelope, key: PublicKey) -> bytes:
    """The bundle with the signature that `key` made. Raises NotVerifiedError if it made none."""
    index = signature_by(envelope, key)
    if index is None:
        raise NotVerifiedError(
            f"no valid signature by the given key {short_id(key.keyid)}: wrong key, or the ledger was changed",
            hint="give the signer's public key with --key; a bundle contains exactly one signature",
        )
    document = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": encode64(bytes.fromhex(key.keyid))}},
        "dsseEnvelope": {
            "payload": encode64(envelope.payload),
            "payloadType": envelope.payload_type,
            "signatures": [{"sig": encode64(envelope.signatures[index][1])}],
        },
    }
    return json.dumps(document, indent=1).encode("ascii") + b"\n"

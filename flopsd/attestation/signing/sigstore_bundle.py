"""The Sigstore bundle v0.3: an envelope with one signature, in the form that cosign and other Sigstore tools read.

A bundle holds exactly one signature; cosign refuses a bundle whose signature has a keyid. Specification:
https://docs.sigstore.dev/about/bundle/
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flopsd.attestation.signing.dsse import pae, short_id
from flopsd.core.envelope import Envelope, encode64
from flopsd.errors import NotVerifiedError

if TYPE_CHECKING:
    from flopsd.attestation.signing.public_key import PublicKey

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def sigstore_bundle(envelope: Envelope, key: PublicKey) -> bytes:
    """The bundle with the signature that `key` made. Raises NotVerifiedError if it made none."""
    message = pae(envelope)
    made = next((signature for _, signature in envelope.signatures if key.verifies(message, signature)), None)
    if made is None:
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
            "signatures": [{"sig": encode64(made)}],
        },
    }
    return json.dumps(document, indent=1).encode("ascii") + b"\n"

"""Check that a key can sign: sign a message with it, and verify the signature with its public key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flopsd.attestation.signing.base import SigningKey
from flopsd.attestation.signing.dsse import sign_message
from flopsd.attestation.signing.keys import default_key, load_signer
from flopsd.attestation.signing.public_key import need_extra
from flopsd.attestation.signing.refused_pin import RefusedPin
from flopsd.errors import SigningKeyError

# A ledger's signed bytes begin with "DSSEv1 ", so a signature of this message fits no ledger.
CHECK_MESSAGE = b"flopsd: a check that this key can sign; it states nothing\n"


def check_configured(
    uri: str | None, folder: Path, environment: Mapping[str, str], refused_pin: RefusedPin
) -> SigningKey | None:
    """The private key that seals in the state folder, after it has signed CHECK_MESSAGE; None if the first seal is yet
    to create one. A PIN that its token refused is not given to the token again. Raises SigningKeyError."""
    need_extra()
    if uri is None:
        made = default_key(folder)
        try:
            made.stat()
        except FileNotFoundError:
            return None
        except OSError as fault:
            hint = "run this as the daemon's user"
            raise SigningKeyError(f"cannot look for {made}: {fault.strerror}", hint=hint) from fault
        uri = str(made)
    key = load_signer(uri, environment, refused_pin=refused_pin)
    sign_message(CHECK_MESSAGE, key)
    return key

"""Whether a key can sign: it signs, and the signature is verified with its public key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flopsd.attestation.signing.base import SigningKey
from flopsd.attestation.signing.dsse import sign_message
from flopsd.attestation.signing.keys import default_key, load_signer
from flopsd.attestation.signing.public_key import need_extra
from flopsd.attestation.signing.refused_pin import RefusedPin
from flopsd.errors import SigningKeyError

# What a ledger's signature covers begins with "DSSEv1 ", so this one is of no ledger.
CHECK_MESSAGE = b"flopsd: a check that this key can sign; it states nothing\n"


def check_configured(
    uri: str | None, folder: Path, environment: Mapping[str, str], refused_pin: RefusedPin
) -> SigningKey | None:
    """The private key that seals in the state folder, after it signed CHECK_MESSAGE; None: the first seal makes one. A
    PIN that its token refused is not given to it again. Raises SigningKeyError."""
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

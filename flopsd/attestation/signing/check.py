"""Whether a key can sign: it signs, and the signature is verified with its public key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flopsd.attestation.signing.base import SigningKey
from flopsd.attestation.signing.dsse import sign_message
from flopsd.attestation.signing.keys import default_key, load_signer
from flopsd.attestation.signing.public_key import need_extra
from flopsd.journal.state_dir import StateDir

# What a ledger's signature covers begins with "DSSEv1 ", so this one is of no ledger.
CHECK_MESSAGE = b"flopsd: a check that this key can sign; it states nothing\n"


def check_configured(uri: str | None, folder: Path, environment: Mapping[str, str]) -> SigningKey | None:
    """The private key that seals in the state folder, after it signed CHECK_MESSAGE; None: the first seal makes one.

    A refused PIN is noted in the folder, and is not given to its token again. Raises SigningKeyError.
    """
    need_extra()
    if uri is None:
        made = default_key(folder)
        if not made.exists():
            return None
        uri = str(made)
    key = load_signer(uri, environment, refused_pin=StateDir(folder).refused_pin)
    sign_message(CHECK_MESSAGE, key)
    return key

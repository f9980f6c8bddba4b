"""Read, decrypt and create private keys in PEM files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from flopsd.attestation.signing.base import SigningKey
from flopsd.attestation.signing.public_key import NEW_KEY, need_extra, pem_labels, read_pem, usable
from flopsd.attestation.signing.secrets import passphrase
from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.isolation import key_file
from flopsd.errors import SigningKeyError
from flopsd.settings.load import PASSPHRASE, PASSPHRASE_FILE
from flopsd.system.atomic_files import new_file

NO_PASSPHRASE = f"set {PASSPHRASE_FILE} to a file that contains the passphrase, or {PASSPHRASE} to the passphrase"


@dataclass(frozen=True)
class PemKey(SigningKey):
    """A private key in the memory of this process."""

    path: Path
    _private: Any = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """Ed25519, or ECDSA over SHA-256 in DER."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        signature: bytes = (
            self._private.sign(message)
            if self.public.type == "ed25519"
            else self._private.sign(message, ECDSA(SHA256()))
        )
        return signature

    def readers(self) -> dict[str, Any]:
        try:
            found = self.path.stat()
        except OSError:
            return {"kind": "file_gone"}
        return key_file(found.st_uid, found.st_mode)

    def describe(self) -> str:
        return f"the {self.public.type} key in the file {self.path}"


def load_pem(path: Path, environment: Mapping[str, str]) -> PemKey:
    """The private key in a PEM file, decrypted with the passphrase of the environment. Raises SigningKeyError."""
    need_extra()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data, secret = read_private(path, environment)
    try:
        private: Any = load_pem_private_key(data, password=secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        if secret is not None:
            raise SigningKeyError(
                f"{path} cannot be decrypted with the given passphrase: {fault}", hint=NO_PASSPHRASE, reason="secret"
            ) from None
        raise _not_private(path) from fault
    return PemKey(usable(private.public_key(), str(path)), path, private)


def read_private(path: Path, environment: Mapping[str, str]) -> tuple[bytes, bytes | None]:
    """The only private key in a PEM file, still encoded, and its passphrase if it is encrypted. Loads no cryptography.
    Raises SigningKeyError."""
    data = read_pem(path, "key")
    labels = [label for label in pem_labels(data) if label != "EC PARAMETERS"]
    if len(labels) > 1:
        raise SigningKeyError(f"{path} contains {len(labels)} PEM blocks", hint="put each key into a separate file")
    if labels and "PRIVATE KEY" not in labels[0]:
        raise SigningKeyError(
            f"{path} contains a {labels[0].lower()}, not a private key", hint="signing needs the private key"
        )
    if not labels:
        raise _not_private(path)
    # PKCS#8 marks encryption in its label, OpenSSL's older form in a header.
    if labels != ["ENCRYPTED PRIVATE KEY"] and b"Proc-Type: 4,ENCRYPTED" not in data:
        return data, None
    secret = passphrase(environment)
    if secret is None:
        raise SigningKeyError(f"{path} is encrypted and no passphrase is given", hint=NO_PASSPHRASE, reason="secret")
    return data, secret


def _not_private(path: Path) -> SigningKeyError:
    return SigningKeyError(f"{path} is not a PEM private key of a supported kind", hint=NEW_KEY, reason="wrong_kind")


def make_pem(path: Path, kind: str = "ed25519", secret: bytes | None = None) -> PemKey:
    """A new private key at `path`, mode 0600, encrypted with `secret` if given. Never overwrites. `kind` is `ed25519`
    or `p256`. Raises SigningKeyError."""
    need_extra()
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private: Any = Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(SECP256R1())
    lock = form.NoEncryption() if secret is None else form.BestAvailableEncryption(secret)
    write_new(path, private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock), 0o600)
    return PemKey(usable(private.public_key(), str(path)), path, private)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file durably, whole or not at all; never overwrite one. Raises SigningKeyError."""
    try:
        new_file(path, data, mode)
    except FileExistsError as fault:
        raise SigningKeyError(
            f"{path} already exists; keys are never overwritten", hint="give another file name"
        ) from fault
    except OSError as fault:
        raise SigningKeyError(
            f"cannot create {path}: {fault.strerror}", hint="name a file in a folder that can be written"
        ) from fault

"""Keys: private ones by URI, public ones from PEM files, of the kinds that others can verify too.

The keyid is the hex SHA-256 of the SPKI DER and only a hint: trust follows from public keys, never from it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.errors import SigningKeyError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

DEFAULT_KEY_NAME = "flopsd-key.pem"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that can sign, and its public half as PEM."""

    signer: CryptoSigner
    public_pem: bytes


def load_signer(uri: str) -> SigningKey:
    """The private key of a key URI: `file:PATH` or a path, PEM, Ed25519 or P-256, not encrypted.

    Raises SigningKeyError.
    """
    _need_extra()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    path = _key_path(uri)
    try:
        private: Any = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as fault:
        raise SigningKeyError(
            f"cannot read the key {path}: {fault.strerror}", hint="give --key a readable PEM file"
        ) from fault
    except (ValueError, TypeError) as fault:
        raise SigningKeyError(
            f"{path} is not an unencrypted PEM private key",
            hint="make one: openssl genpkey -algorithm ed25519 -out key.pem",
        ) from fault
    public = private.public_key()
    pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(CryptoSigner(private, _public(public, str(path))), pem)


def load_public(file: str) -> SSlibKey:
    """The public key in a PEM file. Raises SigningKeyError."""
    _need_extra()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    path = Path(file)
    try:
        data = path.read_bytes()
        public: Any = load_pem_public_key(data)
    except OSError as fault:
        raise SigningKeyError(f"cannot read the public key {path}: {fault.strerror}") from fault
    except (ValueError, TypeError) as fault:
        what = (
            "holds a private key; give the verifier the public one"
            if b"PRIVATE KEY" in data
            else "is not a PEM public key"
        )
        raise SigningKeyError(f"{path} {what}") from fault
    return _public(public, str(path))


def ensure_key(uri: str | None, state_dir: Path) -> tuple[str, bool]:
    """The key URI to use, and whether its file was made just now: Ed25519, mode 0600, in `state_dir`.

    Raises SigningKeyError.
    """
    if uri is not None:
        return uri, False
    path = state_dir / DEFAULT_KEY_NAME
    if path.exists():
        return str(path), False
    _need_extra()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary: str | None = None  # linked when it is whole: a rolling seal may be killed at any moment
    try:
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=state_dir)  # mode 0600
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return str(path), False  # another sealer was faster
    except OSError as fault:
        raise SigningKeyError(f"cannot make a key at {path}: {fault.strerror}") from fault
    finally:
        if temporary is not None:
            os.unlink(temporary)
    return str(path), True


def _public(public: Any, where: str) -> SSlibKey:
    """A key of a kind that others can verify too, with the digest of its SPKI DER as keyid."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from securesystemslib.signer import SSlibKey

    curve = public.curve if isinstance(public, EllipticCurvePublicKey) else None
    if not isinstance(public, Ed25519PublicKey) and not isinstance(curve, SECP256R1):
        raise SigningKeyError(
            f"{where} is neither an Ed25519 nor a P-256 key",
            hint="make one: openssl genpkey -algorithm ed25519 -out key.pem",
        )
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SSlibKey.from_crypto(public, keyid=hashlib.sha256(der).hexdigest())


def _key_path(uri: str) -> Path:
    scheme, colon, rest = uri.partition(":")
    if not colon or "/" in scheme:
        return Path(uri)
    if scheme == "file":
        return Path(rest)
    raise SigningKeyError(f"keys of the kind {scheme!r} are not supported by this flopsd", hint="use file:PATH")


def _need_extra() -> None:
    try:
        import cryptography  # noqa: F401
        import securesystemslib  # noqa: F401
    except ImportError as fault:
        raise SigningKeyError(
            "sealing and verifying need the packages of the extra 'seal'", hint="pip install 'flopsd[seal]'"
        ) from fault

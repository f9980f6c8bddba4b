"""Public keys: Ed25519 and P-256 only, since every verifier supports these.

The keyid is the hex SHA-256 of the SPKI DER and only a hint: verification trusts public keys, never key ids.
"""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from flopsd.errors import SigningKeyError
from flopsd.system.regular_files import open_regular
from flopsd.system.sha256 import hex_sha256

MAX_PEM_BYTES = 64 * 1024
NEW_KEY = "create one: flopsd key new key.pem"
NEEDS_SEAL = "sealing and verifying need the packages of the extra 'seal'", "pip install 'flopsd[seal]'"
_P = 2**255 - 19  # the prime of Ed25519's field, and its curve's constant d
_D = -121665 * pow(121666, -1, _P) % _P
_P256_DER = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")  # the DER before the point
_OBTAIN = "obtain the public key from whoever signs with it"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")  # also inside a line, since cryptography finds one there


class PublicKey(NamedTuple):
    """A public key of a kind that may sign ledgers. `type` is `ed25519` or `p256`, `pem` its SubjectPublicKeyInfo."""

    keyid: str
    type: str
    pem: bytes
    key: Any  # of pyca/cryptography

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` over `message` is one of this key: Ed25519, or ECDSA over SHA-256 in DER."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            self.key.verify(signature, message, *([ECDSA(SHA256())] if self.type == "p256" else []))
        except InvalidSignature:
            return False
        return True


def load_public(file: str) -> PublicKey:
    """The only public key of a PEM file. Raises SigningKeyError."""
    return parse_public(read_pem(Path(file), "public key"), file)


def parse_public(data: bytes, where: str) -> PublicKey:
    """The only public key in PEM `data`; `where` names it in errors. Raises SigningKeyError."""
    need_extra()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    labels = pem_labels(data)
    if any(label.endswith("PRIVATE KEY") for label in labels):
        raise SigningKeyError(
            f"{where} contains a private key, and a verifier needs the public one",
            hint="`flopsd key show` prints the public key of a private one",
        )
    if any(label.endswith("CERTIFICATE") for label in labels):
        raise SigningKeyError(
            f"{where} contains a certificate, not a public key",
            hint=f"flopsd does not check issuers; to trust the key itself: openssl x509 -in {where} -pubkey -noout",
        )
    if len(labels) > 1:
        raise SigningKeyError(f"{where} contains {len(labels)} keys", hint="put each public key into a separate file")
    try:
        public: Any = load_pem_public_key(data)
    except UnsupportedAlgorithm as fault:
        raise _unusable(where, "", _OBTAIN) from fault
    except (ValueError, TypeError) as fault:
        if _of_p256(data):
            raise SigningKeyError(
                f"{where} has a point that is not on P-256", hint=_OBTAIN, code="key_not_allowed"
            ) from fault
        is_cut = labels == ["PUBLIC KEY"]
        hint = "it was cut off or altered: get it again" if is_cut else "it must begin with -----BEGIN PUBLIC KEY-----"
        raise SigningKeyError(f"{where} is not a PEM public key", hint=hint) from fault
    return usable(public, where, _OBTAIN)


def _of_p256(pem: bytes) -> bool:
    """Whether the PEM has the form of a P-256 SubjectPublicKeyInfo, on the curve or not."""
    found = re.search(rb"-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----", pem)
    with suppress(ValueError):
        return found is not None and base64.b64decode(found[1]).startswith(_P256_DER)
    return False


def usable(public: Any, where: str, remedy: str = NEW_KEY) -> PublicKey:
    """A key of pyca/cryptography as a PublicKey. Raises SigningKeyError for any other kind or curve, with the hint
    `remedy`, and for an Ed25519 key of small order."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    curve = public.curve if isinstance(public, EllipticCurvePublicKey) else None
    if not isinstance(public, Ed25519PublicKey) and not isinstance(curve, SECP256R1):
        raise _unusable(where, "" if curve is None else f"; it is on the curve {curve.name}", remedy)
    if isinstance(public, Ed25519PublicKey) and _is_of_small_order(public.public_bytes_raw()):
        raise SigningKeyError(
            f"{where} is an Ed25519 key of small order: anybody can sign with it",
            hint="such a key is not made by accident: get the real one from the signer, and do not trust this one",
            code="key_not_allowed",
        )
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(hex_sha256(der), "ed25519" if curve is None else "p256", pem, public)


def _is_of_small_order(point: bytes) -> bool:
    """Whether eight times the point is the identity; y need not be reduced. y is 1 for order 1, -1 for order 2, 0 for
    order 4. A point of order 8 has a double with y = 0, so that the curve's equation gives d y^4 + 2 y^2 = 1."""
    y = int.from_bytes(point, "little") % 2**255 % _P
    return y * (y * y - 1) * (_D * y**4 + 2 * y * y - 1) % _P == 0


def read_pem(path: Path, what: str) -> bytes:
    """The bytes of a key file. Raises SigningKeyError if it is unreadable or larger than MAX_PEM_BYTES."""
    try:
        with open_regular(path) as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as fault:
        raise SigningKeyError(
            f"cannot read the {what} {path}: {fault.strerror}",
            hint="give the path of a readable PEM file",
            reason="not_found",
        ) from fault
    if len(data) > MAX_PEM_BYTES:
        raise SigningKeyError(f"{path} has more than {MAX_PEM_BYTES} bytes: it is not a {what}")
    return data


def pem_labels(data: bytes) -> list[str]:
    return [label.decode("ascii") for label in _BLOCK.findall(data)]


def is_public(data: bytes) -> bool:
    """Whether PEM `data` has blocks, and none of them is a private key."""
    labels = pem_labels(data)
    return bool(labels) and not any(label.endswith("PRIVATE KEY") for label in labels)


def need_extra() -> None:
    """Raises SigningKeyError if the packages of the extra `seal` are not installed."""
    need_package("cryptography", NEEDS_SEAL)


def need_package(package: str, missing: tuple[str, str]) -> None:
    """Raises SigningKeyError with the text and hint in `missing` if the package is not installed. Imports nothing."""
    if find_spec(package) is None:
        raise SigningKeyError(missing[0], hint=missing[1], reason="not_installed")


def _unusable(where: str, detail: str, remedy: str) -> SigningKeyError:
    text = f"{where} is neither an Ed25519 nor a P-256 key{detail}"
    return SigningKeyError(text, hint=remedy, reason="wrong_kind", code="key_not_allowed")

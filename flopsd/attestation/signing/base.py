"""The interface of a private key: a file, AWS KMS or a PKCS#11 token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flopsd.attestation.signing.public_key import PublicKey

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey


@dataclass(frozen=True)
class SigningKey(ABC):
    """A private key that can sign, and its public half."""

    half: PublicKey

    @property
    def public(self) -> SSlibKey:
        return self.half.key

    @property
    def public_pem(self) -> bytes:
        return self.half.pem

    @abstractmethod
    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: Ed25519, or ECDSA over its SHA-256 in DER. Raises SigningKeyError."""

    @abstractmethod
    def describe(self) -> str:
        """The kind of key and its location, for messages; contains no secret."""

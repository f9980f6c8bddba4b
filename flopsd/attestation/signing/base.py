"""What every private key can do, wherever it lies."""

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
        """What the key is and where, in words for a log; holds no secret."""

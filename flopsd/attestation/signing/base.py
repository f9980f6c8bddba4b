"""The interface of a private key: a file, AWS KMS or a PKCS#11 token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from flopsd.attestation.signing.public_key import PublicKey
from flopsd.core.dataclass import dataclass


@dataclass(frozen=True)
class SigningKey(ABC):
    """A private key that can sign, and its public half."""

    public: PublicKey

    @abstractmethod
    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: Ed25519, or ECDSA over its SHA-256 in DER. Raises SigningKeyError."""

    @abstractmethod
    def readers(self) -> dict[str, Any]:
        """Who could read or use it, as a ledger records it: the kind of key, of a file its owner and mode."""

    @abstractmethod
    def describe(self) -> str:
        """The kind of key and its location, for messages; contains no secret."""

"""The interface of a private key: a file, AWS KMS or a PKCS#11 token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flopsd.attestation.signing.public_key import PublicKey
from flopsd.core.dataclass import dataclass
from flopsd.errors import FlopsdError, SigningKeyError


@contextmanager
def key_faults(what: str) -> Iterator[None]:
    """Turn any error of a key's libraries into a SigningKeyError; flopsd's own errors pass. The end of a run must still
    keep and copy a journal that cannot be signed."""
    try:
        yield
    except FlopsdError:
        raise
    except Exception as fault:
        raise SigningKeyError(
            f"{what} cannot be used: {type(fault).__name__}: {fault}", hint="check the key's module or service"
        ) from fault


@dataclass(frozen=True)
class SigningKey(ABC):
    """A private key that can sign, and its public half."""

    public: PublicKey

    @abstractmethod
    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: Ed25519, or ECDSA over its SHA-256 in DER. Raises SigningKeyError."""

    @abstractmethod
    def readers(self) -> dict[str, Any]:
        """Who could read or use the key, as a ledger records it: the kind of key, and the owner and mode of a file."""

    @abstractmethod
    def describe(self) -> str:
        """The kind of key and its location, for messages; contains no secret."""

"""SHA-256 and its HMAC without OpenSSL, which `hashlib` and `hmac` load: 4 MB, too much for a daemon that hashes a few
kilobytes a second. OpenSSL's SHA-256 is seven times as fast, and serves to hash many megabytes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from hashlib import _Hash

Hashing: TypeAlias = "Callable[[bytes], _Hash]"
MANY_BYTES = 16 << 20
_BLOCK_BYTES = 64
_INNER, _OUTER = bytes(x ^ 0x36 for x in range(256)), bytes(x ^ 0x5C for x in range(256))


def _pythons_own() -> Hashing:
    for module in ("_sha2", "_sha256", "hashlib"):  # since Python 3.12; before; if Python was built without either
        try:
            found: Hashing = import_module(module).sha256
        except ImportError:
            continue
        return found
    raise ImportError("this Python has no SHA-256")


def _comparison() -> Callable[[bytes, bytes], bool]:
    try:
        from _operator import _compare_digest
    except ImportError:  # hmac takes it from there too
        from hmac import compare_digest

        return compare_digest
    return _compare_digest


sha256 = _pythons_own()
same_digest = _comparison()  # in a time that does not depend on where two digests differ


def hex_sha256(data: bytes) -> str:
    return sha256(data).hexdigest()


def file_sha256(path: str) -> str | None:
    """Return the digest of a file in hex; None if it cannot be read."""
    whole = sha256(b"")
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                whole.update(chunk)
    except OSError:
        return None
    return whole.hexdigest()


def sha256_for(size_bytes: int) -> Hashing:
    """Return the implementation to use for this many bytes."""
    return sha256 if size_bytes < MANY_BYTES else fastest()


def fastest() -> Hashing:
    """Return OpenSSL's implementation, which then stays loaded."""
    import hashlib

    return hashlib.sha256


def hmac_sha256(key: bytes | bytearray, message: bytes) -> bytes:
    """Return the HMAC-SHA256 of `message`, by RFC 2104."""
    padded = (bytes(key) if len(key) <= _BLOCK_BYTES else sha256(bytes(key)).digest()).ljust(_BLOCK_BYTES, b"\0")
    inner = sha256(padded.translate(_INNER) + message).digest()
    return sha256(padded.translate(_OUTER) + inner).digest()

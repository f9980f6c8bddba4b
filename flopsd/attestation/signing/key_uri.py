"""Key URIs: a scheme, attributes and a query, percent-decoded by RFC 3986. Unknown attributes are errors."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from flopsd.errors import SigningKeyError

FORMS = "file:PATH, awskms:KEY-ID-OR-ALIAS, pkcs11:token=TOKEN;object=LABEL"


def scheme_of(uri: str) -> tuple[str, str]:
    """The scheme of a key URI and what follows it; a plain path has the scheme `file`."""
    scheme, colon, rest = uri.partition(":")
    if not colon or "/" in scheme:
        return "file", uri
    return scheme, rest


def attributes(text: str, separator: str, known: Iterable[str], what: str) -> dict[str, bytes]:
    """`name=value` pairs as bytes by name. Raises SigningKeyError if one is unknown, repeated or without a value."""
    found: dict[str, bytes] = {}
    for part in filter(None, text.split(separator)):
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            raise SigningKeyError(f"{what}: unknown attribute {name!r}", hint=f"known: {', '.join(known)}")
        if name in found:
            raise SigningKeyError(f"{what}: {name!r} is given twice")
        found[name] = unquote_to_bytes(value)
    return found


def as_text(found: dict[str, bytes], name: str, what: str) -> str | None:
    """One attribute as text; None if it is not given. Raises SigningKeyError."""
    if name not in found:
        return None
    if b"\0" in found[name]:
        raise SigningKeyError(f"{what}: {name!r} contains a zero byte")
    try:
        return found[name].decode("utf-8")
    except UnicodeDecodeError as fault:
        raise SigningKeyError(f"{what}: {name!r} is not UTF-8 text") from fault

"""Strict JSON and the DSSE envelope's shape. Pure; signatures are made and checked in seal.py."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from flopsd.errors import NotVerifiedError

MAX_ENVELOPE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE v1 envelope, decoded. `signatures` hold (keyid hint, signature bytes); `extensions` hold what else
    stands in the object of each signature, unsigned as it is.
    """

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]
    extensions: tuple[Mapping[str, Any], ...] = ()

    def timestamps(self, index: int) -> tuple[bytes, ...]:
        """RFC 3161 responses beside a signature. Raises NotVerifiedError where they are not base64."""
        listed = self.extensions[index].get("timestamps") if index < len(self.extensions) else None
        tokens = [
            one.get("token")
            for one in (listed if isinstance(listed, list) else [])
            if isinstance(one, dict) and one.get("type") == "rfc3161"
        ]
        return tuple(_base64(token if isinstance(token, str) else "*", "a timestamp") for token in tokens)


def parse_json(data: bytes, what: str) -> Any:
    """JSON that no two readers can read differently.

    Raises NotVerifiedError for duplicate keys, floats, NaN, huge integers, lone surrogates, non-UTF-8.
    """

    def refuse(text: str) -> NoReturn:
        raise NotVerifiedError(f"{what} holds the number {text[:40]!r}, which is no whole number of at most 40 digits")

    def whole(text: str) -> int:
        return int(text) if len(text) <= 40 else refuse(text)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            raise NotVerifiedError(f"{what} names {next(k for k in keys if keys.count(k) > 1)!r} twice")
        return found

    try:
        text = data.decode("utf-8")
        parsed = json.loads(text, parse_float=refuse, parse_constant=refuse, parse_int=whole, object_pairs_hook=unique)
        if "\\u" in text:
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")  # a lone surrogate cannot be encoded
    except UnicodeError as fault:
        raise NotVerifiedError(f"{what} is not valid UTF-8 text") from fault
    except json.JSONDecodeError as fault:
        raise NotVerifiedError(f"{what} is not JSON: {fault}") from fault
    except RecursionError as fault:
        raise NotVerifiedError(f"{what} is nested too deeply") from fault
    return parsed


def parse_envelope(data: bytes) -> Envelope:
    """The DSSE envelope in `data`. Raises NotVerifiedError with the first fault."""
    if len(data) > MAX_ENVELOPE_BYTES:
        raise NotVerifiedError(
            f"the ledger has {len(data)} bytes, more than the {MAX_ENVELOPE_BYTES} that a ledger may have"
        )
    document = parse_json(data, "the ledger")
    if not isinstance(document, dict):
        raise NotVerifiedError("the ledger is not a JSON object")
    payload_type, signatures = document.get("payloadType"), document.get("signatures")
    if not isinstance(payload_type, str) or not isinstance(document.get("payload"), str):
        raise NotVerifiedError("the ledger is not a DSSE envelope: it needs payload and payloadType as text")
    if not isinstance(signatures, list) or not signatures:
        raise NotVerifiedError("the ledger is not signed: it has no signatures")
    found, extensions = [], []
    for signature in signatures:
        if not isinstance(signature, dict) or not isinstance(signature.get("sig"), str):
            raise NotVerifiedError("the ledger has a signature without 'sig'")
        keyid = signature.get("keyid") or ""
        found.append((keyid if isinstance(keyid, str) else "", _base64(signature["sig"], "a signature")))
        extensions.append({name: value for name, value in signature.items() if name not in ("keyid", "sig")})
    return Envelope(_base64(document["payload"], "the payload"), payload_type, tuple(found), tuple(extensions))


def _base64(text: str, what: str) -> bytes:
    """Standard or URL-safe base64, as DSSE v1.0.2 asks of verifiers; nothing else passes."""
    try:
        raw = text.encode("ascii").replace(b"-", b"+").replace(b"_", b"/")
        return base64.b64decode(raw, validate=True)
    except (UnicodeError, binascii.Error) as fault:
        raise NotVerifiedError(f"{what} is not base64") from fault


def encode_envelope(
    payload: bytes,
    payload_type: str,
    signatures: list[tuple[str, bytes]],
    extensions: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """The envelope file for a payload and its (keyid, signature) pairs, with what else stands beside each."""
    beside = [*extensions, *({} for _ in signatures[len(extensions) :])]
    return (
        json.dumps(
            {
                "payload": base64.b64encode(payload).decode("ascii"),
                "payloadType": payload_type,
                "signatures": [
                    {"keyid": keyid, "sig": base64.b64encode(sig).decode("ascii"), **more}
                    for (keyid, sig), more in zip(signatures, beside, strict=True)
                ],
            },
            indent=1,
        ).encode("ascii")
        + b"\n"
    )

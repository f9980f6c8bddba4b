"""Decoder and encoder of the DSSE envelope. Pure; `attestation/signing/dsse.py` makes and checks its signatures."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.untrusted import parse_json
from flopsd.errors import NotVerifiedError

MAX_ENVELOPE_BYTES = 64 * 1024 * 1024
_BEGIN, _PIECE = b'{\n "payload": "', 4 << 16
MAX_SIGNATURES = 64  # each is tried with every key, over the whole payload


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded DSSE v1 envelope. `signatures` are (keyid hint, signature bytes); `extensions` are the other, unsigned
    members of each signature object."""

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]
    extensions: tuple[Mapping[str, Any], ...] = ()

    def has_timestamps(self, index: int) -> bool:
        return index < len(self.extensions) and "timestamps" in self.extensions[index]

    def timestamps(self, index: int) -> tuple[bytes, ...]:
        """The RFC 3161 responses next to a signature. Raises NotVerifiedError if they are not base64."""
        listed = self.extensions[index].get("timestamps") if index < len(self.extensions) else None
        tokens = [
            one.get("token")
            for one in (listed if isinstance(listed, list) else [])
            if isinstance(one, dict) and one.get("type") == "rfc3161"
        ]
        return tuple(_base64(token if isinstance(token, str) else "*", "a timestamp") for token in tokens)


def parse_envelope(data: bytes) -> Envelope:
    """Decode the DSSE envelope in `data`. Raises NotVerifiedError with the first fault."""
    if len(data) > MAX_ENVELOPE_BYTES:
        raise _refused(f"has more than {MAX_ENVELOPE_BYTES} bytes, the limit for a ledger", "envelope_too_large")
    split = _split_payload(data)
    payload, document = split or (b"", parse_json(data, "the ledger", "envelope"))
    del data  # for a job of thousands of nodes each copy takes about 50 MB
    if not isinstance(document, dict):
        raise _refused("is not a JSON object")
    payload_type, signatures = document.get("payloadType"), document.get("signatures")
    if not isinstance(payload_type, str) or not isinstance(document.get("payload"), str):
        raise _refused("is not a DSSE envelope: payload and payloadType must be text")
    if not isinstance(signatures, list) or not signatures:
        raise _refused("is not signed: it has no signatures", "no_signature")
    if len(signatures) > MAX_SIGNATURES:
        raise _refused(f"has {len(signatures)} signatures; at most {MAX_SIGNATURES} are checked", "too_many_signatures")
    found, extensions = [], []
    for signature in signatures:
        if not isinstance(signature, dict) or not isinstance(signature.get("sig"), str):
            raise _refused("has a signature without the text 'sig'")
        keyid = signature.get("keyid") or ""
        found.append((keyid if isinstance(keyid, str) else "", _base64(signature["sig"], "a signature")))
        extensions.append({name: value for name, value in signature.items() if name not in ("keyid", "sig")})
    if split is None:
        payload = _base64(document.pop("payload"), "the payload")
    return Envelope(payload, payload_type, tuple(found), tuple(extensions))


def _refused(why: str, code: str = "envelope_malformed") -> NotVerifiedError:
    return NotVerifiedError(f"the ledger {why}", code=code, path="envelope")


def _split_payload(data: bytes) -> tuple[bytes, Any] | None:
    """The payload of an envelope in the layout of `encode_envelope`, and the rest of the envelope; None for any other
    layout or any fault. Nearly all of an envelope is its payload, and parsing that as JSON is avoided."""
    end = data.find(b'"', len(_BEGIN))
    if not data.startswith(_BEGIN) or end < 0:
        return None
    try:
        payload = _decoded(data, len(_BEGIN), end)
        return payload, parse_json(_BEGIN + data[end:], "")
    except (ValueError, NotVerifiedError):
        return None


def _decoded(data: bytes, begin: int, end: int) -> bytes:
    """Decode padded base64 in the standard alphabet piece by piece. Raises ValueError for other text."""
    found = []
    for at in range(begin, end, _PIECE):
        piece = data[at : min(at + _PIECE, end)]
        if piece.endswith(b"=") and at + _PIECE < end:
            raise ValueError("padding is at the end")
        found.append(_canonical(piece))
    return b"".join(found)


def encode64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _base64(text: str, what: str) -> bytes:
    """Decode base64 in the standard or URL-safe alphabet, padded or not; ambiguous text is refused."""
    raw = text.encode("ascii", "replace").replace(b"-", b"+").replace(b"_", b"/")
    if b"=" not in raw:
        raw += b"=" * (-len(raw) % 4)
    try:
        return _canonical(raw)
    except ValueError as fault:
        raise NotVerifiedError(f"{what} is not base64", code="base64", path="envelope") from fault


def _canonical(raw: bytes) -> bytes:
    """Decode padded base64 in the standard alphabet. Raises ValueError for any encoding but the canonical one."""
    found = base64.b64decode(raw, validate=True)
    last = (len(found) - 1) // 3 * 3  # start of the last group: only there can be bits after the last byte
    if len(raw) != -(-len(found) // 3) * 4 or base64.b64encode(found[last:]) != raw[last // 3 * 4 :]:
        raise ValueError("not in canonical base64")
    return found


def encode_envelope(payload: bytes, payload_type: str, signatures: list[tuple[str, bytes]]) -> bytes:
    """Encode the envelope file for a payload and its (keyid, signature) pairs."""
    signed = [{"keyid": keyid, "sig": encode64(sig)} for keyid, sig in signatures]
    document = {"payload": encode64(payload), "payloadType": payload_type, "signatures": signed}
    return json.dumps(document, indent=1).encode("ascii") + b"\n"

"""Sign and write a statement with long lists without loading them: first the payload, then the envelope."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from flopsd.attestation.ledger_files import LEDGER_MODE
from flopsd.attestation.signing.base import SigningKey
from flopsd.attestation.signing.dsse import sign_message
from flopsd.core.envelope import MAX_ENVELOPE_BYTES, encode64
from flopsd.core.ledger.statement import PAYLOAD_TYPE
from flopsd.errors import LedgerError
from flopsd.system.atomic_files import replacing

_ROOM = 128  # bytes kept free before the payload for the DSSE prefix, which contains the payload's length
_CHUNK = 3 * 65536


class JsonLines:
    """A list whose items are read one by one, each as a line of JSON."""

    def __init__(self, lines: Callable[[], Iterable[str]]) -> None:
        self.lines = lines


def write_json(out: IO[bytes], value: Any, depth: int = 0) -> None:
    """Write JSON in the layout of `encode`, but each item of `JsonLines` on one line."""
    pad = " " * depth
    if isinstance(value, JsonLines):
        between = "["
        for line in value.lines():
            out.write(f"{between}\n{pad} {line}".encode("ascii"))
            between = ","
        out.write(b"[]" if between == "[" else f"\n{pad}]".encode("ascii"))
    elif isinstance(value, Mapping) and depth < 2 and value:
        between = "{"
        for name, item in value.items():
            out.write(f"{between}\n{pad} {json.dumps(name)}: ".encode("ascii"))
            write_json(out, item, depth + 1)
            between = ","
        out.write(f"\n{pad}}}".encode("ascii"))
    else:
        out.write(json.dumps(value, indent=1, allow_nan=False).replace("\n", f"\n{pad}").encode("ascii"))


def refuse_too_large(payload_bytes: int) -> None:
    """Raises LedgerError if a payload of so many bytes makes a larger envelope than a verifier reads."""
    if payload_bytes * 4 // 3 + 4096 > MAX_ENVELOPE_BYTES:
        raise LedgerError(
            f"the merged ledger would have {payload_bytes * 4 // 3} bytes or more; at most {MAX_ENVELOPE_BYTES} are "
            "allowed",
            hint="merge the parts of the job into several ledgers",
        )


def sign_statement(statement: Mapping[str, Any], key: SigningKey, ledger: Path, folder: Path) -> str:
    """Write the signed `statement` to `ledger`, completely or not at all. Return the SHA-256 of its payload. Raises
    LedgerError if the envelope would be larger than a verifier reads. Holds the payload in memory once, since Ed25519
    cannot sign a stream."""
    with (folder / "payload").open("w+b") as file:
        file.seek(_ROOM)
        write_json(file, statement)
        file.write(b"\n")
        size = file.tell() - _ROOM
        refuse_too_large(size)
        prefix = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {size} ".encode("ascii")
        file.seek(_ROOM - len(prefix))
        file.write(prefix)
        file.seek(_ROOM - len(prefix))
        signed = file.read()
        signature = sign_message(signed, key)
        digest = hashlib.sha256(memoryview(signed)[len(prefix) :]).hexdigest()
        del signed
        file.seek(_ROOM)
        with replacing(ledger, LEDGER_MODE) as out:
            _write_envelope(out, file, key.public.keyid, signature)
    return digest


def _write_envelope(out: IO[bytes], payload: IO[bytes], keyid: str, signature: bytes) -> None:
    """Write the same bytes as `encode_envelope`."""
    out.write(b'{\n "payload": "')
    while chunk := payload.read(_CHUNK):
        out.write(base64.b64encode(chunk))
    rest = {"payloadType": PAYLOAD_TYPE, "signatures": [{"keyid": keyid, "sig": encode64(signature)}]}
    out.write(b'",\n ' + json.dumps(rest, indent=1).encode("ascii").removeprefix(b"{\n ") + b"\n")

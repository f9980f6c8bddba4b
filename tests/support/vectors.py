"""The test vectors of the ledger's format: `python -m tests.support.vectors` writes them anew.

Deterministic to the byte: fixed keys, a fake clock, RFC 6979 for P-256. They are goldens: read the diff.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flopsd.attestation.signing.dsse import pae
from flopsd.core.envelope import Envelope, encode_envelope
from flopsd.core.ledger.history import read_history
from flopsd.core.ledger.statement import PAYLOAD_TYPE, JournalFacts, SealFacts, encode, statement
from flopsd.journal.framing import GENESIS, JournalLine, read_lines
from tests.support.story import VECTORS, VERSION, policy, table

SEALED_AT = "2026-09-21T15:00:00.000000Z"


@dataclass(frozen=True)
class Key:
    """A key that everybody knows, made from its name."""

    name: str
    kind: str = "ed25519"

    @property
    def private(self) -> Any:
        seed = hashlib.sha256(f"flopsd test vector, a public key pair: {self.name}".encode()).digest()
        if self.kind == "ed25519":
            return ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        return ec.derive_private_key(int.from_bytes(seed, "big") >> 1, ec.SECP256R1())

    @property
    def public_pem(self) -> bytes:
        pem: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    @property
    def keyid(self) -> str:
        der = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    def sign(self, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> tuple[str, bytes]:
        signed, private = pae(Envelope(payload, payload_type, ())), self.private
        if self.kind == "ed25519":
            return self.keyid, private.sign(signed)
        return self.keyid, private.sign(signed, ec.ECDSA(SHA256(), deterministic_signing=True))


FIRST, SECOND, P256 = Key("first"), Key("second"), Key("third", "p256")


@dataclass(frozen=True)
class Case:
    """One vector. `reason` is what flopsd says of one that must be refused; `schema` what the JSON Schema does with
    its payload: None where the fault keeps it from being read, or lies where no schema looks."""

    name: str
    what: str
    ledger: bytes
    journal: bytes | None
    reason: str | None = None
    keys: tuple[Key, ...] = (FIRST,)
    threshold: int = 1
    allow_replay: bool = False
    schema: bool | None = True

    @property
    def folder(self) -> Path:
        return VECTORS / ("valid" if self.reason is None else "invalid") / self.name

    def expected(self) -> dict[str, Any]:
        return {
            "verdict": "accept" if self.reason is None else "refuse",
            "reason": self.reason,
            "keys": [f"{key}.pub" for key in self.key_names()],
            "threshold": self.threshold,
            "allowReplay": self.allow_replay,
            "schema": {True: "accepts", False: "refuses", None: "not applicable"}[self.schema],
        }

    def key_names(self) -> list[str]:
        return ["ledger", *(f"key{n}" for n in range(2, len(self.keys) + 1))]

    def files(self) -> dict[str, bytes]:
        files = {f"{name}.pub": key.public_pem for name, key in zip(self.key_names(), self.keys, strict=True)}
        files |= {"ledger.json": self.ledger, "README.md": self.readme().encode()}
        files["expected.json"] = json.dumps(self.expected(), indent=1).encode() + b"\n"
        if self.journal is not None:
            files["ledger.journal.jsonl"] = self.journal
        return files

    def readme(self) -> str:
        keys = " ".join(f"--key {name}.pub" for name in self.key_names())
        options = (f" --threshold {self.threshold}" if self.threshold > 1 else "") + (
            " --allow-replay" if self.allow_replay else ""
        )
        must = "Must be accepted." if self.reason is None else f"Must be refused. flopsd's reason:\n\n    {self.reason}"
        return (
            f"# {self.name}\n\n{self.what}\n\n{must}\n\n"
            f"    flopsd verify ledger.json {keys} --peaks ../../peaks.yaml --policy ../../policy.yaml{options}\n"
        )


def lines_of(journal: bytes) -> list[bytes]:
    return journal.splitlines(keepends=True)


def parsed(journal: bytes) -> list[JournalLine]:
    return list(read_lines(io.BytesIO(journal), GENESIS))


def facts_of(journal: bytes) -> JournalFacts:
    good = parsed(journal)
    head = good[-1].head if good else GENESIS
    return JournalFacts(hashlib.sha256(journal).hexdigest(), len(journal), len(good), head.hex())


def statement_of(journal: bytes) -> dict[str, Any]:
    """What flopsd says of a journal."""
    history = read_history(line.record() for line in parsed(journal))
    judged = (policy(),) if history.policy_sha256 else ()
    return statement(history, table(), facts_of(journal), SealFacts(VERSION, SEALED_AT, policies=judged))


def claimed(journal: bytes, said: dict[str, Any]) -> dict[str, Any]:
    """The statement `said` over `journal`, true or not."""
    facts, document = facts_of(journal), copy.deepcopy(said)
    document["subject"][0]["digest"]["sha256"] = facts.sha256
    document["predicate"]["method"]["journal"].update(
        sha256=facts.sha256, bytes=str(facts.size_bytes), records=str(facts.records), headSha256=facts.head_sha256
    )
    return document


def edited(said: dict[str, Any], edit: Callable[[dict[str, Any]], object]) -> bytes:
    """The payload of a statement after an edit."""
    document = copy.deepcopy(said)
    edit(document)
    return encode(document)


def signed(payload: bytes, *keys: Key, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The envelope over any payload."""
    return encode_envelope(payload, payload_type, [key.sign(payload, payload_type) for key in keys or (FIRST,)])


def write(cases: list[Case]) -> None:
    for folder in (VECTORS / "valid", VECTORS / "invalid"):
        shutil.rmtree(folder, ignore_errors=True)
    for case in cases:
        case.folder.mkdir(parents=True)
        for name, data in case.files().items():
            (case.folder / name).write_bytes(data)


def all_cases() -> list[Case]:
    from tests.support.vectors_invalid import invalid
    from tests.support.vectors_valid import valid

    return [*valid(), *invalid()]


if __name__ == "__main__":
    write(all_cases())

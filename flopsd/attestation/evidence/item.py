"""Items of evidence in a ledger, and the results of checking them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flopsd.core.dataclass import dataclass
from flopsd.core.field_reader import FieldReader, raising
from flopsd.core.ledger.history import History
from flopsd.core.notes import Note, note
from flopsd.errors import EvidenceError
from flopsd.settings.words import say
from flopsd.system.regular_files import open_regular

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


REASON = "evidence.reason"


class EvidenceState(str, Enum):
    """The result of checking an item. Only HOLDS means that something was verified."""

    HOLDS = "checked"
    NOT_CHECKED = "not checked"
    FAILED = "FAILED"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class EvidenceKind:
    """A kind of evidence: its name, the time allowed for collecting it, what it proves and what it does not."""

    name: str
    deadline_seconds: float
    proves: str
    limits: str

    def result(self, verdict: EvidenceState, text: str) -> EvidenceResult:
        return EvidenceResult(self.name, verdict, text, self.proves, self.limits)


@dataclass(frozen=True, slots=True)
class CollectContext:
    """The input of collectors. `root` is prefixed to every path that is read."""

    history: History
    head_sha256: str
    environment: Mapping[str, str] = field(default_factory=dict)
    root: Path = Path("/")
    witness_url: str | None = None


@dataclass(frozen=True, slots=True)
class CheckContext:
    """The input of checks: the journal, and the certificates that the verifier trusts."""

    history: History
    head_sha256: str
    aws_certificates: tuple[Certificate, ...] = ()
    tsa_chains: tuple[tuple[Certificate, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class EvidenceResult:
    """One line of evidence in the output of `verify`. Its texts are the verifier's, never the ledger's."""

    type: str
    verdict: EvidenceState
    text: str
    proves: str
    limits: str


class EvidenceModule(Protocol):
    """The interface of a module for one kind of evidence."""

    KIND: EvidenceKind

    def collect(self, context: CollectContext) -> dict[str, Any]:
        """The data of the item: strings, lists and mappings. Raises EvidenceError with the reason if there is none."""

    def check(self, data: Mapping[str, Any], context: CheckContext) -> tuple[EvidenceState, str]:
        """The result and its text. Raises EvidenceError if the data are invalid."""


def not_collected(code: str, **parameters: str) -> EvidenceError:
    """The error for absent evidence, with a reason from the table of words."""
    return EvidenceError(say(REASON, note(code, **parameters)), code=code, **parameters)


def reason_of(fault: EvidenceError) -> Note:
    """The reason for absent evidence. A fault without a code is quoted, in the words of driver, service or system."""
    if fault.code:
        return note(fault.code, **fault.parameters)
    return note("failed", said=str(fault).encode(errors="replace").decode())


def fields_of(data: Mapping[str, Any]) -> FieldReader:
    """A reader of an item's data, field by field with a type; a wrong field raises EvidenceError."""
    return FieldReader(data, "data", raising(EvidenceError))


def bytes_of(data: FieldReader, key: str) -> bytes:
    """The decoded bytes of a base64 field. Raises EvidenceError if it is not base64."""
    try:
        return base64.b64decode(data.text(key).encode("ascii"), validate=True)
    except (UnicodeError, binascii.Error) as fault:
        raise EvidenceError(f"{data.at(key)} is not base64") from fault


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The content of a file of at most `limit_bytes`. Raises EvidenceError naming the file."""
    try:
        with open_regular(path) as file:
            data = file.read(limit_bytes + 1)
    except OSError as fault:
        raise EvidenceError(f"cannot read {path}: {fault.strerror}") from fault
    if len(data) > limit_bytes:
        raise EvidenceError(f"{path} has more than {limit_bytes} bytes")
    return data

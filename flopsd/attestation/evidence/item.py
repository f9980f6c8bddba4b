"""What an item of evidence is in the ledger, and what a check of it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flopsd.core.ledger.history import History

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


class EvidenceState(str, Enum):
    """What came of checking an item. Only HOLDS says that something was verified."""

    HOLDS = "checked"
    NOT_CHECKED = "not checked"
    FAILED = "FAILED"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class EvidenceKind:
    """A kind of evidence: its name, how long collecting may take, and in words what it proves and what not."""

    name: str
    deadline_seconds: float
    proves: str
    limits: str


@dataclass(frozen=True, slots=True)
class CollectContext:
    """What collectors may look at. `root` stands before every file that is read."""

    history: History
    head_sha256: str
    environment: Mapping[str, str] = field(default_factory=dict)
    root: Path = Path("/")


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What a verifier holds items against: the journal, and the certificates that he trusts himself."""

    history: History
    head_sha256: str
    aws_certificates: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class EvidenceResult:
    """One line of evidence as `verify` tells it. The words are the verifier's own, never the ledger's."""

    type: str
    verdict: EvidenceState
    words: str
    proves: str
    limits: str

    def as_json(self) -> dict[str, str]:
        """For `--json`."""
        return {
            "type": self.type,
            "verdict": self.verdict.value,
            "words": self.words,
            "proves": self.proves,
            "limits": self.limits,
        }


class EvidenceModule(Protocol):
    """What a module of a kind offers."""

    KIND: EvidenceKind

    def collect(self, scene: CollectContext) -> dict[str, Any]:
        """The data of the item: strings, lists and mappings. Raises EvidenceError saying why there is none."""

    def check(self, data: Mapping[str, Any], grounds: CheckContext) -> tuple[EvidenceState, str]:
        """What a verifier finds, in words. Raises EvidenceError where the data do not hold."""


def present(kind: EvidenceKind, collected_at: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The item of something collected."""
    return _item(kind, collected_at, "present", None, data)


def absent(kind: EvidenceKind, collected_at: str, reason: str) -> dict[str, Any]:
    """The item of something that could not be had."""
    return _item(kind, collected_at, "absent", reason, None)


def _item(
    kind: EvidenceKind, collected_at: str, state: str, reason: str | None, data: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "type": kind.name,
        "collectedAt": collected_at,
        "state": state,
        "reason": reason,
        "data": data,
        "proves": kind.proves,
        "limits": kind.limits,
    }

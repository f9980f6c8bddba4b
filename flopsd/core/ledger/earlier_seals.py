"""Earlier seals of a journal, from its own records. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.tally_records import Record, count
from flopsd.core.notes import is_note
from flopsd.core.values import is_digest, is_timestamp


@dataclass(frozen=True, slots=True)
class EarlierSeal:
    """A ledger of the first `size_bytes` of the journal, which end with the chain hash `head_sha256`. `witness` is
    either a base64 `token` from the authority that timestamped the head, or a note of why there is none (`absent`);
    None: no witness was requested."""

    size_bytes: int
    head_sha256: str
    payload_sha256: str
    sealed_at: str
    witness: Mapping[str, Any] | None = None

    @property
    def token(self) -> str | None:
        return None if self.witness is None else self.witness.get("token")

    @classmethod
    def from_record(cls, record: Record) -> EarlierSeal:
        """Read a record. Raises KeyError or ValueError on anything else."""
        digests = record["head_sha256"], record["payload_sha256"]
        sealed_at, witness = record["utc"], record["witness"]
        if not all(map(is_digest, digests)) or not is_timestamp(sealed_at):
            raise ValueError("a record of a seal has a malformed digest or time")
        if witness is not None and (
            not isinstance(witness, dict)
            or list(witness) not in (["token"], ["absent"])
            or not (isinstance(witness["token"], str) if "token" in witness else is_note(witness["absent"]))
        ):
            raise ValueError("the witness of a seal must have either a token or the reason why it has none")
        return cls(count(record["bytes"]), *digests, sealed_at, witness)

    def for_journal(self, incarnation: int) -> dict[str, Any]:
        return {
            "kind": "sealed",
            "incarnation": incarnation,
            "bytes": self.size_bytes,
            "head_sha256": self.head_sha256,
            "payload_sha256": self.payload_sha256,
            "utc": self.sealed_at,
            "witness": None if self.witness is None else dict(self.witness),
        }

    def for_ledger(self) -> dict[str, str]:
        return {
            "payloadSha256": self.payload_sha256,
            "headSha256": self.head_sha256,
            "bytes": str(self.size_bytes),
            "sealedAt": self.sealed_at,
        }


@dataclass(slots=True)
class SealsSoFar:
    """A summary of the seals that a journal lists: a run of months has thousands of them, each with a token."""

    count: int = 0
    newest: EarlierSeal | None = None
    asked: int = 0  # seals for which a witness was requested, and the newest of them
    newest_asked: EarlierSeal | None = None
    stamped: list[EarlierSeal] = field(default_factory=list)  # the first and the newest with a token
    stamped_count: int = 0

    def add(self, seal: EarlierSeal) -> None:
        self.count, self.newest = self.count + 1, seal
        if seal.witness is None:
            return
        self.asked, self.newest_asked = self.asked + 1, seal
        if seal.token is not None:
            self.stamped[1:] = [seal]
            self.stamped_count += 1

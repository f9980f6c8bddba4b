"""One child at a time: verified whole, then reduced to the entry that the merged ledger keeps of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.attestation.merge.ledger_folders import FoundLedger
from flopsd.attestation.merge.recompute import MALFORMED, recompute
from flopsd.attestation.verify import Opened, open_ledger, verify_opened
from flopsd.core.envelope import parse_envelope
from flopsd.core.ledger.merged_claims import Claim, claims_of, device_claims, ledger_claim
from flopsd.core.ledger.merged_completeness import completeness_of_single
from flopsd.core.ledger.merged_entry import Entry, job_entry, node_entry
from flopsd.core.ledger.merged_statement import JOB, LINEAGE
from flopsd.core.ledger.statement import PREDICATE_TYPE
from flopsd.core.untrusted import parse_json
from flopsd.errors import FlopsdError, LedgerError, NotVerifiedError
from flopsd.settings.data_files import Tables

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

NODE = "node"


@dataclass(frozen=True, slots=True)
class Child:
    """A verified child: its entry, what it claims, and what all children of a job must agree on."""

    entry: Entry
    claims: list[Claim]
    run: Mapping[str, Any]
    roster: tuple[str, ...]


class ChildReader:
    """Makes children of a merged ledger of `kind` out of files, signed by one of `keys`."""

    def __init__(self, kind: str, keys: Sequence[SSlibKey], tables: Tables, *, allow_replay: bool) -> None:
        self._kind, self._keys, self._tables, self._allow_replay = kind, keys, tables, allow_replay

    def read(self, found: FoundLedger) -> Child | None:
        """The child in a file; None for a signed statement that is no ledger and was not asked for.

        Raises NotVerifiedError and LedgerError, which name the file.
        """
        try:
            return self._child(open_ledger(found.path, self._keys), found)
        except FlopsdError as fault:
            if not found.asked and not found.has_journal and _is_of_others(found.path):
                return None
            kind = NotVerifiedError if isinstance(fault, NotVerifiedError) else LedgerError
            raise kind(f"{found.label}: {found.told(str(fault))}", hint=found.told(fault.hint)) from fault
        except MALFORMED as fault:
            raise NotVerifiedError(f"{found.label}: this is not what flopsd writes: {fault!r:.200}") from fault

    def _child(self, opened: Opened, found: FoundLedger) -> Child:
        kind, predicate = opened.kind, opened.statement["predicate"]
        if kind == JOB and self._kind == LINEAGE:
            recompute(opened, self._tables, allow_replay=self._allow_replay)
            entry = job_entry(predicate, opened.payload_sha256, opened.keyids)
            return Child(entry, [*claims_of(entry), *_claims_below(predicate)], predicate["run"], ())
        if kind != NODE:
            raise LedgerError(
                f"this is a ledger of kind {kind!r}, which no {self._kind} is made of",
                hint="several job ledgers make a lineage: add --kind lineage --lineage NAME"
                if kind == JOB
                else "give the node and job ledgers that it was made of",
            )
        entry = entry_again(opened, found.path, self._tables, allow_replay=self._allow_replay)
        if self._kind == LINEAGE:
            _refuse_part_of_job(entry, predicate)
            entry["completeness"] = completeness_of_single(entry)
        return Child(entry, list(claims_of(entry)), predicate["run"], tuple(predicate["node"]["jobNodes"]))


def entry_again(opened: Opened, ledger: Path, tables: Tables, *, allow_replay: bool) -> Entry:
    """The entry of a node ledger, from its journal. Raises NotVerifiedError, LedgerError."""
    verified = verify_opened(opened, ledger, allow_replay=allow_replay, tables=tables)
    return node_entry(verified.statement["predicate"], verified.history, opened.payload_sha256, opened.keyids)


def _refuse_part_of_job(entry: Entry, predicate: Mapping[str, Any]) -> None:
    roster = predicate["node"]["jobNodes"]
    if roster == [entry["node"]]:
        return
    raise LedgerError(
        f"this is the ledger of one node of job {entry['run']!r}, "
        + (f"which has {len(roster)} nodes" if roster else "and does not say how many nodes that has"),
        hint="merge the job first: flopsd merge LEDGER… --kind job" + ("" if roster else " --nodes N"),
    )


def _claims_below(predicate: Mapping[str, Any]) -> Iterator[Claim]:
    """The ledgers and devices that a job counts: no other job of the lineage may count them too."""
    for child in predicate["children"]:
        yield ledger_claim(child["sha256"])
        yield from device_claims(child)


def _is_of_others(path: Path) -> bool:
    """Whether a file is a whole signed statement, and not one of ours."""
    try:
        statement = parse_json(parse_envelope(path.read_bytes()).payload, "the payload")
    except (OSError, NotVerifiedError):
        return False
    return not isinstance(statement, dict) or statement.get("predicateType") != PREDICATE_TYPE

"""Verifying a merged ledger: its own arithmetic, and the children where they are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flopsd.attestation.merge.find_ledgers import find_ledgers
from flopsd.attestation.merge.ledger_folders import FoundLedger, Note
from flopsd.attestation.merge.read_child import NODE, entry_again
from flopsd.attestation.merge.recompute import MALFORMED, recompute
from flopsd.attestation.verify import Opened, refuse_difference
from flopsd.core.envelope import parse_envelope
from flopsd.core.ledger.merged_completeness import completeness_of_single
from flopsd.core.ledger.merged_entry import Entry, job_entry
from flopsd.core.ledger.merged_statement import JOB
from flopsd.core.untrusted import parse_json
from flopsd.errors import FlopsdError, NotVerifiedError
from flopsd.settings.data_files import Tables


@dataclass(frozen=True, slots=True)
class ChildrenChecked:
    """Of the children of a merged ledger: how many were given, how many of those recomputed, and which were not
    given. `others` are ledgers that lay there and are no part of it."""

    given: int
    recomputed: int
    missing: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedMerge:
    """A merged ledger that may be believed. `children` is None where none were to be looked at."""

    statement: Mapping[str, Any]
    keyids: tuple[str, ...]
    replay: bool
    children: ChildrenChecked | None


def verify_merged(
    opened: Opened,
    *,
    children: Sequence[str] = (),
    allow_replay: bool = False,
    tables: Tables | None = None,
    note: Note = lambda _: None,
) -> VerifiedMerge:
    """Add a merged ledger up again, and hold it against those of its children that `children` name.

    Raises NotVerifiedError with the first reason not to believe it.
    """
    tables = tables or Tables()
    recompute(opened, tables, allow_replay=allow_replay)
    predicate = opened.statement["predicate"]
    seen = None
    if children:
        try:
            seen = _look_at(predicate["children"], children, tables, note)
        except NotVerifiedError:
            raise
        except FlopsdError as fault:
            raise NotVerifiedError(str(fault), hint=fault.hint) from fault
    return VerifiedMerge(opened.statement, opened.keyids, predicate["replay"] is not None, seen)


def _look_at(entries: Sequence[Entry], arguments: Sequence[str], tables: Tables, note: Note) -> ChildrenChecked:
    by_digest = {entry["sha256"]: entry for entry in entries}
    seen: set[str] = set()
    recomputed = 0
    strangers: dict[tuple[str, str | None], tuple[str, str]] = {}
    with TemporaryDirectory(prefix="flopsd-verify-") as temporary:
        for found in find_ledgers(arguments, Path(temporary), note):
            opened = _read(found)
            entry = by_digest.get(opened.payload_sha256)
            if entry is None:
                strangers[_whose(opened.statement)] = found.label, opened.payload_sha256
                continue
            seen.add(opened.payload_sha256)
            recomputed += _again(entry, opened, found, tables)
    for entry in entries:
        stranger = strangers.get((entry["run"], entry["node"]))
        if entry["sha256"] not in seen and stranger is not None:
            raise NotVerifiedError(
                f"{stranger[0]} is not the ledger that was merged for {entry['name']}: "
                f"its payload has SHA-256 {stranger[1][:16]}…, not {entry['sha256'][:16]}…",
                hint="it was changed or made again after the merge; merge again, or find the one that was merged",
            )
    missing = tuple(entry["name"] for entry in entries if entry["sha256"] not in seen)
    others = tuple(sorted(label for label, _ in strangers.values()))
    return ChildrenChecked(len(seen), recomputed, missing, others)


def _read(found: FoundLedger) -> Opened:
    """The statement in a file. Its signatures do not matter: that of the merged ledger covers its digest."""
    try:
        envelope = parse_envelope(found.path.read_bytes())
        statement = parse_json(envelope.payload, "the payload")
    except NotVerifiedError as fault:
        raise NotVerifiedError(f"{found.label}: {fault}", hint="this file was damaged or changed") from fault
    except OSError as fault:
        raise NotVerifiedError(f"cannot read {found.label}: {fault.strerror}") from fault
    digest = sha256(envelope.payload).hexdigest()
    return Opened(statement if isinstance(statement, dict) else {}, (), digest, envelope)


def _whose(statement: Mapping[str, Any]) -> tuple[str, str | None]:
    """Run and node of a ledger; of what is no ledger, nobody's."""
    predicate = statement.get("predicate")
    if not isinstance(predicate, dict):
        return "", None
    run, node = predicate.get("run"), predicate.get("node")
    name = node.get("name") if isinstance(node, dict) else None
    return str(run.get("id")) if isinstance(run, dict) else "", None if name is None else str(name)


def _again(entry: Entry, opened: Opened, found: FoundLedger, tables: Tables) -> bool:
    """Make a child's entry again, if what it is made of is here. Raises NotVerifiedError where it is another."""
    opened = replace(opened, keyids=tuple(entry["keyids"]))
    try:
        if opened.kind == JOB:
            recompute(opened, tables, allow_replay=True)
            again = job_entry(opened.statement["predicate"], entry["sha256"], entry["keyids"])
        elif opened.kind == NODE and found.has_journal:
            again = entry_again(opened, found.path, tables, allow_replay=True)
            if "completeness" in entry:
                again["completeness"] = completeness_of_single(again)
        else:
            return False
        refuse_difference(again, entry, "the child")
    except FlopsdError as fault:
        raise NotVerifiedError(f"{found.label}: {found.told(str(fault))}", hint=found.told(fault.hint)) from fault
    except MALFORMED as fault:
        raise NotVerifiedError(f"{found.label}: this is not what flopsd writes: {fault!r:.200}") from fault
    return True

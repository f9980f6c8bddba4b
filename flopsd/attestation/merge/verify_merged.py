"""Verify a merged ledger: its own arithmetic, and those of its children that are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flopsd.attestation.difference import refuse_difference
from flopsd.attestation.foreign_files import ForeignFile, foreign_files
from flopsd.attestation.merge.find_ledgers import find_ledgers
from flopsd.attestation.merge.ledger_folders import FoundLedger, Note
from flopsd.attestation.merge.read_child import NODE, claims_below, entry_again, recompute, refuse_double_in
from flopsd.attestation.signed_statement import SignedStatement, read_ledger, refuse_other_type
from flopsd.core.dataclass import dataclass
from flopsd.core.envelope import parse_envelope
from flopsd.core.field_reader import MALFORMED, words_of
from flopsd.core.ledger.merged_claims import Claim, DeviceClaims, claims_of
from flopsd.core.ledger.merged_completeness import completeness_of_single
from flopsd.core.ledger.merged_entry import Entry, job_entry
from flopsd.core.ledger.merged_statement import JOB
from flopsd.core.untrusted import parse_json
from flopsd.errors import FlopsdError, NotVerifiedError
from flopsd.settings.data_files import Tables
from flopsd.system.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class ChildrenChecked:
    """How many children of a merged ledger were given, how many of those were recomputed from their journals, and which
    were missing. `added_up`: jobs whose own entries were added up again, without their journals. `others`: given
    ledgers that are not its children."""

    given: int
    recomputed: int
    added_up: int
    missing: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedMerge:
    """A verified merged ledger. `children` is None if none were given."""

    statement: Mapping[str, Any]
    keyids: tuple[str, ...]
    replay: bool
    children: ChildrenChecked | None
    foreign: tuple[ForeignFile, ...] = ()
    not_signed_by: tuple[str, ...] = ()  # key ids of the given keys without a valid signature


def verify_merged(
    opened: SignedStatement, *, children: Sequence[str] = (), allow_replay: bool = False, tables: Tables | None = None,
    note: Note = lambda _: None, progress: Progress = no_progress,
) -> VerifiedMerge:  # fmt: skip
    """Add up a merged ledger again, and compare it with those of its children that `children` name. Raises
    NotVerifiedError with the first failure."""
    tables = tables or Tables()
    progress("adding up", 0, 0)
    recompute(opened, tables, allow_replay=allow_replay)
    predicate = opened.statement["predicate"]
    seen = None
    if children:
        try:
            seen = _check_children(predicate, children, tables, note, progress)
        except NotVerifiedError:
            raise
        except FlopsdError as fault:
            raise NotVerifiedError(str(fault), hint=fault.hint, code=fault.code) from fault
    foreign = foreign_files(predicate, tables)
    replay, others = predicate["replay"] is not None, opened.not_signed_by
    return VerifiedMerge(opened.statement, opened.keyids, replay, seen, foreign, others)


def _check_children(
    predicate: Mapping[str, Any], arguments: Sequence[str], tables: Tables, note: Note, progress: Progress
) -> ChildrenChecked:
    entries: Sequence[Entry] = predicate["children"]
    by_digest = {entry["sha256"]: entry for entry in entries}
    seen: set[str] = set()
    recomputed: set[str] = set()  # a child may be given twice, once without its journal
    others: dict[tuple[str, str | None], tuple[str, str]] = {}
    below: dict[str, list[Claim]] = {}  # claims of the jobs of a lineage, by digest
    with TemporaryDirectory(prefix="flopsd-verify-") as temporary:
        for found in find_ledgers(arguments, Path(temporary), note):
            opened = _read(found)
            entry = by_digest.get(opened.payload_sha256)
            if entry is None:
                others[_run_and_node(opened.statement)] = found.label, opened.payload_sha256
                continue
            seen.add(opened.payload_sha256)
            progress("checking its children", len(seen), len(entries))
            if entry["kind"] == NODE:
                _refuse_other_job(predicate, opened, found)
            if not _recompute_child(entry, opened, found, tables):
                continue
            if entry["kind"] == JOB:
                below[opened.payload_sha256] = list(claims_below(opened.statement["predicate"]))
            else:
                recomputed.add(opened.payload_sha256)
    for entry in entries:
        other = others.get((entry["run"], entry["node"]))
        if entry["sha256"] not in seen and other is not None:
            raise NotVerifiedError(
                f"{other[0]} is not the ledger that was merged for {entry['name']}: "
                f"the SHA-256 of its payload is {other[1][:16]}…, not {entry['sha256'][:16]}…",
                hint="it was changed or sealed again after the merge; merge again, or give the one that was merged",
                code="child_changed",
            )
    _refuse_counted_twice(entries, below)
    missing = tuple(entry["name"] for entry in entries if entry["sha256"] not in seen)
    foreign = tuple(sorted(label for label, _ in others.values()))
    return ChildrenChecked(len(seen), len(recomputed), len(below), missing, foreign)


def _refuse_counted_twice(entries: Sequence[Entry], below: Mapping[str, Iterable[Claim]]) -> None:
    """Raises LedgerError if two given jobs of a lineage count the same ledger, or the same device at the same time."""
    claims = [
        DeviceClaims(claim, number, entry["name"])
        for number, entry in enumerate(entries)
        for claim in (below.get(entry["sha256"], ()) if entry["kind"] == JOB else claims_of(entry))
    ]
    if below:
        refuse_double_in(entries, claims)


def _read(found: FoundLedger) -> SignedStatement:
    """The statement in a file. Its signatures need no check: the signed merged ledger contains its digest."""
    try:
        envelope = parse_envelope(read_ledger(found.path))
        statement = parse_json(envelope.payload, "the payload")
    except NotVerifiedError as fault:
        raise NotVerifiedError(
            f"{found.label}: {fault}", hint="ask for the original of this file", code=fault.code
        ) from fault
    digest = sha256(envelope.payload).hexdigest()
    return SignedStatement(found.path, statement if isinstance(statement, dict) else {}, (), digest, envelope)


def _refuse_other_job(predicate: Mapping[str, Any], opened: SignedStatement, found: FoundLedger) -> None:
    """Raises NotVerifiedError if a child names another job than the merged ledger, or other nodes of that job: so the
    merger cannot have dropped a node from the list."""
    try:
        child = opened.statement["predicate"]
        run, nodes, here = child["run"], child["node"]["jobNodes"], [child["node"]["name"]]
        count = len(nodes)
    except (LookupError, TypeError) as fault:
        raise NotVerifiedError(
            f"{found.label} is not a valid ledger of a node: {words_of(fault)}", code="child_differs"
        ) from fault
    of_job = predicate["kind"] == JOB
    if nodes != (list(predicate["jobNodes"]) if of_job else here):
        listed = "the merged ledger lists others" if of_job else "but it is in a lineage as a whole job"
        raise NotVerifiedError(
            f"{found.label} lists {count} nodes of its job: {listed}",
            hint="a node was left out or added when these ledgers were merged: ask for the ledgers of all of them",
            code="child_differs",
        )
    if of_job and run != predicate["run"]:
        raise NotVerifiedError(f"{found.label} is of another run than the merged ledger states", code="child_differs")


def _run_and_node(statement: Mapping[str, Any]) -> tuple[str, str | None]:
    """The run and node of a ledger; an empty run for any other statement."""
    predicate = statement.get("predicate")
    if not isinstance(predicate, dict):
        return "", None
    run, node = predicate.get("run"), predicate.get("node")
    name = node.get("name") if isinstance(node, dict) else None
    return str(run.get("id")) if isinstance(run, dict) else "", None if name is None else str(name)


def _recompute_child(entry: Entry, opened: SignedStatement, found: FoundLedger, tables: Tables) -> bool:
    """Recompute a child's entry: a job's from its own entries, a node's from its journal; return False if it has none.
    Raises NotVerifiedError if the entry differs."""
    opened = replace(opened, keyids=tuple(entry["keyids"]))
    if entry["kind"] == NODE and not found.has_journal:
        return False
    try:
        refuse_other_type(opened.envelope)
        if entry["kind"] == JOB:
            recompute(opened, tables, allow_replay=True)
            again = job_entry(opened.statement["predicate"], entry["sha256"], entry["keyids"])
        else:
            again = entry_again(opened, tables, allow_replay=True)
            if "completeness" in entry:
                again["completeness"] = completeness_of_single(again)
        refuse_difference(again, entry, "this child", "child_differs")
    except FlopsdError as fault:
        raise NotVerifiedError(
            f"{found.label}: {found.for_user(str(fault))}", hint=found.for_user(fault.hint), code=fault.code
        ) from fault
    except MALFORMED as fault:
        raise NotVerifiedError(
            f"{found.label}: flopsd does not write such a ledger: {words_of(fault)}", code="record_malformed"
        ) from fault
    return True

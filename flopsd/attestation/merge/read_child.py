"""Read one child: verify it completely (a merged child as the sum of its own children), then reduce it to its entry."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.attestation.difference import refuse_difference
from flopsd.attestation.merge.large_statement import parse_statement
from flopsd.attestation.merge.ledger_folders import FoundLedger
from flopsd.attestation.signed_statement import SignedStatement, is_of_some_version, open_ledger, read_ledger
from flopsd.attestation.times import refuse_malformed_times
from flopsd.attestation.verify import Verified, verify_ledger
from flopsd.core.dataclass import dataclass
from flopsd.core.envelope import parse_envelope
from flopsd.core.field_reader import MALFORMED, words_of
from flopsd.core.ledger.merged_claims import Claim, DeviceClaims, claims_of, device_claims, ledger_claim, refuse_double
from flopsd.core.ledger.merged_completeness import completeness_of_single
from flopsd.core.ledger.merged_entry import Entry, job_entry, node_entry, recordings_text, sort_key
from flopsd.core.ledger.merged_statement import JOB, KINDS, LINEAGE, recompute_merged, subject_of
from flopsd.core.untrusted import parse_json
from flopsd.core.values import shown
from flopsd.errors import FlopsdError, LedgerError, NotVerifiedError, PeakTableError, PolicyError
from flopsd.settings.data_files import Tables

if TYPE_CHECKING:
    from flopsd.attestation.signing.public_key import PublicKey

NODE = "node"
_COMPACT = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Child:
    """A verified child: its JSON texts for storage, its claims, and the facts that all children of a job must share."""

    order: tuple[str, int, str, str]  # its `sort_key`
    subject: str
    entry: str
    claims: Iterable[Claim]  # iterate once: a job has many
    run: Mapping[str, Any]
    nodes: tuple[str, ...]  # the nodes of its job, as the platform listed them
    policies: tuple[str, ...]  # ids of the policies that judged it

    @classmethod
    def of(
        cls, entry: Entry, claims: Iterable[Claim], predicate: Mapping[str, Any], nodes: Sequence[str] = ()
    ) -> Child:
        line, policies = _COMPACT.encode(entry), predicate["method"]["policies"]
        named = tuple(str(policy["id"]) for policy in policies)
        return cls(sort_key(entry), json.dumps(subject_of(entry)), line, claims, predicate["run"], tuple(nodes), named)


class ChildReader:
    """Reads the children of a merged ledger of `kind`. One of `keys` must have signed each child."""

    def __init__(self, kind: str, keys: Sequence[PublicKey], tables: Tables, *, allow_replay: bool) -> None:
        self._kind, self._keys, self._tables, self._allow_replay = kind, keys, tables, allow_replay

    def read(self, found: FoundLedger) -> Child | None:
        """The child in a file; None for a signed statement of another kind that the user did not name. Raises
        NotVerifiedError and LedgerError naming the file."""
        try:
            return self._child(open_ledger(found.path, self._keys, parse=parse_statement))
        except FlopsdError as fault:
            if not found.explicit and not found.has_journal and _is_foreign(found.path):
                return None
            kind = NotVerifiedError if isinstance(fault, NotVerifiedError) else LedgerError
            raise kind(f"{found.label}: {found.for_user(str(fault))}", hint=found.for_user(fault.hint)) from fault
        except MALFORMED as fault:
            raise NotVerifiedError(f"{found.label}: flopsd does not write such a ledger: {words_of(fault)}") from fault

    def verified(self, found: FoundLedger) -> Verified:
        """The ledger of a node, verified again. Raises NotVerifiedError."""
        opened = open_ledger(found.path, self._keys)
        return verify_ledger(opened, allow_replay=self._allow_replay, tables=self._tables)

    def _child(self, opened: SignedStatement) -> Child:
        kind, predicate = opened.kind, opened.statement["predicate"]
        if kind == JOB and self._kind == LINEAGE:
            recompute(opened, self._tables, allow_replay=self._allow_replay)
            entry = job_entry(predicate, opened.payload_sha256, opened.keyids)
            return Child.of(entry, chain(claims_of(entry), claims_below(predicate)), predicate)
        if kind != NODE:
            raise LedgerError(
                f"this is a ledger of kind {kind!r:.60}, which cannot be part of a {self._kind}",
                hint="to merge job ledgers into a lineage, add --kind lineage --lineage NAME"
                if kind == JOB
                else "give the node and job ledgers that it was merged from",
            )
        entry = entry_again(opened, self._tables, allow_replay=self._allow_replay)
        if self._kind == LINEAGE:
            _refuse_part_of_job(entry, predicate)
            entry["completeness"] = completeness_of_single(entry)
        return Child.of(entry, list(claims_of(entry)), predicate, predicate["node"]["jobNodes"])


def entry_again(opened: SignedStatement, tables: Tables, *, allow_replay: bool) -> Entry:
    """The entry of a node ledger, computed from its journal. Raises NotVerifiedError, LedgerError."""
    verified = verify_ledger(opened, allow_replay=allow_replay, tables=tables)
    return node_entry(verified.statement["predicate"], verified.history, opened.payload_sha256, opened.keyids)


def _refuse_part_of_job(entry: Entry, predicate: Mapping[str, Any]) -> None:
    roster = predicate["node"]["jobNodes"]
    if roster == [entry["node"]]:
        return
    raise LedgerError(
        f"this is the ledger of one node of job {entry['run']!r}, which has "
        + (f"{len(roster)} nodes" if roster else "an unknown number of nodes"),
        hint="merge the job first: flopsd merge LEDGER… --kind job" + ("" if roster else " --nodes N"),
    )


def claims_below(predicate: Mapping[str, Any]) -> Iterator[Claim]:
    """The claims to the ledgers and devices that a job counts: no other job of the lineage may count them."""
    for child in predicate["children"]:
        yield ledger_claim(child["sha256"])
        yield from device_claims(child)


def _is_foreign(path: Path) -> bool:
    """Whether a file is a complete signed statement and not a flopsd ledger of any version."""
    try:
        statement = parse_json(parse_envelope(read_ledger(path)).payload, "the payload")
    except NotVerifiedError:
        return False
    return not is_of_some_version(statement)


def recompute(opened: SignedStatement, tables: Tables, *, allow_replay: bool = False) -> None:
    """Add up the children in a merged ledger again and compare. Raises NotVerifiedError with the first failure."""
    predicate = opened.statement["predicate"]
    try:
        if predicate["kind"] not in KINDS:
            raise NotVerifiedError(
                f"this is a ledger of kind {shown(predicate['kind'])}, not a merged one", code="statement_malformed"
            )
        entries = predicate["children"]
        if entries is None or isinstance(entries, (str, int, dict)):  # a large ledger has `ChildLines`
            raise ValueError("children is not a list")
        if not entries:
            raise NotVerifiedError("the merged ledger lists no children", code="no_children")
        if any(one > other for one, other in pairwise(map(sort_key, entries))):
            raise NotVerifiedError(
                "the children are not in the order of the format",
                code="children_order",
                path="statement.predicate.children",
            )
        refuse_malformed_times(predicate)
        refuse_double_in(entries, claimed_again(entries))
        policies = tables.policies((str(policy["sha256"]) for policy in predicate["method"]["policies"]), opened.path)
        again = recompute_merged(predicate, entries, policies)
    except PolicyError as fault:
        raise NotVerifiedError(str(fault), hint=fault.hint, code=fault.code) from fault
    except LedgerError as fault:
        raise NotVerifiedError(f"its children cannot be merged: {fault}", hint=fault.hint, code=fault.code) from fault
    except MALFORMED as fault:
        raise NotVerifiedError(
            f"it contains fields that `flopsd merge` does not write: {words_of(fault)}", code="entry_malformed"
        ) from fault
    # Both sides hold the same children, which are nearly all of the statement: only the rest can differ.
    mine, signed = map(_without_children, (again, opened.statement))
    refuse_difference(mine, signed, "the entries of its children")
    try:
        for sha256 in predicate["method"]["peakTableSha256"]:
            tables.peaks(sha256, opened.path)
    except PeakTableError as fault:
        raise NotVerifiedError(str(fault), hint=fault.hint, code=fault.code) from fault
    if predicate["replay"] is not None and not allow_replay:
        raise NotVerifiedError(
            recordings_text(int(predicate["replay"]["children"]), len(entries)),
            hint="a replay is not evidence; to check only the arithmetic, add --allow-replay",
            code="replay",
            path="statement.predicate.replay",
        )


def claimed_again(entries: Iterable[Entry]) -> list[DeviceClaims]:
    """The claims whose object more than one entry claims, and a few others, by hash collision."""
    claimed = array("q")  # hashes: all claims of a job of thousands of nodes would take more memory than its text
    for entry in entries:
        claimed.extend({hash((claim.what, claim.key)) for claim in claims_of(entry)})
    again = {one for one, other in pairwise(sorted(claimed)) if one == other}
    if not again:
        return []
    return [
        DeviceClaims(claim, number, entry["name"])
        for number, entry in enumerate(entries)
        for claim in claims_of(entry)
        if hash((claim.what, claim.key)) in again
    ]


def refuse_double_in(entries: Iterable[Entry], claims: Iterable[DeviceClaims]) -> None:
    """`refuse_double`, with the claims of `entries` in any order."""
    refuse_double(
        sorted(claims, key=lambda claimed: (claimed.claim.what, claimed.claim.key, claimed.child)),
        lambda: ((number, entry["segment"]) for number, entry in enumerate(entries)),
    )


def _without_children(merged: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**merged, "predicate": {**merged["predicate"], "children": []}}

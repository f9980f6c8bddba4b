"""Whether a ledger is to be believed: signatures, then every figure again from journal and peak table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.attestation.anchors import AnchorComparison, compare_anchors
from flopsd.attestation.evidence.check import Stamped, findings, signed_items, timestamp_findings
from flopsd.attestation.evidence.item import CheckContext, EvidenceResult, EvidenceState
from flopsd.attestation.evidence.trust import Trust
from flopsd.attestation.ledger_files import journal_beside, peaks_beside
from flopsd.attestation.seal import one_peak_table
from flopsd.attestation.signing.dsse import verify_signatures
from flopsd.core.envelope import (
    MAX_ENVELOPE_BYTES,
    Envelope,
    is_digest,
    is_timestamp,
    parse_count,
    parse_envelope,
)
from flopsd.core.ledger.history import History, extend
from flopsd.core.ledger.statement import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    JournalFacts,
    SealFacts,
    statement,
)
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.evaluate import Policy
from flopsd.core.untrusted import parse_json
from flopsd.errors import FlopsdError, NotVerifiedError
from flopsd.journal.framing import GENESIS
from flopsd.journal.journal import read_journal
from flopsd.journal.sealed_prefix import sealed_part
from flopsd.settings.data_files import Tables

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey


@dataclass(frozen=True, slots=True)
class Verified:
    """A ledger that may be believed, and on what grounds."""

    statement: Mapping[str, Any]
    keyids: tuple[str, ...]
    records: int
    replay: bool
    payload: bytes  # the bytes that are signed
    history: History
    evidence: tuple[EvidenceResult, ...] = ()
    unsealed_records: int = 0  # of the journal beside it, behind the sealed part: no part of the claim
    anchored: AnchorComparison | None = None  # None: not asked for


# What a journal may make the arithmetic do when whoever holds the key wrote records that no daemon writes.
_NO_RECORDS_OF_OURS = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    ArithmeticError,
    StopIteration,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A statement whose signatures are good. Whether its figures are is not known yet."""

    statement: Mapping[str, Any]
    keyids: tuple[str, ...]
    payload_sha256: str
    envelope: Envelope
    keys: tuple[SSlibKey, ...] = ()

    @property
    def kind(self) -> str:
        """`node`, `job` or `lineage`."""
        return str(self.statement["predicate"].get("kind"))


def open_ledger(ledger: Path, keys: Sequence[SSlibKey], threshold: int = 1) -> Opened:
    """Check the signatures of `ledger`. Raises NotVerifiedError."""
    envelope = parse_envelope(read_ledger(ledger))
    keyids = verify_signatures(envelope, keys, threshold)
    digest = hashlib.sha256(envelope.payload).hexdigest()
    return Opened(statement_in(envelope), tuple(sorted(keyids)), digest, envelope, tuple(keys))


def verify_ledger(
    ledger: Path,
    keys: Sequence[SSlibKey],
    *,
    threshold: int = 1,
    journal: Path | None = None,
    tables: Tables | None = None,
    allow_replay: bool = False,
    trust: Trust | None = None,
    anchors: Sequence[Path] = (),
) -> Verified:
    """Verify `ledger` with public `keys`; `trust` are the certificates to hold its evidence against, `anchors`
    the logs to hold its journal against.

    Raises NotVerifiedError with the first reason not to believe it.
    """
    return verify_opened(
        open_ledger(ledger, keys, threshold),
        ledger,
        journal=journal,
        tables=tables,
        allow_replay=allow_replay,
        trust=trust,
        anchors=anchors,
    )


def verify_opened(
    opened: Opened,
    ledger: Path,
    *,
    journal: Path | None = None,
    tables: Tables | None = None,
    allow_replay: bool = False,
    trust: Trust | None = None,
    anchors: Sequence[Path] = (),
) -> Verified:
    """Recompute a node ledger whose signatures are good. Raises NotVerifiedError."""
    signed = opened.statement
    if opened.kind != "node":
        raise NotVerifiedError(
            f"this is a ledger of kind {opened.kind!r:.60}, not a node's: it has no journal",
            hint="only ledgers of nodes are countersigned and exported with their journal",
        )
    exhibit = journal if journal is not None else journal_beside(ledger)
    if not exhibit.is_file():
        raise NotVerifiedError(
            f"the signature is good, but the journal {exhibit} is not there: no total can be recomputed",
            hint="lay the journal beside the ledger, or name it with --journal",
        )
    tables = tables or Tables()
    anchored = None
    try:
        sealed = _sealed_journal(signed)
        facts, further = sealed_part(exhibit, sealed.size_bytes)
        _compare_journal(sealed, facts, exhibit)
        history = _history(exhibit, facts)
        table = tables.peaks(one_peak_table(history), [peaks_beside(ledger)])
        _recompute(signed, history, facts, table, tables.policies(history.policy_sha256))
        if history.replay is not None and not allow_replay:
            raise NotVerifiedError(
                f"this ledger is a replay of the recording {history.replay['recording']!r}: no hardware was metered",
                hint="a replay is no evidence; to check its arithmetic all the same, add --allow-replay",
            )
        evidence = _evidence(signed, opened.envelope, opened.keys, trust or Trust(), history, facts)
        anchored = compare_anchors(anchors, exhibit, facts, history, table) if anchors else None
    except NotVerifiedError:
        raise
    except FlopsdError as fault:
        raise NotVerifiedError(str(fault), hint=fault.hint) from fault
    except _NO_RECORDS_OF_OURS as fault:
        raise NotVerifiedError(f"the journal is none that a daemon writes: {fault!r:.200}") from fault
    return Verified(
        signed,
        opened.keyids,
        facts.records,
        history.replay is not None,
        opened.envelope.payload,
        history,
        evidence,
        further,
        anchored,
    )


def read_ledger(ledger: Path) -> bytes:
    """The bytes of a ledger file, one more than allowed at most. Raises NotVerifiedError."""
    try:
        with ledger.open("rb") as file:
            return file.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as fault:
        raise NotVerifiedError(f"cannot read the ledger {ledger}: {fault.strerror}") from fault


def statement_in(envelope: Envelope) -> Mapping[str, Any]:
    """The statement in an envelope, whoever signed it. Raises NotVerifiedError where it is none of ours."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise NotVerifiedError(f"the payload is of type {envelope.payload_type!r}, not {PAYLOAD_TYPE!r}")
    signed = parse_json(envelope.payload, "the payload")
    if not isinstance(signed, dict) or signed.get("_type") != STATEMENT_TYPE:
        raise NotVerifiedError(f"the payload is no in-toto statement of type {STATEMENT_TYPE!r}")
    if signed.get("predicateType") != PREDICATE_TYPE or not isinstance(signed.get("predicate"), dict):
        raise NotVerifiedError(f"the statement is of type {signed.get('predicateType')!r}, not {PREDICATE_TYPE!r}")
    return signed


def _sealed_journal(signed: Mapping[str, Any]) -> JournalFacts:
    """The journal that the statement names. The fields that all else hangs on are checked by hand, text by text."""
    try:
        digest, sealed = signed["subject"][0]["digest"]["sha256"], signed["predicate"]["method"]["journal"]
        head, count, size = sealed["headSha256"], parse_count(sealed["records"]), parse_count(sealed["bytes"])
        executed = signed["predicate"]["totals"]["executed"]
        parse_count(executed["low"])
        for name in ("measured", "high"):
            if executed[name] is not None:
                parse_count(executed[name])
    except (KeyError, TypeError, IndexError, ValueError) as fault:
        raise NotVerifiedError(f"the statement does not name its journal and totals: {fault!r:.200}") from fault
    if not is_digest(digest) or not is_digest(head) or sealed.get("sha256") != digest:
        raise NotVerifiedError("the statement does not name its journal by SHA-256 digests that agree")
    if not is_timestamp(signed["predicate"]["method"].get("sealedAt")):
        raise NotVerifiedError("the statement does not say in UTC when it was sealed")
    return JournalFacts(digest, size, count, head)


def _compare_journal(sealed: JournalFacts, facts: JournalFacts, exhibit: Path) -> None:
    if sealed == facts:
        return
    if facts.records < sealed.records:
        raise NotVerifiedError(f"{exhibit} is cut: {facts.records} records, {sealed.records} were sealed")
    if facts.head_sha256 == sealed.head_sha256:
        raise NotVerifiedError(f"the statement misnames its journal, which is on the sealed chain: {facts}")
    raise NotVerifiedError(
        f"{exhibit} is another journal than the sealed one: "
        f"it ends in {facts.head_sha256[:16]}…, not {sealed.head_sha256[:16]}…"
    )


def _history(exhibit: Path, facts: JournalFacts) -> History:
    """The history of the very bytes that `facts` are of."""
    history, head = History(), GENESIS
    for line in read_journal(exhibit):
        if line.number > facts.records:
            break
        extend(history, line.record())
        head = line.head
    if (head.hex(), history.records) != (facts.head_sha256, facts.records):
        raise NotVerifiedError(f"{exhibit} was changed while it was verified")
    if not history.incarnations:
        raise NotVerifiedError("the journal is empty")
    return history


def _recompute(
    signed: Mapping[str, Any], history: History, facts: JournalFacts, table: PeakTable, policies: tuple[Policy, ...]
) -> None:
    """Build the statement again and hold it against the signed one, field by field."""
    method = signed["predicate"]["method"]
    version, sealed_at = str(method.get("flopsdVersion")), str(method.get("sealedAt"))
    seal = SealFacts(version, sealed_at, signed_items(signed["predicate"]), policies)
    refuse_difference(statement(history, table, facts, seal), signed, "the journal")


def refuse_difference(again: Mapping[str, Any], signed: Mapping[str, Any], source: str) -> None:
    """Raises NotVerifiedError where the signed statement is not what `source` gives again."""
    if json.dumps(again) == json.dumps(signed):  # alike to the order of its fields: the usual case, and the quick one
        return
    difference = first_difference(again, signed, "statement")
    if difference is not None:
        raise NotVerifiedError(f"recomputed from {source}, the ledger says something else: {difference}")


def _evidence(
    signed: Mapping[str, Any],
    envelope: Envelope,
    keys: Sequence[SSlibKey],
    trust: Trust,
    history: History,
    facts: JournalFacts,
) -> tuple[EvidenceResult, ...]:
    """What the evidence is worth. Raises NotVerifiedError where a piece is not what it claims."""
    predicate = signed["predicate"]
    stamped = []
    for index, signature in enumerate(envelope.signatures):
        try:
            verify_signatures(replace(envelope, signatures=(signature,)), keys, 1)
        except NotVerifiedError:
            continue  # a time of bytes that nobody trusted signed says nothing of the ledger
        stamped.append(Stamped(signature[1], envelope.timestamps(index)))
    found = (
        *findings(predicate["evidence"], CheckContext(history, facts.head_sha256, trust.aws_certificates)),
        *timestamp_findings(stamped, trust, str(predicate["method"]["sealedAt"])),
    )
    bad = next((finding for finding in found if finding.verdict is EvidenceState.FAILED), None)
    if bad is not None:
        raise NotVerifiedError(f"the evidence {bad.type} does not hold: {bad.words}")
    return found


def first_difference(expected: Any, found: Any, path: str) -> str | None:
    """Where two JSON values differ first, in words; None where they are equal."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in [*expected, *(key for key in found if key not in expected)]:
            if key not in expected or key not in found:
                return f"{path}.{key} is {'missing' if key not in found else 'not what a daemon writes'}"
            if (difference := first_difference(expected[key], found[key], f"{path}.{key}")) is not None:
                return difference
        return None
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{path} has {len(found)} entries instead of {len(expected)}"
        pairs = enumerate(zip(expected, found, strict=True))
        return next((d for i, (a, b) in pairs if (d := first_difference(a, b, f"{path}[{i}]")) is not None), None)
    if type(expected) is not type(found) or expected != found:
        return f"{path} is {found!r:.200} instead of {expected!r:.200}"
    return None

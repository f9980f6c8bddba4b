"""Verify a ledger: check its signatures, then recompute every figure from journal and peak table."""

from __future__ import annotations

import hashlib
import json
import logging
import marshal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.attestation.anchors import AnchorComparison, compare_anchors
from flopsd.attestation.compared import Compared
from flopsd.attestation.evidence.check import StampedSignature, findings, signed_items, timestamp_findings
from flopsd.attestation.evidence.item import CheckContext, EvidenceResult, EvidenceState
from flopsd.attestation.evidence.trust import Trust
from flopsd.attestation.evidence.witness import of_earlier_seals
from flopsd.attestation.foreign_files import ForeignFile, foreign_files
from flopsd.attestation.ledger_files import journal_beside
from flopsd.attestation.seal import MALFORMED, one_peak_table
from flopsd.attestation.signing.dsse import verify_signatures
from flopsd.attestation.times import refuse_malformed_times
from flopsd.core.envelope import MAX_ENVELOPE_BYTES, Envelope, parse_envelope
from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.history import History
from flopsd.core.ledger.isolation import key_from
from flopsd.core.ledger.journal_facts import JournalFacts
from flopsd.core.ledger.statement import PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, SealFacts, statement
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.policy_file import Policy
from flopsd.core.untrusted import parse_json
from flopsd.core.values import is_digest, is_timestamp, whole_number
from flopsd.errors import FlopsdError, JournalDamagedError, JournalError, NotVerifiedError
from flopsd.journal.codes import by_sha256
from flopsd.journal.framing import line_ends_at
from flopsd.journal.history_reader import HistoryReader
from flopsd.journal.sealed_prefix import sealed_part
from flopsd.settings.data_files import Tables
from flopsd.system.progress import Progress, no_progress
from flopsd.system.regular_files import first_bytes, open_regular

if TYPE_CHECKING:
    from flopsd.attestation.signing.public_key import PublicKey

Parse = Callable[[bytes, str, str], Any]
log = logging.getLogger("flopsd")


@dataclass(frozen=True, slots=True)
class Verified:
    """A verified ledger, and what it was verified with."""

    statement: Mapping[str, Any]
    keyids: tuple[str, ...]
    records: int
    replay: bool
    payload: bytes  # the bytes that are signed
    history: History
    evidence: tuple[EvidenceResult, ...] = ()
    unsealed_records: int = 0  # of the journal, after the sealed part: not covered by the ledger
    anchored: AnchorComparison | None = None  # None: no log was given
    foreign: tuple[ForeignFile, ...] = ()
    also: tuple[Compared, ...] = ()


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement with valid signatures, its figures not verified yet, and the file that it is in."""

    path: Path
    statement: Mapping[str, Any]
    keyids: tuple[str, ...]
    payload_sha256: str
    envelope: Envelope
    keys: tuple[PublicKey, ...] = ()

    @property
    def kind(self) -> str:
        """`node`, `job` or `lineage`."""
        return str(self.statement["predicate"].get("kind"))


def open_ledger(
    ledger: Path, keys: Sequence[PublicKey], threshold: int = 1, *, parse: Parse = parse_json
) -> SignedStatement:
    """Check the signatures of `ledger`, and read its statement with `parse`. Raises NotVerifiedError."""
    envelope = parse_envelope(read_ledger(ledger))
    keyids = verify_signatures(envelope, keys, threshold)
    digest = hashlib.sha256(envelope.payload).hexdigest()
    return SignedStatement(ledger, statement_in(envelope, parse), tuple(sorted(keyids)), digest, envelope, tuple(keys))


def verify_ledger(
    opened: SignedStatement,
    *,
    journal: Path | None = None,
    tables: Tables | None = None,
    allow_replay: bool = False,
    trust: Trust | None = None,
    anchors: Sequence[Path] = (),
    progress: Progress = no_progress,
) -> Verified:
    """Recompute a node ledger whose signatures are valid; check its evidence with the certificates in `trust`, its
    journal with the logs in `anchors`. Raises NotVerifiedError with the first failure."""
    signed = opened.statement
    if opened.kind != "node":
        raise NotVerifiedError(
            f"this is a ledger of kind {opened.kind!r:.60}; only the ledger of a node has a journal",
            code="statement_malformed",
            path="statement.predicate.kind",
            hint="countersign the ledgers of its nodes; verify this one with `flopsd verify`",
        )
    sealed, secrets = _sealed_journal(signed), _code_secrets(signed)
    journal = journal if journal is not None else journal_beside(opened.path)
    if not journal.exists():
        raise NotVerifiedError(
            f"the signature is valid, but the journal {journal} does not exist: no total can be recomputed",
            hint="put the journal next to the ledger, or name it with --journal",
            code="journal_missing",
        )
    tables, trust, anchored = tables or Tables(), trust or Trust(), None
    try:
        reader, facts, further = _read(journal, sealed.size_bytes, secrets, progress)
        _compare_journal(sealed, facts, journal)
        log.debug("%s is the sealed journal: %d records, %d bytes", journal, facts.records, facts.size_bytes)
        history = reader.history()
        if not history.incarnations:
            raise NotVerifiedError("the journal is empty", code="law_1")
        table = tables.peaks(one_peak_table(history), opened.path)
        progress("recomputing the totals", 0, 0)
        log.debug("recomputing with peak table %s", table.sha256)
        _refuse_times(signed["predicate"])
        policies = tables.policies(history.policy_sha256, opened.path)
        _recompute(signed, history, facts, table, policies, secrets)
        if history.replay is not None and not allow_replay:
            raise NotVerifiedError(
                f"this ledger is a replay of the recording {history.replay['recording']!r}: no hardware was metered",
                hint="a replay is not evidence; to check only its arithmetic, add --allow-replay",
                code="replay",
                path="statement.predicate.replay",
            )
        evidence = _evidence(
            opened, trust, CheckContext(history, facts.head_sha256, trust.aws_certificates, trust.tsa_chains)
        )
        anchored = compare_anchors(anchors, journal, facts, history, table, secrets) if anchors else None
    except NotVerifiedError:
        raise
    except FlopsdError as fault:
        raise NotVerifiedError(str(fault), hint=fault.hint, code=fault.code, path=fault.path) from fault
    except MALFORMED as fault:
        raise NotVerifiedError(
            f"the journal contains records that no daemon writes: {fault!r:.200}", code="record_malformed"
        ) from fault
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
        foreign_files(signed["predicate"], tables),
    )


def _refuse_times(predicate: Mapping[str, Any]) -> None:
    try:
        refuse_malformed_times(predicate)
    except MALFORMED as fault:
        raise NotVerifiedError(f"the ledger has a time that cannot be read: {fault}", code="time_malformed") from fault


def read_ledger(ledger: Path) -> bytes:
    """The bytes of a ledger file, at most one more than allowed. Raises NotVerifiedError."""
    try:
        with open_regular(ledger) as file:
            return first_bytes(file, MAX_ENVELOPE_BYTES + 1)
    except OSError as fault:
        raise NotVerifiedError(f"cannot read the ledger {ledger}: {fault.strerror}") from fault


def statement_in(envelope: Envelope, parse: Parse = parse_json) -> Mapping[str, Any]:
    """The statement in an envelope, its signatures unchecked. Raises NotVerifiedError if it is not a ledger's."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise NotVerifiedError(
            f"the payload has type {envelope.payload_type!r:.100}, not {PAYLOAD_TYPE!r}",
            code="payload_type",
            path="envelope",
        )
    signed = parse(envelope.payload, "the payload", "payload")
    if not isinstance(signed, dict) or signed.get("_type") != STATEMENT_TYPE:
        raise NotVerifiedError(
            f"the payload is not an in-toto statement of type {STATEMENT_TYPE!r}",
            code="statement_type",
            path="statement._type",
        )
    if signed.get("predicateType") != PREDICATE_TYPE:
        raise NotVerifiedError(
            f"the predicate has type {signed.get('predicateType')!r:.100}, not {PREDICATE_TYPE!r}",
            code="predicate_type",
            path="statement.predicateType",
        )
    if not isinstance(signed.get("predicate"), dict):
        raise NotVerifiedError("the statement has no predicate", code="statement_malformed", path="statement.predicate")
    return signed


def _sealed_journal(signed: Mapping[str, Any]) -> JournalFacts:
    """The journal that the statement names. Checks by hand the fields that the recomputation relies on."""
    try:
        digest, sealed = signed["subject"][0]["digest"]["sha256"], signed["predicate"]["method"]["journal"]
        head, count, size = sealed["headSha256"], whole_number(sealed["records"]), whole_number(sealed["bytes"])
        executed = signed["predicate"]["totals"]["executed"]
        whole_number(executed["low"])
        for name in ("measured", "high"):
            if executed[name] is not None:
                whole_number(executed[name])
    except (KeyError, TypeError, IndexError, ValueError) as fault:
        raise NotVerifiedError(
            f"the statement does not name its journal and totals: {fault!r:.200}", code="statement_malformed"
        ) from fault
    if not is_digest(digest) or not is_digest(head) or sealed.get("sha256") != digest:
        raise NotVerifiedError(
            "the SHA-256 digests of the journal in the statement are malformed or differ", code="statement_malformed"
        )
    if not is_timestamp(signed["predicate"]["method"].get("sealedAt")):
        raise NotVerifiedError(
            "the statement has no sealing time in UTC (predicate.method.sealedAt)",
            code="statement_malformed",
            path="statement.predicate.method.sealedAt",
        )
    return JournalFacts(digest, size, count, head)


def _compare_journal(sealed: JournalFacts, facts: JournalFacts, journal: Path) -> None:
    if sealed == facts:
        return
    if facts.records < sealed.records:
        raise NotVerifiedError(
            f"{journal} is truncated: it has {facts.records} records, {sealed.records} were sealed",
            code="journal_truncated",
        )
    if facts.head_sha256 == sealed.head_sha256:
        raise NotVerifiedError(
            f"the statement has wrong figures for its journal, which has {facts}", code="journal_facts"
        )
    raise NotVerifiedError(
        f"{journal} is not the sealed journal: its last sealed record has hash {facts.head_sha256[:16]}…, "
        f"not {sealed.head_sha256[:16]}…",
        code="journal_other",
    )


def _code_secrets(signed: Mapping[str, Any]) -> tuple[bytes, ...]:
    secrets = signed["predicate"]["method"].get("codeSecrets")
    if not isinstance(secrets, list) or not all(is_digest(secret) for secret in secrets):
        raise NotVerifiedError(
            "the secrets of the journal's codes (predicate.method.codeSecrets) are malformed",
            code="statement_malformed",
            path="statement.predicate.method.codeSecrets",
        )
    return tuple(bytes.fromhex(secret) for secret in secrets)


def _read(
    journal: Path, sealed_bytes: int, secrets: Sequence[bytes], progress: Progress
) -> tuple[HistoryReader, JournalFacts, int]:
    """The sealed part of the journal, and the number of records that follow. Raises JournalError."""
    try:
        with open_regular(journal) as file:
            reader = HistoryReader(secrets, lambda seal: _refuse_other_seal(journal, file.fileno(), seal))
            return reader, *sealed_part(journal, sealed_bytes, reader.take, progress)
    except OSError as fault:
        raise JournalError(f"cannot read the journal {journal}: {fault.strerror}") from fault


def _refuse_other_seal(journal: Path, fd: int, seal: EarlierSeal) -> None:
    """Every seal that the journal lists is of its own chain."""
    if not line_ends_at(fd, seal.size_bytes, seal.head_sha256):
        raise JournalDamagedError(
            f"{journal} lists a seal of another journal: no record has hash {seal.head_sha256[:16]}…", code="law_15"
        )


def _recompute(
    signed: Mapping[str, Any],
    history: History,
    facts: JournalFacts,
    table: PeakTable,
    policies: tuple[Policy, ...],
    secrets: tuple[bytes, ...],
) -> None:
    """Compute the statement again and compare it with the signed one, field by field."""
    method = signed["predicate"]["method"]
    isolation = signed["predicate"]["isolation"]
    version, sealed_at = str(method.get("flopsdVersion")), str(method.get("sealedAt"))
    try:
        key = key_from(isolation["key"])
    except (KeyError, TypeError, ValueError) as fault:
        raise NotVerifiedError(
            f"isolation.key does not describe a key: {fault!r:.200}",
            code="statement_differs",
            path="statement.predicate.isolation.key",
        ) from fault
    seal = SealFacts(version, sealed_at, signed_items(signed["predicate"]), key, policies, by_sha256(secrets))
    refuse_difference(statement(history, table, facts, seal), signed, "the journal")


def refuse_difference(
    again: Mapping[str, Any], signed: Mapping[str, Any], source: str, code: str = "statement_differs"
) -> None:
    """Raises NotVerifiedError if the signed statement differs from `again`, which was computed from `source`."""
    if _is_same(again, signed):  # equal to the order of fields: the usual case, and fast
        return
    difference = first_difference(again, signed, "statement")
    if difference is not None:
        raise NotVerifiedError(
            f"the ledger does not match {source}: {difference}", code=code, path=difference.partition(" ")[0]
        )


def _is_same(again: Any, signed: Any) -> bool:
    """Whether two documents have the same values, types and order; `==` takes true for 1. Bytes of marshal are a fifth
    of the work of JSON; in its format 2, since later ones write a value that occurs twice in different ways."""
    try:
        if marshal.dumps(again, 2) == marshal.dumps(signed, 2):
            return True
    except ValueError:
        pass  # it has no enumerations
    return json.dumps(again) == json.dumps(signed)


def _evidence(opened: SignedStatement, trust: Trust, context: CheckContext) -> tuple[EvidenceResult, ...]:
    """Check every piece of evidence. Raises NotVerifiedError if one is invalid."""
    predicate, envelope = opened.statement["predicate"], opened.envelope
    stamped = []
    for index, signature in enumerate(envelope.signatures):
        if not envelope.has_timestamps(index):
            continue
        try:
            verify_signatures(replace(envelope, signatures=(signature,)), opened.keys, 1)
        except NotVerifiedError:
            continue  # a timestamp of an untrusted signature proves nothing about the ledger
        stamped.append(StampedSignature(signature[1], envelope.timestamps(index)))
    found = (
        *findings(predicate["evidence"], context),
        *of_earlier_seals(context.history.seals, context),
        *timestamp_findings(stamped, trust, str(predicate["method"]["sealedAt"])),
    )
    bad = next((finding for finding in found if finding.verdict is EvidenceState.FAILED), None)
    if bad is not None:
        raise NotVerifiedError(f"the evidence {bad.type} is invalid: {bad.text}", code="evidence_invalid")
    return found


def first_difference(expected: Any, found: Any, path: str) -> str | None:
    """The first difference between two JSON values, as text; None if they are equal."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in [*expected, *(key for key in found if key not in expected)]:
            if key not in expected or key not in found:
                return f"{path}.{key} is {'missing' if key not in found else 'unknown'}"
            if (difference := first_difference(expected[key], found[key], f"{path}.{key}")) is not None:
                return difference
        return None
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{path} has {len(found)} entries, recomputed are {len(expected)}"
        pairs = enumerate(zip(expected, found, strict=True))
        return next((d for i, (a, b) in pairs if (d := first_difference(a, b, f"{path}[{i}]")) is not None), None)
    if type(expected) is not type(found) or expected != found:
        return f"{path} is {found!r:.200}, recomputed is {expected!r:.200}"
    return None

"""Verify a ledger whose signatures are valid: recompute every figure from the journal and the peak table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flopsd.attestation.anchors import AnchorComparison, compare_anchors
from flopsd.attestation.compared import Compared
from flopsd.attestation.difference import refuse_difference
from flopsd.attestation.evidence.check import findings, signed_items, timestamp_findings
from flopsd.attestation.evidence.item import CheckContext, EvidenceResult, EvidenceState
from flopsd.attestation.evidence.trust import Trust
from flopsd.attestation.evidence.witness import of_earlier_seals
from flopsd.attestation.foreign_files import ForeignFile, foreign_files
from flopsd.attestation.ledger_files import journal_beside
from flopsd.attestation.signed_statement import SignedStatement
from flopsd.attestation.signing.dsse import pae
from flopsd.attestation.times import refuse_malformed_times
from flopsd.core.dataclass import dataclass
from flopsd.core.field_reader import MALFORMED, words_of
from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.history import History, one_peak_table
from flopsd.core.ledger.isolation import key_from
from flopsd.core.ledger.segments import JournalFacts
from flopsd.core.ledger.statement import SealFacts, statement
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.policy_file import Policy
from flopsd.core.values import is_digest, is_timestamp, shown, whole_number
from flopsd.errors import FlopsdError, JournalDamagedError, JournalError, NotVerifiedError
from flopsd.journal.codes import by_sha256
from flopsd.journal.framing import line_ends_at
from flopsd.journal.history_reader import HistoryReader
from flopsd.journal.sealed_prefix import sealed_part
from flopsd.journal.segments import begins_otherwise
from flopsd.settings.data_files import Tables
from flopsd.system.progress import Progress, no_progress
from flopsd.system.regular_files import open_regular

log = logging.getLogger("flopsd")


@dataclass(frozen=True, slots=True)
class Verified:
    """A verified ledger, and the results of the checks."""

    statement: Mapping[str, Any]
    keyids: tuple[str, ...]
    records: int
    replay: bool
    payload: bytes  # the bytes that are signed
    history: History
    evidence: tuple[EvidenceResult, ...] = ()
    unsealed_records: int = 0  # records after the sealed part of the journal: not covered by the ledger
    anchored: AnchorComparison | None = None  # None: no log was given
    foreign: tuple[ForeignFile, ...] = ()
    also: tuple[Compared, ...] = ()
    not_signed_by: tuple[str, ...] = ()  # key ids of the given keys without a valid signature


def verify_ledger(
    opened: SignedStatement, *, journal: Path | None = None, tables: Tables | None = None, allow_replay: bool = False,
    trust: Trust | None = None, anchors: Sequence[Path] = (), progress: Progress = no_progress,
) -> Verified:  # fmt: skip
    """Recompute a node ledger whose signatures are valid; check its evidence with the certificates in `trust`, its
    journal with the logs in `anchors`. Raises NotVerifiedError with the first failure."""
    signed = opened.statement
    if opened.kind != "node":
        kind = shown(signed["predicate"].get("kind"))
        raise NotVerifiedError(
            f"this is a ledger of kind {kind}; only the ledger of a node has a journal",
            code="statement_malformed",
            path="statement.predicate.kind",
            hint="countersign the ledgers of its nodes; verify this one with `flopsd verify`",
        )
    sealed, secrets = _sealed_journal(signed), _code_secrets(signed)
    journal = journal if journal is not None else journal_beside(opened.path)
    if _is_missing(journal):
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
        other = (
            f"{journal} is not a journal: name NAME.journal.jsonl with --journal" if begins_otherwise(journal) else ""
        )
        raise NotVerifiedError(str(fault), hint=fault.hint or other, code=fault.code, path=fault.path) from fault
    except MALFORMED as fault:
        raise NotVerifiedError(
            f"the journal contains records that no daemon writes: {words_of(fault)}", code="record_malformed"
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
        not_signed_by=opened.not_signed_by,
    )


def _is_missing(path: Path) -> bool:
    """Whether the file is missing. False also if this user may not look there: opening it reports that."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _refuse_times(predicate: Mapping[str, Any]) -> None:
    try:
        refuse_malformed_times(predicate)
    except MALFORMED as fault:
        raise NotVerifiedError(
            f"the ledger has a time that cannot be read: {words_of(fault)}", code="time_malformed"
        ) from fault


def _sealed_journal(signed: Mapping[str, Any]) -> JournalFacts:
    """The journal that the statement names. Validates the fields that the recomputation relies on."""
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
            f"the statement does not name its journal and totals: {words_of(fault)}", code="statement_malformed"
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
            f"the size of the journal differs from the statement: the journal has {facts}", code="journal_facts"
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
    """Raises JournalDamagedError for a listed seal that is not on the journal's own chain."""
    if not line_ends_at(fd, seal.size_bytes, seal.head_sha256):
        raise JournalDamagedError(
            f"{journal} lists a seal of another journal: no record has hash {seal.head_sha256[:16]}…", code="law_15"
        )


def _recompute(
    signed: Mapping[str, Any], history: History, facts: JournalFacts, table: PeakTable, policies: tuple[Policy, ...],
    secrets: tuple[bytes, ...],
) -> None:  # fmt: skip
    """Recompute the statement and compare it with the signed one, field by field."""
    method = signed["predicate"]["method"]
    isolation = signed["predicate"]["isolation"]
    version, sealed_at = method.get("flopsdVersion"), str(method.get("sealedAt"))
    if not isinstance(version, str):
        raise NotVerifiedError(
            "the ledger names no version of flopsd",
            code="statement_differs",
            path="statement.predicate.method.flopsdVersion",
        )
    try:
        key = key_from(isolation["key"])
    except (KeyError, TypeError, ValueError) as fault:
        raise NotVerifiedError(
            f"isolation.key does not describe a key: {words_of(fault)}",
            code="statement_differs",
            path="statement.predicate.isolation.key",
        ) from fault
    seal = SealFacts(version, sealed_at, signed_items(signed["predicate"]), key, policies, by_sha256(secrets))
    refuse_difference(statement(history, table, facts, seal), signed, "the journal")


def _evidence(opened: SignedStatement, trust: Trust, context: CheckContext) -> tuple[EvidenceResult, ...]:
    """Check every piece of evidence. Raises NotVerifiedError if one is invalid."""
    predicate, envelope = opened.statement["predicate"], opened.envelope
    stamps: list[tuple[bytes, bytes]] = []
    stamped = [(at, one) for at, (_, one) in enumerate(envelope.signatures) if envelope.has_timestamps(at)]
    message = pae(envelope) if stamped else b""
    for index, signature in stamped:
        # A timestamp of an untrusted signature proves nothing about the ledger.
        if any(key.verifies(message, signature) for key in opened.keys):
            stamps += [(signature, token) for token in envelope.timestamps(index)]
    found = (
        *findings(predicate["evidence"], context),
        *of_earlier_seals(context.history.seals, context),
        *timestamp_findings(stamps, trust, str(predicate["method"]["sealedAt"])),
    )
    bad = next((finding for finding in found if finding.verdict is EvidenceState.FAILED), None)
    if bad is not None:
        raise NotVerifiedError(f"the evidence {bad.type} is invalid: {bad.text}", code="evidence_invalid")
    return found

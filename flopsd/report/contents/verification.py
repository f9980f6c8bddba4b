"""The identity of a ledger, the result of its verification, and the commands that verify it."""

from __future__ import annotations

from dataclasses import field
from hashlib import sha256
from pathlib import Path
from typing import Any

from flopsd.attestation.evidence.item import EvidenceResult
from flopsd.attestation.foreign_files import ForeignFile, foreign_files
from flopsd.attestation.ledger_files import journal_beside
from flopsd.attestation.merge.verify_merged import VerifiedMerge
from flopsd.attestation.signed_statement import read_ledger, statement_in
from flopsd.attestation.times import seal_time_doubts
from flopsd.attestation.verify import Verified
from flopsd.core.dataclass import dataclass
from flopsd.core.envelope import Envelope, parse_envelope
from flopsd.core.field_reader import words_of
from flopsd.core.ledger.history import History
from flopsd.core.rounding import grouped
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.report.contents.model import REPLAY, Fact, Flag, Proof, VerificationResult, VerificationState
from flopsd.report.contents.offline_recipe import FIGURES, FUNCTIONS
from flopsd.report.ledger_json import HINT, LedgerObject, line
from flopsd.report.terminal import shell_command
from flopsd.report.verification_text import (
    added_up_again,
    anchor_texts,
    children_text,
    part_texts,
    recomputed,
    replay_text,
    signed_by,
    unsealed_text,
)
from flopsd.settings.data_files import Tables

MAX_FOREIGN = 10  # foreign tables and policies that are named; a verifier must give each
NO_FIGURES = "No figure is shown, since the ledger failed verification."
UNVERIFIED = "NOT VERIFIED by this report: neither the signature nor any figure was checked."


@dataclass(frozen=True, slots=True)
class LedgerDocument:
    """A ledger as read from its file, not verified yet."""

    path: Path
    journal: str
    statement: Any
    envelope: Envelope
    keys: tuple[str, ...] = ()  # the names of the key files that the reader gave
    tables: Tables = field(default_factory=Tables)  # with the peak tables and policies that the reader gave

    @property
    def payload_sha256(self) -> str:
        return sha256(self.envelope.payload).hexdigest()

    @property
    def predicate(self) -> LedgerObject:
        return LedgerObject(self.statement["predicate"], "predicate")

    def foreign(self) -> tuple[ForeignFile, ...]:
        """The tables and policies that are not flopsd's own. Raises LedgerError if the ledger is malformed."""
        try:
            return foreign_files(self.statement["predicate"], self.tables, self.path)
        except (LookupError, TypeError) as fault:
            raise LedgerError(f"predicate.method is malformed: {line(words_of(fault))}", hint=HINT) from fault


def read_document(ledger: Path, keys: tuple[str, ...], journal: str | Path | None, tables: Tables) -> LedgerDocument:
    """Read a ledger file without verifying it. Raises NotVerifiedError if it is not a ledger."""
    envelope = parse_envelope(read_ledger(ledger))
    beside = journal_beside(ledger) if journal is None else Path(journal)
    names = tuple(Path(key).name for key in keys)
    return LedgerDocument(ledger, beside.name, statement_in(envelope), envelope, names, tables)


def not_checked(document: LedgerDocument) -> VerificationResult:
    """The result if the reader gave no key."""
    return VerificationResult(VerificationState.NOT_VERIFIED, UNVERIFIED, f"Verify it with: {verify_command(document)}")


def verify_command(document: LedgerDocument) -> str:
    """The command that verifies the ledger; with `--allow-replay` only if the ledger states that it is a replay."""
    words = ["flopsd", "verify", document.path.name]
    for key in document.keys or ("PUBLIC-KEY",):
        words += ["--key", key]
    words += [word for one in document.foreign()[:MAX_FOREIGN] for word in one.option]
    if document.predicate.raw("replay") is not None:
        words.append("--allow-replay")
    return shell_command(words)


def flags_of(document: LedgerDocument, now_ns: int | None = None, history: History | None = None) -> tuple[Flag, ...]:
    """The warnings that come before any figure. `history`: of the verified journal."""
    predicate, flags = document.predicate, []
    if replayed := replay_text(predicate):
        flags.append(Flag(REPLAY, f"{replayed}."))
    flags += [Flag(one.flag, line(one.text)) for one in document.foreign()[:MAX_FOREIGN]]
    flags += [Flag(word, f"{text}.") for word, text in part_texts(predicate, history)]
    incarnations = list(predicate.objects("incarnations"))
    if incarnations and incarnations[-1].raw("endReason") is None:
        last = predicate.object("method").object("journal").utc("lastRecordAt")
        says = f"sealed while the run went on, or after it was killed. It covers the time up to {last} only."
        flags.append(Flag("ROLLING", says))
    flags += [Flag("CLOCK", f"{doubt}.") for doubt in _doubts(predicate, now_ns)]
    whole = predicate.maybe_object("completeness")
    if whole is not None and whole.flag("complete") is not True:
        word = "INCOMPLETE" if whole.flag("complete") is False else "COMPLETENESS UNKNOWN"
        flags.append(Flag(word, whole.words("summary", "completeness.summary")))
    return tuple(flags)


def _doubts(predicate: LedgerObject, now_ns: int | None) -> list[str]:
    try:
        return seal_time_doubts(predicate.mapping, now_ns)
    except (LookupError, TypeError, ValueError) as fault:
        raise LedgerError(f"predicate has malformed times: {line(words_of(fault))}", hint=HINT) from fault


def proof_of(document: LedgerDocument) -> Proof:
    predicate = document.predicate
    method = predicate.object("method")
    signed_by_key = [line(keyid) or "not named" for keyid, _ in document.envelope.signatures[:10]]
    facts = [
        Fact("Ledger", line(document.path.name)),
        Fact("Payload, SHA-256", document.payload_sha256),
        Fact("Payload, bytes", grouped(len(document.envelope.payload))),
        *(Fact("Signed by key, as the ledger claims", keyid) for keyid in signed_by_key),
    ]
    if (sealed := method.maybe_object("journal")) is not None:
        facts += [
            Fact("Journal", line(document.journal)),
            Fact("Journal, SHA-256", sealed.text("sha256")),
            Fact("Journal, records", grouped(sealed.count("records"))),
            Fact("Journal, head of the chain", sealed.text("headSha256")),
        ]
    tables = method.raw("peakTableSha256")
    names = (tables,) if isinstance(tables, str) else method.texts("peakTableSha256")
    facts += [Fact("Peak table, SHA-256", line(name)) for name in names[:10]]
    facts += [Fact(f"Policy {entry.text('id')}, SHA-256", entry.text("sha256")) for entry in method.objects("policies")]
    return Proof(tuple(facts), _commands(document))


def _commands(document: LedgerDocument) -> tuple[tuple[str, str], ...]:
    node = document.predicate.raw("kind") == "node"
    key = document.keys[0] if document.keys else "PUBLIC-KEY"
    ledger = shell_command([document.path.name])
    steps = [FUNCTIONS, f"open_ledger {ledger}\nsigned_by {shell_command([key])} {ledger}\n"]
    steps += [f"sealed {shell_command([document.journal])}\nchained\n"] if node else []
    steps += [f"rated {ledger} PEAK-TABLES-AND-POLICIES-THAT-YOU-TRUST\n"]
    steps += [FIGURES]
    command = verify_command(document)
    again = "Check the signatures and recompute every figure from the journal and the peak table"
    if not node:
        again = "Check the signatures and recompute every sum from the entries of its ledgers (--children: and those)"
    return (
        (again, command),
        ("The same without flopsd, as a script for this ledger", f"{command} --explain"),
        ("The same steps by hand: openssl 3, jq, sha256sum and python3", "\n".join(steps)),
    )


def verified(found: Verified | VerifiedMerge) -> tuple[VerificationResult, tuple[EvidenceResult, ...]]:
    """The result of verification, and the results for the attached evidence."""
    lines = [signed_by(found)]
    if isinstance(found, Verified):
        lines += [unsealed_text(found.unsealed_records)] if found.unsealed_records else []
        lines += [line(one.text) for one in found.also]
        lines += [] if found.anchored is None else anchor_texts(found.anchored)
        verdict, evidence = recomputed(found), found.evidence
    else:
        lines.append(children_text(found))
        verdict, evidence = added_up_again(found), ()
    return VerificationResult(VerificationState.VERIFIED, f"{verdict}.", lines=tuple(lines)), evidence


def refused(fault: NotVerifiedError) -> VerificationResult:
    return VerificationResult(VerificationState.REFUSED, f"REFUSED: {line(fault)}.", line(fault.hint), (NO_FIGURES,))

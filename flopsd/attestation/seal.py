"""Seal a journal into a signed ledger, with the journal and the public key next to it. Needs the extra `seal`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flopsd import __version__
from flopsd.attestation.evidence.collect import collect, stamp
from flopsd.attestation.foreign_files import companions_of
from flopsd.attestation.ledger_files import (
    LedgerFiles,
    companions_beside,
    disclosed_secrets,
    journal_beside,
    ledger_files_lock,
    public_key_beside,
    write_ledger_files,
)
from flopsd.attestation.signing.dsse import sign, verify_signatures
from flopsd.attestation.signing.keys import load_signer
from flopsd.attestation.signing.public_key import MAX_PEM_BYTES, PublicKey
from flopsd.attestation.signing.refused_pin import RefusedPin
from flopsd.attestation.times import refuse_malformed_times
from flopsd.core.dataclass import dataclass
from flopsd.core.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from flopsd.core.field_reader import MALFORMED, words_of
from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.history import one_peak_table
from flopsd.core.ledger.segments import JournalFacts
from flopsd.core.ledger.statement import SealFacts, encode, secrets_in, statement
from flopsd.core.untrusted import parse_json
from flopsd.errors import FileChangedError, JournalDamagedError, LedgerError, NotVerifiedError
from flopsd.journal.codes import by_sha256
from flopsd.journal.head import Head, RequiredHead
from flopsd.journal.history_reader import HistoryReader
from flopsd.journal.sealed_prefix import durable_prefix
from flopsd.settings.data_files import Tables, companion_beside
from flopsd.settings.evidence_kinds import WITNESS, EvidenceWanted
from flopsd.system.clock import Clock, rfc3339
from flopsd.system.file_presence import exists
from flopsd.system.known_files import KnownFile, known_file
from flopsd.system.regular_files import read_at_most

log = logging.getLogger("flopsd")


@dataclass(frozen=True, slots=True)
class Sealed:
    """The result of sealing."""

    ledger: Path
    predicate: Mapping[str, Any]
    seal: EarlierSeal  # as later ledgers of the journal list it
    companions: tuple[Path, ...]  # the verifier needs them too
    timestamp: str = ""  # the time of the timestamp, or why there is none; empty: not requested
    is_new: bool = True  # False: the journal was sealed before, and its ledger is unchanged
    segment: int | None = None  # the number of the segment, if the run is rotated

    @property
    def journal(self) -> Path:
        return journal_beside(self.ledger)

    @property
    def public_key(self) -> Path:
        return public_key_beside(self.ledger)

    @property
    def run(self) -> str:
        return str(self.predicate["run"]["id"])

    @property
    def node(self) -> str:
        return str(self.predicate["node"]["name"])


def seal_journal(
    journal: Path, key_uri: str, ledger: Path, clock: Clock, peaks_files: Sequence[str] = (),
    wanted: EvidenceWanted | None = None, policy_files: Sequence[str] = (), *, live: bool = False,
    rolling: bool = False, lock: Path | None = None, head: Head | None = None, code_secrets: Sequence[bytes] = (),
    refused_pin: RefusedPin | None = None, is_final: Callable[[bool], bool] | None = None,
    any_key: bool = False, keep: Callable[[], bool] | None = None,
) -> Sealed:  # fmt: skip
    """Seal `journal` into `ledger`, with the journal and the public key next to it; the ledger is written last, whole.

    `peaks_files`, `policy_files`: files that may hold the run's peak table and policies, as far as flopsd does not ship
    them; those of the run are copied too.
    `wanted`: the evidence to collect, in bounded time; None: no evidence is recorded, not even as absent.
    `live`: the journal may be growing or truncated; its longest valid prefix is sealed. `rolling`: replace only a
    ledger that covers less. `lock`: a file that serializes the seals of one state folder.
    `head`: a head that the journal must contain, if the caller has it from the process that wrote the journal.
    `code_secrets`: the ledger discloses those of the journal's codes, and likewise those that an existing ledger
    discloses. A journal with a wrong code is refused.
    `refused_pin`: keeps a PIN that a token refused, so that it is not given to the token again.
    `is_final`: takes whether the journal has an end, and returns whether an existing ledger of the same journal and key
    stays as it is. `any_key`: one of another key stays too; the caller identifies it by its digest. `keep`: whether an
    existing ledger is kept under another name.
    Raises LedgerError, JournalError, SigningKeyError, PeakTableError.
    """
    key = load_signer(key_uri, refused_pin=refused_pin)
    log.info("sealing with %s, key id %s", key.describe(), key.public.keyid)
    ledger = ledger.absolute()
    code_secrets, required = [*code_secrets, *disclosed_secrets(ledger)], RequiredHead(head)
    reader = HistoryReader(code_secrets)
    sealed = durable_prefix(journal, required.take, reader.take)
    if sealed.reason and not live:
        raise JournalDamagedError(sealed.reason)
    if sealed.reason and not rolling:  # in a rolling seal, the daemon may be just writing the last line
        log.warning("%d bytes at the end of %s are left out: %s", sealed.left_out_bytes, journal, sealed.reason)
    log.debug("%s: %d records, %d bytes are sealed", journal, sealed.facts.records, sealed.facts.size_bytes)
    required.require(journal)
    history = reader.history()
    if not history.incarnations:
        raise LedgerError(f"the journal {journal} is empty: nothing to seal")
    sha256 = one_peak_table(history)
    secrets = secrets_in(history, by_sha256(code_secrets))

    def sealed_before() -> Sealed | None:
        if is_final is None or not is_final(history.ended):
            return None
        before = _sealed_before(ledger, sealed.facts, None if any_key else key.public, secrets)
        beside = () if before is None else tuple(file.path for file in companions_beside(ledger).values())
        return None if before is None else Sealed(ledger, *before, beside, is_new=False)

    if (before := sealed_before()) is not None:
        return before
    tables = Tables(peaks_files=peaks_files, policy_files=policy_files)
    try:
        table, policies = tables.peaks(sha256), tables.policies(history.policy_sha256)
        evidence = () if wanted is None else collect(wanted, history, sealed.facts.head_sha256, clock)
        seal = SealFacts(__version__, rfc3339(clock.wall_ns()), evidence, key.readers(), policies, secrets)
        document = statement(history, table, sealed.facts, seal)
        refuse_malformed_times(document["predicate"])
    except MALFORMED as fault:
        raise JournalDamagedError(f"{journal} contains records that no daemon writes: {words_of(fault)}") from fault
    data, timestamp = sign(encode(document), key), ""
    if wanted is not None:
        data, timestamp = stamp(data, wanted, clock)
    try:
        companions = companions_of(document["predicate"], tables)
        prefix = KnownFile(journal, sealed.facts.size_bytes, sealed.facts.sha256)
        files = LedgerFiles(data, prefix, key.public.pem, companions)
        with ledger_files_lock(lock, clock):
            if (before := sealed_before()) is not None:  # by another process meanwhile, which may have copied it
                return before
            write_ledger_files(ledger, files, clock, only_longer=rolling, keep=keep is not None and keep())
    except FileChangedError as fault:
        raise _replaced(journal) from fault
    except OSError as fault:
        if not exists(journal):
            raise _replaced(journal) from fault
        raise LedgerError(
            f"cannot write the ledger {ledger}: {fault.strerror}",
            hint="the journal is intact; run `flopsd seal` again with another --ledger",
        ) from fault
    payload_sha256, witness = hashlib.sha256(encode(document)).hexdigest(), _witness(wanted, evidence)
    listed = EarlierSeal(sealed.facts.size_bytes, sealed.facts.head_sha256, payload_sha256, seal.sealed_at, witness)
    beside = tuple(companion_beside(ledger, name) for name in companions)
    return Sealed(ledger, document["predicate"], listed, beside, timestamp)


def _replaced(journal: Path) -> LedgerError:
    return LedgerError(
        f"{journal} was replaced while it was sealed, as when its run is rotated",
        hint="the ledger that is there is unchanged; run `flopsd seal` again",
    )


def _sealed_before(
    ledger: Path, journal: JournalFacts, key: PublicKey | None, secrets: Mapping[str, bytes]
) -> tuple[Mapping[str, Any], EarlierSeal] | None:
    """The predicate and the seal of the existing ledger at `ledger`, if this journal need not be sealed again, which
    would give other bytes with another time; else None. The ledger must be signed by `key` (None: by any), seal this
    very journal, which lies next to it, and disclose all `secrets` of the journal's codes."""
    try:
        envelope = parse_envelope(read_at_most(ledger, MAX_ENVELOPE_BYTES))
        verify_signatures(envelope, [] if key is None else [key], 0 if key is None else 1)
        predicate: Mapping[str, Any] = parse_json(envelope.payload, "the payload")["predicate"]
        method = predicate["method"]
        same = method["journal"]["sha256"] == journal.sha256 == known_file(journal_beside(ledger)).sha256
        beside = read_at_most(public_key_beside(ledger), MAX_PEM_BYTES)
        payload_sha256 = hashlib.sha256(envelope.payload).hexdigest()
        seal = EarlierSeal(journal.size_bytes, journal.head_sha256, payload_sha256, str(method["sealedAt"]), None)
        disclosed = set(method["codeSecrets"]) >= {secret.hex() for secret in secrets.values()}
    except (OSError, NotVerifiedError, LookupError, TypeError):
        return None
    return (predicate, seal) if same and disclosed and (key is None or beside == key.pem) else None


def _witness(wanted: EvidenceWanted | None, evidence: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The answer of the witness, for the journal; None if no witness was asked."""
    if wanted is None or wanted.witness_url is None:
        return None
    item = next(item for item in evidence if item["type"] == WITNESS)
    return {"absent": item["reason"]} if item["data"] is None else {"token": item["data"]["token"]}

"""Sealing: a journal becomes a signed ledger, with journal and public key beside it. Needs the extra `seal`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from flopsd import __version__
from flopsd.clock import Clock, rfc3339
from flopsd.config import find_peaks, is_packaged
from flopsd.core.ledger import SealFacts, encode, figures_of, statement
from flopsd.core.model import Figures
from flopsd.core.records import History, read_history
from flopsd.errors import LedgerError
from flopsd.evidence import Wanted
from flopsd.evidence.collecting import collect, stamp
from flopsd.files import replace_file
from flopsd.journal import journal_facts, read_journal
from flopsd.signing.dsse import sign
from flopsd.signing.keys import load_signer

log = logging.getLogger("flopsd")


@dataclass(frozen=True, slots=True)
class Sealed:
    """What sealing left behind."""

    ledger: Path
    journal: Path
    public_key: Path
    figures: Figures
    replay: bool
    timestamp: str = ""  # when it was stamped or why not; empty: nobody was asked


def journal_beside(ledger: Path) -> Path:
    """Where the journal of a ledger lies: the ledger's stem with `.journal.jsonl`."""
    return ledger.with_name(f"{ledger.stem}.journal.jsonl")


def public_key_beside(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.stem}.pub")


def peaks_beside(ledger: Path) -> Path:
    """Where the peak table of a ledger lies when it is not a packaged one."""
    return ledger.with_name(f"{ledger.stem}.peaks.yaml")


def seal_journal(
    journal: Path,
    key_uri: str,
    ledger: Path,
    clock: Clock,
    peaks_file: str | None = None,
    wanted: Wanted | None = None,
) -> Sealed:
    """Seal `journal` into `ledger`, with journal and public key beside it; the ledger appears last, whole.

    `peaks_file` is the peak table of the run where that is not a packaged one; it is then laid beside too.
    `wanted` is the evidence to collect, in bounded time; None: none is named, not even as absent.
    Raises LedgerError, JournalError, SigningKeyError, PeakTableError.
    """
    key = load_signer(key_uri)
    log.info("sealing with %s, key id %s", key.describe(), key.public.keyid)
    ledger = ledger.absolute()
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        exhibit = journal_beside(ledger)
        replace_file(exhibit, journal.read_bytes())
        facts = journal_facts(exhibit)
        history = read_history(line.record() for line in read_journal(exhibit))
        if not history.incarnations:
            raise LedgerError(f"the journal {journal} is empty: there is nothing to seal")
        sha256 = one_peak_table(history)
        table = find_peaks(sha256, [Path(peaks_file)] if peaks_file else [])
        if peaks_file is not None and not is_packaged(sha256):
            replace_file(peaks_beside(ledger), Path(peaks_file).read_bytes())
        evidence = () if wanted is None else collect(wanted, history, facts.head_sha256, clock)
        seal = SealFacts(__version__, rfc3339(clock.wall_ns()), evidence)
        data, timestamp = sign(encode(statement(history, table, facts, seal)), key), ""
        if wanted is not None:
            data, timestamp = stamp(data, wanted, clock)
        replace_file(public_key_beside(ledger), key.public_pem)
        replace_file(ledger, data)
    except OSError as fault:
        raise LedgerError(
            f"cannot write the ledger {ledger}: {fault.strerror}",
            hint="the journal is kept; run `flopsd seal` again with another --ledger",
        ) from fault
    figures, replay = figures_of(history, table), history.replay is not None
    return Sealed(ledger, exhibit, public_key_beside(ledger), figures, replay, timestamp)


def one_peak_table(history: History) -> str:
    """The SHA-256 of the peak table that all incarnations used. Raises LedgerError where they differ."""
    tables = sorted({str(incarnation.begin["peaks_sha256"]) for incarnation in history.incarnations})
    if len(tables) != 1:
        raise LedgerError(
            f"the run was metered with {len(tables)} different peak tables",
            hint="its incarnations cannot stand in one ledger; give the run one table or two run ids",
        )
    return tables[0]

"""Decide whether a merge may overwrite a file: only an earlier ledger of the same job or lineage, with the same key."""

from __future__ import annotations

from pathlib import Path

from flopsd.attestation.ledger_files import public_key_beside
from flopsd.attestation.merge.large_statement import parse_statement
from flopsd.attestation.signed_statement import read_ledger, statement_in
from flopsd.core.envelope import parse_envelope
from flopsd.core.ledger.merged_statement import JOB, KINDS
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.settings.locations import refuse_place
from flopsd.system.file_presence import exists
from flopsd.system.regular_files import read_at_most

_UNCHANGED = "nothing was changed; give --ledger another name"


def refuse_overwriting(ledger: Path, kind: str, public_pem: bytes) -> None:
    """Raises LedgerError unless `ledger` is free or a merged ledger of this kind and key: any other ledger, or another
    key, is evidence, and the file to be replaced is not among the merged ones."""
    beside = public_key_beside(ledger)
    refuse_place(ledger, "job.json")
    if beside == ledger:
        raise LedgerError(f"{ledger} is also the name of its public key", hint="choose a name that ends in .json")
    refuse_another(ledger, kind, None)
    if exists(beside) and not _holds(beside, public_pem):
        raise LedgerError(f"{beside} exists and is a different public key", hint=_UNCHANGED)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_at_most(path, len(data)) == data
    except OSError:
        return False


def refuse_another(ledger: Path, kind: str, name: str | None) -> None:
    """Raises LedgerError if `ledger` exists and is not that of this job or lineage. `name`: None if not known yet."""
    if not exists(ledger):
        return
    there = _merged_there(ledger)
    if there is None:
        what = "is not a merged ledger"
    elif there[0] != kind:
        what = f"is the ledger of a {there[0]}, not of a {kind}"
    elif name not in (None, there[1]):
        what = f"is the ledger of the {kind} {there[1]!r}, not of {name!r}"
    else:
        return
    raise LedgerError(f"{ledger} exists and {what}", hint=_UNCHANGED)


def _merged_there(ledger: Path) -> tuple[str, str] | None:
    """The kind and name of the existing merged ledger; None for any other file."""
    try:
        predicate = statement_in(parse_envelope(read_ledger(ledger)), parse_statement)["predicate"]
        kind = predicate["kind"]
        named = predicate["run"]["id"] if kind == JOB else predicate["lineage"]["name"]
        return (kind, str(named)) if kind in KINDS else None
    except (NotVerifiedError, KeyError, TypeError):
        return None

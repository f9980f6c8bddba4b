"""What verifying a ledger found, in words for a report."""

from __future__ import annotations

from flopsd.errors import NotVerifiedError
from flopsd.evidence.item import Finding
from flopsd.merge.checking import VerifiedMerge
from flopsd.report import anchored_lines, counted
from flopsd.reporting.model import Check, Checked
from flopsd.reporting.reading import line
from flopsd.verify import Verified

NO_FIGURES = "No figure of it is shown: a ledger that does not hold says nothing."


def verified(found: Verified | VerifiedMerge) -> tuple[Check, tuple[Finding, ...]]:
    """The check, and what came of the attached evidence."""
    keys = ", ".join(found.keyids)
    if isinstance(found, Verified):
        lines = [f"Signed by key {keys}."]
        if found.unsealed_records:
            lines.append(
                f"The journal beside it goes on: {counted(found.unsealed_records, 'record')} not sealed, of which "
                "nothing is said."
            )
        lines += [] if found.anchored is None else [text.strip() for text in anchored_lines(found.anchored)]
        records = counted(found.records, "journal record")
        says = f"VERIFIED: signature checked, all figures computed again from {records}."
        return Check(Checked.VERIFIED, says, lines=tuple(lines)), found.evidence
    count = int(found.statement["predicate"]["ledgerCount"])
    lines = [f"Signed by key {keys}."]
    if found.children is None:
        lines.append("The ledgers that it is made of were not looked at: name where they lie with --children.")
    else:
        lines.append(
            f"{found.children.given} of its {counted(count, 'ledger')} given and unchanged, "
            f"{found.children.recomputed} of them recomputed."
        )
    says = f"VERIFIED: signature checked, all sums added up again from the entries of {counted(count, 'ledger')}."
    return Check(Checked.VERIFIED, says, lines=tuple(lines)), ()


def refused(fault: NotVerifiedError) -> Check:
    return Check(Checked.REFUSED, f"REFUSED: {line(fault)}.", line(fault.hint), (NO_FIGURES,))

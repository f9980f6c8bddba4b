"""The figures for the Model Documentation Form, as a part of a report."""

from __future__ import annotations

from flopsd.core.form import form
from flopsd.core.rules import Policy
from flopsd.errors import LedgerError
from flopsd.reporting.model import Form, FormLine
from flopsd.reporting.reading import HINT, Told, line

# What members of another type than a ledger has can make the Form's arithmetic do.
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


def form_of(predicate: Told, policy: Policy | None) -> Form | None:
    """None without a policy that has a form. Raises LedgerError."""
    if policy is None or policy.form is None:
        return None
    for device in predicate.objects("devices"):
        device.decimal("spanSeconds")  # so that no 1e999999999 is taken for a number
    try:
        found = form(predicate.mapping, policy)
    except _MALFORMED as fault:
        raise LedgerError(f"predicate gives no figures for the Form: {line(repr(fault)[:200])}", hint=HINT) from fault
    return Form(
        tuple(FormLine(line(f.field), line(f.ai_office), line(f.national), line(f.note)) for f in found.lines),
        tuple(line(words) for words in (found.notification or "").splitlines()),
        policy.title,
    )

"""Check that a merged ledger is the sum of the children that it lists."""

from __future__ import annotations

from flopsd.attestation.verify import SignedStatement, refuse_difference
from flopsd.core.ledger.merged_claims import DeviceClaims, claims_of, refuse_double
from flopsd.core.ledger.merged_entry import sort_key
from flopsd.core.ledger.merged_statement import KINDS, recompute_merged
from flopsd.errors import LedgerError, NotVerifiedError, PolicyError
from flopsd.settings.data_files import Tables

# What the arithmetic may raise on signed fields that flopsd does not write.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError)


def recompute(opened: SignedStatement, tables: Tables, *, allow_replay: bool = False) -> None:
    """Add up the children in a merged ledger again. Raises NotVerifiedError with the first failure."""
    predicate = opened.statement["predicate"]
    try:
        if predicate["kind"] not in KINDS:
            raise NotVerifiedError(f"this is a ledger of kind {predicate['kind']!r:.60}, not a merged one")
        entries = predicate["children"]
        if not entries:
            raise NotVerifiedError("the merged ledger lists no children")
        if entries != sorted(entries, key=sort_key):
            raise NotVerifiedError("the children are not in the order of the format")
        claims = [
            DeviceClaims(claim, number, entry["name"])
            for number, entry in enumerate(entries)
            for claim in claims_of(entry)
        ]
        refuse_double(sorted(claims, key=lambda claimed: (claimed.claim.what, claimed.claim.key, claimed.child)))
        policies = tables.policies(str(policy["sha256"]) for policy in predicate["method"]["policies"])
        again = recompute_merged(predicate, entries, policies)
    except PolicyError as fault:
        raise NotVerifiedError(str(fault), hint=fault.hint) from fault
    except LedgerError as fault:
        raise NotVerifiedError(f"its children cannot be merged: {fault}", hint=fault.hint) from fault
    except MALFORMED as fault:
        raise NotVerifiedError(f"it contains fields that `flopsd merge` does not write: {fault!r:.200}") from fault
    refuse_difference(again, opened.statement, "the entries of its children")
    if predicate["replay"] is not None and not allow_replay:
        raise NotVerifiedError(
            f"{predicate['replay']['children']} of its {len(entries)} children are replays: no hardware was metered",
            hint="a replay is not evidence; to check only the arithmetic, add --allow-replay",
        )

"""Whether a merged ledger is the sum of the children that it names."""

from __future__ import annotations

from flopsd.attestation.verify import Opened, refuse_difference
from flopsd.core.ledger.merged_claims import DeviceClaims, claims_of, refuse_double
from flopsd.core.ledger.merged_entry import sort_key
from flopsd.core.ledger.merged_statement import KINDS, recompute_merged
from flopsd.errors import LedgerError, NotVerifiedError, PolicyError
from flopsd.settings.data_files import Tables

# What the fields of a ledger can make arithmetic do when whoever holds its key wrote what no flopsd writes.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError)


def recompute(opened: Opened, tables: Tables, *, allow_replay: bool = False) -> None:
    """Add the children in a merged ledger up again. Raises NotVerifiedError with the first reason against it."""
    predicate = opened.statement["predicate"]
    try:
        if predicate["kind"] not in KINDS:
            raise NotVerifiedError(f"this is a ledger of kind {predicate['kind']!r}, not a merged one")
        entries = predicate["children"]
        if not entries:
            raise NotVerifiedError("it names no ledger that it was made of")
        if entries != sorted(entries, key=sort_key):
            raise NotVerifiedError("the children do not stand in their order")
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
        raise NotVerifiedError(f"its children cannot be in one ledger: {fault}") from fault
    except MALFORMED as fault:
        raise NotVerifiedError(f"this is not what `flopsd merge` writes: {fault!r:.200}") from fault
    refuse_difference(again, opened.statement, "its children's entries")
    if predicate["replay"] is not None and not allow_replay:
        raise NotVerifiedError(
            f"{predicate['replay']['children']} of its {len(entries)} children are replays: no hardware was metered",
            hint="a replay is no evidence; to check the arithmetic all the same, add --allow-replay",
        )

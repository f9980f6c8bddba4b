"""Values at the limits of sealing and of logs."""

from contextlib import nullcontext
from typing import Any

import pytest

from flopsd.attestation.difference import refuse_difference
from flopsd.attestation.verify import _sealed_journal
from flopsd.core.model import GapReason
from flopsd.errors import NotVerifiedError
from tests.second_implementation.arithmetic import payload_of
from tests.support.paths import VECTORS


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("predicate", "totals", "executed", "low"), "1.5", "journal and totals"),
        (("predicate", "totals", "executed", "high"), None, ""),
        (("predicate", "totals", "executed", "measured"), None, ""),
        (("predicate", "method", "journal", "sha256"), "ab" * 32, "digests of the journal"),
        (("predicate", "method", "sealedAt"), "yesterday", "no sealing time"),
    ],
)
def test_the_inputs_of_the_recomputation_are_checked_first(place: tuple[Any, ...], value: object, fault: str) -> None:
    signed = payload_of(VECTORS / "valid" / "activity-and-gaps" / "ledger.json")
    there: Any = signed
    for step in place[:-1]:
        there = there[step]
    there[place[-1]] = value
    with pytest.raises(NotVerifiedError, match=fault) if fault else nullcontext():
        _sealed_journal(signed)


@pytest.mark.parametrize(
    ("again", "signed"),
    [({"a": 1}, {"a": True}), ({"a": False}, {"a": 0}), ({"a": None}, {}), ({"a": ["1"]}, {"a": "1"})],
)
def test_statements_that_differ_in_the_type_of_a_value_differ(
    again: dict[str, object], signed: dict[str, object]
) -> None:
    with pytest.raises(NotVerifiedError, match="does not match the journal"):
        refuse_difference(again, signed, "the journal")


def test_the_work_of_a_device_has_texts_and_null_only() -> None:
    """The comparison of flags leaves it out, and each of these statements equals the one that is recomputed."""

    def kinds(value: Any) -> set[type]:
        if isinstance(value, dict | list):
            return set().union(*map(kinds, value.values() if isinstance(value, dict) else value))
        return {type(value)}

    ledgers = [payload_of(path)["predicate"] for path in (VECTORS / "valid").glob("*/ledger.json")]
    work = [device["work"] for predicate in ledgers for device in predicate.get("devices", [])]
    assert len(work) > 300
    assert kinds(work) == {str, type(None)}


def test_member_order_and_json_equivalent_types_make_no_difference() -> None:
    refuse_difference({"a": 1, "b": "x"}, {"b": "x", "a": 1}, "the journal")
    refuse_difference({"a": (1, 2), "b": GapReason.STARTING}, {"a": [1, 2], "b": "starting"}, "the journal")

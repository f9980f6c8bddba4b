"""Faults planted in the other implementations are detected by a vector; `make vector-mutants` plants more of them."""

import pytest

from tests.support.vector_arguments import published
from tests.vector_mutants import javascript, python
from tests.vector_mutants.__main__ import campaign
from tests.vector_mutants.faults import equivalent

pytestmark = pytest.mark.maintainer
ALL = published()
OF_LAWS = [one for one in ALL if (one.expected["clause"] or "").startswith("LAW-")]


@pytest.mark.long
def test_omitting_a_law_in_the_second_implementation_changes_a_verdict() -> None:
    left_out = [
        fault
        for fault in python.faults_of("laws")
        if fault.kind == "check left out" and any(f"'law_{number}'" in fault.text for number in (4, 5, 6, 15))
    ]
    assert len(left_out) > 6
    found = dict(campaign(python, left_out[:4], OF_LAWS, 2))
    assert [str(fault) for fault, vector in found.items() if vector is None] == []


@pytest.mark.long
@pytest.mark.tool("node")
def test_omitting_a_law_in_the_browser_verifier_changes_a_verdict() -> None:
    left_out = [fault for fault in javascript.faults_of("laws.js") if fault.kind == "check left out"]
    assert len(left_out) > 20
    found = dict(campaign(javascript, left_out[-1:], OF_LAWS, 1))
    assert list(found.values()) != [None]


def test_faults_listed_as_equivalent_can_be_planted() -> None:
    possible = {fault.key for of in (python, javascript) for fault in of.faults()}
    assert sorted(key for key in equivalent() if key not in possible) == []

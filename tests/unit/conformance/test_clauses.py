"""The clauses of the ledger's pages have unique ids, and nothing else has one."""

import re

import pytest

from conformance.__main__ import VECTORS
from conformance.clauses import PAGES, clauses, clauses_of
from conformance.decided import decided, undecided
from conformance.vectors import vectors_in
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


def test_every_clause_has_a_unique_id_and_a_text() -> None:
    found = clauses(DOCS)
    assert len(found) > 200
    ids = [clause.id for clause in found]
    assert sorted(ids) == sorted(set(ids)), "an id is given twice"
    assert [clause.id for clause in found if len(clause.text) < 10] == []


def test_an_id_that_a_page_refers_to_is_a_clause() -> None:
    known = {clause.id for clause in clauses(DOCS)}
    for page in PAGES:
        text = (DOCS / page).read_text()
        families = {clause.family for clause in clauses_of(page, text)}
        named = {
            f"{family}-{number}" for family, number in re.findall(r"\[([A-Z]+)-(\d+)\]", text) if family in families
        }
        assert named <= known


@pytest.mark.long
def test_every_clause_has_vectors_that_decide_it_or_a_reason_why_not() -> None:
    ids = {clause.id for clause in clauses(DOCS)}
    names, reasons = decided(VECTORS, vectors_in(VECTORS)), undecided(VECTORS)
    assert ids - names.keys() - reasons.keys() == set()
    assert (names.keys() | reasons.keys()) - ids == set()
    assert names.keys() & reasons.keys() == set()


def test_a_clause_ends_where_the_next_block_begins() -> None:
    page = "[A-1] one\n[A-2] two\n\nno clause\n\n- [A-2] three\n  four\n- five\n| [B-10] x | y |\n| z | [A-1] |\n"
    found = clauses_of("p.md", page)
    assert [(clause.id, clause.line, clause.text) for clause in found] == [
        ("A-1", 1, "one [A-2] two"), ("A-2", 6, "three four"), ("B-10", 9, "x | y |"),
    ]  # fmt: skip
    page = "[A-1] one\n\n1. two\n   three\n2. four\n\nno clause\n\n1. no step\n"
    assert [clause.text for clause in clauses_of("p.md", page)] == ["one 1. two three 2. four"]

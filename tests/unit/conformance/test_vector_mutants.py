"""Faults planted in the second implementation are noticed by a vector; `make vector-mutants` plants more of them."""

from __future__ import annotations

from conformance.vectors import vectors_in
from tests.support.story import VECTORS
from tests.support.vector_mutants import baseline, faults_of, is_noticed


def test_a_law_that_is_left_out_changes_a_verdict() -> None:
    left_out = [
        fault for fault in faults_of("independent_laws") if fault.kind == "check left out" and "law_" in fault.text
    ]
    assert len(left_out) > 20
    vectors = [one for one in vectors_in(VECTORS) if one.name.startswith("invalid/")]
    expected = baseline(vectors)
    for law in ("law_4", "law_5", "law_6", "law_15"):
        fault = next(fault for fault in left_out if f"'{law}'" in fault.text)
        assert is_noticed(fault, vectors, expected) is not None, str(fault)

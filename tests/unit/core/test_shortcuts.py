"""Shortcuts taken at each reading give the same result as the long way."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.clock_integral import integrate
from flopsd.core.tally import Tally

TALLY = Tally(1, 2, energy_mj=3, silent_ns=4)


@pytest.mark.parametrize("name", [one.name for one in fields(Tally)])
def test_changed_gives_the_same_tally_as_replace(name: str) -> None:
    changed, replaced = TALLY.changed({name: 77}), replace(TALLY, **{name: 77})  # type: ignore[arg-type]
    assert [getattr(changed, one.name) for one in fields(Tally)] == [
        getattr(replaced, one.name) for one in fields(Tally)
    ]


@given(st.integers(0, 10**15), st.integers(0, 10**10), st.integers(0, 2000), st.integers(0, 2000))
def test_two_edge_samples_are_integrated_like_samples_among_others(
    begin_ns: int, passed_ns: int, before_mhz: int, after_mhz: int
) -> None:
    edges, end_ns = [(begin_ns, before_mhz), (begin_ns + passed_ns, after_mhz)], begin_ns + passed_ns
    assert integrate(edges, begin_ns, end_ns) == integrate([(begin_ns - 1, 1), *edges], begin_ns, end_ns)

"""Two bases of one run against each other: the ratio's ends hold whatever was not declared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.architecture import Bounds
from flopsd.core.model import PPM, UNDECLARED_PHASE, Figures
from flopsd.core.policy.architecture_sums import ArchitectureFigures
from flopsd.core.policy.reconcile import LESS_EXECUTED, reconcile

NEEDED = ArchitectureFigures(Bounds(90, 100, 110), Bounds(90, 100, 110), 1)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_undeclared_work_may_be_of_the_phases_beside_it(declared: int, undeclared: int, ours: int) -> None:
    by_phase = {"train": Figures(declared, declared, declared), UNDECLARED_PHASE: Figures(0, undeclared, undeclared)}
    ratio = reconcile(by_phase, Figures(0, None, None), NEEDED)[0]
    true = declared + min(ours, undeclared)
    assert ratio.low_ppm is not None
    assert ratio.high_ppm is not None
    assert ratio.low_ppm * 110 <= true * PPM <= ratio.high_ppm * 90
    assert ratio.measured_ppm == declared * PPM // 100


def test_undeclared_work_without_a_ceiling_leaves_the_ratio_without_one() -> None:
    by_phase = {"train": Figures(50, 50, 50), UNDECLARED_PHASE: Figures(0, None, None)}
    ratio = reconcile(by_phase, Figures(0, None, None), NEEDED)[0]
    assert ratio.high_ppm is None
    assert ratio.warning == LESS_EXECUTED
    assert "no phase was declared of" in ratio.for_ledger()["summary"]

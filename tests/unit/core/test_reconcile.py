"""Two bases of one run against each other: the ratio's ends hold whatever was not declared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.architecture import Bounds
from flopsd.core.model import PPM, UNDECLARED_PHASE, Figures
from flopsd.core.policy.reconcile import LESS_EXECUTED, ArchitectureFigures, reconcile

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


def test_each_ratio_is_of_opposite_ends_and_rounded_outward() -> None:
    """Executed 70 to 130 against 97 to 113; updates of 50 to 60 against 89 to 107; the framework's 120 against 101."""
    basis = ArchitectureFigures(Bounds(89, 101, 107), Bounds(97, 103, 113), 1)
    by_phase = {"train": Figures(40, 50, 60), "evaluate": Figures(30, 35, 70)}
    executed, guidelines, framework = reconcile(by_phase, Figures(50, 55, 60), basis, 120)
    assert (executed.low_ppm, executed.measured_ppm, executed.high_ppm) == (619_469, 825_242, 1_340_207)
    assert (guidelines.low_ppm, guidelines.measured_ppm, guidelines.high_ppm) == (467_289, 544_554, 674_158)
    assert (framework.low_ppm, framework.measured_ppm, framework.high_ppm) == (1_188_118,) * 3


def test_without_a_model_there_is_nothing_to_compare_and_without_a_count_no_framework() -> None:
    assert reconcile({"train": Figures(1, 1, 1)}, Figures(1, 1, 1), None, 120) == ()
    names = [ratio.name for ratio in reconcile({"train": Figures(1, 1, 1)}, Figures(1, 1, 1), NEEDED)]
    assert names == ["executed/architecture", "guidelines/architecture"]

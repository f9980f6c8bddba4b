"""The share of training that counts, by declaration (the table of docs/ledger-format.md), two bases of one run, and
the time at which a threshold is crossed at today's rate."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.declarations import Base, Method, OperatorDeclarations, Recomputation
from flopsd.core.figures import Figures
from flopsd.core.model import PPM, UNDECLARED_PHASE
from flopsd.core.policy.bases import declarations_of
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.finding import Limit
from flopsd.core.policy.forecast import Crossing, Rate, crossing, mean_rates, outlook
from flopsd.core.policy.guidelines import NOTHING_COUNTED, Guidelines, Required, guidelines, required_share
from flopsd.core.policy.reconcile import LESS_EXECUTED, ArchitectureFigures, OpenBounds, reconcile
from flopsd.core.session_protocol import DeclaredSession
from flopsd.settings.data_files import load_policies
from flopsd.settings.words import say

FULL, LORA = (Method.PRETRAINING, Method.FULL), (Method.LORA, Method.QLORA)
ROWS = [
    *[(method, Recomputation.NONE, 857_142, 1_000_000, "none") for method in (None, *Method)],
    *[(method, Recomputation.FULL, 666_666, 750_000, f"full_{method.value}") for method in FULL],
    *[(method, Recomputation.FULL, 666_666, 666_667, f"full_{method.value}") for method in LORA],
    *[(method, Recomputation.FULL, 666_666, None, "full") for method in (None, Method.PARTIAL)],
    *[(method, Recomputation.SELECTIVE, 666_666, None, "selective") for method in (None, *Method)],
    *[(method, None, 666_666, None, "not_declared") for method in (None, *Method)],
]


@pytest.mark.parametrize(("method", "recomputation", "low", "stated", "source"), ROWS)
def test_the_required_share_follows_from_the_declaration(
    method: Method | None, recomputation: Recomputation | None, low: int, stated: int | None, source: str
) -> None:
    found = required_share(method, recomputation)
    assert (found.low_ppm, found.stated_ppm, found.high_ppm) == (low, stated, 1_000_000)
    assert found.source == (source,)


@pytest.mark.parametrize(
    ("trained", "work", "source"),
    [
        (7, {"tokens": 1}, "full_full"),
        (6, {"tokens": 1}, "full"),
        (7, {"kernel_windows": 1}, "full"),  # a process that counted no work is no evidence
    ],
)
def test_processes_that_train_all_parameters_imply_the_full_method(
    trained: int, work: dict[str, int], source: str
) -> None:
    facts = {"parameters_total": 7, "parameters_trainable": trained}
    session = DeclaredSession("1" * 32, 7, 1000, "1", facts, {"train": work})
    found = declarations_of(OperatorDeclarations(recomputation=Recomputation.FULL), [session])
    assert found.required.source == (source,)


HALF = Required(400_000, 500_000, 1_000_000, ())


@pytest.mark.parametrize(
    ("beside", "measured"), [(0, 500), (150, 500), (151, None)], ids=["nothing", "just 30 %", "more than 30 %"]
)
def test_undeclared_work_up_to_thirty_percent_keeps_the_measured_value(beside: int, measured: int | None) -> None:
    by_phase = {"train": Figures(900, 1000, 1100), "undeclared": Figures(0, beside, 200)}
    found = guidelines(by_phase, HALF)
    assert found.updates == Figures(360, measured, 1300)
    assert found.cumulative == Figures(360, measured, 1300)


def test_generated_data_counts_only_in_the_cumulative_figure() -> None:
    by_phase = {"train": Figures(900, 1000, 1100), "generate": Figures(70, 80, 90), "evaluate": Figures(7, 8, 9)}
    found = guidelines(by_phase, HALF)
    assert found.updates == Figures(360, 500, 1190)
    assert found.cumulative == Figures(430, 580, 1190)
    alone = guidelines({"generate": Figures(70, 80, 90)}, HALF)
    assert alone.updates == Figures(0, None, 90)
    assert alone.cumulative == Figures(70, 80, 90)
    unmeasured = guidelines({"train": Figures(900, 1000, 1100), "generate": Figures(0, None, 1)}, HALF)
    assert unmeasured.cumulative == Figures(360, None, 1101)
    nothing = guidelines({"train": Figures(900, 1000, 1100), "generate": Figures(0, None, 0)}, HALF)
    assert nothing.cumulative == Figures(360, 500, 1100)


def test_an_unknown_upper_bound_leaves_none_and_bounds_are_rounded_outward() -> None:
    for phase in ("train", "generate", "other", "undeclared"):
        by_phase = {"train": Figures(1, 1, 1), phase: Figures(1, 1, None)}
        assert guidelines(by_phase, HALF).updates.high_flop is None
    assert guidelines({"train": Figures(1, 1, 1), "evaluate": Figures(1, 1, None)}, HALF).updates.high_flop == 1

    share = Required(333_333, 500_000, 999_999, ())
    assert guidelines({"train": Figures(10, 11, 12)}, share).updates == Figures(3, 5, 12)


NEEDED = ArchitectureFigures(OpenBounds(90, 100, 110), OpenBounds(90, 100, 110), 1)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_undeclared_work_counts_for_adjacent_phases(declared: int, undeclared: int, ours: int) -> None:
    by_phase = {"train": Figures(declared, declared, declared), UNDECLARED_PHASE: Figures(0, undeclared, undeclared)}
    ratio = reconcile(by_phase, Figures(0, None, None), NEEDED)[0]
    true = declared + min(ours, undeclared)
    assert ratio.low_ppm is not None
    assert ratio.high_ppm is not None
    assert ratio.low_ppm * 110 <= true * PPM <= ratio.high_ppm * 90
    assert ratio.measured_ppm == declared * PPM // 100


def test_undeclared_work_without_a_ceiling_leaves_the_ratio_unbounded() -> None:
    by_phase = {"train": Figures(50, 50, 50), UNDECLARED_PHASE: Figures(0, None, None)}
    ratio = reconcile(by_phase, Figures(0, None, None), NEEDED)[0]
    assert ratio.high_ppm is None
    assert ratio.warning == LESS_EXECUTED
    assert "no phase was declared of" in say("reconciliation.warning", LESS_EXECUTED)


def test_each_ratio_uses_opposite_ends_and_is_rounded_outward() -> None:
    """Executed 70 to 130 against 97 to 113; updates of 50 to 60 against 89 to 107; the framework's 120 against 101."""
    basis = ArchitectureFigures(OpenBounds(89, 101, 107), OpenBounds(97, 103, 113), 1)
    by_phase = {"train": Figures(40, 50, 60), "evaluate": Figures(30, 35, 70)}
    executed, guidelines, framework = reconcile(by_phase, Figures(50, 55, 60), basis, 120)
    assert (executed.low_ppm, executed.measured_ppm, executed.high_ppm) == (619_469, 825_242, 1_340_207)
    assert (guidelines.low_ppm, guidelines.measured_ppm, guidelines.high_ppm) == (467_289, 544_554, 674_158)
    assert (framework.low_ppm, framework.measured_ppm, framework.high_ppm) == (1_188_118, 1_188_118, 1_188_119)

    assert reconcile({"train": Figures(1, 1, 1)}, Figures(1, 1, 1), None, 120) == ()
    names = [ratio.name for ratio in reconcile({"train": Figures(1, 1, 1)}, Figures(1, 1, 1), NEEDED)]
    assert names == ["executed/architecture", "guidelines/architecture"]


THIRD = Limit(Fraction(10**23, 3), Fraction(10**23, 3))
small = st.integers(0, 40)


def test_a_crossing_in_time_never_and_unknown_are_distinct() -> None:
    rate = Rate(10**16, 2 * 10**16)
    assert crossing(THIRD, Figures(0, 0, 0), rate) == Crossing(1_666_667, 3_333_334)
    assert crossing(THIRD, Figures(10**23, None, None), rate) == Crossing(0, 0)
    slowest, idle = Rate(1, 1), Rate(0, 0)
    assert crossing(Limit(Fraction(7), Fraction(7)), Figures(0, 0, 0), slowest) == Crossing(8, 8)
    assert crossing(THIRD, Figures(0, 0, 0), idle) == Crossing(None, None)
    assert crossing(THIRD, Figures(0, 0, None), idle) == Crossing(0, None), "it may have been crossed already"
    assert crossing(THIRD, Figures(0, 0, 0), Rate(0, None)) == Crossing(0, None)
    assert crossing(None, Figures(0, 0, 0), idle) is None


@given(st.tuples(small, small), st.integers(0, 90), st.integers(0, 90), st.tuples(small, small))
def test_a_crossing_is_the_first_second_at_the_threshold(
    figures: tuple[int, int], a: int, b: int, rates: tuple[int, int]
) -> None:
    low, high = sorted(figures)
    slow, fast = sorted(rates)
    bottom, top = Fraction(min(a, b), 3), Fraction(max(a, b), 3)
    seconds = range(200)
    may = next((s for s in seconds if high + fast * s > bottom), None)
    must = next((s for s in seconds if low + slow * s > top), None)
    figures_now, rate = Figures(low, None, high), Rate(slow, fast)
    assert crossing(Limit(bottom, top), figures_now, rate) == Crossing(may, must)
    assert crossing(Limit(bottom, None), figures_now, rate) == Crossing(may, None)


def test_a_crossing_on_either_account_is_certain_once_the_slower_has_crossed() -> None:
    base = Base("x", "known", 6 * 10**23, None, None)
    updates, cumulative = Figures(10**20, None, 2 * 10**20), Figures(5 * 10**20, None, 6 * 10**20)
    (policy,) = load_policies()
    slow, fast = Rate(10**15, 2 * 10**15), Rate(5 * 10**15, 6 * 10**15)
    shown = outlook(findings(policy, Case(Guidelines(updates, cumulative), Method.FULL, base)), (slow, fast))
    rule = next(one for one in shown if one["quantities"] == ["updates", "cumulative"] and one["threshold"] is not None)
    limit = Fraction(rule["threshold"]["high"])
    slower = crossing(Limit(limit, limit), updates, slow)
    faster = crossing(Limit(limit, limit), cumulative, fast)
    assert slower is not None
    assert faster is not None
    assert rule["crossing"] == {"earliestSeconds": str(faster.earliest_s), "latestSeconds": str(slower.latest_s)}


def test_a_derived_rule_is_crossed_between_its_first_and_last_source_rule() -> None:
    base = Base("x", "estimated", 11 * 10**22, "6PD", True)  # between 0.77 and 1.43 times 10^23: either rule may apply
    figures, rate = Figures(10**22, None, 2 * 10**22), Rate(10**16, 10**16)
    (policy,) = load_policies()
    shown = outlook(findings(policy, Case(Guidelines(figures, figures), Method.FULL, base)), (rate, rate))
    by_rule = {one["rule"]: one["crossing"] for one in shown}
    large, small = by_rule["modification-third"], by_rule["modification-third-small"]
    both = {"earliestSeconds": small["earliestSeconds"], "latestSeconds": large["latestSeconds"]}
    assert by_rule["modification-systemic"] == both
    assert int(small["earliestSeconds"]) < int(large["earliestSeconds"])
    assert int(small["latestSeconds"]) < int(large["latestSeconds"])


def test_a_rate_is_the_increase_over_elapsed_time_rounded_outward() -> None:
    before = Guidelines(Figures(100, None, 200), Figures(1_000, None, None))
    now = Guidelines(Figures(110, None, 217), Figures(1_007, None, 9_000))
    rates = mean_rates(before, now, 3 * 10**9)
    assert rates == (Rate(3, 6), Rate(2, None))
    assert mean_rates(now, before, 10**9) == (Rate(0, 0), Rate(0, None)), "a figure that fell is not a negative rate"
    assert mean_rates(before, now, 0) is None
    assert mean_rates(NOTHING_COUNTED, before, 10**9) == (Rate(100, 200), Rate(1_000, None))

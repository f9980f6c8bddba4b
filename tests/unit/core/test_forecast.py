"""When a threshold is crossed at today's rate: held against going second by second."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.declarations import Base, Method
from flopsd.core.model import Figures
from flopsd.core.policy.evaluate import Case, Limit, findings
from flopsd.core.policy.forecast import Crossing, Rate, crossing, mean_rates, outlook
from flopsd.core.policy.guidelines import NOTHING_COUNTED, Guidelines
from flopsd.settings.data_files import load_policies

THIRD = Limit(Fraction(10**23, 3), Fraction(10**23, 3))
small = st.integers(0, 40)


def test_a_month_of_a_cluster() -> None:
    rate = Rate(10**16, 2 * 10**16)
    assert crossing(THIRD, Figures(0, 0, 0), rate) == Crossing(1_666_667, 3_333_334)
    assert crossing(THIRD, Figures(10**23, None, None), rate) == Crossing(0, 0)


def test_never_and_unknown_are_told_apart() -> None:
    idle = Rate(0, 0)
    assert crossing(THIRD, Figures(0, 0, 0), idle) == Crossing(None, None)
    assert crossing(THIRD, Figures(0, 0, None), idle) == Crossing(0, None), "it may have been crossed already"
    assert crossing(THIRD, Figures(0, 0, 0), Rate(0, None)) == Crossing(0, None)
    assert crossing(None, Figures(0, 0, 0), idle) is None


@given(st.tuples(small, small), st.integers(0, 90), st.integers(0, 90), st.tuples(small, small))
def test_the_first_second_at_which_it_is_so(figures: tuple[int, int], a: int, b: int, rates: tuple[int, int]) -> None:
    low, high = sorted(figures)
    slow, fast = sorted(rates)
    limit = Limit(Fraction(min(a, b), 3), Fraction(max(a, b), 3))
    told = crossing(limit, Figures(low, None, high), Rate(slow, fast))
    seconds = range(200)
    may = next((s for s in seconds if high + fast * s > limit.low), None)
    must = next((s for s in seconds if low + slow * s > limit.high), None)
    assert told == Crossing(may, must)


def test_where_either_account_may_count_a_crossing_is_certain_once_the_slower_has_crossed() -> None:
    base = Base("x", "known", 6 * 10**23, None, None)
    updates, cumulative = Figures(10**20, None, 2 * 10**20), Figures(5 * 10**20, None, 6 * 10**20)
    (policy,) = load_policies()
    slow, fast = Rate(10**15, 2 * 10**15), Rate(5 * 10**15, 6 * 10**15)
    told = outlook(findings(policy, Case(updates, cumulative, Method.FULL, base)), (slow, fast))
    rule = next(one for one in told if one["quantity"] == "updates or cumulative" and one["threshold"] is not None)
    limit = Fraction(rule["threshold"]["high"])
    slower = crossing(Limit(limit, limit), updates, slow)
    faster = crossing(Limit(limit, limit), cumulative, fast)
    assert slower is not None
    assert faster is not None
    assert rule["crossing"] == {"earliestSeconds": str(faster.earliest_s), "latestSeconds": str(slower.latest_s)}


def test_a_rate_is_what_was_added_in_the_time_that_passed_rounded_outward() -> None:
    before = Guidelines(Figures(100, None, 200), Figures(1_000, None, None))
    now = Guidelines(Figures(110, None, 217), Figures(1_007, None, 9_000))
    rates = mean_rates(before, now, 3 * 10**9)
    assert rates == (Rate(3, 6), Rate(2, None))
    assert mean_rates(now, before, 10**9) == (Rate(0, 0), Rate(0, None)), "a figure that fell is no negative rate"
    assert mean_rates(before, now, 0) is None
    assert mean_rates(NOTHING_COUNTED, before, 10**9) == (Rate(100, 200), Rate(1_000, None))

"""Thresholds applied to counted FLOP: each rule below, above and across its threshold, and properties of all rules."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.declarations import Base, Method
from flopsd.core.figures import Figures
from flopsd.core.notes import Note, note
from flopsd.core.policy import evaluate
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.finding import Finding, Limit, Verdict
from flopsd.core.policy.guidelines import NOTHING_COUNTED, Guidelines
from flopsd.core.policy.policy_file import Policy
from flopsd.core.policy.policy_reader import policy_from
from flopsd.errors import PolicyError
from flopsd.settings.data_files import config_dir, load_policies, packaged_policies

ACT = next(policy for policy in load_policies() if policy.id == "eu-ai-act")
# Every packaged policy, and a variant of the Act's that uses at_least and counts integers.
REACHED = replace(
    ACT,
    counts_integers=True,
    rules=tuple(
        rule if rule.threshold is None else replace(rule, threshold=replace(rule.threshold, at_least=True))
        for rule in ACT.rules
    ),
)
POLICIES = (*load_policies(list(packaged_policies())), REACHED)
GREATER = "greater_than"
BELOW, ABOVE, OPEN = Verdict.BELOW, Verdict.ABOVE, Verdict.INDETERMINATE
KNOWN = Base("base", "known", 9 * 10**23, None, False)
SYSTEMIC = Base("base", "known", 3 * 10**25, None, True)
SMALL = Base("base", "known", 4 * 10**22, None, False)
LOST = Base("base", "unknown", None, None, None)


def figures(low: int, high: int | None = None) -> Figures:
    """`low` alone is an exact figure."""
    return Figures(low, None, low if high is None else high)


def unbounded(low: int) -> Figures:
    return Figures(low, None, None)


def finding(rule: str, case: Case, policy: Policy = ACT) -> Finding:
    return next(found for found in findings(policy, case) if found.rule.id == rule)


def fine_tune(value: Figures, base: Base | None, method: Method | None = Method.LORA) -> Case:
    return Case(alike(value), method, base)


def alike(value: Figures) -> Guidelines:
    return Guidelines(value, value)


# rule, citation, base model, method, the highest count that is not above the threshold
ROWS = [
    ("gpai-indicative", "paragraphs 17", None, Method.PRETRAINING, 10**23),
    ("systemic-presumption", "Article 51(2)", None, Method.PRETRAINING, 10**25),
    ("modification-third", "paragraphs 60", KNOWN, Method.FULL, 3 * 10**23),
    ("modification-third", "paragraphs 60", replace(KNOWN, flop=10**24), Method.FULL, 10**24 // 3),
    ("modification-third-small", "Article 3(65)", replace(SMALL, systemic=True), Method.FULL, 4 * 10**22 // 3),
    ("unknown-base-systemic", "paragraph 61", replace(LOST, systemic=True), Method.LORA, 10**25 // 3),
    ("unknown-base-other", "paragraph 61", replace(LOST, systemic=False), Method.QLORA, 10**23 // 3),
    ("modification-systemic", "section 3.2.2", SYSTEMIC, Method.PARTIAL, 10**25),
    ("modification-systemic", "footnote 6", replace(LOST, systemic=True), Method.FULL, 10**25 // 3),
    ("modification-systemic", "Articles 52(1)", replace(SMALL, systemic=True), Method.FULL, 4 * 10**22 // 3),
    ("base-not-gpai", "annex A.1", SMALL, Method.FULL, 6 * 10**22),
    ("base-and-modification-systemic", "annex A.1", KNOWN, Method.FULL, 10**25 - 9 * 10**23),
]


@pytest.mark.parametrize(("rule", "cited", "base", "method", "highest"), ROWS)
def test_a_rule_below_above_and_across_its_threshold(
    rule: str, cited: str, base: Base | None, method: Method, highest: int
) -> None:
    assert_on_both_sides(ACT, rule, cited, base, method, highest)


def assert_on_both_sides(
    policy: Policy, rule: str, cited: str, base: Base | None, method: Method, highest: int
) -> None:
    """`highest` is the highest count that is not above the threshold."""

    def judged(value: Figures, *, whole: bool = True) -> Finding:
        return finding(rule, replace(fine_tune(value, base, method), whole=whole), policy)

    at, over, astride = (
        judged(each) for each in (figures(highest), figures(highest + 1), figures(highest, highest + 1))
    )
    assert cited in at.rule.citation
    assert (at.applies, at.state) == (True, BELOW), "one FLOP less or as much is not greater than"
    assert (over.applies, over.state) == (True, ABOVE)
    assert (astride.applies, astride.state) == (True, OPEN)
    assert Note("threshold_between") in astride.why
    without_end = judged(unbounded(highest))
    assert without_end.state is OPEN
    assert Note("no_upper_bound") in without_end.why
    assert judged(unbounded(highest + 1)).state is ABOVE
    missing = judged(figures(highest), whole=False)
    assert missing.state is OPEN
    assert Note("account_not_whole") in missing.why


def test_an_estimated_base_model_is_an_interval() -> None:
    """E stands for a true value in [0.7 E, 1.3 E]: a third of 9e23 is then 2.1e23 to 3.9e23."""
    base = replace(KNOWN, kind="estimated", method="6PD of the model card")
    states = {n: finding("modification-third", fine_tune(figures(n * 10**22), base)).state for n in (21, 22, 39)}
    assert states == {21: BELOW, 22: OPEN, 39: OPEN}
    over = finding("modification-third", fine_tune(figures(39 * 10**22 + 1), base))
    assert over.state is ABOVE
    assert over.for_ledger()["threshold"] == {"low": str(21 * 10**22), "high": str(39 * 10**22), "comparison": GREATER}
    together = finding("base-and-modification-systemic", fine_tune(Figures(10, 10, 10), base))
    assert together.value == Figures(63 * 10**22 + 10, None, 117 * 10**22 + 10), "an estimate is never a measurement"
    exact = finding("base-and-modification-systemic", fine_tune(Figures(10, 10, 10), KNOWN))
    assert exact.value == Figures(9 * 10**23 + 10, None, 9 * 10**23 + 10), "and nor is what somebody declares as known"
    tiny = finding("base-not-gpai", fine_tune(Figures(1, 1, 1), replace(base, flop=11)))
    assert tiny.value == Figures(8, None, 16), "7.7 to 14.3, outward"


def test_an_estimated_base_model_can_leave_open_which_rule_applies() -> None:
    """0.7 and 1.3 x 1.2e23 lie on both sides of 10^23: row 3 or row 7. A count below both thresholds is below."""
    base = replace(KNOWN, kind="estimated", flop=12 * 10**22)
    low = finding("modification-third", fine_tune(figures(10**18), base))
    assert (low.applies, low.state) == (None, BELOW)
    high = finding("modification-third", fine_tune(figures(10**23), base))
    assert (high.applies, high.state) == (None, OPEN)
    assert Note("above_if_it_applies") in high.why
    assert finding("base-not-gpai", fine_tune(figures(10**18), base)).applies is None


def test_a_base_with_systemic_risk_is_a_general_purpose_model_at_any_compute() -> None:
    small = replace(SMALL, flop=9 * 10**22, systemic=True)
    case = fine_tune(figures(4 * 10**24), small)
    for rule in ("modification-third-small", "modification-systemic"):
        assert (finding(rule, case).applies, finding(rule, case).state) == (True, ABOVE)
        assert finding(rule, case).quantity == "cumulative"
    for rule in ("modification-third", "base-not-gpai"):
        assert (finding(rule, case).applies, finding(rule, case).state) == (False, None)


THIRD, TINY = 10**23 // 3, 5 * 10**16
# rule, citation, base model, method, the upper bound, the state, and the base models for which it would be above
UNKNOWN = [
    ("gpai-indicative", "paragraphs 17", None, None, 10**23, BELOW, None),
    ("gpai-indicative", "paragraphs 17", None, None, 10**23 + 1, OPEN, None),
    ("systemic-presumption", "Article 51(2)", None, None, 10**25, BELOW, None),
    ("systemic-presumption", "Article 51(2)", None, None, 10**25 + 1, OPEN, None),
    ("modification-third", "paragraphs 60", None, None, THIRD, BELOW, None),
    ("modification-third", "paragraphs 60", None, None, THIRD + 1, OPEN, (10**23 + 1, 10**23 + 1)),
    ("modification-third", "paragraphs 60", None, Method.LORA, THIRD, BELOW, None),
    ("modification-third", "paragraphs 60", None, Method.LORA, 10**24, OPEN, (10**23 + 1, 3 * 10**24 - 1)),
    ("modification-third", "paragraphs 60", KNOWN, None, 3 * 10**23, BELOW, None),
    ("modification-third", "paragraphs 60", KNOWN, None, 3 * 10**23 + 1, OPEN, None),
    ("modification-third-small", "Article 3(65)", None, None, 0, BELOW, None),
    ("modification-third-small", "Article 3(65)", None, None, 1, OPEN, (0, 2)),
    ("modification-third-small", "Article 3(65)", None, Method.FULL, TINY, OPEN, (0, 3 * TINY - 1)),
    ("modification-third-small", "Article 3(65)", replace(SMALL, systemic=None), Method.FULL, 10**22, BELOW, None),
    ("modification-third-small", "Article 3(65)", replace(SMALL, systemic=None), Method.FULL, THIRD, OPEN, None),
    ("unknown-base-systemic", "paragraph 61", None, None, 10**25 // 3, BELOW, None),
    ("unknown-base-systemic", "paragraph 61", None, None, 10**25 // 3 + 1, OPEN, None),
    ("unknown-base-systemic", "paragraph 61", LOST, Method.LORA, 10**25 // 3, BELOW, None),
    ("unknown-base-systemic", "paragraph 61", LOST, Method.LORA, 10**25 // 3 + 1, ABOVE, None),
    ("unknown-base-other", "paragraph 61", None, None, THIRD, BELOW, None),
    ("unknown-base-other", "paragraph 61", None, None, THIRD + 1, OPEN, None),
    ("unknown-base-other", "paragraph 61", LOST, Method.LORA, THIRD + 1, OPEN, None),
    ("unknown-base-other", "paragraph 61", LOST, Method.LORA, 10**25 // 3 + 1, ABOVE, None),
    ("modification-systemic", "section 3.2.2", None, None, 0, BELOW, None),
    ("modification-systemic", "section 3.2.2", None, None, TINY, OPEN, (0, 3 * TINY - 1)),
    ("modification-systemic", "section 3.2.2", LOST, Method.FULL, 10**25 // 3, BELOW, None),
    ("modification-systemic", "section 3.2.2", LOST, Method.FULL, 10**25 // 3 + 1, OPEN, None),
    ("base-not-gpai", "annex A.1", None, None, 0, BELOW, None),
    ("base-not-gpai", "annex A.1", None, Method.FULL, TINY, OPEN, (10**23 - TINY + 1, 10**23)),
    ("base-not-gpai", "annex A.1", replace(SMALL, systemic=None), Method.FULL, 6 * 10**22, BELOW, None),
    ("base-not-gpai", "annex A.1", replace(SMALL, systemic=None), Method.FULL, 6 * 10**22 + 1, OPEN, None),
    ("base-and-modification-systemic", "annex A.1", None, None, 0, BELOW, None),
    ("base-and-modification-systemic", "annex A.1", None, None, TINY, OPEN, (10**25 - TINY + 1, 10**25)),
]


@pytest.mark.parametrize(("rule", "cited", "base", "method", "high", "state", "only_if"), UNKNOWN)
def test_undeclared_facts_leave_certain_verdicts_in_place(
    rule: str, cited: str, base: Base | None, method: Method | None, high: int, state: Verdict, only_if: object
) -> None:
    found = finding(rule, fine_tune(figures(high), base, method))
    assert cited in found.rule.citation
    assert (found.applies, found.state) == (None, state)
    named = found.only_if
    assert (None if named is None else (named.least_flop, named.most_flop)) == only_if
    if named is not None:
        assert named.systemic is found.rule.when.base_systemic or found.rule.derived
    if state is OPEN:
        codes = {one.code for one in found.why}
        assert "above_if_it_applies" in codes or any(code.endswith("_not_declared") for code in codes), (
            "on what it hangs"
        )


def test_a_base_at_exactly_the_threshold_is_not_above_it() -> None:
    case = fine_tune(figures(1), replace(KNOWN, flop=10**23))
    assert (finding("modification-third", case).applies, finding("base-not-gpai", case).applies) == (False, True)
    case = fine_tune(figures(1), replace(KNOWN, flop=10**23 + 1))
    assert (finding("modification-third", case).applies, finding("base-not-gpai", case).applies) == (True, False)


def test_pretraining_excludes_rules_for_modifications() -> None:
    for found in findings(ACT, Case(alike(figures(10**24)), Method.PRETRAINING)):
        about = found.rule.when.modification
        assert found.applies is (about is False), found.rule.id
        assert (found.state is None) is bool(about)
        if about:
            assert found.for_ledger()["threshold"] is None
            assert Note("no_base_model") in found.why
    contradiction = finding("gpai-indicative", fine_tune(figures(10**24), KNOWN, Method.PRETRAINING))
    assert (contradiction.applies, contradiction.state) == (None, OPEN)
    assert contradiction.why[0] == Note("pretraining_with_base")


def test_different_base_models_leave_open_what_applies_and_add_a_note() -> None:
    differ = ("bases_differ",)
    for method in (Method.FULL, Method.PRETRAINING):
        case = Case(Guidelines(figures(1), figures(2)), method, None, conflict=differ)
        found = finding("modification-third", case)
        assert (found.applies, found.state, found.why) == (None, BELOW, (Note("bases_differ"),))
        assert found.quantity == "updates or cumulative", "the base model may carry systemic risk"
        assert finding("base-not-gpai", case).state is OPEN
    assert finding("gpai-indicative", Case(alike(figures(1)), Method.PRETRAINING, conflict=differ)).applies is None


def test_an_undeclared_method_keeps_the_threshold_of_a_fallback_rule() -> None:
    found = finding("unknown-base-systemic", fine_tune(figures(1), replace(LOST, systemic=True), None))
    assert (found.applies, found.state) == (None, BELOW)
    assert found.for_ledger()["threshold"] == {"low": f"{10**25}/3", "high": f"{10**25}/3", "comparison": GREATER}

    for base in (KNOWN, replace(KNOWN, kind="estimated")):
        for rule in ("unknown-base-systemic", "unknown-base-other"):
            assert finding(rule, fine_tune(figures(10**24), base)).applies is False


def test_generated_data_counts_only_in_the_cumulative_amount() -> None:
    """Generated data is in the cumulative amount for systemic risk, not in the updates (paragraph 115)."""
    updates, cumulative = figures(10**22), figures(4 * 10**25)
    case = Case(Guidelines(updates, cumulative), Method.PRETRAINING)
    assert finding("gpai-indicative", case).state is BELOW
    assert finding("systemic-presumption", case).state is ABOVE
    for base, value, quantity in (
        (KNOWN, updates, "updates"),
        (SYSTEMIC, cumulative, "cumulative"),
        (replace(KNOWN, systemic=None), Figures(10**22, None, 4 * 10**25), "updates or cumulative"),
    ):
        third = finding("modification-third", Case(Guidelines(updates, cumulative), Method.FULL, base))
        assert (third.value, third.quantity) == (value, quantity)


def test_a_small_tune_of_a_base_above_the_threshold_is_below() -> None:
    """The base model alone is above 10^25, and no rule attributes its compute to the modifier."""
    states = {f.rule.id: f.state for f in findings(ACT, fine_tune(figures(10**20), SYSTEMIC)) if f.applies}
    assert states == {"modification-third": BELOW, "modification-systemic": BELOW}
    case = fine_tune(Figures(1, 2 * 10**15, 10**16), replace(SYSTEMIC, systemic=False))
    assert {f.rule.id: f.state for f in findings(ACT, case) if f.applies} == {"modification-third": BELOW}
    together = finding("base-and-modification-systemic", case)
    assert (together.applies, together.why) == (False, (note("base_above", flop=str(10**25)),))
    at = replace(SYSTEMIC, systemic=False, flop=10**25)
    assert finding("base-and-modification-systemic", fine_tune(figures(1), at)).state is ABOVE


EDGES = [10**23, 10**23 // 3, 10**23 // 3 + 1, 10**25, 10**25 // 3, 10**26 - 1, 10**26, 10**26 + 1]
counts = st.one_of(st.integers(0, 10**26), st.sampled_from(EDGES))


@st.composite
def some_figures(draw: st.DrawFn) -> Figures:
    low, middle, high = sorted(draw(st.tuples(counts, counts, counts)))
    return Figures(low, draw(st.sampled_from([None, middle])), draw(st.sampled_from([None, high, high])))


bases = st.builds(
    Base,
    st.just("base"),
    st.sampled_from(["known", "estimated"]),
    counts,
    st.none(),
    st.sampled_from([None, True, False]),
) | st.builds(Base, st.just("base"), st.just("unknown"), st.none(), st.none(), st.sampled_from([None, True, False]))
cases = st.builds(
    Case,
    st.builds(Guidelines, some_figures(), some_figures()),
    st.sampled_from([None, *Method]),
    st.none() | bases,
    st.booleans(),
    integers=st.just(NOTHING_COUNTED) | st.builds(Guidelines, some_figures(), some_figures()),
)


def changed(counted: Guidelines, change: Callable[[Figures], Figures]) -> Guidelines:
    return Guidelines(change(counted.updates), change(counted.cumulative))


def wider(value: Figures, down: int, up: int | None) -> Figures:
    high = None if value.high_flop is None or up is None else value.high_flop + up
    return Figures(max(0, value.low_flop - down), value.measured_flop, high)


@given(st.sampled_from(POLICIES), cases, counts, st.none() | counts)
def test_a_wider_interval_never_adds_a_verdict(policy: Policy, case: Case, down: int, up: int | None) -> None:
    blurred = replace(case, counted=changed(case.counted, lambda one: wider(one, down, up)))
    for sharp, blunt in zip(findings(policy, case), findings(policy, blurred), strict=True):
        assert sharp.applies is blunt.applies
        if blunt.state in (BELOW, ABOVE):
            assert sharp.state is blunt.state


def more(value: Figures, flop: int) -> Figures:
    high = None if value.high_flop is None else value.high_flop + flop
    return Figures(value.low_flop + flop, value.measured_flop, high)


@given(st.sampled_from(POLICIES), cases, counts, st.booleans())
def test_more_compute_never_turns_a_verdict_from_above_to_below(
    policy: Policy, case: Case, flop: int, of_integers: bool
) -> None:
    if of_integers:
        grown = replace(case, integers=changed(case.integers, lambda one: more(one, flop)))
    else:
        grown = replace(case, counted=changed(case.counted, lambda one: more(one, flop)))
    for before, after in zip(findings(policy, case), findings(policy, grown), strict=True):
        if before.state is ABOVE:
            assert after.state is ABOVE
        if after.state is BELOW:
            assert before.state is BELOW


@given(st.sampled_from(POLICIES), cases)
def test_a_verdict_holds_at_every_point_of_the_interval(policy: Policy, case: Case) -> None:
    for found in findings(policy, case):
        if found.state not in (BELOW, ABOVE):
            continue
        assert found.limit is not None
        if found.state is ABOVE:
            assert found.limit.high is not None
            at_the_end = found.limit.at_least and found.value.low_flop == found.limit.high
            assert at_the_end or found.value.low_flop > found.limit.high
        else:
            assert case.whole
            assert found.value.high_flop is not None
            assert found.value.high_flop <= found.limit.low
            assert not (found.limit.at_least and found.value.high_flop == found.limit.low)


@given(cases, st.sampled_from(list(Method)), bases, st.booleans())
def test_later_declarations_change_no_verdict(case: Case, method: Method, base: Base, systemic: bool) -> None:
    """ "Below" stays below unless the rule turns out not to apply. "Above" stays above; where two fallbacks stood for
    each other, the one that applies stays above. A rule that is open only for some base models is above for no
    others."""
    known = base if case.base is None else case.base
    if known.systemic is None:
        known = replace(known, systemic=systemic)
    pretraining = (case.method or method) is Method.PRETRAINING
    contradicts = pretraining and case.base is not None and case.method is None
    later = replace(case, method=case.method or method, base=case.base if pretraining else known)
    for policy in POLICIES:
        after = {found.rule.id: found for found in findings(policy, later)}
        for before in findings(policy, case):
            now = after[before.rule.id]
            if before.state is BELOW:
                assert now.state in (BELOW, None)
            if before.state is ABOVE and not contradicts:
                assert ABOVE in (now.state, before.rule.or_else and after[before.rule.or_else].state)
            if before.only_if is not None and now.state is ABOVE and later.base is not None:
                assert later.base.kind != "known" or (
                    before.only_if.least_flop <= (later.base.flop or 0) <= before.only_if.most_flop
                )
                assert before.only_if.systemic in (None, later.base.systemic)


SMALLEST = Finding(
    "p", ACT.rule("gpai-indicative"), True, (), "updates", Figures(1, 2, 3), Limit(Fraction(1), Fraction(1)), ABOVE
)


def test_a_share_of_the_threshold_is_rounded_outward() -> None:
    smallest = SMALLEST
    assert smallest.share_ppm == (1_000_000, 2_000_000, 3_000_000)
    assert replace(smallest, value=Figures(1, None, None)).share_ppm == (1_000_000, None, None)
    thirds = replace(smallest, limit=Limit(Fraction(7, 3), Fraction(7, 3)))
    assert thirds.share_ppm == (428_571, 857_143, 1_285_715)
    assert replace(smallest, limit=Limit(Fraction(0), Fraction(1))).share_ppm == (None, None, None)
    of_an_estimate = replace(smallest, limit=Limit(Fraction(2), Fraction(4)))
    assert of_an_estimate.share_ppm == (250_000, None, 1_500_000)


@given(
    st.integers(0, 10**27),
    st.integers(0, 3),
    st.fractions(1, 10**27, max_denominator=10**6) | st.integers(1, 4 * 10**6),
)
def test_shares_match_exact_fractions(flop: int, more: int, end: Fraction | int) -> None:
    """Halves are included: low is rounded down, the measured share half to even, high up."""
    limit = Fraction(end)
    of = replace(SMALLEST, value=Figures(flop, flop + more, flop + 2 * more), limit=Limit(limit, limit))
    low, measured, high = (Fraction(figure * 10**6) / limit for figure in (flop, flop + more, flop + 2 * more))
    assert of.share_ppm == (floor(low), round(measured), ceil(high))


def test_a_derived_rule_covers_the_figures_of_all_rules_it_may_stand_for() -> None:
    base = Base("x", "estimated", 11 * 10**22, "6PD", True)  # between 0.77 and 1.43 times 10^23: either rule may apply
    case = Case(alike(Figures(10**22, None, 2 * 10**22)), Method.FULL, base)
    either, large, small = (finding(f"modification-{rule}", case) for rule in ("systemic", "third", "third-small"))
    assert either.limit is not None
    assert large.limit is not None
    assert small.limit is not None
    assert large.share_ppm == (209_790, None, 600_000)
    assert small.share_ppm == (300_000, None, 779_221)
    assert either.share_ppm == (209_790, None, 779_221)
    assert either.limit == Limit(small.limit.low, large.limit.high)


def test_a_ledger_has_figures_as_text_and_null_for_unknown_ones() -> None:
    rule = ACT.rule("gpai-indicative")
    found = Finding(
        "p", rule, True, (Note("every_account"),), "updates", Figures(1, 2, 3), Limit(Fraction(7, 3), Fraction(8)), OPEN
    )
    assert found.for_ledger() == {
        "policy": "p", "rule": "gpai-indicative", "quantities": ["updates"],
        "countsIntegerOperations": False, "applies": True, "reasons": [{"code": "every_account"}],
        "threshold": {"low": "7/3", "high": "8", "comparison": "greater_than"}, "state": "indeterminate",
        "restsOn": None, "stateIfClaimsHold": None, "aboveOnlyIfBase": None, "value": {"low": "1", "measured": "2", "high": "3"},
        "sharePpm": {"low": "125000", "measured": None, "high": "1285715"},
        "title": rule.title, "citation": rule.citation, "consequence": rule.consequence, "assumes": rule.assumes,
        "otherConditions": [],
        "status": "text", "since": "2025-08-02",
    }  # fmt: skip
    unknown = replace(found, limit=None, value=Figures(1, None, None), state=None, applies=None).for_ledger()
    assert unknown["threshold"] is None
    assert unknown["state"] is None
    assert unknown["value"] == {"low": "1", "measured": None, "high": None}
    assert unknown["sharePpm"] == {"low": None, "measured": None, "high": None}


def test_integer_operations_count_only_where_the_policy_says_so() -> None:
    integers = Guidelines(figures(3 * 10**22, 4 * 10**22), figures(3 * 10**22, 4 * 10**22))
    case = Case(alike(figures(8 * 10**22)), Method.PRETRAINING, integers=integers)
    counting = replace(ACT, counts_integers=True)
    without, within = (findings(policy, case)[0] for policy in (ACT, counting))
    assert (without.value, without.state, without.counts_integers) == (figures(8 * 10**22), BELOW, False)
    assert (within.value, within.state, within.counts_integers) == (figures(11 * 10**22, 12 * 10**22), ABOVE, True)
    unknown = replace(case, integers=Guidelines(Figures(0, None, None), Figures(0, None, None)))
    (open_, *_) = findings(counting, unknown)
    assert (open_.value, open_.state) == (Figures(8 * 10**22, None, None), OPEN), "unknown integers are not none"
    text = yaml.safe_load((config_dir() / "policies" / "eu-ai-act.yaml").read_text())
    assert policy_from({**text, "integer_operations": "counted"}, "").counts_integers
    with pytest.raises(PolicyError, match="integer_operations"):
        policy_from({**text, "integer_operations": True}, "")


def test_an_estimated_base_model_is_named_as_the_reason_for_an_open_finding() -> None:
    estimated = Base("base", "estimated", 10**24, "6ND", False)
    third = 10**24 // 3
    open_by_base = finding("modification-third", fine_tune(figures(third), estimated))
    assert open_by_base.state is OPEN
    assert Note("both_answers") in open_by_base.why
    open_by_figures = finding(
        "modification-third", fine_tune(figures(third, third + 1), replace(estimated, kind="known"))
    )
    assert open_by_figures.state is OPEN
    assert Note("threshold_between") in open_by_figures.why


def test_cached_declarations_are_bounded_and_never_mixed_up() -> None:
    policy, most = replace(ACT, rules=ACT.rules[:1]), 0
    for flop in range(10**23, 10**23 + 1100):
        base = Base("base", "known", flop, None, False)
        case = Case(Guidelines(Figures(1, 1, 1), Figures(1, 1, 1)), Method.FULL, base)
        found = findings(policy, case)
        most = max(most, len(policy.known))
        if flop % 100 == 0:
            assert found == findings(replace(policy), case) == findings(policy, case)
    assert most == evaluate._MAX_KNOWN

"""The regimes outside the European Union: each rule exactly at its threshold, one beyond, and with each fact
unknown."""

from dataclasses import replace
from fractions import Fraction

import pytest
import yaml

from flopsd.core.declarations import Base, Method
from flopsd.core.figures import Figures
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.finding import Finding, Limit, Verdict
from flopsd.core.policy.forecast import Crossing, Rate, crossing
from flopsd.core.policy.guidelines import Guidelines
from flopsd.core.policy.policy_reader import policy_from
from flopsd.settings.data_files import config_dir, load_policies, packaged_policies
from tests.unit.core.test_policy import assert_on_both_sides, figures

CA, NY, KR = "us-ca-sb-53", "us-ny-raise", "kr-ai-basic-act"
POLICIES = {policy.id: policy for policy in load_policies(list(packaged_policies()))}
BELOW, ABOVE, OPEN = Verdict.BELOW, Verdict.ABOVE, Verdict.INDETERMINATE
E26 = 10**26
FULL, SCRATCH = Method.FULL, Method.PRETRAINING
BASE = Base("base", "known", 4 * 10**25, None, None)
LARGE = replace(BASE, flop=2 * E26)


def finding(policy: str, rule: str, case: Case) -> Finding:
    return next(found for found in findings(POLICIES[policy], case) if found.rule.id == rule)


def of(value: Figures, method: Method | None, base: Base | None = None) -> Case:
    return Case(Guidelines(value, value), method, base)


# policy, rule, citation, method, base, the highest count that is not above
ROWS = [
    (CA, "frontier-model", "22757.11(i)", SCRATCH, None, E26),
    (CA, "modification-alone", "22757.11(h)", FULL, BASE, E26),
    (CA, "base-and-modification", "22757.11(i)(2)", Method.LORA, BASE, E26 - 4 * 10**25),
    (NY, "frontier-model", "section 1420", SCRATCH, None, E26),
    (NY, "modification-alone", "section 1420", FULL, BASE, E26),
    (NY, "base-and-modification", "section 1420", Method.LORA, BASE, E26 - 4 * 10**25),
    (KR, "high-performance", "Article 32", SCRATCH, None, E26 - 1),
    (KR, "modification-alone", "Article 32", FULL, BASE, E26 - 1),
    (KR, "base-and-modification", "Article 32", Method.LORA, BASE, E26 - 4 * 10**25 - 1),
]


@pytest.mark.parametrize(("policy", "rule", "cited", "method", "base", "highest"), ROWS)
def test_a_rule_below_above_and_across_its_threshold(
    policy: str, rule: str, cited: str, method: Method, base: Base | None, highest: int
) -> None:
    assert_on_both_sides(POLICIES[policy], rule, cited, base, method, highest)
    far_above = finding(policy, rule, of(figures(10**30), method, base))
    assert far_above.state is ABOVE
    assert far_above.for_ledger()["sharePpm"]["low"] >= str(10**10)


# policy, rule, method, base, the upper bound, whether the rule applies, the state
UNKNOWN = [
    *((name, rule, None, None, E26 - 1, None, BELOW) for name, rule in (
        (CA, "frontier-model"), (NY, "frontier-model"), (KR, "high-performance"))),
    *((name, rule, None, None, E26, None, state) for name, rule, state in (
        (CA, "frontier-model", BELOW), (NY, "frontier-model", BELOW), (KR, "high-performance", OPEN))),
    *((name, "modification-alone", None, None, E26 + 1, None, OPEN) for name in (CA, NY, KR)),
    *((name, "modification-alone", FULL, None, E26 + 1, True, ABOVE) for name in (CA, NY, KR)),
    # The compute of the base model decides, and it is undeclared, not estimable, or an estimate on both sides.
    *((name, "base-and-modification", FULL, None, 1, True, OPEN) for name in (CA, NY, KR)),
    *((name, "base-and-modification", FULL, replace(BASE, kind="unknown", flop=None), 1, True, OPEN)
      for name in (CA, NY, KR)),
    *((name, "base-and-modification", FULL, replace(BASE, kind="estimated", flop=8 * 10**25), 1, True, OPEN)
      for name in (CA, NY, KR)),
    *((name, "base-and-modification", FULL, LARGE, 1, True, ABOVE) for name in (CA, NY, KR)),
    *((name, "base-and-modification", SCRATCH, None, E26 * 2, False, None) for name in (CA, NY, KR)),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "rule", "method", "base", "high", "applies", "state"), UNKNOWN)
def test_undeclared_facts_leave_open_the_rules_that_depend_on_them(
    policy: str, rule: str, method: Method | None, base: Base | None, high: int, applies: bool | None, state: Verdict
) -> None:
    found = finding(policy, rule, of(figures(high), method, base))
    assert (found.applies, found.state) == (applies, state)


@pytest.mark.parametrize(("policy", "counts"), [(CA, True), (NY, True), (KR, False)])
def test_integer_operations_count_where_the_law_names_them(policy: str, counts: bool) -> None:
    half = figures(E26 // 2, E26 // 2 + 1)
    case = replace(of(half, SCRATCH), integers=Guidelines(half, half))
    found = findings(POLICIES[policy], case)[0]
    assert (found.counts_integers, found.value) == (counts, figures(E26, E26 + 2) if counts else half)
    assert found.state is (OPEN if counts else BELOW)


def test_each_rule_has_sources_and_names_the_conditions_no_meter_decides() -> None:
    for name in (CA, NY, KR):
        written = yaml.safe_load((config_dir() / "policies" / f"{name}.yaml").read_text())
        for rule, entry in zip(POLICIES[name].rules, written["rules"], strict=True):
            assert rule.status in ("secondary", "interpretation"), "no official text of these was read"
            assert "text" not in [source["status"] for source in entry["sources"]]
            assert rule.other_conditions
    assert POLICIES["eu-ai-act"].rules[0].other_conditions == ()


def own(**fields: object) -> Finding:
    rule = {"id": "r", "citation": "section 1", **fields}
    policy = policy_from({"id": "own", "title": "Ours", "rules": [rule]}, "")
    return findings(policy, of(figures(10**24), FULL, BASE))[0]


def test_an_at_least_threshold_of_a_base_model_fraction_is_met_at_equality() -> None:
    quarter = {"of_base": "1/40"}
    assert (own(at_least=quarter).state, own(greater_than=quarter).state) == (ABOVE, BELOW)
    assert own(at_least="1e24").for_ledger()["threshold"]["comparison"] == "at_least"
    exact = own(at_least=10**24 + 1)
    assert (exact.state, exact.rule.title, exact.rule.status, exact.quantity) == (BELOW, "r", "text", "cumulative")


def test_base_models_that_would_put_a_count_above_are_exact_at_the_edge() -> None:
    def only_if(quantity: str, **threshold: object) -> tuple[int, int]:
        rule = {
            "id": "r",
            "citation": "1",
            "quantity": quantity,
            "when": {"base.flop": {"not_above": "100"}},
            **threshold,
        }
        policy = policy_from({"id": "own", "title": "Ours", "rules": [rule]}, "")
        named = findings(policy, of(figures(10), FULL))[0].only_if
        assert named is not None
        return named.least_flop, named.most_flop

    assert only_if("base+updates", at_least="105") == (95, 100)
    assert only_if("base+updates", greater_than="105") == (96, 100)
    assert only_if("updates", at_least={"of_base": "1/3"}) == (0, 30)
    assert only_if("updates", greater_than={"of_base": "1/3"}) == (0, 29)


def test_an_at_least_threshold_is_crossed_when_it_is_reached() -> None:
    limit, rate = Limit(Fraction(100), Fraction(100)), Rate(10, 10)
    assert crossing(limit, figures(50), rate) == Crossing(6, 6)
    assert crossing(replace(limit, at_least=True), figures(50), rate) == Crossing(5, 5)
    assert crossing(replace(limit, at_least=True), figures(100), rate) == Crossing(0, 0)
    assert crossing(limit, figures(100), rate) == Crossing(1, 1)

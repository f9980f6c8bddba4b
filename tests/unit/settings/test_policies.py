"""Policy files: the packaged one, others in addition to it, and every fault of an invalid one by name."""

import hashlib
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from flopsd.core.figures import Figures
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.finding import Verdict
from flopsd.core.policy.guidelines import Guidelines
from flopsd.core.policy.policy_reader import policy_from
from flopsd.errors import PolicyError
from flopsd.settings.data_files import Tables, config_dir, load_policies, parse_policy
from tests.unit.attestation.test_lineage_base import POLICY

PACKAGED = config_dir() / "policies" / "eu-ai-act.yaml"


@cache
def packaged() -> dict[str, Any]:
    loaded = yaml.safe_load(PACKAGED.read_text())
    assert isinstance(loaded, dict)
    return loaded


def data() -> dict[str, Any]:
    return deepcopy(packaged())


def test_every_threshold_of_the_packaged_policy_is_written_in_its_file() -> None:
    (policy,) = load_policies()
    assert policy.sha256 == hashlib.sha256(PACKAGED.read_bytes()).hexdigest()
    assert policy.margin_ppm == 300_000
    texts = {
        rule.id: None if rule.threshold is None else (str(rule.threshold.flop), str(rule.threshold.of_base))
        for rule in policy.rules
    }
    e23, e25 = str(10**23), str(10**25)
    assert texts == {
        "gpai-indicative": (e23, "None"),
        "systemic-presumption": (e25, "None"),
        "modification-third": ("None", "1/3"),
        "modification-third-small": ("None", "1/3"),
        "unknown-base-systemic": (f"{e25}/3", "None"),
        "unknown-base-other": (f"{e23}/3", "None"),
        "modification-systemic": None,
        "base-not-gpai": (e23, "None"),
        "base-and-modification-systemic": (e25, "None"),
    }
    notified = {rule.id for rule in policy.rules if rule.notify}
    assert notified == {"systemic-presumption", "modification-systemic", "base-and-modification-systemic"}


def test_the_thresholds_page_has_every_rule_with_its_threshold() -> None:
    page = (config_dir().parent / "docs" / "thresholds.md").read_text()
    rows = {
        line.split("`")[1]: line.split("|")[3]
        for line in page.splitlines()
        if re.match(r"\| `[a-z-]+` \|.*\|.*\|", line)
    }
    (policy,) = load_policies()
    assert [
        name for name in rows if name not in ("below", "above", "indeterminate", "known", "estimated", "unknown")
    ] == [rule.id for rule in policy.rules]
    for rule in data()["rules"]:
        threshold = rule.get("greater_than", "")
        value = threshold["of_base"] if isinstance(threshold, dict) else threshold
        assert f"> {value}" in rows[rule["id"]] or not value, rule["id"]


def test_another_regime_is_another_file(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(POLICY.replace("LIMIT", "1e21"))
    policies = load_policies([str(file), "eu-ai-act"])
    assert [policy.id for policy in policies] == ["eu-ai-act", "small"]
    assert [policy.id for policy in load_policies([str(file)])] == ["small"], "what is chosen, and nothing beside it"
    (_, found) = findings(policies[1], Case(Guidelines(Figures(0, None, 0), Figures(10**21 + 1, None, None))))
    assert (found.policy, found.applies, found.state) == ("small", True, Verdict.ABOVE)
    assert Tables(policy_files=[str(file)]).policies([policies[1].sha256]) == (policies[1],)
    assert Tables().policies([policies[0].sha256]) == (policies[0],)
    with pytest.raises(PolicyError, match="no policy with SHA-256 00"):
        Tables().policies(["00" * 32])


def test_a_file_may_have_the_id_of_a_packaged_policy(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(PACKAGED.read_text().replace('greater_than: "1e25"', 'greater_than: "1e26"'))
    (policy,) = load_policies([str(file)])
    assert policy.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(PolicyError, match="policy eu-ai-act is given twice"):
        load_policies([str(file), str(file)])


def test_unreadable_policy_files_are_reported(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (1 << 21))
    with pytest.raises(PolicyError) as fault:
        load_policies([str(tmp_path / "missing.yaml"), str(large)])
    assert len(fault.value.problems) == 2, "every file's problems at once"
    assert "missing.yaml: cannot be read: No such file" in fault.value.problems[0]
    assert "larger than" in fault.value.problems[1]


@pytest.mark.parametrize("text", [b"", b"- 1\n", b"a: 1\na: 2\n", b"schema: [\n", b"schema: flopsd-policy/2\n"])
def test_an_invalid_policy_is_refused(text: bytes) -> None:
    with pytest.raises(PolicyError):
        parse_policy(text, "bad.yaml")


def assert_refused(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError) as fault:
        policy_from(bad, "")
    assert any(words in problem for problem in fault.value.problems), fault.value.problems


FAULTS: list[tuple[dict[str, Any], str]] = [
    (
        {"greater_than": {"of_base": 0.3333}},
        "greater_than.of_base: must be a positive whole number or fraction as text",
    ),
    ({"greater_than": {"of_bass": "1/3"}}, "greater_than.of_bass: unknown; known: of_base"),
    ({"greater_than": "1e23/0"}, "rule modification-third: greater_than: must be"),
    ({"greater_than": "0.5"}, "greater_than: must be a positive whole number"),
    ({"greater_than": 1e23}, "greater_than: must be a positive whole number"),
    ({"greater_than": "10^26"}, "fraction as text, such as '1e25/3', is '10^26'"),
    ({"greater_than": 0}, "greater_than: must be a positive"),
    ({"greater_than": "1e40"}, "greater_than: must be from 1 to below 1e40"),
    ({"greater_than": "1/3"}, "greater_than: must be from 1 to below 1e40, divided by 1e9 at most, is '1/3'"),
    ({"greater_than": "1e25/1000000001"}, "divided by 1e9 at most"),
    ({"greater_than": {"of_base": "1/1000000001"}}, "of_base: must be a fraction of whole numbers up to 1e9"),
    ({"greater_than": {"of_base": "4/3"}, "quantity": "base+updates"}, "of_base: cannot use a base+ quantity"),
    (
        {"quantity": {"ordinary_base": "updates", "systemic_base": "base+cumulative"}},
        "greater_than.of_base: cannot use a base+ quantity",
    ),
    ({"when": {"base.flop": {"above": "1e40"}}}, "when.base.flop.above: must be a count of FLOP from 1 to below 1e40"),
    ({"when": {"base.flop": {"above": "9" * 5000}}}, f"when.base.flop.above: '{'9' * 59} is not a count like"),
    ({"when": {"base.flop": {"not_above": "0"}}}, "when.base.flop.not_above: must be a count of FLOP from 1 to"),
    ({"at_least": "1"}, "at_least: must have one of greater_than, at_least"),
    ({"greater_than": None}, "at_least: must have one of greater_than, at_least"),
    ({"at_leest": "1"}, "at_leest: unknown; known: id"),
    ({"other_conditions": []}, "other_conditions: must be a list of texts"),
    ({"other_conditions": ["\x1b[2J"]}, "other_conditions: must be a list of texts"),
    ({"other_conditions": ["revenue", ""]}, "other_conditions: must be a list of texts"),
    ({"other_conditions": ["x" * 1201]}, "other_conditions: must be a list of texts of at most 1200"),
    ({"other_conditions": "revenue"}, "other_conditions: must be a list"),
    ({"quantity": "update"}, "quantity: must be one of updates, cumulative"),
    ({"quantity": {"ordinary_base": "updates"}}, "quantity.systemic_base: must be one of"),
    ({"when": {"base.size": 1}}, "when.base.size: unknown"),
    ({"when": {"base.kind": ["guessed"]}}, "must be a list from known, estimated"),
    ({"when": {"method": ["lora", "dora"]}}, "method: must be a list from pretraining"),
    ({"when": {"modification": "yes"}}, "modification: must be true or false, is 'yes'"),
    ({"when": {"base.flop": {}}}, "must have one of above, not_above"),
    ({"sources": []}, "every claim names its source"),
    ({"sources": [{"of": "blog", "at": "1", "says": "x"}]}, "of: must be one of act, flopsd"),
    ({"sources": [{"of": "flopsd", "at": "1", "says": "x"}]}, "status: must be interpretation, as"),
    ({"since": "August 2025"}, "since: must be a date as text"),
    ({"status": "law"}, "status: must be one of text, interpretation, secondary, is 'law'"),
    ({"derived": ["gpai-indicative"]}, "either a threshold or the rules that it is derived from"),
    ({"title": "\x1b[2J"}, "title: must be text of at most 1200 printable characters"),
    ({"id": "Third!"}, "id: must be small letters"),
    ({"id": "gpai-indicative"}, "two rules have the same id"),
    ({"or_else": "gpai-indicative"}, "or_else: the two rules must name each other"),
    ({"or_else": "nowhere"}, "or_else: the two rules must name each other"),
    ({"or_else": "modification-systemic"}, "or_else: the two rules must name"),
    ({"when": "always"}, "when: must be a mapping"),
]


@pytest.mark.parametrize(("fields", "says"), FAULTS)
def test_a_fault_of_a_rule_is_named(fields: dict[str, Any], says: str) -> None:
    bad = data()
    rule = next(rule for rule in bad["rules"] if rule["id"] == "modification-third")
    for name, value in fields.items():
        rule[name] = value
        if value is None:
            del rule[name]
    assert_refused(bad, says)


def test_all_faults_of_a_policy_are_reported_at_once() -> None:
    bad = data()
    bad["rules"][0]["greater_than"] = 1e23
    bad["rules"][1]["status"] = "law"
    bad["estimation_margin"]["ppm"] = "30 %"
    bad["form"]["flop_significant_figures"] = 0
    bad["form"]["training_time_bands_months"] = [6, 3]
    bad["rules"][5]["derived"] = ["nowhere"]
    bad["sources"]["act"] = ["one", "two"]
    del bad["title"]
    with pytest.raises(PolicyError) as fault:
        policy_from(bad, "")
    found = "\n".join(fault.value.problems)
    named = (
        "rule gpai-indicative", "rule systemic-presumption", "estimation_margin.ppm", "bands", "policy: sources.act", "policy: title", "'nowhere'",
    )  # fmt: skip
    assert all(words in found for words in named), found
    assert "flop_significant_figures: must be a whole number from 1 to 12, is 0" in found


def test_every_field_of_the_packaged_rules_is_read() -> None:
    (policy,) = load_policies()

    def text(value: object) -> str:
        return " ".join(str(value).split())

    for rule, written in zip(policy.rules, data()["rules"], strict=True):
        for name in ("id", "title", "citation", "consequence", "since", "status"):
            assert getattr(rule, name) == text(written[name])
        assert rule.assumes == text(written.get("assumes", ""))
        assert rule.or_else == written.get("or_else")
        assert rule.derived == tuple(written.get("derived", ()))
        when = written.get("when", {})
        assert rule.when.modification is when.get("modification")
        assert rule.when.base_systemic is when.get("base.systemic")
        assert rule.when.base_kinds == tuple(when.get("base.kind", ()))
        if rule.quantities is not None:
            quantity = written["quantity"]
            both = (quantity, quantity) if isinstance(quantity, str) else tuple(quantity.values())
            assert tuple(one.value for one in rule.quantities) == both


def test_each_rounding_of_the_form_is_read_from_its_own_field() -> None:
    changed = data()
    for figures, name in enumerate(("flop", "notification", "energy", "parameters", "hardware_days"), 1):
        changed["form"][f"{name}_significant_figures"] = figures
    form = policy_from(changed, "").form
    assert form is not None
    assert (form.flop_figures, form.notification_figures, form.energy_figures) == (1, 2, 3)
    assert (form.parameters_figures, form.hardware_days_figures, form.bands_months) == (4, 5, (1, 3, 6))


@pytest.mark.parametrize("name", ["", "\x1b[2J", None, 7, []], ids=["empty", "escape", "missing", "number", "list"])
def test_a_rule_without_a_usable_id_is_named_by_its_position(name: object) -> None:
    bad = data()
    bad["rules"][2]["id"] = name
    with pytest.raises(PolicyError) as fault:
        policy_from(bad, "")
    assert any(problem.startswith("rule 3: id: must be") for problem in fault.value.problems), fault.value.problems


MODIFIED = {"modification": True, "base.kind": ["unknown"]}


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        (
            "unknown-base-other",
            {"when": {**MODIFIED, "base.systemic": True}},
            "or_else: one rule must be for base.systemic",
        ),
        ("unknown-base-other", {"when": MODIFIED}, "or_else: one rule must be for base.systemic true, one for false"),
        # If the other rule is not for LoRA, it does not replace this one, and neither may apply.
        (
            "unknown-base-other",
            {"when": {**MODIFIED, "base.systemic": False, "method": ["full"]}},
            "or_else: the two rules must have the same conditions but for base.systemic",
        ),
        ("modification-systemic", {"derived": ["modification-systemic"]}, "is not a rule with a threshold"),
        ("modification-systemic", {"derived": []}, "derived: must be a list of rules"),
        ("modification-systemic", {"quantity": "updates"}, "either a threshold or the rules that it is derived from"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(name: str, fields: dict[str, Any], problem: str) -> None:
    bad = data()
    next(rule for rule in bad["rules"] if rule["id"] == name).update(fields)
    assert_refused(bad, problem)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.update(rules=[]), "rules: must be a list of rules"),
        (lambda d: d.update(rules={}), "rules: must be a list of rules"),
        (lambda d: d.update(sources={}), "sources: must be a mapping of names to titles"),
        (lambda d: d["estimation_margin"].update(ppm=0), "estimation_margin.ppm: must be a whole number from 1 to 999999"),
        (lambda d: d["estimation_margin"].update(ppm=10**6), "estimation_margin.ppm: must be a whole number from 1 to"),
        (lambda d: d["estimation_margin"].update(source={"of": "blog"}), "estimation_margin.source.of: must be one of"),
        (lambda d: d["estimation_margin"].update(other=1), "estimation_margin.other: unknown"),
        (lambda d: d.update(extra=1), "extra: unknown"),
        (lambda d: d["form"].update(extra=1), "form.extra: unknown"),
        (lambda d: d["form"].update(training_time_bands_months=[]), "training_time_bands_months: must be a list"),
        (lambda d: d["form"].update(training_time_bands_months=[0, 1]), "training_time_bands_months: must be a list"),
        (lambda d: d["form"].update(training_time_bands_months=[1, 1]), "training_time_bands_months: must be a list"),
        (lambda d: d["form"].update(training_time_bands_months=[1.5]), "training_time_bands_months: must be a list"),
        (lambda d: d["form"].update(sources=[]), "every claim names its source"),
        (lambda d: d["form"].update(energy_significant_figures=13), "must be a whole number from 1 to 12, is 13"),
    ],
)  # fmt: skip
def test_problems_outside_the_rules_are_reported(change: Any, problem: str) -> None:
    bad = data()
    change(bad)
    assert_refused(bad, problem)


def test_other_conditions_are_unfolded_to_one_line_each() -> None:
    edited = data()
    edited["rules"][0]["other_conditions"] = ["of a\n  large firm ", "x" * 1200]
    assert policy_from(edited, "").rules[0].other_conditions == ("of a large firm", "x" * 1200)


@pytest.mark.parametrize("ppm", [1, 999_999])
def test_the_smallest_and_the_largest_margin_are_accepted(ppm: int) -> None:
    edited = data()
    edited["estimation_margin"]["ppm"] = ppm
    assert policy_from(edited, "").margin_ppm == ppm


def test_invalid_yaml_is_reported_with_its_line() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(b"id: ours\nrules: [", "ours.yaml")
    (problem,) = caught.value.problems
    assert problem.startswith("ours.yaml: not YAML: ")
    assert re.search(r" at line \d+, column \d+$", problem)
    assert "byte string" not in problem

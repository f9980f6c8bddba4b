"""Compute adds up over nodes, attempts and the jobs of a lineage, and findings apply to the sum: a threshold that no
job crosses may be crossed by the sum."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.merge.verify_merged import verify_merged
from flopsd.attestation.signed_statement import open_ledger
from flopsd.attestation.signing.public_key import load_public
from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.errors import NotVerifiedError
from flopsd.settings.data_files import Tables
from tests.second_implementation.arithmetic import payload_of
from tests.support.jobs import Nodes, gpus, plain, sagemaker
from tests.support.process import in_process

POLICY = """\
schema: flopsd-policy/1
id: small
title: A regime for tests
notice: Nobody made this law.
sources: {law: The Law of Nowhere}
estimation_margin: {ppm: 300000, source: {of: law, at: "1", says: thirty percent}}
rules:
  - id: third
    title: a third of the base model
    quantity: updates
    greater_than: {of_base: "1/3"}
    when: {modification: true, base.kind: [known, estimated]}
    citation: section 2
    consequence: It is registered.
    since: "2026-01-01"
    status: text
    sources: [{of: law, at: "2", says: a third}]
  - id: whole
    title: a fixed count
    quantity: cumulative
    greater_than: "LIMIT"
    citation: section 3
    consequence: It is registered.
    since: "2026-01-01"
    status: text
    sources: [{of: law, at: "3", says: a count}]
"""
TRAINS = OperatorDeclarations(Phase.TRAIN, Method.FULL, Recomputation.NONE)


def findings(ledger: Path) -> dict[str, dict[str, Any]]:
    predicate = payload_of(ledger)["predicate"]
    return {finding["rule"]: finding for finding in predicate["findings"] if finding["policy"] == "small"}


def policy(folder: Path, limit: int) -> Path:
    file = folder / f"small-{limit}.yaml"
    file.write_text(POLICY.replace("LIMIT", str(limit)))
    return file


def low(ledger: Path, bound: str = "low") -> int:
    return int(payload_of(ledger)["predicate"]["totals"]["guidelines"][bound])


def job(nodes: Nodes, name: str, later: int, declared: OperatorDeclarations = TRAINS, **how: Any) -> Path:
    ledger = nodes.ledger(sagemaker(0, ("algo-1",), job=name, boot=name), name, later=later, declared=declared)
    return nodes.merge(ledger, ledger=nodes.folder / "out" / f"{name}.json", **how).ledger


def lineage_of(nodes: Nodes, jobs: list[Path], rules: Path) -> Path:
    ledger = nodes.folder / "lineage.json"
    return nodes.merge(*jobs, kind="lineage", lineage="m", ledger=ledger, policy_files=["eu-ai-act", str(rules)]).ledger


def test_a_lineage_can_be_above_though_all_its_jobs_are_below(nodes: Nodes, tmp_path: Path) -> None:
    jobs = [job(nodes, f"job-{n}", 100 * n) for n in range(6)]
    limit = low(jobs[0], "high")  # no single job can be above it
    assert sum(map(low, jobs)) > limit
    rules = policy(tmp_path, limit)
    for one in jobs:
        again = nodes.merge(*_children(nodes, one), ledger=tmp_path / "again" / one.name, policy_files=[str(rules)])
        assert findings(again.ledger)["whole"]["state"] == "below"
    lineage = lineage_of(nodes, jobs, rules)
    found = findings(lineage)["whole"]
    assert (found["state"], found["applies"]) == ("above", True)
    assert int(found["value"]["low"]) == sum(map(low, jobs))
    verify(nodes, lineage, rules)
    with pytest.raises(NotVerifiedError, match="by a policy that is not flopsd's own: .*/lineage.policy-") as refused:
        verify(nodes, lineage)
    assert "--policy" in refused.value.hint


def test_an_incomplete_job_is_never_below(nodes: Nodes, tmp_path: Path) -> None:
    part = nodes.ledger(sagemaker(0), declared=TRAINS)
    rules = policy(tmp_path, 10**30)
    half = nodes.merge(part, allow_incomplete=True, policy_files=[str(rules)]).ledger
    assert payload_of(half)["predicate"]["totals"]["guidelines"]["high"] is None
    assert findings(half)["whole"]["state"] == "indeterminate"
    # Nor is a single node of several, verified alone.
    alone = nodes.ledger(plain("host"), declared=TRAINS)
    merged = nodes.merge(alone, policy_files=[str(rules)], allow_incomplete=True, ledger=nodes.folder / "alone.json")
    assert findings(merged.ledger)["whole"]["state"] == "indeterminate"


@pytest.mark.parametrize("kind", ["known", "estimated"])
def test_the_base_model_of_a_lineage_is_the_one_its_jobs_declare(nodes: Nodes, tmp_path: Path, kind: str) -> None:
    base = Base("m", kind, 3 * 10**18, None if kind == "known" else "6PD", False)
    declared = OperatorDeclarations(Phase.TRAIN, Method.LORA, Recomputation.FULL, base)
    jobs = [job(nodes, "sft", 0, declared), job(nodes, "dpo", 100, TRAINS)]
    rules = policy(tmp_path, 10**30)
    lineage = lineage_of(nodes, jobs, rules)
    sealed, third = payload_of(lineage)["predicate"]["declared"], findings(lineage)["third"]
    assert (sealed["method"], sealed["base"]["flop"], sealed["conflict"]) == ("full", str(3 * 10**18), [])
    exact = {"low": str(10**18), "high": str(10**18)}
    # The truth lies in [0.7 E, 1.3 E], and so does a third of it.
    ends = exact if kind == "known" else {"low": str(7 * 10**17), "high": str(13 * 10**17)}
    assert third["threshold"] == {**ends, "comparison": "greater_than"}
    assert (third["applies"], third["state"]) == (True, "below")
    other = OperatorDeclarations(Phase.TRAIN, Method.LORA, Recomputation.FULL, Base("n", "known", 10**18, None, False))
    split = lineage_of(nodes, [*jobs, job(nodes, "kto", 200, other)], rules)
    sealed = payload_of(split)["predicate"]["declared"]
    assert sealed["base"] is None
    assert "bases_differ" in sealed["conflict"]
    assert findings(split)["third"]["applies"] is None
    assert findings(split)["third"]["reasons"][0] == {"code": "bases_differ"}, "and not that none is declared"


def test_base_models_that_differ_within_a_job_differ_in_its_lineage_too(nodes: Nodes, tmp_path: Path) -> None:
    bases = [Base(name, "known", flop, None, False) for name, flop in (("m", 10**24), ("n", 10**25))]
    tunes = [OperatorDeclarations(Phase.TRAIN, Method.LORA, Recomputation.FULL, base) for base in bases]
    ledgers = [nodes.ledger(sagemaker(rank), declared=tunes[rank]) for rank in (0, 1)]
    split = nodes.merge(*ledgers, ledger=tmp_path / "split.json").ledger
    lineage = nodes.merge(
        split, job(nodes, "sft", 100, tunes[0]), kind="lineage", lineage="m", ledger=tmp_path / "l.json"
    ).ledger
    sealed = payload_of(lineage)["predicate"]["declared"]
    assert sealed["base"] is None, "the one job that agrees with itself does not decide it"
    assert "bases_differ" in sealed["conflict"]


def test_contradictions_in_a_child_are_named_in_the_sum(nodes: Nodes) -> None:
    """In a node, between the nodes of a job, and again in the lineage; the merged ledger agrees with its children."""
    odd = OperatorDeclarations(Phase.EVALUATE, Method.LORA, None)
    hosts = ("algo-1", "algo-2")
    parts = [
        nodes.ledger(sagemaker(rank, hosts), f"rank-{rank}", declared=said, devices=gpus(f"algo-{rank + 1}"))
        for rank, said in enumerate((TRAINS, odd))
    ]
    merged = nodes.merge(*parts, ledger=nodes.folder / "out" / "job.json")
    lineage = nodes.merge(merged.ledger, kind="lineage", lineage="m", ledger=nodes.folder / "lineage.json")
    for made in (merged, lineage):
        named = payload_of(made.ledger)["predicate"]["declared"]["contradictions"]
        assert [one["name"] for one in named] == ["EVALUATION_WITH_A_METHOD", "METHOD_DIFFERS"]
        assert named[1] == {"name": "METHOD_DIFFERS", "code": "node_methods_differ", "methods": ["full", "lora"]}
        key = str(made.public_key)
        said = in_process("verify", str(made.ledger), "--key", key, code=0).stdout
        assert "METHOD_DIFFERS: ledgers of one job declare full and lora" in said  # of one node, if they are segments
        assert "EVALUATION_WITH_A_METHOD" in in_process("report", str(made.ledger), "--key", key, code=0).stdout


ADAPTERS = """\
id: small
title: A regime of adapters
rules:
  - {id: adapters, citation: c, at_least: "1", when: {method: [lora, qlora]}}
  - {id: quantized, citation: c, at_least: "1", when: {method: [qlora]}}
  - {id: all-weights, citation: c, at_least: "1", when: {method: [full]}}
"""


def test_a_rule_for_some_methods_uses_the_methods_of_each_node(nodes: Nodes, tmp_path: Path) -> None:
    """A sum of different methods has the method `full`, which is the method of none of its nodes."""
    rules = tmp_path / "adapters.yaml"
    rules.write_text(ADAPTERS)
    tunes = [OperatorDeclarations(Phase.TRAIN, method, Recomputation.NONE) for method in (Method.LORA, Method.QLORA)]
    split = nodes.merge(
        *(nodes.ledger(sagemaker(rank), declared=tune) for rank, tune in enumerate(tunes)),
        ledger=tmp_path / "split.json", policy_files=[str(rules)],
    )  # fmt: skip
    jobs = [job(nodes, tune.method.value, 100 * n, tune) for n, tune in enumerate(tunes, 1) if tune.method]
    for made in (split.ledger, lineage_of(nodes, jobs, rules), lineage_of(nodes, [split.ledger], rules)):
        found = {rule: (one["applies"], one["state"]) for rule, one in findings(made).items()}
        assert found == {
            "adapters": (True, "above"), "quantized": (None, "indeterminate"), "all-weights": (False, None),
        }  # fmt: skip
        key = ["--key", str(nodes.public), "--policy", str(rules)]
        assert re.search(r"Training method +lora, qlora", in_process("report", str(made), *key, code=0).stdout)


def test_a_base_model_next_to_pretraining_is_a_conflict_and_is_never_dropped(nodes: Nodes, tmp_path: Path) -> None:
    own = OperatorDeclarations(Phase.TRAIN, Method.PRETRAINING, Recomputation.NONE)
    risky = Base("theirs", "known", 38 * 10**24, None, True)
    jobs = [
        job(nodes, "pretraining", 0, own),
        job(nodes, "sft", 100, OperatorDeclarations(Phase.TRAIN, Method.LORA, None, risky)),
    ]
    rules = policy(tmp_path, 10**30)
    lineage = lineage_of(nodes, jobs, rules)
    predicate = payload_of(lineage)["predicate"]
    sealed = predicate["declared"]
    assert (sealed["method"], sealed["base"]["flop"]) == ("pretraining", str(38 * 10**24))
    assert sealed["conflict"] == ["pretraining_with_base"]
    assert findings(lineage)["third"]["applies"] is None
    by_act = {found["rule"]: found for found in predicate["findings"] if found["policy"] == "eu-ai-act"}
    assert by_act["modification-systemic"]["applies"] is None
    assert {"code": "pretraining_with_base"} in by_act["modification-systemic"]["reasons"]
    assert {"code": "pretraining_with_base"} in by_act["gpai-indicative"]["reasons"]


def test_a_lineage_of_pretraining_and_its_own_tunes_has_no_base(nodes: Nodes, tmp_path: Path) -> None:
    own = OperatorDeclarations(Phase.TRAIN, Method.PRETRAINING, Recomputation.NONE)
    jobs = [job(nodes, "pretraining", 0, own), job(nodes, "sft", 100, TRAINS)]
    rules = policy(tmp_path, 10**30)
    lineage = lineage_of(nodes, jobs, rules)
    sealed = payload_of(lineage)["predicate"]["declared"]
    assert (sealed["method"], sealed["base"], sealed["conflict"]) == ("pretraining", None, [])
    assert findings(lineage)["third"]["applies"] is False


def _children(nodes: Nodes, merged: Path) -> list[Path]:
    names = [child["run"] for child in payload_of(merged)["predicate"]["children"]]
    return [nodes.folder / "ledgers" / name / "ledger.json" for name in names]


def verify(nodes: Nodes, ledger: Path, *rules: Path) -> None:
    opened = open_ledger(ledger, [load_public(str(nodes.public))])
    found = verify_merged(opened, tables=Tables(policy_files=[str(rule) for rule in rules]))
    assert json.dumps(found.statement["predicate"]["kind"]) in ('"job"', '"lineage"')

"""The content of a report on a ledger: old and new ones, whole and partial, and files that are no ledger; and its
course."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.evidence import witness
from flopsd.attestation.evidence.item import EvidenceResult, EvidenceState
from flopsd.cli.verify import verify_with
from flopsd.core.declarations import Base, Method
from flopsd.core.envelope import parse_envelope
from flopsd.core.ledger.statement import encode
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.report.claims import _claim
from flopsd.report.contents import build as module
from flopsd.report.contents.build import course_of
from flopsd.report.contents.coverage import moment
from flopsd.report.contents.inventory import items_of
from flopsd.report.contents.model import EvidenceLine, ReportState
from flopsd.report.contents.verification import NO_FIGURES, proof_of, refused
from flopsd.report.html.document import report_html
from flopsd.report.isolation_text import isolation_text
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.report_text import report_text
from flopsd.report.terminal import COLUMNS, fact
from flopsd.report.threshold_text import threshold_facts
from flopsd.report.verification_text import unsealed_text
from tests.make_vectors.files import signed
from tests.make_vectors.merged import of_one_node
from tests.second_implementation.arithmetic import payload_of
from tests.support import enriched
from tests.support.enriched import SCENES, content, report, vector, with_policy
from tests.support.extent import Extent, sampled, unless_quick
from tests.support.process import in_process
from tests.support.story import VECTORS, table
from tests.support.vector_arguments import published

CASES = [vector.name for vector in published() if vector.expected["verdict"] == "accept"]


@pytest.mark.parametrize("case", unless_quick(CASES, 6))
def test_every_published_ledger_is_reported(case: str) -> None:
    made = report(vector(case))
    assert made.content is not None
    assert made.content.form is not None
    assert made.content.form.notification == (), "nothing is crossed in them"
    assert all(line.ai_office and "None" not in str(line) for line in made.content.form.lines)
    text = report_text(made)
    assert "NOT VERIFIED" in text
    assert max(map(len, text.splitlines())) <= COLUMNS
    names = [fact.name for fact in made.content.declared.job]
    assert names[0] == ("Phase" if made.kind == "node" else "Training method")


def test_a_report_without_phases_has_no_heading_for_them() -> None:
    shown = [
        report_text(report(vector(f"valid/{name}")))
        for name in ("activity-and-gaps", "starts-of-which-one-has-no-device")
    ]
    assert ["By phase" in text for text in shown] == [True, False]


def test_what_a_sampled_clock_leaves_open_is_a_fact_of_the_figure() -> None:
    ledger = copy.deepcopy(vector("valid/activity-and-gaps"))
    ledger["predicate"]["totals"]["executed"]["clockUncertaintyFlop"] = "1234567"
    (executed, *_) = content(ledger).bases
    found = {one.name: (one.value, one.exact) for one in executed.facts}
    assert found["Of that, from the clock"] == ("1.24x10^6 FLOP either way", "1234567 FLOP")


@pytest.mark.parametrize(
    ("keys", "signer", "again"),
    [
        ((), "PUBLIC-KEY", "--key PUBLIC-KEY"),
        (("our key.pem", "b.pem"), "'our key.pem'", "--key 'our key.pem' --key b.pem"),
    ],
)
def test_the_commands_of_a_report_use_the_readers_keys(keys: tuple[str, ...], signer: str, again: str) -> None:
    found = proof_of(replace(enriched.document(vector("valid/activity-and-gaps")), keys=keys))
    first, _, by_hand = (command for _, command in found.commands)
    assert first == f"flopsd verify ledger.json {again} --peaks PEAK-TABLE"
    assert f"\nsigned_by {signer} ledger.json\n" in by_hand
    assert "\nsealed ledger.journal.jsonl\nchained\n" in by_hand


def test_a_ledger_without_a_policy_is_reported_without_a_verdict() -> None:
    statement = vector("valid/activity-and-gaps")
    statement["predicate"]["findings"] = []
    assert content(statement).answer.headline == "No policy was applied"


def test_a_long_word_is_indented_less() -> None:
    digest = "312f" * 16 + ":"  # its first three digits do not belong to the number before them
    assert fact("driver-library", f"not checked: libnvidia-ml.so.1 {digest} as in the journal", 24) == [
        "driver-library",
        "    not checked: libnvidia-ml.so.1",
        f"    {digest} as in the",
        "    journal",
    ]


def test_shares_of_formats_can_be_wrapped() -> None:
    flop = {"low": "1", "measured": "2", "high": "3"}
    claim = {"phase": "train", "precision": "bf16:0.75,fp8:0.25", "flop": flop}
    assert _claim(LedgerObject(claim, "claim")) == "2 FLOP of training in bf16:0.75, fp8:0.25"


@pytest.mark.parametrize(("high", "words"), [("3", "3 FLOP at most"), (None, "an unknown amount")])
def test_a_claim_on_work_that_was_not_measured_has_a_bound_or_none(high: str | None, words: str) -> None:
    claim = {"phase": "train", "precision": None, "flop": {"low": "1", "measured": None, "high": high}}
    assert _claim(LedgerObject(claim, "claim")) == f"{words} of training"


def test_time_with_only_utilization_evidence_is_listed_separately() -> None:
    made = content(vector("valid/activity-and-gaps"))
    assert "how much was done is not known" in made.coverage.text
    name = "Read as utilization, which gives a ceiling only"
    assert [fact.value for fact in made.coverage.facts if fact.name == name] == ["15 s"]
    measured = content(vector("valid/declared-by-settings"))
    assert "how much was done" not in measured.coverage.text
    assert not any(fact.name == name for fact in measured.coverage.facts)


def test_a_replay_among_others_and_an_unended_run_are_flagged() -> None:
    notes = [child.note for child in content(vector("merged/replay-allowed")).children]
    assert ["REPLAY: no evidence" in note for note in notes].count(True) == 1 < len(notes)
    notes = [node.note for node in content(vector("merged/replay-allowed")).nodes]
    assert ["REPLAY: no evidence" in note for note in notes].count(True) == 1 < len(notes)
    going_on = vector("valid/activity-and-gaps")
    going_on["predicate"]["incarnations"][-1]["endReason"] = None
    assert [flag.word for flag in report(going_on).flags] == ["PEAK TABLE", "NODE", "ROLLING"]


def test_no_gap_of_unknown_length_is_listed_as_exact() -> None:
    found = content(vector("valid/journal-replaced")).coverage
    times = {one.reason: one.time.text for one in found.reasons}
    assert times["journal_replaced"].startswith("at least ")
    assert not any(text.startswith("at least") for reason, text in times.items() if reason != "journal_replaced")
    assert any(one.length.text.startswith("at least ") for one in found.gaps if "journal_replaced" in one.reason)


def test_a_node_with_gaps_of_unknown_length_has_at_most_its_coverage() -> None:
    job = of_one_node("activity-and-gaps")
    assert not content(job).nodes[0].observed.startswith("at most")
    job["predicate"]["children"][0]["coverage"]["gapSecondsByReason"]["end_unknown"] = "1.0"
    (node,), (child,) = content(job).nodes, content(job).children
    assert node.observed == child.observed
    assert node.observed.startswith("at most")
    assert node.span.startswith("at least")
    job["predicate"]["coverage"]["gapSecondsByReason"]["end_unknown"] = "1.0"
    assert "Some gaps are of unknown length, so no upper bound is known." in content(job).coverage.text


def test_the_answer_is_the_most_severe_of_all_rules() -> None:
    between = enriched.larger(vector("valid/activity-and-gaps"), 10**7, 1)
    made = content(with_policy(between, Method.PRETRAINING, None))
    assert [rule.state for rule in made.rules] == [ReportState.INDETERMINATE, ReportState.BELOW]
    why = "the threshold lies between the lower and the upper bound"
    assert made.answer.headline == f"Indeterminate for 1 of 2 thresholds: {why}"
    assert made.answer.sentences[-1] == "1 further rule: below."


def test_an_interpretation_of_the_law_that_is_above_is_marked_as_such() -> None:
    base = Base("b", "known", 10**25 - 1, None, False)
    counted = enriched.with_guidelines(vector("valid/activity-and-gaps"), 10**6, 10**6)
    above = with_policy(counted, Method.FULL, base)
    made = content(above)
    assert [(rule.name, rule.status) for rule in made.rules if rule.state is ReportState.ABOVE] == [
        ("eu-ai-act/base-and-modification-systemic", "interpretation")
    ]
    assert "flopsd's reading and not the text's" in made.answer.sentences[0]
    assert "(flopsd's reading, not the text's)" in str(threshold_facts(above["predicate"]["findings"]))


def test_a_rule_that_may_not_apply_is_indeterminate_even_far_above() -> None:
    base = Base("b", "unknown", None, None, None)
    above = with_policy(enriched.larger(vector("valid/activity-and-gaps"), 10**12, 1), Method.FULL, base)
    made = content(above)
    open_rules = [rule for rule in made.rules if rule.state is ReportState.INDETERMINATE]
    assert open_rules
    assert all("not known whether the rule applies" in rule.text for rule in open_rules)


def test_declarations_are_listed_with_their_origin() -> None:
    statement = SCENES["everything"]()
    sessions = statement["predicate"]["declared"]["sessions"]
    for session, is_packed in zip(sessions, (False, True), strict=True):
        session["facts"]["packing"] = is_packed
    declared = content(statement).declared
    facts = {fact.name: fact for fact in (*declared.job, *declared.processes)}
    assert facts["Base model"].by == "the settings"
    assert facts["LoRA"].value == "r = 8 on q_proj, v_proj"
    assert facts["LoRA"].by == "2 training processes"
    assert facts["Phase"].value == "not declared"
    assert [fact.by for fact in declared.job if fact.name == "Training method"] == ["the settings"]
    assert [fact.value for fact in declared.processes if fact.name == "Packing"] == ["no", "yes"]
    work = {fact.name: fact.value for fact in declared.work}
    assert (
        work["Phase train"]
        == "4 000 steps (the most of one process), 2 048 000 sequences, 4 194 304 000 tokens, 0 padding tokens"
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"reasons": ["same_user", "root"]}, "this journal: it ran as the daemon's own user and root."),
        ({"jobCouldWriteJournal": False, "jobContainer": True}, "it had a container of its own"),
        ({"jobCouldWriteJournal": False}, "it ran as user 1000, the daemon as user 0, 998"),
        ({"jobCouldReadKey": False}, "It could not read the key that signed."),
        ({"jobCouldReadKey": True}, "It could read the key that signed, too."),
        ({"jobCouldReadKey": None, "key": {"kind": "awskms"}}, "The key is in AWS KMS"),
    ],
)
def test_users_who_could_have_written_the_journal_are_named(changed: dict[str, Any], words: str) -> None:
    users = {"daemonUsers": ["0", "998"], "jobUsers": ["1000"]}
    isolation = {"jobCouldWriteJournal": True, "reasons": [], "jobContainer": False, "jobCouldReadKey": None, **users}
    assert words in isolation_text(LedgerObject({"isolation": {**isolation, **changed}}, "predicate"))
    assert isolation_text(LedgerObject({}, "predicate")) == ""


def test_a_claim_of_a_process_is_stated_once_with_its_origin() -> None:
    made = report(vector("valid/lying-declarations"))
    for shown in (report_text(made), report_html(made)):
        text = " ".join(shown.split())
        assert text.count("only if it was what process 4711 declared") == 1
        assert "Below if what its processes claim is true" in text


def test_a_refused_ledger_shows_no_figure() -> None:
    made = report(SCENES["everything"](), refused(NotVerifiedError("the payload was edited", hint="ask again")))
    assert made.content is None
    text = report_text(made)
    assert NO_FIGURES in " ".join(text.split())
    assert "10^2" not in text


def _paths(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(found, dict | list):
        for at, value in found.items() if isinstance(found, dict) else enumerate(found[:2]):
            yield from _paths(value, (*path, at))


@cache
def _statement(name: str) -> Any:
    return SCENES[name]()


ANYTHING: tuple[Any, ...] = (None, "x", -1, [], {}, True, "9" * 41, "1e999999999")
WRONG: list[tuple[str, Any]] = [
    *(("everything", wrong) for wrong in ANYTHING),
    ("incomplete-job", {}),
    ("lineage-above", None),
]


@pytest.mark.long
@sampled(40)
@pytest.mark.parametrize(("name", "wrong"), WRONG, ids=repr)
def test_any_content_of_a_ledger_is_reported_or_refused_by_its_path(name: str, wrong: Any, extent: Extent) -> None:
    statement, refusals = copy.deepcopy(_statement(name)), 0
    for path in extent.of(list(_paths(statement["predicate"]))):
        there: Any = statement["predicate"]
        for step in path[:-1]:
            there = there[step]
        before, there[path[-1]] = there[path[-1]], wrong
        try:
            report(statement)
        except LedgerError as fault:
            refusals += 1
            assert str(fault).startswith(("predicate", "a ledger of kind"))
            assert fault.hint
        there[path[-1]] = before
    assert refusals > 20 // extent.step
    report(statement)


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [({"statement": {}}, 3, "was changed while it was verified"), ({"unsealed_records": 3}, 0, unsealed_text(3))],
    ids=["changed meanwhile", "with records after its seal"],
)
def test_the_report_of_a_verified_ledger_that_is_not_whole_says_so(
    changed: dict[str, Any], code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = VECTORS / "valid" / "declared-by-settings"
    tables = ("--peaks", str(VECTORS / "peaks.yaml"), "--policy", str(VECTORS / "policy.yaml"))
    command = ["report", str(case / "ledger.json"), "--key", str(case / "ledger.pub"), *tables]
    assert words not in " ".join(in_process(*command, code=0).stdout.split())
    monkeypatch.setattr("flopsd.cli.report.verify_with", lambda *given: replace(verify_with(*given), **changed))
    assert words in " ".join(in_process(*command, code=code).stdout.split())


@pytest.mark.parametrize(("key", "verified"), [("declared-by-settings", True), (None, None), ("p256", False)])
def test_the_json_facts_match_those_in_the_text(key: str | None, *, verified: bool | None) -> None:
    case, tables = VECTORS / "valid" / "declared-by-settings", (VECTORS / "peaks.yaml", VECTORS / "policy.yaml")
    words = ["report", str(case / "ledger.json"), "--peaks", str(tables[0]), "--policy", str(tables[1])]
    words += [] if key is None else ["--key", str(case.with_name(key) / "ledger.pub")]
    code = 3 if verified is False else 0
    found = json.loads(in_process(*words, "--json", code=code).stdout)
    text = " ".join(in_process(*words, code=code).stdout.split())
    predicate = payload_of(case / "ledger.json")["predicate"]
    digest = sha256(parse_envelope((case / "ledger.json").read_bytes()).payload).hexdigest()
    assert (found["verified"], found["kind"], found["payloadSha256"]) == (verified, "node", digest)
    assert found["reason"] in text
    assert found["hint"].partition(":")[0] in text
    assert (found["subject"], found["flags"]) == (predicate["run"]["id"], ["PEAK TABLE", "POLICY", "NODE"])
    assert [one["file"] for one in found["foreignFiles"]] == [table.name for table in tables]
    if verified is False:
        assert (found["answer"], found["form"], found["predicate"]) == (None, None, None)
    else:
        assert found["predicate"] == predicate
        assert found["answer"]["headline"] in text
        form = " ".join(in_process(*words, "--format", "form", code=0).stdout.split())
        assert all(line["field"] in form and line["national"] in form for line in found["form"]["lines"])


@pytest.mark.parametrize(
    "more", [["--also", "x"], ["--anchors", "x"], ["--children", "x"], ["--allow-replay"], ["--threshold", "2"],
             ["--aws-certificate", "x"], ["--tsa-certificate", "x"]],
)  # fmt: skip
def test_options_that_need_verification_are_refused_without_a_key(more: list[str]) -> None:
    done = in_process("report", str(VECTORS / "valid" / "declared-by-settings" / "ledger.json"), *more, code=2)
    assert f"report: {more[0]} verifies, which needs a key" in done.stderr


def test_attached_evidence_is_shown_as_checked_or_else_as_claimed() -> None:
    predicate = LedgerObject(vector("valid/payload-evidence-unknown")["predicate"], "predicate")
    there, absent = items_of(predicate, ())
    assert (there.state, there.text) == ("not checked by this report", "attached at 2026-09-21T15:00:00.000000Z")
    assert (absent.state, absent.text) == ("absent", "of_a_later_version more=x")
    stamp = {"type": witness.KIND.name, "state": "present", "reason": None, "collectedAt": "2026-09-21T15:00:00Z"}
    (known,) = items_of(LedgerObject({"evidence": [stamp]}, ""), ())
    assert (known.proves, known.limits) == (witness.KIND.proves, witness.KIND.limits)
    checked = EvidenceResult("rfc3161", EvidenceState.HOLDS, "stamped\x1b", "when", "not what")
    assert items_of(predicate, (checked,)) == (EvidenceLine("rfc3161", "checked", "stamped\\x1b", "when", "not what"),)


def test_a_finding_without_figures_is_refused_by_its_path() -> None:
    statement = SCENES["everything"]()
    finding = next(one for one in statement["predicate"]["findings"] if one["applies"] and one["threshold"])
    finding.update(state="indeterminate", value=None, sharePpm=None, aboveOnlyIfBase=None)
    with pytest.raises(LedgerError, match=r"^predicate\.findings\[[0-9]+\]\.value: must be a mapping, is missing"):
        report(statement)


def test_an_object_with_too_many_members_is_refused() -> None:
    statement = SCENES["everything"]()
    phases = statement["predicate"]["totals"]["executed"]["byPhase"]
    phases |= {f"phase-{at}": next(iter(phases.values())) for at in range(500)}
    with pytest.raises(LedgerError, match=r"totals\.executed\.byPhase has 50[1-5] members, more than 500"):
        report(statement)


def test_an_unknown_state_is_not_accepted_as_a_verdict() -> None:
    statement = SCENES["everything"]()
    statement["predicate"]["findings"][2]["state"] = "fine"
    with pytest.raises(LedgerError, match="state: must be one of"):
        report(statement)


@pytest.mark.parametrize("shape", [[], ["--format", "form"], ["--format", "html"], ["--json"]], ids=str)
def test_a_merged_ledger_with_declared_models_is_reported_in_every_format(shape: list[str], tmp_path: Path) -> None:
    statement = of_one_node("declared-phases")
    assert statement["predicate"]["totals"]["architecture"] is not None
    ledger = tmp_path / "job.json"
    ledger.write_bytes(signed(encode(statement)))
    done = in_process("report", str(ledger), *shape)
    assert (done.returncode, done.stderr) == (0, "")
    if "html" not in shape:
        assert ("What it states, and what it does not" in done.stdout) == (shape == [])
    assert "is in the node ledgers" in done.stdout or json.loads(done.stdout)["form"]["rows"]


def test_times_after_the_year_9999_are_not_known() -> None:
    assert moment(10**30) == "not known"
    assert course_of(VECTORS / "valid" / "squares-of-every-size" / "ledger.journal.jsonl", 10**6, table()) == []


COURSES = ["activity-and-gaps", "cycles-recovered", "declared-phases", "journal-goes-on", "rebooted"]


@pytest.mark.parametrize("case", COURSES)
@pytest.mark.parametrize("most", [1, 2, 200])
def test_the_course_ends_at_the_ledgers_totals_and_never_falls(
    case: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_POINTS", most)
    folder: Path = VECTORS / "valid" / case
    predicate = payload_of(folder / "ledger.json")["predicate"]
    executed = predicate["totals"]["executed"]
    points = course_of(folder / "ledger.journal.jsonl", int(predicate["method"]["journal"]["records"]), table())
    assert 1 <= len(points) <= most + 1
    assert points[-1]["executed"] == {name: executed[name] for name in ("low", "measured", "high")}
    assert points[-1]["phases"] == executed["byPhase"]
    assert points[-1]["coveragePpm"] == predicate["coverage"]["coveragePpm"]
    for before, after in pairwise(points):
        assert before["at"] <= after["at"]
        for name in ("low", "measured"):  # high falls where counters later reveal the work in a gap
            if before["executed"][name] is not None:
                assert int(before["executed"][name]) <= int(after["executed"][name])

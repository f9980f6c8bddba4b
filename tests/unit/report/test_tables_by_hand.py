"""The tables of a report, for each form that an entry of a ledger can have."""

from collections.abc import Sequence
from typing import Any

import pytest

from flopsd.report.contents.bases import read_from
from flopsd.report.contents.coverage import ONLY_HERE, coverage_of
from flopsd.report.contents.declarations import DIFFERS, NOT_ALIKE, NOT_DECLARED, _value, declared_of
from flopsd.report.contents.inventory import child, completeness_of, device, energy_of, node, rows_of
from flopsd.report.contents.kernels import kernels_of
from flopsd.report.contents.model import Fact
from flopsd.report.ledger_json import LedgerObject

FIGURES = {"low": "1", "measured": "2", "high": "3"}


ACTIVITY = "hardware activity percentages and the SM clock"


def entry(**members: Any) -> LedgerObject:
    return LedgerObject(members, "here")


@pytest.mark.parametrize(
    ("name", "raw", "shown", "full"),
    [
        ("packing", True, "yes", "true"),
        ("packing", False, "no", "false"),
        ("window", 4096, "4 096", "4096"),
        ("model_name", "a\x1bb", "a\\x1bb", "a\\x1bb"),
        (
            "model_config", {"model_type": "llama", "b": 1}, "config.json of 2 entries, model type llama",
            '{"b": 1, "model_type": "llama"}',
        ),
        ("model_config", {"_class_name": "Flux"}, "config.json of 1 entry, model type Flux", '{"_class_name": "Flux"}'),
        ("model_config", {"model_type": 7}, "config.json of 1 entry", '{"model_type": 7}'),
        ("model_config", [], "[]", "[]"),
        ("precision", {"fp8": 250_000, "bf16": 750_000}, "bf16 75 %, fp8 25 %", '{"bf16": 750000, "fp8": 250000}'),
        ("precision", {"fp8": "all"}, '{"fp8": "all"}', '{"fp8": "all"}'),
        ("lora", {"r": 8, "target_modules": ["q", "v"]}, "r = 8 on q, v", '{"r": 8, "target_modules": ["q", "v"]}'),
        ("lora", {"r": 8}, "r = 8", '{"r": 8}'),
        ("lora", [8], "[8]", "[8]"),
        ("other", {"r": 8}, '{"r": 8}', '{"r": 8}'),
    ],
)  # fmt: skip
def test_a_declared_value_has_a_short_and_a_full_form(name: str, raw: Any, shown: str, full: str) -> None:
    assert _value(name, raw) == (shown, full)


def session(**facts: Any) -> dict[str, Any]:
    return {"facts": facts, "work": {"train": {"steps": "5", "tokens": "1000", "kernel_windows": "0"}}}


def predicate(declared: Any) -> LedgerObject:
    return entry(declared=declared, devices=[])


def test_declared_values_are_listed_once_with_the_number_of_processes() -> None:
    known: dict[str, Any] = {
        "phase": "train",
        "method": None,
        "recomputation": "full",
        "base": None,
        "contradictions": [],
    }
    many = [session(rank=at, zzz=at, packing=False) for at in range(10)]
    found = declared_of(predicate({**known, "sessions": [*many, session(method="lora"), {"facts": {}, "work": {}}]}))
    assert found.job == (
        Fact("Phase", "train", "the settings"), Fact("Training method", "not declared", ""),
        Fact("Recomputation of activations", "full", "the settings"), Fact("Base model", "not declared"),
    )  # fmt: skip
    assert [(fact.name, fact.value, fact.by) for fact in found.processes] == [
        ("Training method", "lora", "1 training process"),
        ("Packing", "no", "10 training processes"),
        ("Rank", "10 values", "10 training processes"),
        *[("zzz", f"{at}", "1 training process") for at in range(8)],
        ("zzz", "and 2 other values", ""),
    ]
    assert [fact.exact for fact in found.processes[:3]] == ["", "false", ""]
    assert [(fact.name, fact.value) for fact in found.work] == [
        ("Phase train", "5 steps (the most of one process), 11 000 tokens")
    ]
    one = {"facts": {}, "work": {"train": {"steps": "1", "sequences": "1", "tokens": "1", "forward_passes": "1"}}}
    alone = declared_of(predicate({**known, "sessions": [one]})).work
    assert [fact.value for fact in alone] == ["1 step, 1 forward pass, 1 sequence, 1 token"]
    assert (found.no_process, found.kernels) == ("", None)


def test_what_daemon_starts_declare_differently_is_not_given_as_undeclared_or_as_the_last_ones() -> None:
    unknown: dict[str, Any] = {"phase": "train", "method": None, "recomputation": None, "base": None, "sessions": []}
    differ = [{"name": "BASE_MODEL_DIFFERS", "code": "start_base_differs"}]

    def facts(phases: Sequence[str | None], contradictions: Sequence[Any] = ()) -> list[str]:
        declared = {**unknown, "phase": phases[-1], "contradictions": contradictions}
        starts = [{"phase": phase} for phase in phases]
        job = declared_of(entry(declared=declared, devices=[], incarnations=starts)).job
        return [fact.value for fact in job if fact.name != "Contradiction"]

    assert facts(["train"]) == ["train", NOT_DECLARED, NOT_DECLARED, NOT_DECLARED]
    assert facts([None, None]) == [NOT_DECLARED, NOT_ALIKE, NOT_ALIKE, NOT_DECLARED]
    assert facts(["train", "train"])[0] == "train"
    several = facts(["evaluate", None, "train", None], differ)
    assert several == [f"evaluate, not declared, train: {DIFFERS}", NOT_ALIKE, NOT_ALIKE, DIFFERS]


@pytest.mark.parametrize(
    ("base", "facts"),
    [
        (
            {}, [("Base model", "not named", "the settings"),
                 ("Its training compute", "declared as neither known nor estimable", "the settings")],
        ),
        (
            {"kind": "known", "flop": "1000", "name": "b"},
            [("Base model", "b", "the settings"), ("Its training compute", "10^3 FLOP, known", "the settings")],
        ),
        (
            {"kind": "estimated", "flop": "7", "method": "6ND", "declaredBy": "process 9"},
            [("Base model", "not named", "process 9"),
             ("Its training compute", "7 FLOP, estimated by 6ND", "process 9")],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("systemic", "word"), [(True, "yes"), (False, "no"), (None, "not declared")])
def test_a_base_model_states_its_compute_and_who_declared_it(
    base: dict[str, Any], facts: list[tuple[str, str, str]], systemic: bool | None, word: str
) -> None:
    known = {"kind": "unknown", "systemic": systemic, "declaredBy": "config", **base}
    found = declared_of(predicate({"method": "full", "base": {**known, "reason": "why"}}))
    by = facts[0][2]
    assert found.job[0] == Fact("Training method", "full", "the ledgers that were merged")
    assert [(fact.name, fact.value, fact.by) for fact in found.job[1:]] == [
        *facts, ("It has systemic risk", word, by if systemic is not None else ""), ("Reason", "why", by),
    ]  # fmt: skip
    assert found.job[2].exact == (f"{base['flop']} FLOP" if "flop" in base else "")
    assert len(declared_of(predicate({"method": "full", "base": known})).job) == 4


@pytest.mark.parametrize(
    ("of_nodes", "text"),
    [
        ([("full", None)], "full"),
        ([("lora", None), ("full", None), ("full", None)], "full, lora"),
        ([("full", None), (None, None)], "full, and some declare none"),
        ([(None, None), (None, None)], "not declared"),
        ([("full", ["full", "lora"])], "full, lora"),
        ([(None, ["full", "lora"])], "full, lora, and some declare none"),
    ],
)
def test_a_merged_ledger_has_the_methods_of_its_ledgers(
    of_nodes: list[tuple[str | None, list[str] | None]], text: str
) -> None:
    """Its own is `full` if they differ, and none if one of them declares none."""
    children = [
        {"declared": {"method": method, "contradictions": [] if named is None else [{"methods": named}]}}
        for method, named in of_nodes
    ]
    for own in (None, "full"):
        found = declared_of(entry(declared={"method": own, "base": None}, children=children)).job[0].value
        assert found == ("full" if own and text == "not declared" else text)


@pytest.mark.parametrize(
    ("methods", "high", "text"),
    [
        (["activity"], "1", ACTIVITY),
        (["activity", "none"], "1", f"{ACTIVITY}; on some nodes no counter that gives an estimate was read"),
        (["none"], "1", "no measuring counter was read: high is a ceiling, not an estimate"),
        (["none"], None, "no measuring counter was read, and no upper bound is known"),
        ([], None, ""),
    ],
)
def test_what_was_read_is_that_of_every_ledger(methods: list[str], high: str | None, text: str) -> None:
    assert read_from(entry(method=methods, high=high)) == text


DEVICE = {
    "index": "0", "model": "m", "uuid": "u", "serial": None, "evidence": "own", "evidenceReason": None,
    "peakRow": "h100", "peakStatus": "verified", "vendor": "nvidia", "pciBusId": None, "driver": None, "smCount": "132",
    "smCountExpected": "132",
    "source": "nvml", "executed": FIGURES, "spanSeconds": "10.0", "observedSeconds": "5.0", "recoveredSeconds": "2.5",
    "energyJoules": "4.0", "energyUncountedSeconds": "0.0", "integerOperations": {"low": "0", "measured": "0", "high": "0"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "note", "processors", "energy"),
    [
        ({}, "", "132", "4 J"),
        ({"peakRow": None}, "not in the peak table, so it has no upper bound", "132", "4 J"),
        ({"peakStatus": "unverified"}, "its rates are unverified", "132", "4 J"),
        ({"evidenceReason": "why", "sharedWith": "v"}, "why; shared with v", "132", "4 J"),
        ({"smCount": None}, "", "not read; the table expects 132", "4 J"),
        ({"smCount": None, "smCountExpected": None}, "", "not read", "4 J"),
        (
            {"smCount": "114"},
            "streaming multiprocessors: 114; the table expects 132",
            "114; the table expects 132",
            "4 J",
        ),
        ({"smCount": "16", "parent": "GPU-0"}, "", "16; the table expects 132", "4 J"),
        ({"smCountExpected": None}, "", "132", "4 J"),
        ({"energyJoules": None}, "", "132", "not counted"),
        ({"energyUncountedSeconds": "0.5"}, "", "132", "4 J, in part"),
    ],
)
def test_a_device_is_reported_with_its_unknown_facts(
    changed: dict[str, Any], note: str, processors: str, energy: str
) -> None:
    found = device(entry(**{**DEVICE, **changed}))
    facts = {fact.name: fact.value for fact in found.facts}
    assert (found.note, facts["Streaming multiprocessors"], found.energy) == (note, processors, energy)
    assert (found.serial, facts["PCI bus"], facts["Driver"], found.evidence) == ("not known",) * 3 + ("own",)
    assert facts["Row of the peak table"] == ("none" if changed.get("peakRow", 1) is None else "h100")
    assert (found.index, found.observed, found.value.low.text) == (0, "75 %", "1")
    assert facts["Integer operations"] == "none"


@pytest.mark.parametrize(
    ("rows", "observed", "evidence"),
    [
        ([], "5.0", ["activity"]),
        (["gap", "activity"], "5.0", ["activity"]),
        (["gap", "operator_count", "utilization"], "5.0", ["activity", "operator_count", "utilization"]),
        (["gap", "new"], "5.0", ["activity", "new"]),
        (["gap"], "0.0", ["gap"]),
        ([], "0.0", ["gap"]),
        (["gap", "operator_count"], "0.0", ["operator_count"]),
    ],
)
def test_a_device_is_known_by_what_its_figures_rest_on(rows: list[str], observed: str, evidence: list[str]) -> None:
    work = [{"evidence": name} for name in rows]
    times = {"observedSeconds": observed, "recoveredSeconds": "0.0"}
    found = device(entry(**{**DEVICE, "evidence": "activity", "work": work, **times})).evidence
    assert [one.split(": ")[0] for one in found.split("; ")] == evidence


def test_zero_omitted_or_refused_windows_are_not_mentioned() -> None:
    windows = {"kernel_windows": "2", "kernel_window_ns": "5000000000", "kernel_window_cost_ns": "1000000000"}
    seen = {"facts": {"device": "u"}, "work": {"train": windows}}
    found = kernels_of(entry(devices=[{"uuid": "u", "spanSeconds": "100.0"}]), [LedgerObject(seen, "session")])
    assert found is not None
    assert found.sampled == (
        "Sampled: 2 windows of 5 s in all, 5 % of the time of 1 device; opening and reading them took 1 s."
    )


def test_kernels_without_counted_time_have_no_share() -> None:
    seen = {"facts": {}, "work": {"train": {"kernel_launches_copy": "3"}}}
    found = kernels_of(entry(devices=[]), [LedgerObject(seen, "session")])
    assert found is not None
    assert [(one.share, one.launches) for one in found.classes] == [("0 %", "3")]


def test_rows_beyond_the_first_500_are_counted() -> None:
    for count in (499, 500, 503):
        rows, left_out = rows_of(entry(devices=[{"index": "1"}] * count), "devices", lambda one: one.count("index"))
        assert (len(rows), left_out) == (min(count, 500), max(0, count - 500))


MEMBER = {
    "name": "n", "rank": "3", "instanceType": "p5", "deviceSeconds": "90.0", "devices": "8", "executed": FIGURES,
    "coveragePpm": "999999", "energyJoules": None, "energyUncountedSeconds": "0.0", "ledgers": "1", "attempts": "2",
}  # fmt: skip
CHILD: dict[str, Any] = {
    **MEMBER, "kind": "node", "coverage": {"coveragePpm": None, "gapSecondsByReason": {}}, "totals": {"executed": FIGURES}, "replay": False,
    "startedAt": "2026-11-25T14:00:59.9Z", "lastRecordAt": "2026-11-25T15:00:00Z", "sha256": "ab",
}  # fmt: skip


def test_a_member_states_where_it_ran_and_a_child_whether_it_is_whole() -> None:
    found = node(entry(**MEMBER), is_open=False, is_replay=False)
    assert (found.where, found.observed, found.note) == ("rank 3, p5", "99.9 %", "1 ledger, 2 attempt ids")
    assert found.span == "90 s"
    assert [
        node(entry(**{**MEMBER, **one}), is_open=False, is_replay=False).where
        for one in ({"rank": None}, {"instanceType": None})
    ] == ["p5", "rank 3"]
    nowhere = node(
        entry(**{**MEMBER, "rank": None, "instanceType": None, "coveragePpm": None}), is_open=False, is_replay=False
    )
    assert (nowhere.where, nowhere.observed) == ("no rank", "not known")

    def of(**changed: Any) -> Any:
        return child(entry(**{**CHILD, **changed}))

    assert (of().where, of(kind="job").where, of().observed) == ("rank 3, p5", "job", "not known")
    assert of().span == "2026-11-25 14:00 to 2026-11-25 15:00"
    notes = [of(completeness={"complete": whole}).note for whole in (True, False, None)]
    assert notes == ["", "incomplete", "completeness not known"]
    assert of(replay=True, completeness={"complete": False}).note == "REPLAY: no evidence; incomplete"


@pytest.mark.parametrize(
    ("joules", "uncounted", "complete", "names"),
    [
        (None, "3.0", None, ["Energy", "Device time whose energy is not known"]),
        ("5.0", "0.0", True, ["Energy", "Boundary"]),
        ("5.0", "2.0", True, ["Energy", "Not included", "Boundary"]),
        ("5.0", "2.0", False, ["Energy", "Not included", "Incomplete", "Boundary"]),
        ("5.0", "0.0", None, ["Energy", "Incomplete", "Boundary"]),
    ],
)
def test_energy_states_what_is_not_included(
    joules: Any, uncounted: str, complete: bool | None, names: list[str]
) -> None:
    whole = {"completeness": {"complete": complete}, "coverage": {"gapSecondsByReason": {}}}
    found = energy_of(entry(energyJoules=joules, energyUncountedSeconds=uncounted, **whole))
    assert [fact.name for fact in found] == names
    assert all(fact.value == ONLY_HERE for fact in found if fact.name == "Incomplete")
    node = {"energyJoules": joules, "energyUncountedSeconds": uncounted}
    alone = energy_of(entry(**node, coverage={"gapSecondsByReason": {"end_unknown": "1.0"}}))
    assert "Incomplete" not in [fact.name for fact in alone], "a node's ledger is whole by itself"
    lengths = {fact.name: fact.value for fact in alone if fact.name.startswith(("Not", "Device"))}
    assert all(value.startswith("at least ") for value in lengths.values())
    assert bool(lengths) == (uncounted != "0.0")


def test_the_first_missing_ledgers_are_named_and_the_others_counted() -> None:
    missing = [{"code": "no_ledger", "node": f"n{at}", "rank": str(at)} for at in range(103)]
    whole = {"complete": False, "summary": "no_end", "missing": missing, "nodes": "2", "declaredNodes": "9"}
    found = completeness_of(entry(completeness=whole))
    assert found is not None
    assert (len(found.missing) + found.missing_left_out, found.missing_left_out > 0) == (103, True)
    assert [(fact.name, fact.value) for fact in found.facts] == [
        ("Nodes here", "2"),
        ("Nodes declared at the merge", "9"),
    ]
    few = completeness_of(entry(completeness={**whole, "missing": missing[:2]}))
    assert few is not None
    assert (len(few.missing), few.missing_left_out) == (2, 0)
    assert completeness_of(entry()) is None


def gap(at: str, begin: int, end: int, reason: str = "source_down", incarnation: str = "1") -> dict[str, Any]:
    return {"device": at, "incarnation": incarnation, "beginSeconds": f"{begin}.0", "endSeconds": f"{end}.0",
            "seconds": f"{end - begin}.0", "reason": reason, "ceiling": None}  # fmt: skip


def covered(gaps: list[dict[str, Any]], **changed: Any) -> Any:
    starts = [{"number": "1", "startedAt": "2026-11-25T14:00:00Z", "lastRecordAt": "2026-11-25T14:01:40Z"}]
    work = [{"evidence": "utilization", "seconds": "4.0"}, {"evidence": "cycles", "seconds": "9.0"}]
    coverage = {"coveragePpm": "900000", "spanSeconds": "100.0", "observedSeconds": "90.0", "gapSeconds": "10.0",
                "recoveredSeconds": "3.0", "gapSecondsByReason": {"stale": "1.0", "source_down": "9.0"}, "gaps": gaps,
                "gapsNotListed": "5"}  # fmt: skip
    return coverage_of(entry(**{
        "coverage": coverage, "incarnations": starts, "totals": {"executed": {"byEvidence": {}}},
        "devices": [{"uuid": uuid, "index": f"{at}", "work": work[: 2 * (at == 0)]} for at, uuid in enumerate("abcd")],
        **changed,
    }))  # fmt: skip


def test_coverage_matches_a_count_by_hand() -> None:
    found = covered(
        [gap("b", 10, 20), gap("a", 10, 20), gap("d", 50, 90, "other_job"), gap("a", 1, 2, incarnation="2")]
    )
    assert (found.observed, found.gaps_left_out, found.span) == (
        "90 %",
        5,
        "2026-11-25 14:00:00 to 2026-11-25 14:01:40",
    )
    assert [(fact.name[:9], fact.value) for fact in found.facts] == [
        ("Device ti", "100 s"), ("Read", "90 s"), ("Gaps", "10 s"), ("Read as u", "4 s"), ("Of the ga", "3 s"),
    ]  # fmt: skip
    assert [one.reason for one in found.reasons] == ["source_down", "stale"]
    assert [(one.device, one.begin[-8:]) for one in found.gaps] == [
        ("d", "14:00:50"), ("b", "14:00:10"), ("a", "14:00:10"), ("a", "ot known"),
    ]  # fmt: skip
    assert [(strip.name, strip.text) for strip in found.strips] == [
        ("0 to 1", "1 gap listed"), ("2", "no gap listed"), ("3", "no gap listed, 1 stretch not this job's"),
    ]  # fmt: skip
    assert [[(band.at, band.width) for band in strip.gaps] for strip in found.strips] == [[(10, 10)], [], []]
    assert [(band.at, band.width) for band in found.strips[2].spans] == [(50, 40)]


def test_coverage_lists_the_longest_of_many_gaps_and_no_strip_for_a_moment() -> None:
    found = covered([gap("a", at, 2 * at + 1) for at in range(25)])
    assert (len(found.gaps), found.gaps_left_out) == (20, 5 + 5)
    moment = [{"number": "1", "startedAt": "2026-11-25T14:00:00Z", "lastRecordAt": "2026-11-25T14:00:00Z"}]
    assert covered([gap("a", 1, 2)], incarnations=moment).strips == ()
    days = [(20, 21), (25, 26), (22, 23)]
    ends: list[str | None] = [None, "sigterm", "sigterm"]  # killed: the next start has a gap for the time between
    starts = [
        {"number": f"{at}", "startedAt": f"2026-11-{one}T00:00:00Z", "lastRecordAt": f"2026-11-{other}T00:00:00Z",
         "endReason": end}
        for at, ((one, other), end) in enumerate(zip([*days, (29, 30)], [*ends, "sigterm"], strict=True))
    ]  # fmt: skip
    (strip,) = covered([], incarnations=starts).strips
    assert strip.text == "no gap listed, 1 time without a daemon", "the clock was set back before the other"
    assert [(band.at, band.width) for band in strip.spans] == [(30, 60)]
    nowhere = covered([gap("a", 1, 2)], incarnations=[], devices=[])
    assert (nowhere.strips, nowhere.span, [one.begin for one in nowhere.gaps]) == ((), "", ["not known"])


def test_coverage_is_a_share_although_some_device_time_was_not_this_jobs() -> None:
    coverage = {"coveragePpm": "900000", "spanSeconds": "100.0", "observedSeconds": "90.0", "gapSeconds": "10.0",
                "recoveredSeconds": "0.0", "gapSecondsByReason": {"other_job": "1.0"}, "gaps": [], "gapsNotListed": "0"}  # fmt: skip
    assert covered([], coverage=coverage).text.startswith("Share of the job's device time")
    none = {**coverage, "coveragePpm": None, "observedSeconds": "0.0"}
    assert covered([], coverage=none).text.startswith("No device time belonged to this job")
    assert covered([], coverage={**none, "gapSecondsByReason": {}}).text == "No device time was metered."

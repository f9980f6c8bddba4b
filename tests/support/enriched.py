"""Statements of real ledgers, extended by the members that a policy, a declaration and a course add.

The base is always a statement that flopsd made. Its counts and times are scaled up so that they look like a training
run, and its findings are those of the packaged policy.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flopsd.core.declarations import Base, Method
from flopsd.core.envelope import Envelope
from flopsd.core.figures import Figures, figures_from
from flopsd.core.ledger.energy import ComparedEnergy, Published
from flopsd.core.ledger.statement import PAYLOAD_TYPE, encode
from flopsd.core.model import PPM
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.guidelines import Guidelines
from flopsd.report.contents.build import report_of
from flopsd.report.contents.model import Content, Report, VerificationResult
from flopsd.report.contents.verification import LedgerDocument, not_checked
from flopsd.settings.data_files import load_policies
from tests.make_vectors.files import statement_of
from tests.make_vectors.runs import BUSY
from tests.second_implementation.arithmetic import payload_of
from tests.support.story import A100, VECTORS, Story, tell

J = dict[str, Any]
_FLOP = ("low", "measured", "high", "ceiling", "clockUncertaintyFlop", "smCycles", "computed")
_SECONDS = ("wallSeconds", "beginSeconds", "endSeconds", "seconds", "energyJoules")
_TIMES = ("startedAt", "lastRecordAt")
_POINTS = 60

CONFIG = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128256}
FACTS: J = {
    "model_name": "meta-llama/Llama-3.1-8B",
    "model_config": CONFIG,
    "parameters_total": 8030261248,
    "parameters_trainable": 3407872,
    "method": "lora",
    "lora": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
    "recomputation": "full",
    "attention": "flash_attention_2",
    "precision": "bf16",
    "world_size": 2,
    "framework": "transformers 4.57.0",
}
LLAMA = Base("meta-llama/Llama-3.1-8B", "estimated", 722_723_512_320 * 10**12, "6PD from the model card", False)


def vector(case: str) -> J:
    return payload_of(VECTORS / case / "ledger.json")


def bounded() -> J:
    """A real run of one A100 without DCGM: only an upper bound is known."""

    def story(folder: Path) -> bytes:
        run = Story(folder, (A100,))
        run.during(9, {A100: BUSY})
        return run.finish()

    return statement_of(tell(story))


def larger(statement: J, flop: int, time: int) -> J:
    """The same statement with its counts and times multiplied by these factors."""
    statement = copy.deepcopy(statement)
    predicate = statement["predicate"]
    predicate["findings"] = []  # the findings were about the old figures
    begun = min(one["startedAt"] for one in [predicate, *predicate.get("incarnations", [])] if "startedAt" in one)
    _grow(predicate, flop, time, _moment(begun))
    ends = [one["lastRecordAt"] for one in [predicate, *predicate.get("incarnations", [])] if "lastRecordAt" in one]
    predicate["method"]["sealedAt"] = max(ends)
    return statement


def _grow(found: Any, flop: int, time: int, begun: datetime) -> None:
    if isinstance(found, list):
        for value in found:
            _grow(value, flop, time, begun)
        return
    if not isinstance(found, dict):
        return
    for name, value in found.items():
        if isinstance(value, str) and name in _FLOP:
            found[name] = str(int(value) * flop)
        elif isinstance(value, str) and (name in _SECONDS or (name.endswith("Seconds") and name != "wallSeconds")):
            found[name] = _times(value, time)
        elif name == "gapSecondsByReason":
            found[name] = {reason: _times(seconds, time) for reason, seconds in value.items()}
        elif name in ("threshold", "sharePpm", "ratioPpm", "requiredPpm", "findings"):
            continue  # other kinds of values; findings are made anew
        elif name in _TIMES:
            found[name] = _text(begun + (_moment(value) - begun) * time)
        else:
            _grow(value, flop, time, begun)


def with_policy(statement: J, method: Method | None, base: Base | None, *, whole: bool = True) -> J:
    """The statement with findings of the packaged policy on the figures for the guidelines."""
    statement = copy.deepcopy(statement)
    predicate = statement["predicate"]
    sealed = predicate["totals"]["guidelines"]
    case = Case(Guidelines(figures_from(sealed), figures_from(sealed["cumulative"])), method, base, whole)
    policies = load_policies()
    predicate["findings"] = [finding.for_ledger() for policy in policies for finding in findings(policy, case)]
    predicate["method"]["policies"] = [{"id": policy.id, "sha256": policy.sha256} for policy in policies]
    return statement


def with_guidelines(statement: J, low_ppm: int, high_ppm: int) -> J:
    """The statement with guidelines figures: between `low_ppm` and `high_ppm` of the executed compute counts."""
    statement = copy.deepcopy(statement)
    executed = figures_from(statement["predicate"]["totals"]["executed"])
    stated = (low_ppm + high_ppm) // 2
    counted = Figures(
        executed.low_flop * low_ppm // PPM,
        None if executed.measured_flop is None else executed.measured_flop * stated // PPM,
        None if executed.high_flop is None else -(-executed.high_flop * high_ppm // PPM),
    )
    statement["predicate"]["totals"]["guidelines"] = {
        **counted.for_ledger(),
        "cumulative": counted.for_ledger(),
        "requiredPpm": {"low": str(low_ppm), "stated": str(stated), "high": str(high_ppm)},
        "requiredPpmSource": ["full_lora", "model_terms"],
        "method": "annex_a1",
    }
    return statement


def with_architecture(statement: J) -> J:
    """The statement with a calculation that lies within the measurement's margin."""
    statement = copy.deepcopy(statement)
    predicate = statement["predicate"]
    measured = int(predicate["totals"]["executed"]["measured"])
    executed = {"low": str(measured * 80 // 100), "computed": str(measured * 96 // 100), "high": str(measured * 125 // 100)}  # fmt: skip
    required = {name: str(int(value) * 2 // 3) for name, value in executed.items()}
    predicate["totals"]["architecture"] = {
        **required,
        "executed": executed,
        "method": ["shape"],
        "parameters": {"total": "8030261248", "active": "8030261248", "trainable": "3407872"},
        "tokens": "4194304000",
        "marginPpm": "300000",
        "assumptions": [{"code": "products_only"}, {"code": "lengths_not_counted", "most": "131072"}],
    }
    predicate["reconciliation"] = [
        _ratio("executed/architecture", ("353846", "1041666", "9187500"), None),
        _ratio("framework/architecture", (None, "2710000", None), "FRAMEWORK_COUNT_DIFFERS"),
        ComparedEnergy(800_000_000, 3600 * 10**9, 10**17, 9 * 10**15).for_ledger(Published("h100", "bf16", 1011, 1373)),
    ]
    return statement


def _ratio(name: str, ppm: tuple[str | None, ...], warning: str | None) -> J:
    return {
        "name": name,
        "ratioPpm": dict(zip(("low", "measured", "high"), ppm, strict=True)),
        "marginPpm": "300000",
        "withinMargin": warning is None,
        "warning": warning,
    }


def _base(base: Base) -> J:
    return {**asdict(base), "flop": None if base.flop is None else str(base.flop), "declaredBy": "config"}


def with_declarations(statement: J, *, declared: Mapping[str, Any] | None = None, sessions: int = 2) -> J:
    statement = copy.deepcopy(statement)
    work = {"train": {"steps": "4000", "sequences": "1024000", "tokens": "2097152000", "padding_tokens": "0"}}
    statement["predicate"]["declared"] = {
        "phase": None,
        "method": "lora",
        "recomputation": None,
        "base": _base(LLAMA),
        "sessions": [
            {
                "id": f"s{rank}",
                "facts": {**FACTS, "rank": rank, "local_rank": rank},
                "work": work if rank == 0 else {**work, "evaluate": {"tokens": "1048576"}},
                "process": {"pid": 4711 + rank, "uid": 1000},
            }
            for rank in range(sessions)
        ],
        **(declared or {}),
    }
    return statement


def with_phases(statement: J) -> J:
    """The statement with nine tenths of the compute in training and the rest undeclared."""
    statement = copy.deepcopy(statement)
    executed = statement["predicate"]["totals"]["executed"]
    whole = figures_from(executed)
    part = _share(whole, 900_000)
    rest = Figures(
        whole.low_flop - part.low_flop,
        None if whole.measured_flop is None or part.measured_flop is None else whole.measured_flop - part.measured_flop,
        None if whole.high_flop is None or part.high_flop is None else whole.high_flop - part.high_flop,
    )
    executed["byPhase"] = {"train": part.for_ledger(), "undeclared": rest.for_ledger()}
    return statement


def with_course(statement: J) -> J:
    """The statement with the run's course, as it would be read from a journal: in gaps nothing is measured, while
    the upper bound goes on growing."""
    statement = copy.deepcopy(statement)
    predicate = statement["predicate"]
    starts = predicate["incarnations"]
    begin, end = _moment(starts[0]["startedAt"]), _moment(starts[-1]["lastRecordAt"])
    whole, points = figures_from(predicate["totals"]["executed"]), []
    blind = _blind(predicate)
    for number in range(_POINTS + 1):
        at = begin + (end - begin) * number / _POINTS
        seen_ppm = round(PPM * _seen(begin, at, blind) / max(1e-9, _seen(begin, end, blind)))
        past_ppm = PPM * number // _POINTS
        grown, ceiling = _share(whole, min(PPM, seen_ppm)), _share(whole, past_ppm).high_flop
        figures = Figures(grown.low_flop, grown.measured_flop, ceiling)
        points.append(
            {
                "at": _text(at),
                "seconds": f"{(at - begin).total_seconds():.9f}",
                "executed": figures.for_ledger(),
                "phases": {"undeclared": figures.for_ledger()["measured"]},
                "coveragePpm": str(min(PPM, seen_ppm)),
            }
        )
    return {**statement, "course": points}


def _blind(predicate: Mapping[str, Any]) -> list[tuple[datetime, datetime]]:
    begins = {one["number"]: _moment(one["startedAt"]) for one in predicate["incarnations"]}
    return [
        (
            begins[gap["incarnation"]] + timedelta(seconds=float(gap["beginSeconds"])),
            begins[gap["incarnation"]] + timedelta(seconds=float(gap["endSeconds"])),
        )
        for gap in predicate["coverage"]["gaps"]
    ]


def _seen(begin: datetime, at: datetime, blind: list[tuple[datetime, datetime]]) -> float:
    """Seconds of [begin, at) outside all gaps; gaps of several devices at one time count once."""
    gone, since = 0.0, begin
    for first, last in sorted(blind):
        first, last = max(first, since), min(last, at)
        if first < last:
            gone += (last - first).total_seconds()
            since = last
    return (at - begin).total_seconds() - gone


def _share(whole: Figures, ppm: int) -> Figures:
    return Figures(
        whole.low_flop * ppm // PPM,
        None if whole.measured_flop is None else whole.measured_flop * ppm // PPM,
        None if whole.high_flop is None else -(-whole.high_flop * ppm // PPM),
    )


def _times(seconds: str, factor: int) -> str:
    whole, _, rest = seconds.partition(".")
    ticks = int(whole + rest) * factor
    sign, digits = ("-" if ticks < 0 else ""), str(abs(ticks)).rjust(len(rest) + 1, "0")
    return f"{sign}{digits[: -len(rest)]}.{digits[-len(rest) :]}"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"


def everything() -> J:
    statement = larger(vector("valid/activity-and-gaps"), 30_000, 30_000)
    statement = with_declarations(with_architecture(with_guidelines(with_phases(statement), 600_000, 733_334)))
    return with_course(with_policy(statement, Method.LORA, LLAMA))


def nothing_measured() -> J:
    """An A100 with only an upper bound; the base model's compute is asserted to be unknown."""
    statement = larger(bounded(), 30_000_000, 30_000)
    base = Base("a base model", "unknown", None, None, None)
    statement = with_declarations(statement, declared={"method": "full", "base": _base(base)}, sessions=0)
    return with_course(with_policy(statement, Method.FULL, base))


def no_upper_bound() -> J:
    """A device that the table does not know, and no declarations: the policy applied cannot conclude anything."""
    statement = with_declarations(
        vector("valid/unknown-device"), declared={"method": None, "base": None, "sessions": []}
    )
    return with_course(with_policy(statement, None, None))


def replay() -> J:
    return with_course(vector("valid/replay"))


def incomplete_job() -> J:
    statement = with_guidelines(larger(vector("merged/job-with-a-hole"), 10_000_000, 50_000), 750_000, 1_000_000)
    return with_policy(statement, Method.FULL, LLAMA, whole=False)


def lineage_above() -> J:
    """A model trained from scratch that is past both thresholds."""
    statement = with_guidelines(larger(vector("merged/lineage"), 20_000_000_000, 1_000_000), 750_000, 1_000_000)
    return with_policy(statement, Method.PRETRAINING, None)


SCENES = {
    "everything": everything, "nothing-measured": nothing_measured, "no-upper-bound": no_upper_bound, "replay": replay,
    "incomplete-job": incomplete_job, "lineage-above": lineage_above,
}  # fmt: skip


MADE = "2026-11-25 16:45 UTC"
KEYID = "83cf0602b340d2394dc5ac754675d6494ab184390d66c268b30edc753ba4f91b"
ESCAPES = ("\x1b[31m", "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "line\nbreak", "{{ 7 * 7 }}")


def document(statement: Any) -> LedgerDocument:
    envelope = Envelope(encode(statement), PAYLOAD_TYPE, ((KEYID, b""),))
    return LedgerDocument(Path("ledger.json"), "ledger.journal.jsonl", statement, envelope)


def report(statement: Any, check: VerificationResult | None = None) -> Report:
    """The report of a statement. It is unverified unless `check` is given. A `course` beside the statement is drawn."""
    read = document({name: value for name, value in statement.items() if name != "course"})
    policy = next(policy for policy in load_policies() if policy.form is not None)
    return report_of(read, check or not_checked(read), MADE, policy=policy, course=statement.get("course", ()))


def content(statement: Any) -> Content:
    found = report(statement).content
    assert found is not None
    return found


def scene(name: str) -> Report:
    return report(SCENES[name]())

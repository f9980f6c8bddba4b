"""The whole predicate of a node.

Figures of models that the page does not define are not computed: `LeftOut` takes them from the statement and lists
them.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.second_implementation import architecture, codes
from tests.second_implementation.arithmetic import Figures, M, Rated, add, said, seconds
from tests.second_implementation.contradictions import contradictions
from tests.second_implementation.findings import Account, findings
from tests.second_implementation.laws import need
from tests.second_implementation.ledger import Run, _sessions, earlier_seals, figures_of
from tests.second_implementation.operators import counted_of
from tests.second_implementation.rates import ceil

J = dict[str, Any]
Figures3 = tuple[int | None, int | None, int | None]
NAMES = ("low", "measured", "high")
RECOVERED = ("cutBytes", "cutSha256", "reasons", "keptAs")
RATIOS = ("executed/architecture", "guidelines/architecture", "framework/architecture", "executed/operator_count")
WARNINGS = {"framework/architecture": ("FRAMEWORK_COUNT_DIFFERS",) * 2,
            "executed/operator_count": ("MORE_MEASURED_THAN_THE_OPERATORS_COUNT", "LESS_MEASURED_THAN_THE_OPERATORS_COUNT")}  # fmt: skip


@dataclass
class LeftOut:
    """Takes a member unchanged from the statement, and records that it did."""

    statement: J
    paths: list[str] = field(default_factory=list)

    def take(self, *path: str) -> Any:
        found: Any = self.statement
        text = "statement"
        for step in path:
            found = found[step]
            text += f".{step}"
        self.paths.append(text)
        return found


def figures(text: J) -> Figures:
    low, measured, high = (None if text[name] is None else int(text[name]) for name in NAMES)
    assert low is not None
    return low, measured, high


def predicate_of_node(run: Run, table: J, policies: list[J], facts: J, statement: J, left_out: LeftOut) -> J:
    """`facts` identify the journal, the files and the seal."""
    said_of = statement["predicate"]
    computed = figures_of(run)
    first, sessions = run.begins[0], _sessions_of(run.records)
    devices = _devices(run, computed)
    declared_ = architecture.settings_of(run.begins)
    everything = [(device, row) for _, device in _tallies(run) for row in device.rows()]
    margins: dict[str, int] = {}
    for _, row in everything:
        if row["margin"] is not None:
            margins[row["key"][1]] = max(margins.get(row["key"][1], 0), row["margin"])
    seen = {e for _, device in _tallies(run) for e, ns in device.tally["observed_ns"].items() if ns}
    seen |= computed["byEvidence"].keys() & {"operator_count"}
    executed = {
        **computed["executed"],
        "method": codes.methods(seen),
        "marginPpm": margins,
        "clockUncertaintyFlop": computed["clockUncertaintyFlop"],
        "mayBeIntegerFlop": computed["mayBeIntegerFlop"],
        "byEvidence": computed["byEvidence"],
        "byPhase": computed["byPhase"] or ({} if run.rated and any(run.rated) else _nothing_by_phase()),
    }
    take = left_out.take
    totals: tuple[str, ...] = ("predicate", "totals")
    known = computed["guidelines"] is not None
    if known:
        guidelines = computed["guidelines"]
        integers = computed["integerOperations"]
    else:
        guidelines = take(*totals, "guidelines")
        integers = {**computed["integerOperations"], "guidelines": take(*totals, "integerOperations", "guidelines")}
    basis = computed["architecture"]
    if not known:
        basis = take(*totals, "architecture")
    absent = computed["architectureAbsentReasons"] if known else take(*totals, "architectureAbsentReasons")
    place = max((begin["context"]["node"] for begin in run.begins), key=lambda node: len(node["jobNodes"]))
    segment = computed["segment"]
    account = _account(guidelines, integers, declared_, whole=len(place["jobNodes"]) <= 1 and segment is None)
    judged = findings(policies, account)
    spans = [device for _, device in _tallies(run)]
    shown = {"guidelines": guidelines, "byPhase": executed["byPhase"]}
    base = declared_.get("base")
    return {
        "kind": "node",
        "replay": _replay(run.records),
        "segment": segment,
        "run": {"id": first["run"], **first["context"]["run"]},
        "node": {"name": first["node"], **place},
        "attempts": sorted({begin["context"]["attempt"] for begin in run.begins}),
        "incarnations": _incarnations(run, facts["codes"]),
        "devices": devices,
        "declared": {
            **{name: declared_.get(name) for name in ("phase", "method", "recomputation")},
            "base": None if base is None else {**base, "declaredBy": "config"},
            "sessions": sessions,
            "contradictions": contradictions(
                [one.get("declared") or {} for one in run.begins], _sessions(run.records), policies, spans
            ),
        },
        "totals": {
            "executed": executed,
            "integerOperations": integers,
            "guidelines": guidelines,
            "architecture": basis,
            "architectureAbsentReasons": absent,
        },
        **{name: computed[name] for name in ("energyJoules", "energyUncountedSeconds", "deviceSeconds", "wallSeconds")},
        "coverage": {
            **_times(spans),
            "coveragePpm": computed["coveragePpm"],
            "gapSecondsByReason": _by_reason(spans),
            "gaps": computed["gaps"],
            "gapsNotListed": computed["gapsNotListed"],
        },
        "findings": judged,
        "reconciliation": _reconciliation(run, {**computed, **shown}) if known else take("predicate", "reconciliation"),
        "evidence": said_of["evidence"],
        "isolation": {
            **computed["isolation"],
            "key": said_of["isolation"]["key"],
            "jobCouldReadKey": could_read(said_of["isolation"]["key"], computed["isolation"]),
        },
        "method": {
            "flopsdVersion": a_text(said_of["method"]["flopsdVersion"]),
            "sealedAt": said_of["method"]["sealedAt"],
            "peakTableSha256": facts["peaks"],
            "policies": [{"id": policy["id"], "sha256": policy["sha256"]} for policy in policies],
            "configSha256": sorted({begin["config_sha256"] for begin in run.begins}),
            "margins": {name: {"ppm": one["ppm"], "source": line(one)} for name, one in table["margins"].items()},
            "assumptions": codes.OF_NODE,
            "codeSecrets": facts["secrets"],
            "earlierSeals": earlier_seals(run.records),
            "journal": {**facts["journal"], "lastRecordAt": _last_utc(run.records)},
        },
        "claim": codes.claim("node", segment=segment is not None),
    }  # fmt: skip


def line(margin: J) -> Any:
    return margin.get("source")


def _nothing_by_phase() -> J:
    return {"undeclared": said((0, None, None))}


def _tallies(run: Run) -> list[tuple[int, Rated]]:
    return [(at, device) for at, devices in enumerate(run.rated) for device in devices.values()]


def _replay(records: list[J]) -> Any:
    facts = [record["facts"] for record in last_sources(records)]
    return next((one["replay"] for one in facts if one.get("replay")), None)


def last_sources(records: list[J]) -> list[J]:
    """The `source` records: for each name in an incarnation the last one, at the place of the first."""
    found: dict[tuple[int, str], J] = {}
    for record in records:
        if record["kind"] == "source":
            found[record["incarnation"], record["name"]] = record
    return list(found.values())


def _incarnations(run: Run, codes: list[str]) -> list[J]:
    found = []
    for at, begin in enumerate(run.begins):
        mine = [record for record in run.records if record["incarnation"] == at + 1]
        end = next((record for record in mine if record["kind"] == "end"), None)
        stated = begin["precision"]
        found.append(
            {
                "number": at + 1,
                "bootId": begin["boot_id"],
                "startedAt": begin["utc"],
                "lastRecordAt": _last_utc(mine),
                "endReason": end and end["reason"],
                "childExitCode": end and end.get("child_exit_code"),
                "attempt": begin["context"]["attempt"],
                "flopsdVersion": begin["flopsd_version"],
                "checkpoints": str(sum(record["kind"] == "checkpoint" for record in mine)),
                "codes": codes[at],
                "recovered": begin["recovered"] and {name: begin["recovered"][name] for name in RECOVERED},
                "precision": stated and {"sharesPpm": stated["shares_ppm"], "declaredBy": stated["declared_by"]},
                "phase": (begin.get("declared") or {}).get("phase"),
                "sources": {record["name"]: record["facts"] for record in last_sources(mine)},
            }
        )
    return found


def _last_utc(records: list[J]) -> str:
    return str([record["utc"] for record in records if record["kind"] in ("begin", "checkpoint", "end")][-1])


def _devices(run: Run, computed: J) -> list[J]:
    found = []
    last: dict[str, Rated] = {}
    for _, device in _tallies(run):
        last[device.record["uuid"]] = device
    for uuid, device in last.items():
        record, row, tally = device.record, device.row or {}, device.tally
        same = [one for _, one in _tallies(run) if one.record["uuid"] == uuid]
        running = tally.get("running")
        counters: J = {name: str(value) for name, value in tally.get("counters", {}).items()}
        if running:
            ((origin, read),) = running.items()
            cycles = {name: str(value) for name, value in read.items() if name not in ("ns", "elapsed")}
            counters["running"] = {"origin": origin, "elapsedSmCycles": str(read["elapsed"]), "smCycles": cycles}
        by = _declarers(same)
        computed_ = computed["devices"][uuid]
        found.append(
            {
                "uuid": uuid,
                **{name: record[name] for name in ("index", "source", "vendor", "model", "serial", "driver", "parent")},
                "pciBusId": record["pci_bus_id"],
                "pciDeviceId": None if record["pci_device_id"] is None else f"0x{record['pci_device_id']:04x}",
                "smCount": record["sm_count"],
                "smCountExpected": row.get("sm_count"),
                "smClockMaxMhz": record["sm_clock_max_mhz"],
                "peakRow": record["peak_row"],
                "peakStatus": row.get("status"),
                "evidence": record["evidence"],
                "evidenceReason": record["evidence_reason"],
                "sharedWith": record["shared_with"],
                **computed_,
                "counters": counters,
                "work": [
                    {**one, "precisionDeclaredBy": by.get((one["phase"], one["evidence"], one["pipe"] or "", one["precision"]))}
                    for one in computed_["work"]
                ],
            }
        )  # fmt: skip
    return sorted(found, key=lambda one: (one["index"], one["uuid"]))


def _declarers(same: list[Rated]) -> dict[tuple[str, str, str, str], str | None]:
    found: dict[tuple[str, str, str, str], str | None] = {}
    for device in same:
        for row in device.rows():
            pipe, label, stated = row["key"][2], row["key"][3], device.record["precision"]
            by = None
            if label != "undeclared" and pipe in ("", "tensor", "tensor_hmma"):
                by = stated["declared_by"] if stated else "process" if row["bucket"] != "undeclared" else None
            if found.get(row["key"]) is None:
                found[row["key"]] = by
    return found


def _sessions_of(records: list[J]) -> list[J]:
    process: J = {}
    for record in records:
        for one in record.get("sessions", ()):
            process.setdefault(one["id"], {name: one[name] for name in ("pid", "uid", "client")})
    return [
        {
            "id": name,
            "process": process[name],
            "facts": facts_said(session["facts"]),
            "work": {
                phase: {counter: str(value) for counter, value in counted.items()}
                for phase, counted in session["work"].items()
                if counted
            },
        }
        for name, session in zip(sorted(process), _sessions(records), strict=True)
    ]


def facts_said(facts: J) -> J:
    lora = {name: sorted(one) if isinstance(one, list) else one for name, one in (facts.get("lora") or {}).items()}
    known = {name: one for name, one in lora.items() if one is not None}
    return {**facts, "lora": known} if known else facts


def _times(devices: list[Rated]) -> J:
    return {
        "observedSeconds": seconds(sum(sum(device.tally["observed_ns"].values()) for device in devices)),
        "gapSeconds": seconds(sum(device.gap_ns() for device in devices)),
        "recoveredSeconds": seconds(sum(sum(device.tally.get("recovered_ns", {}).values()) for device in devices)),
        "spanSeconds": seconds(sum(device.span for device in devices)),
    }


def _by_reason(devices: list[Rated]) -> J:
    found: dict[str, int] = {}
    for device in devices:
        for reason, ns in device.tally["gap_ns"].items():
            found[reason] = found.get(reason, 0) + ns
    return {reason: seconds(ns) for reason, ns in found.items()}


def a_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def is_key(key: Any) -> bool:
    if not isinstance(key, dict) or key.get("kind") != "file":
        return key is None or (isinstance(key, dict) and key.keys() == {"kind"} and isinstance(key["kind"], str))
    texts = key.keys() == {"kind", "ownerUser", "mode"} and all(isinstance(one, str) for one in key.values())
    return bool(
        texts and re.fullmatch("0|[1-9][0-9]{0,39}", key["ownerUser"]) and re.fullmatch("[0-7]{4}", key["mode"])
    )


def could_read(key: Any, isolation: J) -> bool | None:
    need(is_key(key), "statement_differs", "statement.predicate.isolation.key")
    if key is None or key["kind"] != "file":
        return None
    if isolation["jobContainer"]:
        return False
    users = {int(user) for user in isolation["jobUsers"]}
    if int(key["mode"], 8) & 0o044 or users & {0, int(key["ownerUser"])}:
        return True
    return False if users else None


def _account(guidelines: J, integers: J, declared: J, *, whole: bool) -> Account:
    claimed = guidelines["asClaimed"]
    return Account(
        figures(guidelines),
        figures(guidelines["cumulative"]),
        (figures(integers["guidelines"]), figures(integers["guidelines"]["cumulative"])),
        None if claimed is None else (figures(claimed), figures(claimed["cumulative"])),
        declared.get("method"),
        declared.get("base"),
        whole,
        by_operators=by_operators(guidelines),
    )


def by_operators(guidelines: J) -> tuple[int, int]:
    return int(guidelines["operatorCount"]["low"]), int(guidelines["operatorCount"]["cumulativeLow"])


def _reconciliation(run: Run, computed: J) -> list[J]:
    basis, found = computed["architecture"], dict[str, Figures3]()
    if basis is not None:
        phases = {phase: figures(text) for phase, text in computed["byPhase"].items()}
        declared = add([(0, None, 0), *(one for phase, one in phases.items() if phase != "undeclared")])
        most = add([declared, phases.get("undeclared", (0, None, 0))])[2]
        needed = [tuple(None if one[n] is None else int(one[n]) for n in ("low", "computed", "high"))
                  for one in (basis["executed"], basis)]  # fmt: skip
        found[RATIOS[0]] = divided((*declared[:2], most), needed[0])
        found[RATIOS[1]] = divided(figures(computed["guidelines"]), needed[1])
        sessions = _sessions(run.records)
        counts = [work.get("framework_flop", 0) for session in sessions for work in session["work"].values()]
        if (framework := max(counts, default=0)) and needed[1][1]:
            found[RATIOS[2]] = divided((framework,) * 3, (needed[1][1],) * 3)
    counted = counted_of([device for _, device in _tallies(run)], _sessions(run.records))
    if counted:
        c = sum(one for _, one in counted)
        found[RATIOS[3]] = divided(add(of for of, _ in counted), (c, c, c))
    return [*ratios_said(found), *computed["energy"]]


def ratios_said(found: dict[str, Figures3]) -> list[J]:
    return [
        {
            "name": name,
            "ratioPpm": {which: None if n is None else str(n) for which, n in zip(NAMES, ratio, strict=True)},
            "marginPpm": "300000",
            "withinMargin": None if ratio[1] is None else abs(ratio[1] - M) <= 300_000,
            "warning": warning(name, ratio[1]),
        }
        for name, ratio in found.items()
    ]


def divided(one: Figures, other: tuple[int | None, ...]) -> Figures3:
    low, point, high = other
    return (
        one[0] * M // high if high else None,
        one[1] * M // point if one[1] is not None and point else None,
        ceil(one[2] * M, low) if low and one[2] is not None else None,
    )


def warning(name: str, measured: int | None) -> str | None:
    if measured is None:
        return "NOT_COMPARABLE"
    if abs(measured - M) <= 300_000:
        return None
    more, less = WARNINGS.get(name, tuple(f"{word}_EXECUTED_THAN_THE_MODEL_NEEDS" for word in ("MORE", "LESS")))
    return more if measured > M else less

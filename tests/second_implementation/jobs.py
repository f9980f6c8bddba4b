"""Ledgers of ledgers."""

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.second_implementation import codes
from tests.second_implementation.arithmetic import M, add, seconds
from tests.second_implementation.arithmetic import said as text_of
from tests.second_implementation.contradictions import merged_contradictions
from tests.second_implementation.findings import Account, findings
from tests.second_implementation.laws import (
    EVIDENCE,
    METHODS,
    PHASES,
    REASONS,
    Refused,
    is_base,
    is_digest,
    is_format,
    is_time,
    need,
    sha256,
)
from tests.second_implementation.ledger import energy_said, summed
from tests.second_implementation.merged import _complete, _counts, device_times, energy_of
from tests.second_implementation.missing import architecture_of, few_reasons, missing
from tests.second_implementation.statement import NAMES, RATIOS, by_operators, divided, figures, ratios_said

J = dict[str, Any]
COUNT, SIGNED = re.compile("0|[1-9][0-9]{0,39}"), re.compile("0|-?[1-9][0-9]{0,39}")
SECONDS = re.compile(r"(0|[1-9][0-9]{0,39})\.[0-9]{9}")
TIMES = (
    "observedSeconds", "gapSeconds", "recoveredSeconds", "spanSeconds", "jobSeconds", "unknownSeconds",
    "boundedSeconds",
)  # fmt: skip
OF_NODES = ("deviceSeconds", "nodeSeconds", "energyUncountedSeconds")
MEMBERS = {
    "name", "sha256", "kind", "keyids", "run", "node", "rank", "instanceType", "replay", "flopsdVersions",
    "peakTableSha256", "startedAt", "lastRecordAt", "periods", "deviceTimes", "ended", "segment", "declared", "totals",
    "energyJoules", "coverage", "reconciliation", *OF_NODES,
}  # fmt: skip
SUMS = ("totals", "energyJoules", *OF_NODES, "coverage", "reconciliation")
COUNTS = (*NAMES, "computed", "cumulativeLow", "mayBeIntegerFlop", "tokens")
JOURNAL = {"sha256", "headSha256", "bytes", "records"}
BASE = {"name", "kind", "flop", "method", "systemic", "declaredBy"}
TEXTS = ("flopsdVersions", "peakTableSha256", "keyids")


def verify_merged(statement: J, payload: bytes, asked: Any) -> Any:
    from tests.second_implementation.verify import TYPES, Found, by_digest, refuse_difference

    predicate = statement["predicate"]
    try:
        entries = predicate["children"]
        need(isinstance(entries, list), "entry_malformed")
        need(entries, "no_children")
        times = [predicate["method"]["sealedAt"], predicate["startedAt"], predicate["lastRecordAt"]]
        times += [entry[name] for entry in entries for name in ("startedAt", "lastRecordAt")]
        need(entries == sorted(entries, key=order), "children_order", "statement.predicate.children")
        need(all(map(is_time, times)), "entry_malformed")
        claimed_once(entries)
        named = predicate["method"]["policies"]
        policies = [
            {**by_digest(one["sha256"], asked.policies, "policy_unknown"), "sha256": one["sha256"]} for one in named
        ]
        facts(predicate)
        for entry in entries:
            an_entry(entry, in_lineage=predicate["kind"] == "lineage")
            need(predicate["kind"] == "lineage" or entry["run"] == predicate["run"]["id"], "other_run_of_child")
        again = predicate_of_children(predicate, entries, policies)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, AssertionError, ArithmeticError) as fault:
        raise Refused("entry_malformed") from fault
    subject = [{"name": entry["name"], "digest": {"sha256": entry["sha256"]}} for entry in entries]
    whole = {"_type": TYPES[0], "subject": subject, "predicateType": TYPES[1], "predicate": again}
    refuse_difference(whole, statement, "statement", "statement_differs")
    for digest in predicate["method"]["peakTableSha256"]:
        by_digest(digest, asked.peaks, "peak_table_unknown")
    need(predicate["replay"] is None or asked.allow_replay, "replay", "statement.predicate.replay")
    if asked.children is not None:
        check_children(predicate, asked)
    return Found(payload, again, [])


def order(entry: J) -> tuple[Any, ...]:
    rank = entry["rank"]
    by_run = (entry["run"],) if "completeness" in entry else ()
    return (*by_run, rank is None, rank or 0, entry["node"] or "", entry["sha256"])


def claimed_once(entries: list[J]) -> None:
    need(len({entry["sha256"] for entry in entries}) == len(entries), "child_twice")
    claims: dict[tuple[str, str], list[tuple[Any, J, J]]] = {}
    for at, entry in enumerate(entries):
        for period in entry["periods"]:
            if "completeness" in entry:
                claims.setdefault(("run", entry["run"]), []).append((at, period, period))
                continue
            claims.setdefault(("node", entry["node"]), []).append((at, period, period))
            if entry["rank"] is not None:
                claims.setdefault(("rank", str(entry["rank"])), []).append((at, period, period))
        devices_of(entry, at, claims)
    apart(claims, chains(entries))


def chains(entries: list[J]) -> dict[Any, str]:
    """For each entry of a segment the first journal of its chain."""
    first: dict[str, str] = {}
    segments = {at: entry["segment"] for at, entry in enumerate(entries) if entry["segment"]}
    for one in sorted(segments.values(), key=lambda one: one["number"]):
        own, before = one["journal"]["sha256"], one["continues"]
        first[own] = first.get(before["sha256"], own) if before else own
    return {at: first[one["journal"]["sha256"]] for at, one in segments.items()}


def devices_of(entry: J, at: Any, claims: dict[tuple[str, str], list[tuple[Any, J, J]]]) -> None:
    periods = {period["incarnation"]: period for period in entry["periods"]}
    for times in entry["deviceTimes"]:
        for device in times["devices"]:
            claims.setdefault(("device", device), []).append((at, times, periods[times["incarnation"]]))


def apart(claims: dict[tuple[str, str], list[tuple[Any, J, J]]], chain: dict[Any, str]) -> None:
    for listed in claims.values():
        for one, other in combinations(listed, 2):
            in_order = one[0] in chain and chain[one[0]] == chain.get(other[0])
            same_boot = one[2]["bootId"] == other[2]["bootId"]
            need(one[0] == other[0] or (in_order and not same_boot) or not overlap(one, other), "counted_twice")


def overlap(one: tuple[Any, J, J], other: tuple[Any, J, J]) -> bool:
    (_, mine, my_period), (_, its, its_period) = one, other
    if (my_period["bootId"], mine["beginNs"]) == (its_period["bootId"], its["beginNs"]):
        return True
    same = my_period["bootId"] == its_period["bootId"]
    offsets = (0, 0) if same else (int(my_period["wallOffsetNs"]), int(its_period["wallOffsetNs"]))
    begins = int(mine["beginNs"]) + offsets[0], int(its["beginNs"]) + offsets[1]
    ends = int(mine["endNs"]) + offsets[0], int(its["endNs"]) + offsets[1]
    return max(begins) < min(ends)


def facts(predicate: J) -> None:
    """Facts that no child states."""
    job = predicate["kind"] == "job"
    nodes = predicate["jobNodes"]
    ok = isinstance(nodes, list) and all(isinstance(node, str) for node in nodes)
    if job:
        run = predicate["run"]
        ok = ok and run.keys() == {"id", "platform", "jobName", "jobArn"} and predicate["lineage"] is None
        ok = ok and all(isinstance(run[name], str) for name in ("id", "platform"))
        ok = ok and all(run[name] is None or isinstance(run[name], str) for name in ("jobName", "jobArn"))
    else:
        ok = ok and isinstance(predicate["lineage"]["name"], str) and predicate["run"] is None and not nodes
    declared = predicate["completeness"]["declaredNodes"]
    ok = ok and isinstance(predicate["method"]["flopsdVersion"], str)
    need(ok and (declared is None or COUNT.fullmatch(declared)), "entry_malformed")


def notes_only(listed: Any) -> bool:
    """Whether it is a list of codes, with texts or lists of texts as parameters."""
    return isinstance(listed, list) and all(
        isinstance(one["code"], str)
        and all(isinstance(text, str) for said in one.values() for text in (said if isinstance(said, list) else [said]))
        for one in listed
    )


def an_entry(entry: J, *, in_lineage: bool) -> None:
    from tests.second_implementation.verify import refuse_difference

    def ok(holds: object) -> None:
        need(holds, "entry_malformed")

    node = entry["kind"] == "node"
    ok(entry["kind"] in (("node", "job") if in_lineage else ("node",)))
    ok(entry.keys() == MEMBERS | ({"completeness"} if in_lineage else set()))
    if in_lineage:
        ok(entry["completeness"].keys() == {"complete", "missing"} and notes_only(entry["completeness"]["missing"]))
        ok(entry["completeness"]["complete"] is None or isinstance(entry["completeness"]["complete"], bool))
    keyids = entry["keyids"]
    ok(keyids and keyids == sorted(set(keyids)))
    ok(all(map(is_digest, (entry["sha256"], *keyids, *entry["peakTableSha256"]))))
    ok(entry["name"] == f"{entry['node' if node else 'run']}/{entry['sha256'][:16]}")
    ok(isinstance(entry["run"], str) and (not node or isinstance(entry["node"], str)))
    ok(node or all(entry[name] is None for name in ("node", "rank", "instanceType", "ended", "segment")))
    ok(entry["instanceType"] is None or isinstance(entry["instanceType"], str))
    ok(all(isinstance(entry[name], list) and all(isinstance(one, str) for one in entry[name]) for name in TEXTS))
    ok(entry["rank"] is None or (type(entry["rank"]) is int and 0 <= entry["rank"] < 2**31))
    ok(isinstance(entry["replay"], bool) and (not node or isinstance(entry["ended"], bool)))
    ok(entry["flopsdVersions"] and entry["peakTableSha256"])
    ok(not node or len(entry["flopsdVersions"]) == len(entry["peakTableSha256"]) == 1)
    ok(entry["periods"] and (node or (len(entry["periods"]) == 1 and not entry["deviceTimes"])))
    for number, period in enumerate(entry["periods"], 1):
        ok(period.keys() == {"incarnation", "attempt", "bootId", "beginNs", "endNs", "wallOffsetNs"})
        ok(period["incarnation"] == (number if node else None) and period["incarnation"] is not True)
        ok(isinstance(period["bootId"], str) and isinstance(period["attempt"], str if node else type(None)))
        ok(node or not period["bootId"])
        a_time(period, "beginNs", "endNs", "wallOffsetNs")
    ok(isinstance(entry["deviceTimes"], list))
    for times in entry["deviceTimes"]:
        ok(times.keys() == {"incarnation", "beginNs", "endNs", "devices"} and type(times["incarnation"]) is int)
        ok(isinstance(times["devices"], list) and times["devices"])
        ok(all(isinstance(device, str) for device in times["devices"]))
        a_time(times, "beginNs", "endNs")
    declared = entry["declared"]
    ok(declared["method"] in (None, *METHODS) and notes_only(declared["contradictions"]))
    base = declared["base"]
    ok(is_base(base) and (base is None or (base.keys() - {"reason"} == BASE and isinstance(base["declaredBy"], str))))
    ok(isinstance(declared.get("conflict", []), list))
    ok(declared.keys() == {"method", "base", "contradictions"} | (set() if node else {"conflict"}))
    ok(all(isinstance(one, str) for one in declared.get("conflict", [])))
    if entry["segment"] is not None:
        a_segment(entry["segment"])
    for text in (*(entry["coverage"][name] for name in TIMES), *entry["coverage"]["gapSecondsByReason"].values()):
        ok(SECONDS.fullmatch(text))
    for name in OF_NODES:
        ok(SECONDS.fullmatch(entry[name]))
    totals = entry["totals"]
    ok(totals["executed"]["byEvidence"].keys() <= {*EVIDENCE, "gap", "operator_count"})
    ok(totals["executed"]["byPhase"].keys() <= {*PHASES, "undeclared"})
    ok(
        entry["coverage"]["gapSecondsByReason"].keys() <= set(REASONS)
        and notes_only(totals["architectureAbsentReasons"])
    )
    ok(totals["architecture"] is None or totals["architecture"]["method"])
    ok(totals["guidelines"]["asClaimed"] is None or totals["guidelines"]["asClaimed"]["claims"])
    for claim in (totals["guidelines"]["asClaimed"] or {"claims": []})["claims"]:
        ok(claim["phase"] in (None, *PHASES) and (claim["precision"] is None or is_format(claim["precision"])))
    for one in figures_in(totals):
        ok(one["low"] is not None)
        ok(all(one[name] is None or COUNT.fullmatch(one[name]) for name in COUNTS if name in one))
    rules, integers = totals["guidelines"], totals["integerOperations"]
    counted = [rules, integers["guidelines"], *([rules["asClaimed"]] if rules["asClaimed"] else [])]
    for one in (totals["executed"], integers, *counted, *(each["cumulative"] for each in counted)):
        ok(one["high"] is None or int(one["low"]) <= int(one["high"]))
    refuse_difference(sums_of([entry], whole=True), {name: entry[name] for name in SUMS}, "entry", "entry_malformed")


def figures_in(part: Any) -> Iterator[J]:
    if isinstance(part, dict):
        if "low" in part:
            yield part
        for value in part.values():
            yield from figures_in(value)
    elif isinstance(part, list):
        for value in part:
            yield from figures_in(value)


def a_time(times: J, *names: str) -> None:
    need(all(isinstance(times[name], str) and SIGNED.fullmatch(times[name]) for name in names), "entry_malformed")
    need(int(times["beginNs"]) <= int(times["endNs"]), "entry_malformed")


def a_segment(segment: J) -> None:
    def a_journal(journal: J) -> bool:
        counts = [journal["bytes"], journal["records"]]
        return (
            is_digest(journal["sha256"])
            and is_digest(journal["headSha256"])
            and all(isinstance(one, str) and COUNT.fullmatch(one) and one != "0" for one in counts)
        )

    before = segment["continues"]
    need(segment.keys() == {"number", "continues", "isContinued", "journal"}, "entry_malformed")
    need(isinstance(segment["isContinued"], bool) and a_journal(segment["journal"]), "entry_malformed")
    need(segment["journal"].keys() == JOURNAL and type(segment["number"]) is int, "entry_malformed")
    if before is None:
        need(segment["number"] == 1 and segment["isContinued"], "entry_malformed")
    else:
        need(before.keys() == {"number", *JOURNAL} and type(before["number"]) is int, "entry_malformed")
        need(before["number"] == segment["number"] - 1 >= 1 and a_journal(before), "entry_malformed")


def ns(text: str) -> int:
    whole, _, nine = text.partition(".")
    return int(whole) * 10**9 + int(nine)


def sums_of(entries: list[J], *, whole: bool) -> J:
    """The sums of the entries; also an entry's own figures, as the sum of itself alone."""
    totals = [entry["totals"] for entry in entries]
    executed = bounded(add(figures(one["executed"]) for one in totals), whole)
    stated = [one["guidelines"] for one in totals]
    counted = _counts(stated, whole)
    claimed = None
    if any(one["asClaimed"] for one in stated):
        claims = summed(
            {(claim["phase"] or "", claim["precision"] or ""): figures(claim["flop"])}
            for one in stated
            if one["asClaimed"]
            for claim in one["asClaimed"]["claims"]
        )
        claimed = {
            **_counts([one["asClaimed"] or one for one in stated], whole),
            "claims": [
                {"phase": phase or None, "precision": label or None, "flop": text_of(flop), "process": None}
                for (phase, label), flop in sorted(claims.items())
            ],
        }
    integers = [one["integerOperations"] for one in totals]
    of_integers = _counts([one["guidelines"] for one in integers], whole)
    names = ("low", "cumulativeLow")
    operators = {name: str(sum(int(one["operatorCount"][name]) for one in stated)) for name in names}
    basis, absent = architecture_of(entries, whole=whole)
    energies = [entry["energyJoules"] for entry in entries if entry["energyJoules"] is not None]
    compared = [energy_of(one) for entry in entries for one in entry["reconciliation"]]
    return {
        "totals": {
            "executed": {
                **text_of(executed),
                "method": codes.methods(method for one in totals for method in one["executed"]["method"]),
                "mayBeIntegerFlop": str(sum(int(one["executed"]["mayBeIntegerFlop"]) for one in totals)),
                "byEvidence": sums_by(totals, "byEvidence"),
                "byPhase": sums_by(totals, "byPhase"),
            },
            "integerOperations": {
                **text_of(bounded(add(map(figures, integers)), whole)),
                "guidelines": of_integers,
            },
            "guidelines": {**counted, "operatorCount": operators, "asClaimed": claimed, "method": "annex_a1"},
            "architecture": basis,
            "architectureAbsentReasons": absent,
        },
        "energyJoules": joules(sum(int(text.replace(".", "")) for text in energies)) if energies else None,
        **{name: seconds(sum(ns(entry[name]) for entry in entries)) for name in OF_NODES},
        "coverage": coverage([entry["coverage"] for entry in entries]),
        "reconciliation": energy_said(compared),
    }  # fmt: skip


def predicate_of_children(predicate: J, entries: list[J], policies: list[J]) -> J:
    job = predicate["kind"] == "job"
    if job:
        ranks(predicate, entries)
    try:
        complete = _complete(predicate, entries)
    except AssertionError as fault:
        raise Refused("segments_part") from fault
    whole = complete is True
    sums = sums_of(entries, whole=whole)
    totals = sums["totals"]
    counted, of_integers = totals["guidelines"], totals["integerOperations"]["guidelines"]
    claimed = counted["asClaimed"]
    declared = declared_of(entries)
    declared["contradictions"] = merged_contradictions(entries, declared["base"], policies, is_job=job)
    account = Account(
        figures(counted), figures(counted["cumulative"]), (figures(of_integers), figures(of_integers["cumulative"])),
        None if claimed is None else (figures(claimed), figures(claimed["cumulative"])),
        declared["method"], declared["base"], whole, tuple(declared["conflict"]), by_operators(counted),
        methods_of(entries),
    )  # fmt: skip
    judged = findings(policies, account)
    replays = sum(entry["replay"] for entry in entries)
    return {
        "kind": predicate["kind"],
        "replay": {"children": str(replays)} if replays else None,
        "run": predicate["run"],
        "lineage": None if job else {"name": predicate["lineage"]["name"], "runs": sorted({e["run"] for e in entries})},
        "jobNodes": predicate["jobNodes"],
        "completeness": {
            "summary": summary_of(predicate, entries, complete),
            "complete": complete,
            "missing": missing(predicate, entries),
            **nodes_known(predicate, entries),
        },
        "attempts": sorted({p["attempt"] for entry in entries for p in entry["periods"]}) if job else [],
        "incarnationCount": str(sum(len(entry["periods"]) for entry in entries)) if job else None,
        "ledgerCount": str(len(entries)),
        "startedAt": min(entry["startedAt"] for entry in entries),
        "lastRecordAt": max(entry["lastRecordAt"] for entry in entries),
        "declared": declared,
        **sums,
        "findings": judged,
        "reconciliation": [*ratios(totals), *sums["reconciliation"]],
        "evidence": [],
        "method": {
            **{name: predicate["method"][name] for name in ("flopsdVersion", "sealedAt")},
            "flopsdVersions": sorted({one for entry in entries for one in entry["flopsdVersions"]}),
            "peakTableSha256": sorted({one for entry in entries for one in entry["peakTableSha256"]}),
            "policies": [{"id": policy["id"], "sha256": policy["sha256"]} for policy in policies],
            "assumptions": codes.OF_SUM,
        },
        "claim": codes.claim(predicate["kind"]),
        "nodes": summaries(entries) if job else [],
        "children": entries,
    }  # fmt: skip


def ranks(predicate: J, entries: list[J]) -> None:
    nodes, most = predicate["jobNodes"], predicate["completeness"]["declaredNodes"]
    need(len(set(nodes)) == len(nodes), "rank_differs")
    need(not nodes or most is None or int(most) == len(nodes), "too_many_nodes")
    need(most is None or int(most) <= 100_000, "too_many_nodes")
    for entry in entries:
        if nodes:
            need(entry["node"] in nodes and nodes.index(entry["node"]) == entry["rank"], "rank_differs")
        elif entry["rank"] is not None:
            need(entry["rank"] < (100_000 if most is None else int(most)), "too_many_nodes")
    need(nodes or most is None or slots(entries) <= int(most), "too_many_nodes")


def slots(entries: list[J]) -> int:
    ranked = all(entry["rank"] is not None for entry in entries)
    return len({entry["rank"] if ranked else entry["node"] for entry in entries})


def summary_of(predicate: J, entries: list[J], complete: bool | None) -> str:
    job = predicate["kind"] == "job"
    if complete is not None:
        return ("whole" if job else "jobs_whole") if complete else "ledgers_missing"
    if job:
        return "nodes_unknown" if nodes_known(predicate, entries)["expectedNodes"] is None else "no_end"
    stated = [entry["completeness"] for entry in entries]
    unknown = any(one["complete"] is None and not one["missing"] for one in stated)
    return "nodes_unknown" if unknown else "jobs_no_end"


def nodes_known(predicate: J, entries: list[J]) -> J:
    if predicate["kind"] == "lineage":
        return {"expectedNodes": None, "declaredNodes": None, "nodes": None}
    declared = predicate["completeness"]["declaredNodes"]
    expected = str(len(predicate["jobNodes"])) if predicate["jobNodes"] else declared
    return {"expectedNodes": expected, "declaredNodes": declared, "nodes": str(slots(entries))}


def methods_of(entries: list[J]) -> tuple[str | None, ...]:
    """The methods of all nodes, in the order of METHODS; None if one declares none."""
    found: set[str | None] = set()
    for declared in (entry["declared"] for entry in entries):
        codes = {one["code"]: one for one in declared["contradictions"]}
        found.update(codes.get("node_methods_differ", {}).get("methods", [declared["method"]]))
        found.update([None] if declared["method"] is None or "node_method_not_declared" in codes else [])
    return (None,) if None in found else tuple(one for one in METHODS if one in found)


def declared_of(entries: list[J]) -> J:
    methods = [entry["declared"]["method"] for entry in entries]
    known = set(methods)
    method = (
        "pretraining" if "pretraining" in known else None if None in known else "full" if len(known) > 1 else methods[0]
    )
    bases = [entry["declared"]["base"] for entry in entries]
    given = [one for one in bases if one is not None]
    differ = any(one != given[0] for one in given) or any(
        "bases_differ" in entry["declared"].get("conflict", ())
        or any(one["code"] == "start_base_differs" for one in entry["declared"]["contradictions"])
        for entry in entries
    )
    base = given[0] if given and not differ else None
    conflict = ["bases_differ"] if differ else []
    conflict += ["pretraining_with_base"] if method == "pretraining" and (differ or given) else []
    return {"method": method, "base": base, "conflict": conflict}


def bounded(sum_of: tuple[int, int | None, int | None], whole: bool) -> tuple[int, int | None, int | None]:
    return sum_of if whole else (*sum_of[:2], None)


def sums_by(totals: list[J], name: str) -> J:
    parts = ({key: figures(one) for key, one in each["executed"][name].items()} for each in totals)
    return {key: text_of(one) for key, one in summed(parts).items()}


def joules(mj: int) -> str:
    return f"{mj // 1000}.{mj % 1000:03d}"


def coverage(children: list[J]) -> J:
    sums = {name: sum(ns(child[name]) for child in children) for name in TIMES}
    job, unknown = sums["jobSeconds"], sums["unknownSeconds"]
    reasons: dict[str, int] = {}
    for child in children:
        for reason, text in child["gapSecondsByReason"].items():
            reasons[reason] = reasons.get(reason, 0) + ns(text)
    return {
        **{name: seconds(value) for name, value in sums.items()},
        "coveragePpm": str((job - unknown) * M // job) if job else None,
        "gapSecondsByReason": {reason: seconds(value) for reason, value in reasons.items()},
    }


def ratios(totals: J) -> list[J]:
    found: dict[str, Any] = {}
    basis, by_phase = totals["architecture"], totals["executed"]["byPhase"]
    if basis is not None:
        known = add([(0, None, 0), *(figures(one) for phase, one in by_phase.items() if phase != "undeclared")])
        needed = [
            tuple(None if one[n] is None else int(one[n]) for n in ("low", "computed", "high"))
            for one in (basis["executed"], basis)
        ]
        found[RATIOS[0]] = divided((*known[:2], figures(totals["executed"])[2]), needed[0])
        found[RATIOS[1]] = divided(figures(totals["guidelines"]), needed[1])
    return ratios_said(found)


def summaries(entries: list[J]) -> list[J]:
    groups: dict[tuple[Any, str], list[J]] = {}
    for entry in entries:
        groups.setdefault((entry["rank"], entry["node"]), []).append(entry)
    found = []
    for (rank, name), group in groups.items():
        energies = [entry["energyJoules"] for entry in group if entry["energyJoules"] is not None]
        found.append(
            {
                "name": name,
                "rank": rank,
                "instanceType": group[0]["instanceType"],
                "ledgers": str(len(group)),
                "attempts": str(len({period["attempt"] for entry in group for period in entry["periods"]})),
                "devices": str(len({d for entry in group for times in entry["deviceTimes"] for d in times["devices"]})),
                "executed": text_of(add(figures(entry["totals"]["executed"]) for entry in group)),
                "energyJoules": joules(sum(int(text.replace(".", "")) for text in energies)) if energies else None,
                **{n: seconds(sum(ns(entry[n]) for entry in group)) for n in ("energyUncountedSeconds", "deviceSeconds")},
                "coveragePpm": coverage([entry["coverage"] for entry in group])["coveragePpm"],
            }
        )  # fmt: skip
    return found


def check_children(merged: J, asked: Any) -> None:
    from tests.second_implementation.verify import Asked, read_envelope, refuse_difference, strict_json, verify_one

    entries: list[J] = merged["children"]
    by_digest = {entry["sha256"]: entry for entry in entries}
    seen, others = set(), []
    below = {entry["sha256"]: [entry] for entry in entries if entry["kind"] == "node"}
    for path in sorted(path for path in Path(asked.children).rglob("*.json") if path.is_file()):
        data, journal = path.read_bytes(), path.with_name(f"{path.stem}.journal.jsonl")
        if b'"payloadType"' not in data and not journal.is_file() and not path.name.endswith(".ledger.json"):
            continue
        payload = read_envelope(data)["payload"]
        digest = sha256(payload)
        predicate = strict_json(payload, "payload").get("predicate", {})
        entry = by_digest.get(digest)
        if entry is None:
            others.append((predicate.get("run", {}).get("id"), (predicate.get("node") or {}).get("name")))
            continue
        seen.add(digest)
        if entry["kind"] == "node":
            nodes = merged["jobNodes"] if merged["kind"] == "job" else [entry["node"]]
            need(predicate["node"]["jobNodes"] == nodes, "child_differs")
            need(merged["kind"] == "lineage" or predicate["run"] == merged["run"], "child_differs")
            if not journal.is_file():
                continue
        alone = Asked(path, [], 0, asked.peaks, asked.policies, allow_replay=True)
        found = verify_one(path, alone, signed=False)
        if entry["kind"] == "job":
            below[digest] = found.predicate["children"]
        again = job_entry_of(found.predicate, entry) if found.run is None else entry_of(found, entry)
        refuse_difference(again, entry, "entry", "child_differs")
    for entry in entries:
        need(entry["sha256"] in seen or (entry["run"], entry["node"]) not in others, "child_changed")
    if merged["kind"] == "lineage":
        ledgers = [one["sha256"] for listed in below.values() for one in listed]
        need(len(set(ledgers)) == len(ledgers), "child_twice")
        claims: dict[tuple[str, str], list[tuple[Any, J, J]]] = {}
        for of, listed in below.items():
            for one in listed:
                devices_of(one, of, claims)
        apart(claims, {})


def job_entry_of(job: J, entry: J) -> J:
    """The entry of a job, except its place in the lineage."""
    names, method = ("method", "base", "contradictions", "conflict"), job["method"]
    periods = [period for child in job["children"] for period in child["periods"]]
    begins, ends = ([int(one[name]) + int(one["wallOffsetNs"]) for one in periods] for name in ("beginNs", "endNs"))
    whole = {"incarnation": None, "attempt": None, "bootId": "", "wallOffsetNs": "0"}
    return {
        **entry, **{name: job[name] for name in (*SUMS, "startedAt", "lastRecordAt")}, "kind": "job", "run": job["run"]["id"],
        "replay": job["replay"] is not None, "peakTableSha256": method["peakTableSha256"],
        "flopsdVersions": sorted({method["flopsdVersion"], *method["flopsdVersions"]}),
        "reconciliation": [one for one in job["reconciliation"] if one["name"] == "energy/executed"],
        "completeness": {name: job["completeness"][name] for name in ("complete", "missing")},
        "declared": {name: job["declared"][name] for name in names},
        "periods": [{**whole, "beginNs": str(min(begins)), "endNs": str(max(ends))}],
    }  # fmt: skip


def entry_of(found: Any, entry: J) -> J:
    """The parts of a node's entry with figures and times, from its ledger; the rest is taken from the entry."""
    predicate, totals = found.predicate, found.predicate["totals"]
    executed = {
        name: totals["executed"][name] for name in (*NAMES, "method", "mayBeIntegerFlop", "byEvidence", "byPhase")
    }
    again = dict(entry)
    guidelines = {
        name: totals["guidelines"][name] for name in (*NAMES, "cumulative", "operatorCount", "asClaimed", "method")
    }
    if guidelines["asClaimed"] is not None:
        claims = [{**claim, "process": None} for claim in guidelines["asClaimed"]["claims"]]
        guidelines["asClaimed"] = {**guidelines["asClaimed"], "claims": claims}
    again["totals"] = {
        **entry["totals"],
        "architectureAbsentReasons": few_reasons(totals["architectureAbsentReasons"]),
        "executed": executed,
        "integerOperations": totals["integerOperations"],
        "guidelines": guidelines,
    }
    job, unknown, bounded_ns = 0, 0, 0
    for devices in found.run.rated:
        for device in devices.values():
            job += device.span - device.gap_ns("other_job", "metered_as_mig", "replaced")
            unknown += device.unknown
            bounded_ns += sum(
                device.tally.get(name, {}).get("utilization", 0) for name in ("observed_ns", "recovered_ns")
            )
    covered = predicate["coverage"]
    again["coverage"] = {
        **{name: covered[name] for name in (*TIMES[:4], "coveragePpm", "gapSecondsByReason")},
        "jobSeconds": seconds(job),
        "unknownSeconds": seconds(unknown),
        "boundedSeconds": seconds(bounded_ns),
    }
    for name in ("energyJoules", "deviceSeconds", "energyUncountedSeconds"):
        again[name] = predicate[name]
    again["reconciliation"] = [one for one in predicate["reconciliation"] if one["name"] == "energy/executed"]
    again["nodeSeconds"] = predicate["wallSeconds"]
    again["replay"] = predicate["replay"] is not None
    again["node"], again["rank"] = predicate["node"]["name"], predicate["node"]["rank"]
    again["instanceType"], again["run"] = predicate["node"]["instanceType"], predicate["run"]["id"]
    again["ended"] = predicate["incarnations"][-1]["endReason"] is not None
    again["flopsdVersions"], again["peakTableSha256"] = (
        [predicate["method"]["flopsdVersion"]],
        [predicate["method"]["peakTableSha256"]],
    )
    again["startedAt"] = min(one["startedAt"] for one in predicate["incarnations"])
    again["lastRecordAt"] = max(one["lastRecordAt"] for one in predicate["incarnations"])
    run = found.run
    again["deviceTimes"] = device_times(run, entry["node"])
    again["periods"] = [
        {
            "incarnation": at,
            "attempt": begin["context"]["attempt"],
            "bootId": begin["boot_id"],
            "beginNs": str(begin["ns"]),
            "endNs": str(last),
            "wallOffsetNs": str(begin["wall_ns"] - begin["ns"]),
        }
        for at, (begin, last) in enumerate(zip(run.begins, run.last_ns, strict=True), 1)
    ]
    return again

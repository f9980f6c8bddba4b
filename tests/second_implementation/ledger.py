"""From records and peak table to the parts of the predicate that hold figures."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tests.second_implementation import architecture
from tests.second_implementation.arithmetic import ELSEWHERE, M, Rated, add, records_of, said, seconds, tallies_of
from tests.second_implementation.codes import share_source
from tests.second_implementation.laws import is_time, need
from tests.second_implementation.operators import operator_rows, operators_of

J = dict[str, Any]
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the other one refuses tabs that YAML allows
Shares = tuple[int, int | None, int]
NAMES = ("low", "measured", "high")


@dataclass
class Run:
    """The contents of a journal's records: every start of the daemon, its devices with their last tallies, and all
    gaps."""

    records: list[J]
    begins: list[J] = field(default_factory=list)
    rated: list[dict[int, Rated]] = field(default_factory=list)
    gaps: list[list[Any]] = field(default_factory=list)  # incarnation, index, begin, end, reason
    last_ns: list[int] = field(default_factory=list)
    last_utc: list[str] = field(default_factory=list)
    ends: list[J | None] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    leaves_out: bool = False  # law 16


def run_of(records: list[J], table: J, sealed_at: str) -> Run:
    run = Run(records)
    begins, rated, gaps, last_ns = run.begins, run.rated, run.gaps, run.last_ns
    for record in records:
        kind = record["kind"]
        if kind == "begin":
            begins.append(record)
            rated.append({})
            last_ns.append(record["ns"])
            run.last_utc.append(record["utc"])
            run.ends.append(None)
            run.checkpoints.append(0)
        elif kind == "device":
            rated[-1][record["number"]] = Rated(record, table)
        elif kind == "evidence":
            before = rated[-1][record["number"]]
            anew = {name: record[name] for name in ("source", "evidence", "evidence_reason", "shared_with")}
            known = rated[-1][record["number"]] = Rated({**before.record, **record.get("identity", {}), **anew}, table)
            known.tally = before.tally
        elif kind == "checkpoint":
            for number, tally in tallies_of(record):
                rated[-1][number].tally = {"observed_ns": {}, "gap_ns": {}, **tally}
            for gap in record["gaps"]:
                _take(gaps, [len(begins), *gap])
        if kind in ("checkpoint", "end"):
            last_ns[-1], run.last_utc[-1] = record["ns"], record["utc"]
            run.checkpoints[-1] += kind == "checkpoint"
            run.ends[-1] = record if kind == "end" else None
    left = _left_open(run)
    if records and run.ends[-1] is None:
        left |= {device.record["uuid"]: (len(begins) - 1, number) for number, device in rated[-1].items()}
    for at, number in sorted(left.values()):
        _go_on(run, at, number, sealed_at)
    return run


def _left_open(run: Run) -> dict[str, tuple[int, int]]:
    """Devices that are not accounted for to the end: the last start with each, and its number there."""
    last_gaps = {(at, number): gap for at, number, *gap in run.gaps}
    found: dict[str, tuple[int, int]] = {}
    boots: dict[str, str] = {}
    for at, (begin, end) in enumerate(zip(run.begins, run.ends, strict=True)):
        for number, device in run.rated[at].items():
            uuid, first, last = device.record["uuid"], device.record["to_ns"], device.tally["to_ns"]
            if uuid in found:
                goes_on = _goes_on_at(run, *found.pop(uuid), at)
                run.leaves_out |= goes_on is not None and first > goes_on
            moved = boots.get(uuid, begin["boot_id"]) != begin["boot_id"]
            retired = bool(run.checkpoints[at] and moved and last <= begin["ns"])
            boots[uuid] = begin["boot_id"]
            if end is not None:
                run.leaves_out |= end["reason"] != "rotated" and not retired and last < end["ns"]
                continue
            _, to, reason = last_gaps.get((at + 1, number), (None, None, None))
            if not retired and not (reason in ("metered_as_mig", "replaced") and to == last):
                found[uuid] = at, number
    return found


def _goes_on_at(run: Run, before: int, number: int, at: int) -> int | None:
    """The time at which a device's account continues, on the clock of that start; None if no record states it."""
    until: int = run.rated[before][number].tally["to_ns"]
    begin = run.begins[at]
    if run.begins[before]["boot_id"] == begin["boot_id"]:
        return until
    if not is_time(run.last_utc[before]):
        return None
    passed = begin["wall_ns"] - (microseconds(run.last_utc[before]) - microseconds("1970-01-01T00:00:00Z")) * 1000
    return 0 if passed < 0 else int(begin["ns"] - passed - (run.last_ns[before] - until))


def recompute(journal: Path, peaks: Path, sealed_at: str) -> J:
    """The page's results for a journal sealed at that time, by the names of the predicate's fields."""
    records, head = records_of(journal)
    table = yaml.load(peaks.read_bytes(), LOADER)
    return {
        **figures_of(run_of(records, table, sealed_at)),
        "peakTableSha256": hashlib.sha256(peaks.read_bytes()).hexdigest(),
        "journal": {
            "sha256": hashlib.sha256(journal.read_bytes()).hexdigest(),
            "records": str(len(records)),
            "headSha256": head,
        },
    }


def figures_of(run: Run) -> J:
    records, begins, rated, gaps, last_ns = run.records, run.begins, run.rated, run.gaps, run.last_ns
    everything = [device for incarnation in rated for device in incarnation.values()]
    spans = sum(device.span for device in everything)
    job = spans - sum(device.gap_ns(*ELSEWHERE) for device in everything)
    longest = sorted(gaps, key=lambda gap: gap[2] - gap[3])[:1000]
    listed = sorted(longest, key=lambda gap: (gap[0], gap[2], rated[gap[0] - 1][gap[1]].record["uuid"]))
    for begin, devices in zip(begins, rated, strict=True):
        for device in devices.values():
            device.word = (begin.get("declared") or {}).get("phase")
    settings = architecture.settings_of(begins)
    sessions = _sessions(records)
    operators = [row for same in _by_uuid(everything) for row in operator_rows(same, sessions)]
    by_evidence: dict[str, list[Any]] = {}
    for row in (*(row for device in everything for row in device.rows()), *operators):
        by_evidence.setdefault(row["key"][1], []).append(row["figures"])
    basis = architecture.declared(settings, sessions) if architecture.is_known(sessions) else None
    counted, integers = None, None
    if basis is not None:
        method, how, trained = basis.method, basis.recomputation, basis.share
        fused = any(work.get("fused_head_tokens") for session in sessions for work in session.get("work", {}).values())
        again = operators_of(sessions)
        shares = required(settings, method, how, trained, again, counts_fused=fused)
        unknown = guidelines({"undeclared": (0, None, None)}, shares)
        counted = _guidelines(everything, "figures", shares, operators) if everything else unknown
        integers = _guidelines(everything, "integers", shares, []) if everything else unknown
        alone = guidelines(summed(d.by_words("figures")[0] for d in everything), shares) if everything else unknown
        counted = {**counted}
        parts = ((counted, alone), (counted["cumulative"], alone["cumulative"]))
        low, cumulative = (str(int(whole["low"]) - int(part["low"])) for whole, part in parts)
        counted["operatorCount"] = {"low": low, "cumulativeLow": cumulative}
        names = ("low", "stated", "high")
        by_model = trained is not None
        counted["requiredPpmSource"] = share_source(
            settings, method, how, by_model=by_model, by_operators=again is not None, fused=fused
        )
        counted["method"] = "annex_a1"
        counted["requiredPpm"] = {n: None if ppm is None else str(ppm) for n, ppm in zip(names, shares, strict=True)}
        counted["asClaimed"] = _claimed(everything, shares, operators, {session["pid"] for session in sessions})
    return {
        "byPhase": {
            phase: said(figures)
            for phase, figures in summed(
                [*(d.by_phase() for d in everything), *({row["key"][0]: row["figures"]} for row in operators)]
            ).items()
        },
        "guidelines": counted,
        "architecture": basis and basis.architecture,
        "architectureAbsentReasons": basis and basis.absent,
        "executed": said(add([*(device.total() for device in everything), *(row["figures"] for row in operators)]))
        if everything
        else said((0, None, None)),
        "integerOperations": {
            **(said(add(device.total("integers") for device in everything)) if everything else said((0, None, None))),
            "guidelines": integers,
        },
        "mayBeIntegerFlop": str(
            sum(row["figures"][1] or 0 for device in everything for row in device.rows() if row["mixed"])
        ),
        "clockUncertaintyFlop": str(sum(row["doubt"] for device in everything for row in device.rows())),
        "byEvidence": {evidence: said(add(figures)) for evidence, figures in by_evidence.items()},
        "devices": _devices(everything, operators),
        "energy": energy_said([one for same in _by_uuid(everything) for one in _compared(same)]),
        "deviceSeconds": seconds(spans),
        "wallSeconds": seconds(sum(last_ns) - sum(begin["ns"] for begin in begins)),
        "energyJoules": _energy(everything),
        "energyUncountedSeconds": _uncounted(everything),
        "coveragePpm": str((job - sum(device.unknown for device in everything)) * M // job) if job else None,
        "gaps": [_gap(rated[gap[0] - 1][gap[1]], begins[gap[0] - 1], gap) for gap in listed],
        "gapsNotListed": str(len(gaps) - len(listed)),
        "segment": segment_of(records),
        "isolation": _isolation(begins, records),
    }


def segment_of(records: list[J]) -> J | None:
    """Its part of a rotated run."""
    before = records[0].get("continues")
    rotated = records[-1].get("reason") == "rotated"
    if before is None and not rotated:
        return None
    named = before and {
        "number": before["segment"],
        "sha256": before["sha256"],
        "headSha256": before["head_sha256"],
        "bytes": str(before["bytes"]),
        "records": str(before["records"]),
    }
    return {"number": before["segment"] + 1 if before else 1, "continues": named, "isContinued": rotated}


def _go_on(run: Run, at: int, number: int, sealed_at: str) -> None:
    """For one device, the time from the last record of a start without an end to the seal."""
    need(is_time(run.last_utc[at]))
    age = (microseconds(sealed_at) - microseconds(run.last_utc[at])) * 1000
    reason = "not_journalled" if 0 <= age <= 2 * run.begins[at]["checkpoint_ns"] else "end_unknown"
    device = run.rated[at][number]
    tally = device.tally = {**device.tally, "gap_ns": dict(device.tally["gap_ns"])}
    run.gaps.append([at + 1, number, tally["to_ns"], tally["to_ns"] + max(age, 1000), reason])
    tally["to_ns"] += max(age, 1000)
    tally["gap_ns"][reason] = tally["gap_ns"].get(reason, 0) + max(age, 1000)


def microseconds(utc: str) -> int:
    """Microseconds since the year 1, rounded down."""
    whole = datetime.strptime(utc[:19], "%Y-%m-%dT%H:%M:%S") - datetime(1, 1, 1)  # noqa: DTZ001, DTZ007
    return whole // timedelta(seconds=1) * 10**6 + int(utc[20:-1].ljust(6, "0")[:6])


def stated(statement: J) -> J:
    """The same parts of a sealed statement."""
    predicate = statement["predicate"]
    executed, coverage, method = predicate["totals"]["executed"], predicate["coverage"], predicate["method"]
    is_known = architecture.is_known(predicate["declared"]["sessions"])
    energy = ("energyJoules", "energyUncountedSeconds")
    of_device = (
        "executed", "integerOperations", *energy, "observedSeconds", "gapSeconds", "recoveredSeconds", "spanSeconds",
    )  # fmt: skip
    of_row: tuple[str, ...] = (
        "phase", "evidence", "pipe", "precision", "smCycles", "seconds", "flop", "integerOperations",
    )  # fmt: skip
    of_row += ("clockUncertaintyFlop",)
    integers = predicate["totals"]["integerOperations"]
    is_counted = is_known
    return {
        "executed": {name: executed[name] for name in ("low", "measured", "high")},
        "integerOperations": {**integers, "guidelines": integers["guidelines"] if is_counted else None},
        "mayBeIntegerFlop": executed["mayBeIntegerFlop"],
        "clockUncertaintyFlop": executed["clockUncertaintyFlop"],
        "byEvidence": executed["byEvidence"],
        "byPhase": executed["byPhase"] if predicate["devices"] else {},
        "guidelines": _counted(predicate) if is_counted else None,
        "architecture": predicate["totals"]["architecture"] if is_known else None,
        "architectureAbsentReasons": predicate["totals"]["architectureAbsentReasons"] if is_known else None,
        "devices": {
            device["uuid"]: {
                **{name: device[name] for name in of_device},
                "work": [{name: row[name] for name in of_row} for row in device["work"]],
            }
            for device in predicate["devices"]
        },
        **{name: predicate[name] for name in ("deviceSeconds", "wallSeconds", *energy)},
        **{name: coverage[name] for name in ("coveragePpm", "gaps", "gapsNotListed")},
        "isolation": {
            name: value for name, value in predicate["isolation"].items() if name not in ("key", "jobCouldReadKey")
        },
        "energy": [one for one in predicate["reconciliation"] if one["name"] == "energy/executed"],
        "segment": predicate["segment"],
        "peakTableSha256": method["peakTableSha256"],
        "journal": {name: method["journal"][name] for name in ("sha256", "records", "headSha256")},
    }


def _isolation(begins: list[J], records: list[J]) -> J:
    starts = [begin["isolation"] for begin in begins]
    users = {start["job_user"] for start in starts} - {None}
    users |= {session["uid"] for record in records for session in record.get("sessions", ())}
    processes = [session["pid"] for record in records for session in record.get("sessions", ())]
    container = all(start["job_container"] for start in starts) and set(processes) <= {None}
    daemons, private = {start["daemon_user"] for start in starts}, all(start["files_private"] for start in starts)
    continues = [start["continues"] for start in starts]
    reasons = {
        "job_user_unknown": not users and not container,
        "same_user": bool(users & daemons) and not container,
        "job_is_root": 0 in users and not container,
        "files_open_to_others": not private,
        "continued_unchecked": "nothing" in continues,
    }
    return {
        "daemonUsers": [str(user) for user in sorted(daemons)],
        "jobUsers": [str(user) for user in sorted(users)],
        "jobContainer": container,
        "filesPrivate": private,
        "checkpointOutput": sorted({start["checkpoint_output"] for start in starts}),
        "continues": continues,
        "jobCouldWriteJournal": any(reasons.values()),
        "reasons": [reason for reason, holds in reasons.items() if holds],
    }


def summed(parts: Iterable[Mapping[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, list[Any]] = {}
    for part in parts:
        for key, figures in part.items():
            found.setdefault(key, []).append(figures)
    return {key: add(figures) for key, figures in found.items()}


def _guidelines(devices: list[Rated], name: str, shares: Shares, operators: list[J]) -> J:
    """The ends by the settings alone; the measured figures by the processes too."""
    ends, point = (
        guidelines(
            summed([*(d.by_words(name)[word] for d in devices), *({row["words"][word]: row["figures"]} for row in operators)]),
            shares,
        )
        for word in (0, 1)
    )  # fmt: skip
    both = {**ends, "measured": point["measured"]}
    return {**both, "cumulative": {**ends["cumulative"], "measured": point["cumulative"]["measured"]}}


def _claimed(devices: list[Rated], shares: Shares, operators: list[J], pids: set[int | None]) -> J | None:
    claims = summed(
        {claim: figures}
        for claim, figures in (
            *(claim for device in devices for claim in device.claims()),
            *(((row["key"][0], ""), row["figures"]) for row in operators if row["key"][0] != row["words"][0]),
        )
    )
    if not claims:
        return None
    process = next(iter(pids)) if len(pids) == 1 else None
    return {
        **guidelines(
            summed(
                [
                    *(device.by_words("figures")[2] for device in devices),
                    *({row["key"][0]: row["claimed"]} for row in operators),
                ]
            ),
            shares,
        ),
        "claims": [
            {"phase": phase or None, "precision": label or None, "flop": said(claims[phase, label]), "process": process}
            for phase, label in sorted(claims)
        ],
    }


def _sessions(records: list[J]) -> list[J]:
    """The last declaration of each training process, with its counters by phase."""
    found: dict[str, J] = {}
    for record in records:
        for change in record.get("sessions", ()):
            session = found.setdefault(
                change["id"], {"id": change["id"], "at": len(found), "pid": change["pid"], "facts": {}, "work": {}}
            )
            session["facts"] = change.get("facts", session["facts"])
            session["refused"] = change.get("refused", session.get("refused"))
            for phase, counters in change.get("work", {}).items():
                session["work"].setdefault(phase, {}).update(counters)
    return [found[name] for name in sorted(found)]


def _take(gaps: list[list[Any]], gap: list[Any]) -> None:
    for last in reversed(gaps[-63:]):
        if last[:2] == gap[:2]:
            if last[4] == gap[4] and last[3] == gap[2]:
                last[3] = gap[3]
                return
            break
    gaps.append(gap)


def _gap(device: Rated, begin: J, gap: list[Any]) -> J:
    incarnation, _, begin_ns, end_ns, reason = gap
    ceiling = 0 if reason in ELSEWHERE else device.ceiling(end_ns - begin_ns)
    ceiling = None if reason in ("end_unknown", "journal_replaced") else ceiling
    return {
        "device": device.record["uuid"], "incarnation": incarnation, "reason": reason,
        "beginSeconds": seconds(begin_ns - begin["ns"]), "endSeconds": seconds(end_ns - begin["ns"]),
        "seconds": seconds(end_ns - begin_ns), "ceiling": None if ceiling is None else str(ceiling),
    }  # fmt: skip


def _energy(devices: list[Rated]) -> str | None:
    known = [device.tally["energy_mj"] for device in devices if "energy_mj" in device.tally]
    return f"{sum(known) // 1000}.{sum(known) % 1000:03d}" if known else None


def _uncounted(devices: list[Rated]) -> str:
    job = sum(device.span - device.gap_ns(*ELSEWHERE) for device in devices)
    return seconds(max(0, job - sum(device.tally.get("energy_ns", 0) for device in devices)))


def _devices(everything: list[Rated], operators: list[J]) -> J:
    found: J = {}
    for same in _by_uuid(everything):
        uuid = same[0].record["uuid"]
        counted = [row for row in operators if row["uuid"] == uuid]
        rows: dict[tuple[str, str, str, str], list[J]] = {}
        for row in (*(row for device in same for row in device.rows()), *counted):
            rows.setdefault(row["key"], []).append(row)
        found[uuid] = {
            "executed": said(add([*(device.total() for device in same), *(row["figures"] for row in counted)])),
            "integerOperations": said(add(device.total("integers") for device in same)),
            "energyJoules": _energy(same),
            "energyUncountedSeconds": _uncounted(same),
            "observedSeconds": seconds(sum(sum(d.tally["observed_ns"].values()) for d in same)),
            "gapSeconds": seconds(sum(d.gap_ns() for d in same)),
            "recoveredSeconds": seconds(sum(sum(d.tally.get("recovered_ns", {}).values()) for d in same)),
            "spanSeconds": seconds(sum(d.span for d in same)),
            "work": [
                {
                    "phase": key[0], "evidence": key[1], "pipe": key[2] or None, "precision": key[3],
                    "smCycles": str(sum(row["cycles"] for row in rows[key])),
                    "seconds": seconds(sum(row["ns"] for row in rows[key])),
                    "flop": said(add(row["figures"] for row in rows[key])),
                    "integerOperations": said(add(row["integers"] for row in rows[key])),
                    "clockUncertaintyFlop": str(sum(row["doubt"] for row in rows[key])),
                }
                for key in sorted(rows)
            ],
        }  # fmt: skip
    return found


def _by_uuid(everything: list[Rated]) -> list[list[Rated]]:
    uids = {device.record["uuid"] for device in everything}
    return [[device for device in everything if device.record["uuid"] == uid] for uid in uids]


def _compared(same: list[Rated]) -> list[tuple[Any, ...]]:
    """A device whose energy and work are comparable: part, format, published ends; mJ, ns, FLOP and their doubt."""
    tallies = [device.tally for device in same]
    job = sum(device.span - device.gap_ns(*ELSEWHERE) for device in same)
    of_energy = sum(tally.get("energy_ns", 0) for tally in tallies)
    of_work = sum(
        tally.get(kind, {}).get(name, 0) for tally in tallies for kind in ("observed_ns", "recovered_ns")
        for name in ("cycles", "activity")
    )  # fmt: skip
    unread = any(ns for tally in tallies for pipe, ns in tally.get("unread_ns", {}).items() if pipe[:6] == "tensor")
    if unread or (2 * job - of_energy - of_work) * 100 > job or len({str(device.row) for device in same}) > 1:
        return []
    rows = [
        row for device in same for row in device.rows() if row["key"][1] in ("cycles", "activity") and row["cycles"]
    ]
    formats: dict[str, int] = {}
    for row in rows:
        if row["key"][2][:6] == "tensor":
            name = row["key"][3].replace("undeclared", "bf16")
            formats[name] = formats.get(name, 0) + row["cycles"]
    flop = [row["figures"][1] for row in rows]
    known = [name for name in formats if (sum(formats.values()) - formats[name]) * 100 <= sum(formats.values())]
    published = ((same[0].row or {}).get("energy") or {}).get(known[0]) if len(known) == 1 else None
    energies = [tally["energy_mj"] for tally in tallies if "energy_mj" in tally]
    if not published or not energies or None in flop or not sum(flop):
        return []
    doubt = sum(row["doubt"] - (-row["figures"][1] * row["margin"] // M) for row in rows)
    ends = published["low_fj_per_flop"], published["high_fj_per_flop"]
    return [(same[0].record["peak_row"], known[0], *ends, sum(energies), job, sum(flop), doubt)]


def energy_said(compared: list[tuple[Any, ...]]) -> list[J]:
    """Sums for each object of comparison, as in a ledger."""
    found = []
    for key in sorted({one[:4] for one in compared}):
        mj, ns, flop, doubt = (sum(one[at] for one in compared if one[:4] == key) for at in range(4, 8))
        fj = mj * 10**12
        low, high = fj // (flop + doubt), -(-fj // (flop - doubt)) if flop > doubt else None
        above, below = low > key[3], high is not None and high < key[2]
        warning = "ENERGY_ABOVE_PUBLISHED_RUNS" if above else "ENERGY_BELOW_PUBLISHED_RUNS" if below else None
        found.append(
            {
                "name": "energy/executed", "part": key[0], "precision": key[1],
                "publishedFjPerFlop": {"low": str(key[2]), "high": str(key[3])},
                "deviceSeconds": seconds(ns), "energyJoules": f"{mj // 1000}.{mj % 1000:03d}",
                "measuredFlop": str(flop), "doubtFlop": str(doubt), "fjPerFlop": said((low, fj // flop, high)),
                "withinMargin": warning is None, "warning": warning,
            }
        )  # fmt: skip
    return found


def _counted(predicate: J) -> J:
    given = predicate["totals"]["guidelines"]
    names = (
        "low", "measured", "high", "cumulative", "requiredPpm", "operatorCount", "asClaimed", "method",
        "requiredPpmSource",
    )  # fmt: skip
    return {name: given[name] for name in names}


def required(
    settings: J, method: str | None, how: str | None, trained: Any = None, operators: int | None = None, *,
    counts_fused: bool = False,
) -> Shares:  # fmt: skip
    """l, s and h. `trained`: training according to the model's terms; `operators`: s by the count of operators."""
    stated = M if how == "none" else None
    if how == "full":
        stated = {"pretraining": 750_000, "full": 750_000, "lora": 666_667, "qlora": 666_667}.get(str(method))
    if stated is not None and trained is not None:
        stated = min(M, trained[0][1] * M // trained[1][1])
    if operators is not None and settings.get("recomputation") in (None, "selective"):
        stated = operators
    return 857_142 if settings.get("recomputation") == "none" and not counts_fused else 666_666, stated, M


def guidelines(phases: dict[str, Any], shares: Shares) -> J:
    """Training less recomputation; `high` includes all that may count."""
    least, stated, _ = shares
    low, measured, high = phases.get("train", (0, None, 0))
    generated = phases.get("generate", (0, None, 0))
    highs = [high, *(phases[p][2] for p in ("generate", "other", "undeclared") if p in phases)]
    counts = None if measured is None or stated is None else measured * stated // M
    most = None if None in highs else sum(highs)
    low = low * least // M
    both = counts
    if generated[1] is not None:
        both = None if "train" in phases and counts is None else (counts or 0) + generated[1]
    elif generated[2] != 0:
        both = None
    beside = sum(phases[p][1] or 0 for p in ("other", "undeclared") if p in phases)
    counts, both = (None if m is None or beside * M > m * 300_000 else m for m in (counts, both))
    return {**said((low, counts, most)), "cumulative": said((low + generated[0], both, most))}


def earlier_seals(records: list[J]) -> J:
    listed = [record for record in records if record["kind"] == "sealed"]
    names = {"payloadSha256": "payload_sha256", "headSha256": "head_sha256", "bytes": "bytes", "sealedAt": "utc"}
    newest = {name: str(listed[-1][key]) for name, key in names.items()} if listed else None
    return {"count": str(len(listed)), "newest": newest}


def fork(one: Path, other: Path) -> int | None:
    """The last common record of two journals, if neither begins with the other."""
    mine, its = (path.read_bytes().splitlines() for path in (one, other))
    same = [a == b for a, b in zip(mine, its, strict=False)]
    return None if all(same) else same.index(False)

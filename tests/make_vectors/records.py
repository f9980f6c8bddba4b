"""Vectors of journals that break one rule of docs/ledger-journal.md, with a valid chain and signature.

The statement is the one that follows from the broken journal, as far as one follows: the second implementation
computes it without its laws. An implementation that omits the law therefore accepts the ledger.
"""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from flopsd.core.ledger.statement import encode
from tests.make_vectors import runs
from tests.make_vectors.edits import DROP, edits, facts, in_last_tally, put
from tests.make_vectors.files import Files, claimed, facts_of, listing, parsed, signed, statement_of, vector
from tests.make_vectors.merged import segments
from tests.second_implementation.ledger import run_of
from tests.second_implementation.statement import LeftOut, predicate_of_node
from tests.second_implementation.verify import read_yaml
from tests.support.columns import by_device, in_columns
from tests.support.story import PEAKS, POLICY, chain, tell

J = dict[str, Any]
# Name, description, code (None: to be accepted), clause, record, base, edit.
Case = tuple[str, str, str | None, str | None, int | None, str, Callable[[list[J]], object]]


# Each note of a daemon start.
RECOVERED: list[J] = [
    {"code": "line_invalid", "refusal": "journal_frame", "line": "5"}, {"code": "tail_not_known"},
    {"code": "not_continued", "refusal": "law_4", "line": "7"}, {"code": "journal_replaced", "records": "4", "head": "ab" * 32},
    {"code": "journal_missing"},
    {"code": "restored", "ledger": "a.json", "records": "9", "sealed": "8"},
    {"code": "restored_unsealed", "ledger": "a.json", "records": "9"}, {"code": "time_not_known", "seconds": "40.000000000"},
]  # fmt: skip


def _recovered(*reasons: object, **more: object) -> J:
    return {"cutBytes": "7", "cutSha256": "cd" * 32, "reasons": list(reasons), "keptAs": None, **more}


@edits
def _session(records: list[J], /, **changes: Any) -> None:
    for record in records:
        for session in record.get("sessions", ()):
            session.update(changes)
            return


@edits
def _second_process(records: list[J], /, **changes: Any) -> None:
    one = {"id": "ab" * 16, "pid": 7, "uid": 1000, "client": "0.1.0", "facts": {}}
    both = (one, {**one, **changes})
    records[3:3] = [{"kind": "declaration", "incarnation": 1, "sessions": [session]} for session in both]


@edits
def _work(records: list[J], /, **changes: Any) -> None:
    worked = [one for record in records for one in record.get("sessions", ()) if one.get("work")]
    worked[0]["work"].update(changes)


@edits
def _seen(records: list[J], /, **changes: Any) -> None:
    """Set counters in the last record that has any, so that no later one falls below them. A counter to be dropped
    is dropped in all records."""
    worked = [one["work"]["train"] for record in records for one in record.get("sessions", ()) if one.get("work")]
    worked[-1].update({name: value for name, value in changes.items() if value is not DROP})
    for name in (name for name, value in changes.items() if value is DROP):
        for one in worked:
            one.pop(name, None)


@edits
def _gap(records: list[J], number: int, *, move: int = 0, grow: int = 0) -> None:
    """Move or lengthen the first gap of a device, but not its totals."""
    gaps = [gap for record in records for gap in record.get("gaps", ()) if gap[0] == number]
    gaps[0][1] += move
    gaps[0][2] += move + grow


def _split(records: list[J]) -> None:
    """Two gaps in place of one, which overlap by a nanosecond and have the same sum."""
    record = next(record for record in records if any(gap[3] == "driver_timeout" for gap in record.get("gaps", ())))
    at, gap = next((at, gap) for at, gap in enumerate(record["gaps"]) if gap[3] == "driver_timeout")
    number, begin, end, reason = gap
    middle = (begin + end) // 2
    record["gaps"][at : at + 1] = [[number, begin, middle, reason], [number, middle - 1, end - 1, reason]]


@edits
def _two_incarnations(records: list[J], /, **changes: Any) -> None:
    second = [record for record in records if record["kind"] == "begin"][1]
    second.update(changes)


@edits
def _all_tallies(records: list[J], edit: Callable[[J], object]) -> None:
    for record in records:
        if record["kind"] == "checkpoint":
            edit(record["devices"][0])


def _more_time(records: list[J]) -> None:
    """One share of a phase has less time than was observed in it."""
    shares = [d["phases"] for r in records if r["kind"] == "checkpoint" for d in r["devices"] if d.get("phases")]
    for phases in shares:
        next(iter(phases.values()))["to_ns"] -= 1


M = "record_malformed"
CASES: list[Case] = [
    ("begin-without-wall-clock", "`begin` has no `wall_ns`.", M, "REC-11", 1, "small", put(0, "wall_ns", value=DROP)),
    ("begin-without-boot", "`boot_id` is a number.", M, "REC-11", 1, "small", put(0, "boot_id", value=7)),
    ("begin-at-no-time", "`ns` of `begin` is true, which is not an integer.", M, "REC-12", 1, "small", put(0, "ns", value=True)),
    ("begin-with-a-checkpoint-of-less-than-none", "`checkpoint_ns` is below zero.", M, "REC-12", 1, "small", put(0, "checkpoint_ns", value=-1)),
    ("begin-of-an-unknown-phase", "The settings declare a phase that there is not.", M, "DECL-3", 1, "small", put(0, "declared", "phase", value="rest")),
    ("begin-of-an-unknown-method", "The settings declare a method that there is not.", M, "REC-13", 1, "small", put(0, "declared", "method", value="magic")),
    ("begin-of-an-unknown-recomputation", "The settings declare a recomputation that there is not.", M, "REC-13", 1, "small", put(0, "declared", "recomputation", value="some")),
    ("begin-without-recomputation", "`declared` has no member `recomputation`.", M, "REC-11", 1, "small", put(0, "declared", "recomputation", value=DROP)),
    ("base-of-an-unknown-kind", "The base model is `guessed`.", M, "REC-14", 1, "phases", put(0, "declared", "base", "kind", value="guessed")),
    ("base-known-without-flop", "The base model is known and has no `flop`.", M, "REC-14", 1, "phases", put(0, "declared", "base", "flop", value=None)),
    ("base-known-by-a-method", "The base model is known, by the method of an estimate.", M, "REC-14", 1, "phases", put(0, "declared", "base", "method", value="6 x parameters x tokens")),
    ("base-with-a-flop-that-is-none", "`flop` of the base model has a leading zero.", M, "REC-14", 1, "phases", put(0, "declared", "base", "flop", value="070000000000000")),
    ("base-that-may-be-systemic", "`systemic` of the base model is a text.", M, "REC-14", 1, "phases", put(0, "declared", "base", "systemic", value="yes")),
    ("isolation-with-another-member", "`isolation` has one member too many.", M, "ISO-1", 1, "small", put(0, "isolation", "sandbox", value=True)),
    ("isolation-of-an-unknown-start", "`continues` of `isolation` is none of its values.", M, "ISO-1", 1, "small", put(0, "isolation", "continues", value="luck")),
    ("isolation-that-is-a-number", "`files_private` of `isolation` is 1.", M, "ISO-1", 1, "small", put(0, "isolation", "files_private", value=1)),
    ("isolation-of-no-user", "`daemon_user` is below zero.", M, "ISO-1", 1, "small", put(0, "isolation", "daemon_user", value=-1)),
    ("context-without-attempt", "`context` has no `attempt`.", "law_14", "LAW-14", 1, "small", put(0, "context", "attempt", value=DROP)),
    ("context-with-another-member", "`context.run` has one member too many.", "law_14", "LAW-14", 1, "small", put(0, "context", "run", "queue", value="x")),
    ("context-of-a-cluster", "`context` has one member too many.", "law_14", "LAW-14", 1, "small", put(0, "context", "cluster", value="x")),
    ("context-with-a-gpu-of-the-node", "`context.node` has one member too many.", "law_14", "LAW-14", 1, "small", put(0, "context", "node", "gpu", value="x")),
    ("context-with-nodes-in-one-text", "`jobNodes` is a text.", "law_14", "LAW-14", 1, "small", put(0, "context", "node", "jobNodes", value="node-0")),
    ("context-with-a-node-by-number", "A node of `jobNodes` is a number.", "law_14", "LAW-14", 1, "small", put(0, "context", "node", "jobNodes", value=[7])),
    ("context-with-an-attempt-by-number", "`attempt` is a number.", "law_14", "LAW-14", 1, "small", put(0, "context", "attempt", value=7)),
    ("context-with-an-instance-by-number", "`instanceType` is a number.", "law_14", "LAW-14", 1, "small", put(0, "context", "node", "instanceType", value=7)),
    ("context-with-a-job-by-number", "`jobName` is a number.", "law_14", "LAW-14", 1, "small", put(0, "context", "run", "jobName", value=7)),
    ("context-with-a-rank-as-text", "`rank` is a text.", "law_14", "LAW-14", 1, "small", put(0, "context", "node", "rank", value="0")),
    ("context-without-platform", "`platform` is null, which can be known.", "law_14", "LAW-14", 1, "small", put(0, "context", "run", "platform", value=None)),
    ("begin-that-is-number-two", "The first `begin` is of incarnation 2.", "law_1", "LAW-1", 1, "small", lambda r: [one.update(incarnation=2) for one in r]),
    ("record-of-another-incarnation", "A record has the number of another incarnation.", "law_1", "LAW-1", 2, "small", put(1, "incarnation", value=2)),
    ("record-of-incarnation-true", "`incarnation` of a record is true, which is not an integer.", M, "REC-12", 2, "small", put(1, "incarnation", value=True)),
    ("begin-of-the-same-number", "A second `begin` has the number of the first.", "law_1", "LAW-1", 7, "small", lambda r: r.append({**r[0], "ns": r[5]["ns"], "boot_id": "another boot"})),
    ("no-begin", "The first record is not a `begin`.", "law_1", "LAW-1", 1, "small", lambda r: r.insert(0, r[1])),
    ("second-begin-of-another-run", "The second incarnation is of another run.", "law_1", "LAW-1", 8, "activity", _two_incarnations(run="another")),
    ("second-begin-of-another-node", "The second incarnation is of another node.", "law_1", "LAW-1", 8, "activity", _two_incarnations(node="node-9")),
    ("second-begin-with-another-table", "The second incarnation names another peak table.", "law_1", "LAW-1", None, "activity", _two_incarnations(peak_table_sha256="ab" * 32)),
    ("second-begin-that-continues", "The second `begin` continues another journal.", "law_1", "LAW-1", 8, "activity", _two_incarnations(continues={"segment": 1})),
    ("records-behind-a-rotated-end", "A `begin` follows an end as `rotated`.", "law_1", "LAW-1", 7, "small", lambda r: r.__setitem__(slice(5, 6), [{**r[5], "reason": "rotated"}, {**r[0], "incarnation": 2}])),
    ("source-without-a-name", "`source` has no name.", M, "REC-3", 2, "small", put(1, "name", value=None)),
    ("source-with-facts-in-a-list", "`facts` of `source` is a list.", M, "REC-3", 2, "small", put(1, "facts", value=[["replay", None]])),
    ("device-without-evidence-fix", "`device` has no `evidence_fix`.", M, "REC-11", 3, "small", put(2, "evidence_fix", value=DROP)),
    ("device-without-a-source", "`source` of `device` is null.", M, "REC-11", 3, "small", put(2, "source", value=None)),
    ("device-with-an-index-below-zero", "`index` of `device` is below zero.", M, "REC-12", 3, "small", put(2, "index", value=-1)),
    ("device-with-a-clock-as-text", "`sm_clock_max_mhz` of `device` is a text.", M, "REC-12", 3, "small", put(2, "sm_clock_max_mhz", value="1980")),
    ("device-of-a-vendor-that-is-none", "`vendor` of `device` is a number.", M, "REC-11", 3, "small", put(2, "vendor", value=1)),
    ("device-of-a-name-by-number", "`uuid` of `device` is a number.", M, "REC-11", 3, "small", put(2, "uuid", value=7)),
    ("device-with-a-parent-that-is-none", "`parent` of `device` is a number.", M, "REC-11", 3, "small", put(2, "parent", value=1)),
    ("device-with-a-serial-that-is-none", "`serial` of `device` is a number.", M, "REC-11", 3, "small", put(2, "serial", value=1650000000001)),
    ("device-shared-with-a-number", "`shared_with` of `device` is a number.", M, "REC-11", 3, "small", put(2, "shared_with", value=2)),
    ("device-of-unknown-evidence", "`evidence` of `device` is none of its values.", M, "LAW-2", 3, "small", put(2, "evidence", value="hearsay")),
    ("device-read-by-operator-count", "`evidence` of `device` is `operator_count`, which no device has.", M, "LAW-2", 3, "small", put(2, "evidence", value="operator_count")),
    ("device-with-a-precision-of-nobody", "`precision` of `device` names nobody.", M, "REC-10", 3, "small", put(2, "precision", value={"shares_ppm": {"bf16": 10**6}})),
    ("device-with-shares-as-text", "A share of `precision` is a text.", M, "REC-10", 3, "small", put(2, "precision", value={"shares_ppm": {"bf16": "1000000"}, "declared_by": "config"})),
    ("device-number-one-alone", "The first device has number 1.", "law_3", "LAW-3", 3, "small", put(2, "number", value=1)),
    ("device-twice", "A device is there twice in one incarnation.", "law_3", "LAW-3", 4, "small", lambda r: r.insert(3, {**r[2], "number": 1})),
    ("devices-out-of-order", "A checkpoint has its devices in another order.", "law_3", "LAW-3", 5, "activity", lambda r: r[4]["devices"].reverse()),
    ("device-twice-in-a-checkpoint", "A checkpoint has a device twice.", "law_3", "LAW-3", 4, "small", lambda r: r[3].update(devices=r[3]["devices"] * 2)),
    ("device-by-false-in-a-checkpoint", "A checkpoint names its device by false, which is not an integer.", M, "REC-12", 4, "small", lambda r: r[3]["devices"][0].update(number=False)),
    ("device-that-is-not-there", "A checkpoint is of a device that no record has.", M, "REC-6", 4, "small", lambda r: r[3]["devices"][0].update(number=1)),
    ("device-with-cycles", "A `device` record counts cycles.", "law_12", "LAW-12", 3, "small", put(2, "sm_cycles", value={"activity": {"fp32": 1}})),
    ("device-with-energy-of-nothing", "A `device` record has an energy of 0, and so a counter.", "law_12", "LAW-12", 3, "small", put(2, "energy_mj", value=0)),
    ("device-with-a-count", "A `device` record counts FLOP.", "law_12", "LAW-12", 3, "small", put(2, "counted_flop", value=1)),
    ("device-before-the-first-begin", "A device is counted from a nanosecond before the first `begin`.", "law_12", "LAW-12", 3, "small", lambda r: (r[2].update(to_ns=r[2]["to_ns"] - 1), r[3]["devices"][0].update(gap_ns={"starting": 1}), r[3].update(gaps=[[0, r[2]["to_ns"], r[2]["to_ns"] + 1, "starting"]]), r[4]["devices"][0].update(gap_ns={"starting": 1}))),
    ("tally-without-a-time", "A tally has no `to_ns`.", M, "TALLY-3", 4, "small", lambda r: r[3]["devices"][0].pop("to_ns")),
    ("tally-of-unknown-evidence", "A tally has observed time of an evidence that there is not.", M, "LAW-2", 4, "small", lambda r: r[3]["devices"][0].update(observed_ns={"hearsay": 5 * 10**9})),
    ("tally-observed-by-gap", "A tally has observed time of evidence `gap`, which is one of rows.", M, "LAW-2", 4, "small", _all_tallies(lambda t: t.update(observed_ns={"gap": t["observed_ns"].pop("activity")}))),
    ("tally-of-an-unknown-pipe", "A tally has cycles of a pipe that there is not.", M, "LAW-2", 4, "small", lambda r: r[3]["devices"][0]["sm_cycles"]["activity"].update(fp8=1)),
    ("tally-with-cycles-as-text", "Cycles are a text.", M, "LAW-2", 4, "small", lambda r: r[3]["devices"][0]["sm_cycles"]["activity"].update(fp32="1")),
    ("tally-with-counters-below-zero", "A counter is below zero.", M, "LAW-2", 4, "small", lambda r: r[3]["devices"][0].update(counters={"energy_mj": -1})),
    ("tally-with-energy-below-zero", "`energy_mj` is below zero.", M, "LAW-2", 4, "small", lambda r: r[3]["devices"][0].update(energy_mj=-1)),
    ("tally-with-two-origins", "`running` has two origins.", M, "TALLY-18", 4, "cycles", lambda r: r[3]["devices"][0]["running"].update(other=next(iter(r[3]["devices"][0]["running"].values())))),
    ("tally-running-on-an-unknown-pipe", "`running` has a pipe that there is not.", M, "LAW-2", 4, "cycles", lambda r: next(iter(r[3]["devices"][0]["running"].values())).update(fp8=1)),
    ("tally-running-without-elapsed", "`running` has no `elapsed`.", M, "TALLY-18", 4, "cycles", lambda r: next(iter(r[3]["devices"][0]["running"].values())).pop("elapsed")),
    ("share-of-an-unknown-phase", "A tally has a share of a phase that there is not.", M, "TALLY-17", None, "lying", lambda r: _rename(r, "train@tf32", "rest@tf32")),
    ("share-of-a-format-that-is-none", "A share's format is none.", M, "TALLY-17", None, "lying", lambda r: _rename(r, "train@tf32", "train@fp99")),
    ("share-of-half-a-format", "The shares of a share's format are not a whole.", M, "TALLY-17", None, "lying", lambda r: _rename(r, "train@tf32", "train@bf16:0.5,tf32:0.4")),
    ("share-with-counters", "A share of a phase has `counters`.", M, "TALLY-17", None, "lying", lambda r: [s.update(counters={"x": 1}) for s in _shares(r)]),
    ("column-too-short", "A column has fewer values than there are devices.", M, "TALLY-2", None, "columns", lambda r: next(c for c in r if c["kind"] == "checkpoint")["tallies"].update(energy_ns=[0])),
    ("column-too-long", "A column has more values than there are devices.", M, "TALLY-2", 4, "nested", lambda r: r[3]["tallies"].update(energy_ns=[0, 0])),
    ("observed-time-that-falls", "Observed time falls by what a gap grows by.", "law_4", "LAW-4", 5, "small", lambda r: _moved(r)),
    ("time-accounted-for-that-falls", "`to_ns` falls.", "law_4", "LAW-4", 5, "small", lambda r: (r[4]["devices"][0].update(to_ns=r[3]["devices"][0]["to_ns"] - 1, observed_ns={"activity": r[3]["devices"][0]["observed_ns"]["activity"] - 1}))),
    ("energy-that-falls", "`energy_mj` falls.", "law_4", "LAW-4", 5, "small", lambda r: r[3]["devices"][0].update(energy_mj=10**6)),
    ("energy-that-is-gone", "`energy_mj` is there no more.", "law_4", "LAW-4", 5, "small", lambda r: r[4]["devices"][0].pop("energy_mj")),
    ("time-of-energy-that-falls", "`energy_ns` falls.", "law_4", "LAW-4", 5, "small", lambda r: r[3]["devices"][0].update(energy_ns=6 * 10**9)),
    ("uncertainty-that-falls", "`uncertainty_sm_cycles` falls.", "law_4", "LAW-4", 5, "small", lambda r: r[3]["devices"][0].update(uncertainty_sm_cycles={"activity": {"fp32": 5}})),
    ("squares-that-fall", "`square_sum` falls.", "law_4", "LAW-4", 5, "small", lambda r: r[3]["devices"][0].update(square_sum={"activity": {"fp32": 5}})),
    ("unread-time-that-falls", "`unread_ns` falls.", "law_4", "LAW-4", 5, "small", lambda r: r[3]["devices"][0].update(unread_ns={"fp16": 5})),
    ("busy-cycles-that-fall", "`busy_sm_cycles` falls.", "law_4", "LAW-4", 5, "small", lambda r: r[3]["devices"][0].update(busy_sm_cycles=5)),
    ("count-that-falls", "`counted_flop` falls.", "law_4", "LAW-4", 5, "small", lambda r: r[3]["devices"][0].update(counted_flop=5)),
    ("recovered-time-that-falls", "`recovered_ns` falls.", "law_4", "LAW-4", 5, "small", lambda r: r[3]["devices"][0].update(recovered_ns={"activity": 5})),
    ("counting-while-time-stands", "Cycles grow while `to_ns` stands.", "law_4", "LAW-4", 5, "small", lambda r: r[4]["devices"][0].update(to_ns=r[3]["devices"][0]["to_ns"], observed_ns=dict(r[3]["devices"][0]["observed_ns"]))),
    ("share-that-is-gone", "A share of a phase is there no more.", "law_4", "LAW-9", None, "lying", lambda r: _gone(r)),
    ("share-with-more-time-than-it-has", "A share of a phase has less observed time than span.", "law_5", "LAW-9", None, "lying", _more_time),
    ("share-with-shares", "A share of a phase has shares of its own.", M, "TALLY-17", None, "lying", lambda r: [s.update(phases={"train": {"to_ns": 0}}) for s in _shares(r)]),
    ("share-with-more-than-there-is", "A share of a phase has busy cycles, and the tally has none.", "law_9", "LAW-9", None, "lying", lambda r: [s.update(busy_sm_cycles=1) for s in _shares(r)]),
    ("gap-before-the-device", "A gap begins before its device is counted.", "law_6", "LAW-6", None, "activity", _gap(0, move=-10**12)),
    ("gap-behind-the-checkpoint", "A gap ends after the time that its device is accounted for.", "law_6", "LAW-6", None, "activity", _gap(0, move=10**12)),
    ("gaps-that-overlap", "Two gaps of a device overlap by a nanosecond.", "law_6", "LAW-6", None, "activity", _split),
    ("gap-of-another-length", "A gap is a nanosecond longer than its total grew.", "law_6", "LAW-6", None, "activity", _gap(0, grow=-1)),
    ("gap-of-nothing", "An empty gap is listed.", "law_6", "LAW-6", 4, "small", lambda r: r[3]["gaps"].append([0, r[2]["to_ns"] + 5, r[2]["to_ns"] + 5, "stale"])),
    ("gap-that-is-not-listed", "A gap grew and is not listed.", "law_6", "LAW-6", None, "activity", lambda r: next(c for c in r if c.get("gaps"))["gaps"].clear()),
    ("cycles-a-little-too-many", "One cycle more than there can have been.", "law_8", "LAW-8", None, "small", lambda r: _cycles(r, 1)),
    ("recovered-more-than-a-gap", "More time was recovered than there were gaps.", "law_11", "LAW-11", None, "small", _all_tallies(lambda t: t.update(recovered_ns={"activity": 1}))),
    ("energy-of-a-nanosecond-too-much", "`energy_ns` is a nanosecond more than the span.", "law_11", "LAW-11", None, "small", in_last_tally(lambda t: t.update(energy_ns=6 * 10**9 + 1))),
    ("row-that-is-not-in-the-table", "The journal rates a device by a row that the table does not have.", "peak_row_unknown", "PEAK-5", None, "small", put(2, "peak_row", value="h999")),
    ("ahead-by-a-nanosecond-too-much", "A tally is 1 000 000 001 ns ahead of its checkpoint.", "law_13", "LAW-13", 4, "small", lambda r: r[3].update(ns=r[3]["devices"][0]["to_ns"] - 10**9 - 1)),
    ("evidence-before-its-checkpoint", "An `evidence` record is of a time before the checkpoint ahead of it.", "law_13", "LAW-13", 5, "small", lambda r: r.insert(4, {"kind": "evidence", "incarnation": 1, "number": 0, "ns": r[3]["ns"] - 1, **{n: r[2][n] for n in ("source", "evidence", "evidence_reason", "evidence_fix", "shared_with")}})),
    ("evidence-of-no-device", "An `evidence` record is of a device that no record has.", M, "REC-5", 4, "small", lambda r: r.insert(3, {"kind": "evidence", "incarnation": 1, "number": 1, "ns": r[3]["ns"], **{n: r[2][n] for n in ("source", "evidence", "evidence_reason", "evidence_fix", "shared_with")}})),
    ("evidence-of-a-numbered-source", "The `source` of an `evidence` record is a number.", M, "REC-5", 4, "small", lambda r: r.insert(3, {"kind": "evidence", "incarnation": 1, "number": 0, "ns": r[3]["ns"], **{n: r[2][n] for n in ("evidence", "evidence_reason", "evidence_fix", "shared_with")}, "source": 2})),
    ("identity-of-a-rated-device", "A device that has a row is identified anew.", M, "REC-5", 4, "small", lambda r: r.insert(3, {"kind": "evidence", "incarnation": 1, "number": 0, "ns": r[3]["ns"], **{n: r[2][n] for n in ("source", "evidence", "evidence_reason", "evidence_fix", "shared_with")}, "identity": {n: r[2][n] for n in ("model", "serial", "pci_bus_id", "pci_device_id", "sm_count", "sm_clock_max_mhz", "driver", "peak_row", "precision")}})),
    ("end-before-its-checkpoint", "`end` is a nanosecond before the last checkpoint.", "law_13", "LAW-13", 6, "small", lambda r: r[5].update(ns=r[4]["ns"] - 1)),
    ("end-for-no-known-reason", "The `reason` of `end` is none of its codes.", M, "NOTE-29", 6, "small", put(5, "reason", value="tired")),
    ("recovered-for-no-reason", "`recovered` has no reasons.", M, "REC-15", 1, "small", put(0, "recovered", value=_recovered())),
    ("recovered-for-a-sentence", "A reason of `recovered` is a text.", M, "REC-15", 1, "small", put(0, "recovered", value=_recovered("it was cut"))),
    ("recovered-for-no-known-reason", "The code of a reason of `recovered` is none of its codes.", M, "NOTE-28", 1, "small", put(0, "recovered", value=_recovered({"code": "lost"}))),
    ("recovered-without-a-line", "A reason of `recovered` lacks a parameter.", M, "NOTE-28", 1, "small", put(0, "recovered", value=_recovered({"code": "line_invalid", "refusal": "journal_frame"}))),
    ("recovered-with-a-line-as-number", "A parameter of a reason of `recovered` is a number.", M, "REC-15", 1, "small", put(0, "recovered", value=_recovered({"code": "line_invalid", "refusal": "journal_frame", "line": 5}))),
    ("recovered-with-bytes-as-number", "`cutBytes` of `recovered` is a number.", M, "REC-15", 1, "small", put(0, "recovered", value=_recovered(*RECOVERED, cutBytes=7))),
    ("end-without-a-reason", "`end` has no reason.", M, "REC-9", 6, "small", put(5, "reason", value=DROP)),
    ("session-of-two-processes", "One `id` is of two processes.", "law_10", "LAW-10", 5, "small", _second_process(pid=8)),
    ("session-of-two-users", "One `id` is of two users.", "law_10", "LAW-10", 5, "small", _second_process(uid=1001)),
    ("session-of-two-clients", "One `id` is of two versions of the client.", "law_10", "LAW-10", 5, "small", _second_process(client="0.0.1")),
    ("session-of-a-number", "`id` of a session is a number.", M, "REC-7", None, "lying", _session(id=7)),
    ("session-of-no-user", "`uid` of a session is below zero.", M, "REC-12", None, "lying", _session(uid=-1)),
    ("fact-of-no-name", "A session declares a fact that there is not.", "law_10", "LAW-10", None, "lying", facts(mood="good")),
    ("fact-of-another-method", "A session declares a method that there is not.", "law_10", "LAW-10", None, "lying", facts(method="magic")),
    ("fact-of-a-role-that-is-none", "A session declares a role that there is not.", "law_10", "LAW-10", None, "lying", facts(role="spare")),
    ("fact-of-parameters-below-zero", "A session declares fewer parameters than none.", "law_10", "LAW-10", None, "lying", facts(parameters_total=-1)),
    ("fact-of-half-a-precision", "The shares of a declared format are not a million.", "law_10", "LAW-10", None, "lying", facts(precision={"bf16": 500000})),
    ("fact-of-adapters-of-another-member", "A session declares LoRA with a member that there is not.", "law_10", "LAW-10", None, "lying", facts(lora={"r": 1, "alpha": 2})),
    ("fact-not-counted-in-one-text", "What is not counted is a text.", "law_10", "LAW-10", None, "lying", facts(not_counted={"train": "a judge"})),
    ("segment-before-of-number-none", "The segment before has number 0.", M, "SEG-1", 1, "middle", put(0, "continues", "segment", value=0)),
    ("segment-before-of-no-digest", "The segment before has no SHA-256.", M, "SEG-1", 1, "middle", put(0, "continues", "sha256", value="0")),
    ("segment-before-with-more", "What is continued has one member too many.", M, "SEG-1", 1, "middle", put(0, "continues", "more", value=1)),
    ("fact-of-adapters-of-no-rank", "A session declares LoRA without `r`.", "law_10", "LAW-10", None, "lying", facts(lora={"target_modules": []})),
    ("work-of-an-unknown-counter", "A session counts something that there is not.", "law_10", "LAW-10", None, "phases", _work(train={"naps": 1})),
    ("work-in-an-unknown-phase", "A session counts in a phase that there is not.", "law_10", "LAW-10", None, "phases", _work(rest={"tokens": 1})),
    ("work-below-zero", "A counter of a session is below zero.", "law_10", "LAW-10", None, "phases", _work(train={"tokens": -1})),
    ("work-that-falls", "A counter of a session falls.", "law_10", "LAW-10", None, "phases", lambda r: _fallen(r)),
    ("kernels-beyond-their-windows", "A process saw more kernel time than 128 kernels at once in its windows.", "law_10", "LAW-10", None, "windows", _seen(kernel_ns_vector=128 * 120 * 10**6)),
    ("kernels-that-were-not-launched", "A class of kernels has time, and no launches.", "law_10", "LAW-10", None, "windows", _seen(kernel_ns_copy=1)),
    ("windows-that-were-none", "Windows have time, and there were none.", "law_10", "LAW-10", None, "windows", _seen(kernel_windows=DROP)),
    ("kernels-of-no-class", "Kernels are of a class that there is not.", "law_10", "LAW-10", None, "windows", _seen(kernel_ns_naps=1)),
    ("work-before-of-no-segment", "A session has counters of an earlier segment, and there is none.", "law_1", "LAW-1", None, "lying", _session(before={})),
    ("seal-of-a-byte-less", "A listed seal ends in the middle of a record.", "law_15", "LAW-15", 5, "seal", lambda r: r[4].update(bytes=r[4]["bytes"] - 1)),
    ("seal-at-no-time", "A listed seal has no time.", M, "REC-8", 5, "seal", put(4, "utc", value="yesterday")),
    ("seal-with-two-witnesses", "`witness` of a listed seal has two members.", M, "REC-8", 5, "seal", put(4, "witness", value={"token": "", "absent": ""})),
    ("seal-whose-witness-is-absent-for-a-sentence", "The reason of an absent `witness` is a text.", M, "REC-8", 5, "seal", put(4, "witness", value={"absent": "nobody answered"})),
    ("begin-without-an-interval", "`begin` has no `interval_ns`.", M, "REC-11", 1, "small", put(0, "interval_ns", value=DROP)),
    ("begin-with-settings-of-no-digest", "`config_sha256` is not a SHA-256.", M, "REC-12", 1, "small", put(0, "config_sha256", value="x")),
    ("begin-with-a-table-of-no-digest", "`peak_table_sha256` is not a SHA-256.", M, "REC-12", 1, "small", put(0, "peak_table_sha256", value="x")),
    ("begin-without-declared", "`begin` has no `declared`.", M, "REC-11", 1, "small", put(0, "declared", value=DROP)),
    ("begin-without-policies", "`begin` has no `policies`.", M, "REC-11", 1, "small", put(0, "policies", value=DROP)),
    ("begin-with-policies-in-an-object", "`policies` is an object.", M, "REC-11", 1, "small", put(0, "policies", value={})),
    ("begin-without-a-secret-or-none", "`begin` has no `code_secret_sha256`.", M, "REC-11", 1, "small", put(0, "code_secret_sha256", value=DROP)),
    ("begin-with-a-precision-of-nothing", "`precision` of `begin` is a text.", M, "REC-10", 1, "small", put(0, "precision", value="bf16")),
    ("source-of-a-recording-without-a-name", "`facts.replay` is an object without members.", M, "REC-3", 2, "small", put(1, "facts", "replay", value={})),
    ("end-without-an-exit-code-or-none", "`end` has no `child_exit_code`.", M, "REC-9", 6, "small", put(5, "child_exit_code", value=DROP)),
    ("end-with-an-exit-code-as-text", "`child_exit_code` is a text.", M, "REC-9", 6, "small", put(5, "child_exit_code", value="0")),
    ("device-with-a-number-as-text", "`number` of `device` is a text.", M, "REC-12", 3, "small", put(2, "number", value="0")),
    ("gaps-in-an-object", "`gaps` of a checkpoint is an object.", M, "REC-6", 4, "small", put(3, "gaps", value={})),
    ("seal-behind-the-end-of-all", "A listed seal ends behind every file.", "law_15", "LAW-15", 5, "seal", put(4, "bytes", value=10**39)),
    ("seal-of-no-payload", "`payload_sha256` of a listed seal is not a SHA-256.", M, "REC-8", 5, "seal", put(4, "payload_sha256", value="0")),
    ("time-that-is-none", "`utc` of the first record is of a 30 February.", "time_malformed", "NODE-50", None, "small", put(0, "utc", value="2026-02-30T14:13:20.000000Z")),
    ("policy-that-nobody-knows", "The journal names a policy that the reader does not have.", "policy_unknown", "VERIFY-6", None, "lying", put(0, "policies", value=[{"id": "x", "sha256": "ab" * 32}])),
    ("table-that-nobody-knows", "The journal names a peak table that the reader does not have.", "peak_table_unknown", "VERIFY-6", None, "small", put(0, "peak_table_sha256", value="ab" * 32)),
]  # fmt: skip


def _shares(records: list[J]) -> list[J]:
    return [
        share
        for record in records
        if record["kind"] == "checkpoint"
        for device in record["devices"]
        for share in device.get("phases", {}).values()
    ]


def _rename(records: list[J], old: str, new: str) -> None:
    for record in records:
        for device in record["devices"] if record["kind"] == "checkpoint" else ():
            if old in device.get("phases", {}):
                device["phases"][new] = device["phases"].pop(old)


def _gone(records: list[J]) -> None:
    last = [record for record in records if record["kind"] == "checkpoint"][-1]
    last["devices"][0].pop("phases")


def _moved(records: list[J]) -> None:
    """Time observed at first is a gap afterwards."""
    first, last = (record["devices"][0] for record in records[3:5])
    last["observed_ns"]["activity"] = first["observed_ns"]["activity"] - 1
    rest = last["to_ns"] - records[2]["to_ns"] - last["observed_ns"]["activity"]
    last["gap_ns"] = {"stale": rest}
    records[4]["gaps"] = [[0, last["to_ns"] - rest, last["to_ns"], "stale"]]


def _cycles(records: list[J], more: int) -> None:
    possible = -(-132 * 1980 * 6 * 10**9 // 1000)
    most = possible + possible * 10_000 // 10**6 + 1 + 6000
    records[4]["devices"][0]["sm_cycles"]["activity"]["fp64"] = most + more


def _fallen(records: list[J]) -> None:
    worked = [one for record in records for one in record.get("sessions", ()) if one.get("work")]
    phase, counters = next(iter(worked[0]["work"].items()))
    name, value = next(iter(counters.items()))
    at = max(at for at, record in enumerate(records) if record["kind"] == "checkpoint")
    less = [{**worked[0], "work": {phase: {name: value - 1}}}]
    records.insert(at + 1, {**records[at], "gaps": [], "sessions": less})


def journal_of(base: str) -> bytes:
    if base == "middle":
        return segments()[1].files["ledger-0002.journal.jsonl"]
    of = {"columns": "activity", "nested": "small"}.get(base, base)
    return listing(tell(runs.small)) if base == "seal" else tell(getattr(runs, of))


def ordered(one: Any, like: Any) -> Any:
    """Members in the order of `like`, and by name where that has none: the same bytes each time."""
    if isinstance(one, dict):
        known = list(like) if isinstance(like, dict) else []
        names = [name for name in known if name in one] + sorted(name for name in one if name not in known)
        return {name: ordered(one[name], like.get(name) if isinstance(like, dict) else None) for name in names}
    if isinstance(one, list):
        same = like if isinstance(like, list) and like else [None]
        return [ordered(part, same[min(at, len(same) - 1)]) for at, part in enumerate(one)]
    return one


def follows(journal: bytes, said: J) -> J:
    """The statement of a journal, whatever law it breaks; `said` over it where none follows."""
    records = [json.loads(line.body) for line in parsed(journal)]
    document = claimed(journal, said)
    facts = facts_of(journal)
    begins = [record for record in records if record["kind"] == "begin"]
    stated = {
        "peaks": begins[0]["peak_table_sha256"] if begins else "",
        "codes": ["not_checkable" for _ in begins],
        "secrets": [],
        "journal": {
            "sha256": facts.sha256,
            "bytes": str(facts.size_bytes),
            "records": str(facts.records),
            "headSha256": facts.head_sha256,
        },
    }
    table, policies = read_yaml(PEAKS.read_bytes()), []
    if said["predicate"]["method"]["policies"]:
        policies = [{**read_yaml(POLICY.read_bytes()), "sha256": said["predicate"]["method"]["policies"][0]["sha256"]}]
    try:
        run = run_of(records, table, said["predicate"]["method"]["sealedAt"])
        document["predicate"] = predicate_of_node(run, table, policies, stated, document, LeftOut(document))
        document = ordered(document, said)
        encode(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, AssertionError, StopIteration):
        document = claimed(journal, said)
    return document


def made_of(cases: Sequence[Case], prefix: str = "") -> Files:
    """The vectors of a table: each an edited journal, with the statement that follows from it."""
    files: Files = {}
    bases: dict[str, tuple[list[J], J]] = {}
    for name, what, code, clause, at, base, edit in cases:
        as_columns = base in ("columns", "nested")
        if base not in bases:
            journal = journal_of(base)
            records: list[J] = [dict(line.record()) for line in parsed(journal)]
            bases[base] = records if as_columns else by_device(records), statement_of(journal)
        records, said = copy.deepcopy(bases[base][0]), bases[base][1]
        edit(records)
        journal = chain(records if as_columns else in_columns(records))
        payload = encode(statement_of(journal) if code is None else follows(journal, said))
        full = f"{'valid' if code is None else 'invalid'}/{prefix}{name}"
        path = None if at is None else f"journal:{at}"
        files |= vector(full, what, signed(payload), journal, code, clause, path, schema=None)
    return files


def records_vectors() -> Files:
    files = made_of(CASES)
    noted = [dict(line.record()) for line in parsed(journal_of("small"))]
    noted[0]["recovered"] = _recovered(*RECOVERED, keptAs="damaged.journal.jsonl", more="a member that nobody knows")
    journal = chain(noted)
    what = "A daemon start noted all that one can find of the journal before, and a member that no clause names."
    files |= vector("valid/recovered-notes", what, statement_of(journal), journal)
    return files

"""Vectors at the edges of rules: just allowed beside just refused, ties, and orders that could be otherwise.

Those to be refused have the statement that follows without the law, as in `records.py`.
"""

import copy
import hashlib
from functools import partial
from typing import Any

from flopsd.core.ledger.statement import encode
from flopsd.journal.framing import GENESIS
from tests.make_vectors.edits import Edit, edits, of_starts, put, users
from tests.make_vectors.files import Files, parsed, signed, statement_of, vector
from tests.make_vectors.records import Case, journal_of, made_of
from tests.make_vectors.rows import last_tally
from tests.support.columns import by_device, in_columns
from tests.support.story import chain

J = dict[str, Any]
S = 10**9
SM_CYCLES = 132 * 1980 * 6 * 10**6  # of an H100 in 6 s
MOST_ACTIVE = SM_CYCLES + SM_CYCLES // 100 + 1 + 6000
MOST_RUNNING = (SM_CYCLES // 6 * 62 // 10) * 101 // 100 + 1 + 6000
MOST_COUNTED = SM_CYCLES * 11 * (8192 + 128 + 256 + 512 + 8192)
BF16 = {"shares_ppm": {"bf16": 10**6}, "declared_by": "config"}


@edits
def tally(records: list[J], precision: J | None = None, /, **changed: Any) -> None:
    """One checkpoint of the device, with that tally."""
    records[2]["precision"] = precision
    last_tally(records, {"observed_ns": {"activity": 6 * S}, **changed})


@edits
def phases(records: list[J], /, *undeclared: Any, recomputation: str | None = "none", **of: J) -> None:
    """Shares of phases, in a format that no integer has. `undeclared`: nanoseconds and a count outside all phases."""
    ns, flop = undeclared or (0, 0)
    count = sum(share.get("counted_flop", 0) for share in of.values()) + flop
    whole: J = {"observed_ns": {"count": ns}, "gap_ns": {}, "counted_flop": count, "busy_sm_cycles": 0}
    for share in of.values():
        whole["busy_sm_cycles"] += share.get("busy_sm_cycles", 0)
        for name in ("observed_ns", "gap_ns"):
            for key, value in share.get(name, {}).items():
                whole[name][key] = whole[name].get(key, 0) + value
    left = 6 * S - sum(sum(whole[name].values()) for name in ("observed_ns", "gap_ns"))
    whole["gap_ns"]["other_job"] = whole["gap_ns"].get("other_job", 0) + left  # accounted elsewhere: makes no row
    if not ns:
        whole["observed_ns"] = {name: value for name, value in whole["observed_ns"].items() if value}
    whole = {name: value for name, value in whole.items() if value}
    records[0]["declared"]["recomputation"] = recomputation
    tally(BF16, phases=of, **whole)(records)


@edits
def required(records: list[J], method: str, again: str) -> None:
    """Enough work that a millionth of it shows."""
    phases(train=counted(10**15 + 1), generate=counted(10**14 + 3), recomputation=again)(records)
    records[0]["declared"]["method"] = method


def counted(flop: int, ns: int = S) -> J:
    return {"to_ns": ns, "observed_ns": {"count": ns}, "counted_flop": flop}


def bounded(ns: int = S) -> J:
    return {"to_ns": ns, "observed_ns": {"utilization": ns}, "busy_sm_cycles": 7}


def _of_chip(flop: int) -> Edit:
    return lambda records: [record["devices"][0].update(counted_flop=flop) for record in records[3:5]]


def _gap_of_nothing(records: list[J]) -> None:
    at = records[3]["devices"][0]["to_ns"]
    records[4]["gaps"] = [[0, at, at + 1, "stale"]]


def _work_that_stands(records: list[J]) -> None:
    """Only one counter of a session grows; the others stay as they were."""
    at, worked = next((at, one) for at, r in enumerate(records) for one in r.get("sessions", ()) if one.get("work"))
    phase = next(iter(worked["work"]))
    held = worked["work"][phase]
    more = {**worked["work"], phase: {**held, "steps": held.get("steps", 0) + 1}}
    records.insert(at + 1, {**records[at], "gaps": [], "sessions": [{**worked, "work": more}]})


def _texts_beyond_16_bits(records: list[J]) -> None:
    """Attempts and devices whose names sort differently by UTF-16 units and by code points."""
    first, second = "\uff5e", "\U0001f600"
    begins = [record for record in records if record["kind"] == "begin"]
    for begin, name in zip(begins, (second, first), strict=True):
        begin["context"]["attempt"] = name
        begin["isolation"]["checkpoint_output"] = "off" if name == first else "other"
    for record in records:
        if record["kind"] == "device":
            record.update(index=0, uuid=first if record["number"] else second)


@edits
def _container(records: list[J], pid: int | None) -> None:
    for record in records:
        if record["kind"] == "begin":
            record["isolation"]["job_container"] = True
        for session in record.get("sessions", ()):
            session["pid"] = pid


def energy(mj: int, **changed: Any) -> Edit:
    stated = {"sm_cycles": {"activity": {"tensor_hmma": 10**12}}, "energy_ns": 6 * S, **changed}
    return tally(energy_mj=mj, **stated)


FLOP = 10**12 * 4096
DOUBT = -(-FLOP * 70001 // 10**6)
ABOVE, BELOW = (FLOP + DOUBT) * 1599, (FLOP - DOUBT) * 801
HUNDREDTH = {"tensor_hmma": 99 * S, "tensor_imma": S}
TWO = {"fp32": 10**9, "fp64": 10**9}
BUSY = {"observed_ns": {"utilization": 6 * S}, "busy_sm_cycles": 10**12}
CASES: list[Case] = [
    ("cycles-at-the-limit", "A pipe was active for as many cycles as there can have been.", None, None, None, "small", tally(sm_cycles={"activity": {"fp32": MOST_ACTIVE}})),
    ("cycles-beyond-the-limit", "A pipe was active for one cycle more than there can have been.", "law_8", "LAW-8", None, "small", tally(sm_cycles={"activity": {"fp32": MOST_ACTIVE + 1}})),
    ("cycles-that-ran-on-at-the-limit", "The same of counters that run on.", None, None, None, "small", tally(observed_ns={"cycles": 6 * S}, sm_cycles={"cycles": {"fp32": MOST_RUNNING}})),
    ("cycles-that-ran-on-beyond-the-limit", "One cycle more.", "law_8", "LAW-8", None, "small", tally(observed_ns={"cycles": 6 * S}, sm_cycles={"cycles": {"fp32": MOST_RUNNING + 1}})),
    ("count-at-the-limit", "The vendor counted as many FLOP as there can have been.", None, None, None, "small", tally(counted_flop=MOST_COUNTED)),
    ("count-beyond-the-limit", "The vendor counted one FLOP more.", "law_8", "LAW-8", None, "small", tally(counted_flop=MOST_COUNTED + 1)),
    ("count-of-a-chip-at-the-limit", "The same of a chip that is rated as a whole.", None, None, None, "neuron", _of_chip(65 * 380 * 10**12)),
    ("count-of-a-chip-beyond-the-limit", "One FLOP more.", "law_8", "LAW-8", None, "neuron", _of_chip(65 * 380 * 10**12 + 1)),
    ("gap-of-a-nanosecond-that-no-total-has", "A gap of a nanosecond is listed of a reason that no total has.", "law_6", "LAW-6", 5, "small", _gap_of_nothing),
    ("total-of-one-that-is-left-out", "A total of 1 is not there in the next checkpoint.", "law_4", "LAW-4", 5, "small", put(3, "devices", 0, "counted_flop", value=1)),
    ("record-that-runs-ahead-of-its-device", "A device is accounted for a second beyond its checkpoint, which is allowed.", None, None, None, "small", lambda r: (r[4].update(ns=r[4]["ns"] - S), r[5].update(ns=r[5]["ns"] - S))),
    ("device-beyond-its-record", "A device is accounted for a second and a nanosecond beyond its checkpoint.", "law_13", "LAW-13", 5, "small", lambda r: (r[4].update(ns=r[4]["ns"] - S - 1), r[5].update(ns=r[5]["ns"] - S - 1))),
    ("continued-in-an-unknown-phase", "A device of the segments before is in a phase that there is not.", "record_malformed", "SEG-1", 1, "middle", put(0, "continues", "run", "devices", 0, "phase", value="rest")),
    ("continued-with-a-parent-in-a-list", "`parent` of a device of the segments before is a list.", "record_malformed", "SEG-1", 1, "middle", put(0, "continues", "run", "devices", 0, "parent", value=[])),
    ("sessions-in-an-object", "`sessions` of a declaration is an object.", "record_malformed", "REC-7", 5, "phases", put(4, "sessions", value={})),
    ("work-before-that-is-no-count", "A counter of `before` is true.", "law_10", "LAW-10", 5, "middle", put(4, "sessions", 0, "before", "train", "tokens", value=True)),
    ("work-that-stands-still", "Of the counters of a process one grows.", None, None, None, "phases", _work_that_stands),
    ("texts-beyond-16-bits", "Attempts and devices in the order of code points, which is not that of UTF-16.", None, None, None, "activity", _texts_beyond_16_bits),
    ("recomputation-of-one-start", "The first of two daemon starts says nothing of recomputation, the second that there is none.", None, None, None, "activity", of_starts("declared", "recomputation", None, "none")),
    ("texts-that-begin-alike", "The name of the first attempt is how that of the second begins.", None, None, None, "activity", of_starts("context", "attempt", "1", "10")),
    ("texts-that-begin-alike-the-longer-first", "The name of the second attempt is how that of the first begins.", None, None, None, "activity", of_starts("context", "attempt", "10", "1")),
    ("users-by-number", "Users are sorted by number, not as texts.", None, None, None, "activity", users((10, 9), 110, 109)),
    ("container-without-processes", "A job in a container of its own, whose processes have no ids here.", None, None, None, "lying", _container(None)),
    ("container-with-processes", "A job in a container, whose processes have ids here.", None, None, None, "lying", _container(4711)),
    ("count-in-a-declared-format", "The vendor's count of a format that is not an integer.", None, None, None, "small", tally(BF16, observed_ns={"count": 6 * S}, counted_flop=10**12 + 1)),
    ("count-in-an-integer-format", "The vendor's count where integers are declared.", None, None, None, "small", tally({**BF16, "shares_ppm": {"int8": 10**6}}, observed_ns={"count": 6 * S}, counted_flop=10**12 + 1)),
    ("count-of-a-chip-in-a-declared-format", "The count of a chip that is rated as a whole, in a declared format.", None, None, None, "neuron", put(2, "precision", value=BF16)),
    ("squares-that-are-large", "The clock was read at moments that differ by much, and by little.", None, None, None, "small", tally(sm_cycles={"activity": TWO}, square_sum={"activity": {"fp32": 10**26, "fp64": 10**18}})),
    ("squares-of-one", "The clock was read at moments that hardly differ.", None, None, None, "small", tally(sm_cycles={"activity": TWO}, square_sum={"activity": {"fp32": 1, "fp64": 10**23}})),
    ("uncertainty-of-all-cycles", "As many cycles are in doubt as there are, and one less.", None, None, None, "small", tally(sm_cycles={"activity": TWO}, uncertainty_sm_cycles={"activity": {"fp32": S, "fp64": S - 1}})),
    ("busy-by-a-sampled-clock", "A part of the busy cycles was read at random moments.", None, None, None, "small", tally(**BUSY, sampled_busy_sm_cycles=9 * 10**11, clocked_sm_cycles=5 * 10**11, clocked_square_sum=10**26)),
    ("busy-by-a-sampled-clock-alone", "All busy cycles were read at random moments.", None, None, None, "small", tally(**BUSY, sampled_busy_sm_cycles=10**12, clocked_sm_cycles=10**12 - 9)),
    ("busy-by-more-than-all-samples", "More was read at random moments than was busy.", None, None, None, "small", tally(**BUSY, sampled_busy_sm_cycles=10**12 + 1, clocked_sm_cycles=5)),
    ("phases-other-at-the-margin", "What may count beside training is at the margin of an estimate.", None, None, None, "small", phases(train=counted(10**6), other=counted(300_000))),
    ("phases-other-beyond-the-margin", "It is beyond that of what trains, and not of all that counts.", None, None, None, "small", phases(train=counted(10**6), other=counted(300_002), generate=counted(10))),
    ("phases-other-beyond-both-margins", "It is beyond both.", None, None, None, "small", phases(train=counted(10**6), other=counted(300_002), generate=counted(1))),
    ("phases-undeclared-at-the-margin", "Other work and work of no phase are together at the margin.", None, None, None, "small", phases(S, 100_000, train=counted(10**6), other=counted(200_000))),
    ("phases-undeclared-beyond-the-margin", "They are together beyond it.", None, None, None, "small", phases(S, 100_001, train=counted(10**6), other=counted(200_000))),
    ("phases-of-generation-alone", "Nothing trains: all that counts is what generated.", None, None, None, "small", phases(generate=counted(500), evaluate=counted(7))),
    ("phases-of-unmeasured-training", "What trains is only bounded, what generates is counted.", None, None, None, "small", phases(train=bounded(), generate=counted(500))),
    ("phases-of-unmeasured-generation", "What generates is only bounded, what trains is counted.", None, None, None, "small", phases(train=counted(500), generate=bounded())),
    ("phases-of-generation-elsewhere", "The time of generation is accounted elsewhere.", None, None, None, "small", phases(train=counted(500), generate={"to_ns": S, "gap_ns": {"other_job": S}})),
    ("phases-of-unknown-recomputation", "Nobody says what is computed again.", None, None, None, "small", phases(train=counted(500), generate=counted(3), recomputation=None)),
    ("energy-and-work-at-the-hundredth", "Energy and work are of the same time but for a hundredth.", None, None, None, "small", energy(3000, energy_ns=6 * S - 6 * 10**7)),
    ("energy-and-work-beyond-the-hundredth", "A nanosecond more, and they are not compared.", None, None, None, "small", energy(3000, energy_ns=6 * S - 6 * 10**7 - 1)),
    ("energy-of-two-formats-at-the-hundredth", "A hundredth of the work is in another format.", None, None, None, "small", energy(3000, sm_cycles={"activity": HUNDREDTH})),
    ("energy-of-two-formats-beyond-the-hundredth", "A cycle more, and no format is that of the work.", None, None, None, "small", energy(3000, sm_cycles={"activity": {**HUNDREDTH, "tensor_imma": S + 1}})),
    ("energy-at-most-as-published", "As much energy as the published run that took the most.", None, None, None, "small", energy(-(-ABOVE // 10**12))),
    ("energy-above-all-published", "More energy than any published run.", None, None, None, "small", energy(-(-ABOVE // 1599 * 1600 // 10**12))),
    ("energy-at-least-as-published", "As little energy as the published run that took the least.", None, None, None, "small", energy(BELOW // 10**12)),
    ("energy-below-all-published", "Less energy than any published run.", None, None, None, "small", energy(BELOW // 801 * 800 // 10**12)),
    ("energy-of-an-unread-tensor-pipe", "A tensor pipe was not read for a nanosecond.", None, None, None, "small", energy(3000, unread_ns={"tensor_dfma": 1})),
    ("energy-of-an-unread-pipe", "A pipe that is none of the tensor cores was not read.", None, None, None, "small", energy(3000, unread_ns={"fp16": 1})),
    ("energy-read-at-no-time", "The time at which the energy was read is a text.", "record_malformed", "REC-12", 4, "small", lambda r: r[3]["devices"][0].update(counters={"energy_mj": 7}, energy_at_ns="5")),
    ("observed-for-a-nanosecond", "Utilization for all but a nanosecond, in which nothing was read either.", None, None, None, "small", tally(observed_ns={"utilization": 6 * S - 1, "activity": 1}, busy_sm_cycles=5)),
    *(
        (f"required-of-{method}-{again}", f"What was required of much training: method {method}, recomputation {again}.", None, None, None, "small", required(method, again))
        for method, again in (("lora", "full"), ("qlora", "full"), ("full", "full"), ("partial", "full"), ("pretraining", "full"), ("pretraining", "none"), ("lora", "selective"))
    ),
]  # fmt: skip


def edges_vectors() -> Files:
    return {**made_of(CASES), **_loosely_written(), **_histories()}


def _loosely_written() -> Files:
    """Records with white space, unordered members and texts beyond ASCII, which no daemon writes."""
    head, lines = GENESIS, b""
    for line in parsed(journal_of("small")):
        body = line.body
        if b'"kind":"source"' in body:
            body = '{"name":"told \u00e4",\r"kind" :\t"source", "incarnation":1,"facts":{"replay":null} }'.encode()
        head = hashlib.sha256(head + body).digest()
        lines += b'{"h":"' + head.hex().encode() + b'","r":' + body + b"}\n"
    what = "A record with white space, members in no order, and a text beyond ASCII."
    return vector("valid/records-written-loosely", what, statement_of(lines), lines)


def _later(records: list[J], ns: int) -> None:
    """The same run on a clock that is ahead by `ns`."""
    second = ns // S
    for record in records:
        for name in ("ns", "wall_ns", "to_ns"):
            if name in record:
                record[name] += ns
        if "utc" in record:
            at = int(record["utc"][17:19]) + 60 * int(record["utc"][14:16]) + second
            record["utc"] = f"2026-09-21T14:{at // 60:02d}:{at % 60:02d}.000000Z"
        for device in record.get("devices", ()):
            device["to_ns"] += ns


# Name, description, code, and the edit of the other ledger's journal.
HISTORIES: list[tuple[str, str, str | None, Edit]] = [
    ("of-the-same-journal", "The other ledger is of the same journal.", None, lambda _: None),
    ("of-an-earlier-seal", "The other ledger is an earlier seal of the same journal.", None, lambda r: r.__delitem__(slice(4, None))),
    ("of-another-run", "The other ledger is of another run.", "another_run", put(0, "run", value="another")),
    ("of-another-node", "The other ledger is of another node.", "another_run", put(0, "node", value="node-9")),
    ("of-another-time", "The other ledger shares no record, and begins after this one ends.", None, partial(_later, ns=60 * S)),
    ("of-the-moment-after", "The other ledger shares no record, and begins when this one ends.", None, partial(_later, ns=6 * S)),
    ("of-the-same-time", "The other ledger shares no record, and begins before this one ends.", "two_histories", partial(_later, ns=5 * S)),
]  # fmt: skip


def _histories() -> Files:
    """Ledgers that are compared with another one of the run."""
    files: Files = {}
    journal = journal_of("small")
    for name, what, code, edit in HISTORIES:
        records = copy.deepcopy(by_device([dict(line.record()) for line in parsed(journal)]))
        edit(records)
        other = chain(in_columns(records))
        full = f"{'valid' if code is None else 'invalid'}/also-{name}"
        files[f"{full}/other.json"] = signed(encode(statement_of(other)))
        files[f"{full}/other.journal.jsonl"] = other
        clause = None if code is None else "VERIFY-8"
        files |= vector(full, what, statement_of(journal), journal, code, clause, more=("--also", "other.json"))
    return files

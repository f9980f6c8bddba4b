"""Vectors of journals in which one fault more or less, or another order, decides, where no other vector covers it.

Each exists for a fault that was planted in the second implementation and that no other vector detected (`make
vector-mutants`).
"""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from tests.make_vectors.edges import BUSY, MOST_COUNTED, S, energy, tally
from tests.make_vectors.edits import Edit, edits, facts, of_starts, put
from tests.make_vectors.files import SEALED_AT, Files, claimed, parsed, statement_of, vector
from tests.make_vectors.records import Case, made_of
from tests.make_vectors.rows import last_tally
from tests.make_vectors.runs import small
from tests.second_implementation.laws import PIPES
from tests.support.story import chain, tell

J = dict[str, Any]
BAD, SESSION = "record_malformed", "law_10"
GPU = "GPU-00000000-0000-4000-8000-000000000001"


@edits
def _refused(records: list[J], /, **changes: Any) -> None:
    """A session whose operator count is no longer used."""
    stated = {"reason": "count_exceeds_ceiling", "device": GPU, "flop": 7, "ceiling": 5, **changes}
    next(record for record in records if record["kind"] == "declaration")["sessions"][0]["refused"] = stated


@edits
def _device_of_a_session(records: list[J], *names: str | None) -> None:
    """A session that declares these devices one after the other."""
    at, stated = next((at, r) for at, r in enumerate(records) if r["kind"] == "declaration")
    (session,) = stated["sessions"]
    found = []
    for name in names:
        facts = {key: value for key, value in session["facts"].items() if key != "device"}
        found.append({**stated, "sessions": [{**session, "facts": facts | ({"device": name} if name else {})}]})
    records[at : at + 1] = found


@edits
def _worked(records: list[J], /, *before: J, **work: J) -> None:
    """The process's counts at the last checkpoints."""
    (first,) = (one for record in records if record["kind"] == "declaration" for one in record["sessions"])
    stated = {name: first[name] for name in ("id", "pid", "uid", "client")}
    listed = [record for record in records if record["kind"] == "checkpoint"]
    for record, counted in zip(listed[-len(before) - 1 :], (*before, work), strict=True):
        record["sessions"] = [{**stated, "work": counted}]


def _cycles(**of: int) -> J:
    return {"sm_cycles": {"activity": of}}


def phase(name: str, *, whole: J | None = None, **share: Any) -> Edit:
    """One second in a phase, of six; `whole`: the part outside all phases."""
    stated = {"to_ns": S, "observed_ns": {"activity": S}, **share}
    return tally(phases={name: stated}, **(whole or {name: one for name, one in share.items() if name != "to_ns"}))


def _earlier(records: list[J]) -> None:
    """A checkpoint without devices, a nanosecond before the one ahead of it."""
    records.insert(5, {**records[4], "ns": records[4]["ns"] - 1, "devices": [], "gaps": []})


def _at_one_time(records: list[J]) -> None:
    """A checkpoint without devices and an end at the time of the one ahead; the evidence is stated again then."""
    stated = {"source", "evidence", "evidence_reason", "evidence_fix", "shared_with"}
    anew = {"kind": "evidence", "incarnation": 1, "number": 0, "ns": records[4]["ns"]}
    records[5]["ns"] = records[4]["ns"]
    more = {**anew, **{name: records[2][name] for name in stated}}
    records[5:5] = [{**records[4], "devices": [], "gaps": []}, more]


def _unknown_part(records: list[J]) -> None:
    tally(**_cycles(fp32=10**9, tensor=10**8), uncertainty_sm_cycles={"activity": {"fp32": 7}})(records)
    records[2]["peak_row"] = None


@edits
def _deep(records: list[J], *names: str) -> None:
    """A member that no clause names, with an amount below these names."""
    value: Any = [1]
    for name in reversed(names):
        value = {name: value}
    records[3]["tallies"]["mood"] = value


def _of_nothing(records: list[J]) -> None:
    tallies = records[3]["tallies"]
    tallies["sm_cycles"]["activity"]["mood"] = {}
    tallies["counters"] = {**tallies.get("counters", {}), "mood": {"": {}}}


def _device_of_no_time(records: list[J]) -> None:
    """The second daemon start names a device without counting anything of it, from the middle of the first one's
    time."""
    at = next(at for at, record in enumerate(records) if record["kind"] == "begin" and record["incarnation"] == 2)
    records[at:] = [one for one in records[at:] if one["kind"] in ("begin", "source", "device")]
    for record in records[at:]:
        if record["kind"] == "device":
            record["to_ns"] -= S * 6


def _another_session(records: list[J]) -> None:
    """A declaration of two sessions, of which the second has no facts."""
    stated = next(record for record in records if record["kind"] == "declaration")
    stated["sessions"].append(
        {**{name: stated["sessions"][0][name] for name in ("pid", "uid", "client")}, "id": "ef" * 16}
    )


@edits
def _gap_of(records: list[J], number: Any) -> None:
    tally(observed_ns={"activity": 5 * S}, gap_ns={"stale": S})(records)
    records[3]["gaps"][0][0] = number


def _cycle_that_is_gone(records: list[J]) -> None:
    records[3]["devices"][0]["sm_cycles"]["activity"]["fp16"] = 1
    records[4]["devices"][0]["sm_cycles"]["activity"].pop("fp16", None)


def _squares(records: list[J]) -> None:
    """Sums of squares from the smallest to the largest relevant one, over a time so long that each has another
    bound."""
    ns, sizes = 10**24, [(9 + at) * 10**at for at in (0, *range(21, 33), 37)]
    squares = iter(sizes)
    of = {evidence: {pipe: next(squares) for pipe in PIPES} for evidence in ("activity", "cycles")}
    cycles = {evidence: dict.fromkeys(of[evidence], 10**9) for evidence in of}
    last_tally(records, {"observed_ns": {"activity": ns, "cycles": ns}, "sm_cycles": cycles, "square_sum": of})
    records[3]["devices"][0]["to_ns"] = records[2]["to_ns"] + 2 * ns
    for record in records[3:]:
        record["ns"] = records[2]["to_ns"] + 2 * ns


@edits
def _operators(records: list[J], flop: int) -> None:
    """Six seconds, one of which is a gap; a process counts operators of the device."""
    work = {"sm_cycles": {"activity": {"tensor_hmma": 10**10}}}
    tally(observed_ns={"activity": 5 * S}, gap_ns={"stale": S}, **work)(records)
    process = {"id": "ab" * 16, "pid": 7, "uid": 1000, "client": "0.1.0"}
    stated = {"kind": "declaration", "incarnation": 1, "sessions": [{**process, "facts": {"device": GPU}}]}
    records[3]["sessions"] = [{**process, "work": {"train": {"operator_flop": flop}}}]
    records.insert(3, stated)


def _users(daemon: int, **job: Any) -> Edit:
    return lambda records: records[0]["isolation"].update(daemon_user=daemon, **job)


@edits
def _unended(records: list[J], seconds: int) -> None:
    """No end; the last checkpoint is `seconds` before the seal."""
    records.pop()
    at = datetime.strptime(SEALED_AT, "%Y-%m-%dT%H:%M:%S.%fZ") - timedelta(seconds=seconds)  # noqa: DTZ007
    records[-1]["utc"] = f"{at.isoformat()}.000000Z"


def _unended_beside_its_like(records: list[J]) -> None:
    tally(observed_ns={"activity": 5 * S}, gap_ns={"end_unknown": S})(records)
    _unended(11)(records)


def _gap_of_a_phase(records: list[J]) -> None:
    gaps = {"end_unknown": S, "driver_timeout": S}
    phase(
        "train", whole={"observed_ns": {"activity": 4 * S}, "gap_ns": gaps}, observed_ns={}, gap_ns={"end_unknown": S}
    )(records)
    first = records[3]["gaps"][0]
    first[1:3] = [first[1] - S, first[2] - S]


RUNNING = {"a counter": {"ns": -5, "elapsed": 7, "fp32": 3}}
MOST_OF_ONE = 2_462_894_161_920_000
PAIR = {"bf16": 999_999, "fp8": 1}
# As in `edges.py`.
CASES: list[Case] = [
    ("fact-not-counted-in-no-phase", "What is not counted is of a phase that there is not.", SESSION, "LAW-10", None, "lying", facts(not_counted={"rest": ["a judge"]})),
    ("fact-not-counted-in-all-phases", "Of each phase something is not counted.", None, None, None, "lying", facts(not_counted={name: ["a judge"] for name in ("train", "evaluate", "generate", "other")})),
    ("fact-of-a-name-that-moves-the-cursor", "The name of a model has control characters and one that Unicode does not assign yet.", None, None, None, "lying", facts(model_name="m\x1b[2J\r\nVERIFIED\u0378", lora={"r": 1, "target_modules": ["q\n"]})),
    ("fact-of-the-longest-name", "The name of a model has 200 characters, which UTF-16 writes in two units each.", None, None, None, "lying", facts(model_name=("\U0001f600" * 9 + " ") * 20)),
    ("fact-of-too-long-a-name", "The name of a model has 201 characters.", SESSION, "LAW-10", None, "lying", facts(model_name="m" * 201)),
    ("fact-of-an-empty-name", "The name of a model is empty.", SESSION, "LAW-10", None, "lying", facts(model_name="")),
    ("fact-of-an-attention-in-capitals", "The kernel of attention has a capital letter.", SESSION, "LAW-10", None, "lying", facts(attention="Eager")),
    ("model-in-four-levels", "A configuration has a list in an object in an object, and 400 entries.", None, None, None, "lying", facts(model_config={"a": {"b": {"c": [""] * 397}}})),
    ("fact-of-a-model-in-five-levels", "A configuration is nested one level deeper.", SESSION, "LAW-10", None, "lying", facts(model_config={"a": {"b": {"c": [[]]}}})),
    ("fact-of-a-model-of-too-many-entries", "A configuration has an entry more than 400.", SESSION, "LAW-10", None, "lying", facts(model_config={"a": {"b": {"c": [""] * 398}}})),
    ("fact-of-a-model-of-too-long-a-text", "A configuration has a text of 201 characters.", SESSION, "LAW-10", None, "lying", facts(model_config={"a": "m" * 201})),
    ("fact-of-too-many-modules", "Adapters are on 257 modules.", SESSION, "LAW-10", None, "lying", facts(lora={"r": 1, "target_modules": ["q"] * 257})),
    ("fact-of-too-much-not-counted", "What is not counted has 17 texts.", SESSION, "LAW-10", None, "lying", facts(not_counted={"train": ["a judge"] * 17})),
    ("fact-of-a-device-with-a-space", "The device of a session has a space in its name.", SESSION, "LAW-10", None, "lying", facts(device="GPU 0")),
    ("fact-of-a-model-in-a-list", "`model_config` is a list.", SESSION, "LAW-10", None, "lying", facts(model_config=[])),
    ("fact-of-packing-as-a-number", "`packing` is 1.", SESSION, "LAW-10", None, "lying", facts(packing=1)),
    ("refused-for-no-known-reason", "A count is refused for a reason that there is not.", SESSION, "LAW-10", None, "exceeding", _refused(reason="tired", ceiling=None)),
    ("refused-with-another-member", "`refused` has one member too many.", SESSION, "LAW-10", None, "exceeding", _refused(more=1)),
    ("refused-above-no-ceiling", "A count is refused as above a ceiling, and none is named.", SESSION, "LAW-10", None, "exceeding", _refused(ceiling=None)),
    ("refused-of-a-changed-device-above-a-ceiling", "A count is refused because the device changed, and a ceiling is named.", SESSION, "LAW-10", None, "exceeding", _refused(reason="device_changed")),
    ("refused-as-above-a-ceiling", "A count is refused as above what its device can have executed.", None, None, None, "exceeding", _refused()),
    ("refused-of-no-device", "A count is refused, and no device is named.", SESSION, "LAW-10", None, "exceeding", _refused(device=None)),
    ("refused-without-a-count", "A count is refused, and it is not there.", SESSION, "LAW-10", None, "exceeding", _refused(flop=None)),
    ("refused-of-a-device-by-number", "A count is refused, of a device that is a number.", SESSION, "LAW-10", None, "exceeding", _refused(device=7)),
    ("refused-above-a-ceiling-in-a-text", "A count is refused as above a ceiling that is a text.", SESSION, "LAW-10", None, "exceeding", _refused(ceiling="5")),
    ("refused-of-a-changed-device", "A count is refused because the process changed its device.", None, None, None, "exceeding", _refused(reason="device_changed", ceiling=None)),
    ("session-that-names-its-device-later", "A session declares its device in its second declaration.", None, None, None, "exceeding", _device_of_a_session(None, GPU)),
    ("session-of-two-devices", "A session declares another device than before.", SESSION, "LAW-10", None, "exceeding", _device_of_a_session(GPU, GPU[:-1] + "2")),
    ("session-that-forgets-its-device", "A session declares no device where it did before.", SESSION, "LAW-10", None, "exceeding", _device_of_a_session(GPU, None)),
    ("work-of-10-to-the-30", "A counter of a process is as large as it can be.", None, None, None, "lying", _worked(train={"tokens": 10**30})),
    ("work-beyond-10-to-the-30", "A counter of a process is one more.", SESSION, "LAW-10", None, "lying", _worked(train={"tokens": 10**30 + 1})),
    ("work-of-no-phase", "A process counts in no phase.", SESSION, "LAW-10", None, "lying", _worked(undeclared={"tokens": 1})),
    ("work-that-is-as-before", "A counter that is not there in a later record is as it was.", None, None, None, "lying", _worked({"train": {"tokens": 5, "steps": 0}}, train={"steps": 2})),
    ("kernels-of-all-of-their-windows", "A process saw as much kernel time as 128 kernels at once have in its windows.", None, None, None, "lying", _worked(train={"kernel_windows": 1, "kernel_window_ns": 2, "kernel_ns_vector": 256, "kernel_launches_vector": 1})),
    ("record-of-incarnation-0", "A record of incarnation 0 is before the first `begin`.", "law_1", "LAW-1", 1, "small", lambda r: r.insert(0, {**r[1], "incarnation": 0})),
    ("record-behind-an-end", "A `source` follows the `end` of its incarnation.", "law_1", "LAW-1", 7, "small", lambda r: r.append(r[1])),
    ("begin-of-another-number-at-the-end", "The last record is a `begin` with the number after the next.", "law_1", "LAW-1", 7, "small", lambda r: r.append({**r[0], "incarnation": 3, "ns": r[5]["ns"], "boot_id": "another boot"})),
    ("begin-that-declares-nothing", "`declared` of a `begin` is null.", None, None, None, "small", put(0, "declared", value=None)),
    ("begin-with-a-policy-of-no-digest", "A policy of a `begin` has no SHA-256.", BAD, "REC-12", 1, "small", put(0, "policies", value=[{"id": "x", "sha256": "x"}])),
    ("begin-with-a-precision-of-no-shares", "`shares_ppm` of `precision` is empty.", BAD, "REC-10", 1, "small", put(0, "precision", value={"shares_ppm": {}, "declared_by": "config"})),
    ("time-of-a-tally-that-falls", "A tally ends a nanosecond before the one ahead of it, and is else the same.", "law_4", "LAW-4", 5, "small", lambda r: r[4].update(devices=[{**r[3]["devices"][0], "to_ns": r[3]["devices"][0]["to_ns"] - 1}])),
    ("checkpoint-before-the-one-ahead", "A checkpoint of no device is a nanosecond before the one ahead of it.", "law_13", "LAW-13", 6, "small", _earlier),
    ("records-at-one-time", "A checkpoint, evidence anew and the end are at the time of the checkpoint ahead of them.", None, None, None, "small", _at_one_time),
    ("checkpoint-with-sessions-in-an-object", "`sessions` of a checkpoint is an object.", BAD, "REC-6", 4, "small", put(3, "sessions", value={})),
    ("column-too-deep", "A column that no clause names has six names.", BAD, "TALLY-2", 4, "nested", _deep("a", "b", "c", "d", "e")),
    ("column-of-nothing", "Objects that hold no column stand where amounts are, by names that no clause has.", None, None, None, "nested", _of_nothing),
    ("column-of-five-names", "A column that no clause names has five names.", None, None, None, "nested", _deep("a", "b", "c", "d")),
    ("fact-not-counted-in-a-number", "What is not counted is a text and a number.", SESSION, "LAW-10", None, "lying", facts(not_counted={"train": ["a judge", 5]})),
    ("fact-of-a-millionth-of-a-format", "A millionth is declared in another format.", None, None, None, "lying", facts(precision=PAIR)),
    ("fact-of-none-of-a-format", "A declared format has no share.", SESSION, "LAW-10", None, "lying", facts(precision={"bf16": 10**6, "fp8": 0})),
    ("fact-of-a-format-and-no-format", "One of two declared formats is none.", SESSION, "LAW-10", None, "lying", facts(precision={"bf16": 999_999, "magic": 1})),
    ("declaration-without-facts-of-one", "One of two sessions declares nothing.", BAD, "REC-7", None, "lying", _another_session),
    ("seal-with-a-token", "A listed seal has the token of a witness.", None, None, None, "seal", put(4, "witness", value={"token": "AAAA"})),
    ("seal-without-its-witness", "A listed seal says why it has no token.", None, None, None, "seal", put(4, "witness", value={"absent": {"code": "x"}})),
    ("seal-with-a-token-of-a-number", "The token of a listed seal is a number.", BAD, "REC-8", 5, "seal", put(4, "witness", value={"token": 7})),
    ("device-of-no-time", "A daemon start names a device that it counts nothing of, in the time of the start before.", None, None, None, "activity", _device_of_no_time),
    ("count-beyond-the-time-of-its-own", "The vendor counted one FLOP more than there can have been without a second that is accounted elsewhere.", "law_8", "LAW-8", None, "small", tally(observed_ns={"activity": 5 * S}, gap_ns={"other_job": S}, counted_flop=MOST_COUNTED // 66 * 65 + 1)),
    ("cycles-beyond-the-limit-of-no-time", "A pipe was active for one cycle more than can have been in no time.", "law_8", "LAW-8", None, "small", tally(observed_ns={"utilization": 6 * S}, sm_cycles={"activity": {"fp32": 6002}})),
    ("cycles-at-the-limit-of-no-time", "One cycle less.", None, None, None, "small", tally(observed_ns={"utilization": 6 * S}, sm_cycles={"activity": {"fp32": 6001}})),
    ("recovered-beyond-the-gaps", "A nanosecond more was recovered than there were gaps.", "law_11", "LAW-11", None, "small", tally(observed_ns={"cycles": 5 * S}, gap_ns={"stale": S}, recovered_ns={"cycles": S + 1})),
    ("recovered-of-all-gaps", "All gaps were recovered.", None, None, None, "small", tally(observed_ns={"cycles": 5 * S}, gap_ns={"stale": S}, recovered_ns={"cycles": S}, sm_cycles={"cycles": {"fp32": S}})),
    ("energy-beyond-the-time-of-its-own", "Energy was counted for a nanosecond that is accounted elsewhere.", "law_11", "LAW-11", None, "small", tally(observed_ns={"activity": 5 * S}, gap_ns={"other_job": S}, energy_mj=7, energy_ns=5 * S + 1)),
    ("running-since-before-the-boot", "Running counters were read before the boot.", None, None, None, "small", tally(running=RUNNING)),
    ("running-of-two-origins", "There are running counters of two origins.", BAD, "TALLY-18", None, "small", tally(running={**RUNNING, "another": {"ns": 5, "elapsed": 7}})),
    ("running-below-zero", "Running counters elapsed below zero.", BAD, "LAW-2", None, "small", tally(running={"a counter": {"ns": 5, "elapsed": -7}})),
    ("running-in-a-phase", "A share of a phase has running counters.", BAD, "TALLY-17", None, "small", phase("train", whole={}, running=RUNNING)),
    ("energy-read-in-a-phase", "A share of a phase says when an energy was read.", BAD, "TALLY-17", None, "small", phase("train", whole={}, energy_at_ns=7)),
    ("cycle-of-one-that-is-left-out", "A row of one cycle is not there in the next checkpoint.", "law_4", "LAW-4", 5, "small", _cycle_that_is_gone),
    ("squares-of-every-size", "The clock was read at moments that differ by little, by much, and by all between.", None, None, None, "small", _squares),
    ("operators-between-low-and-measured", "Operators come to more than counters have for certain, and to less than they measured.", None, None, None, "small", _operators(3 * 10**13)),
    ("operators-below-low", "Operators come to less than counters have for certain.", None, None, None, "small", _operators(10**12)),
    ("operators-at-the-ceiling", "Operators come to as much as the device can have executed.", None, None, None, "small", _operators(MOST_OF_ONE)),
    ("operators-beyond-the-ceiling", "Operators come to one FLOP more.", None, None, None, "small", _operators(MOST_OF_ONE + 1)),
    ("gap-of-a-device-that-is-false", "A gap is of the device `false`.", BAD, "REC-12", None, "small", _gap_of(False)),
    ("gap-of-a-device-below-zero", "A gap is of the device -1.", BAD, "REC-12", None, "small", _gap_of(-1)),
    ("gap-of-a-device-that-is-not-there", "A gap is of a device that there is not.", BAD, "REC-6", None, "small", _gap_of(1)),
    ("container-of-one-start", "The job is in a container in the second of two daemon starts.", None, None, None, "activity", of_starts("isolation", "job_container", False, True)),
    ("files-open-at-one-start", "Files are open to others in the second of two daemon starts.", None, None, None, "activity", of_starts("isolation", "files_private", True, False)),
    ("container-of-the-daemons-user", "A job in a container has the number of the daemon's user.", None, None, None, "small", _users(0, job_user=0, job_container=True)),
    ("user-of-the-daemon", "The job's user is the daemon's.", None, None, None, "small", _users(7, job_user=7)),
    ("user-root-of-the-job", "The job's user is root, and the daemon's is not.", None, None, None, "small", _users(7, job_user=0)),
    ("unended-at-twice-a-checkpoint", "A journal without an end, sealed two checkpoints' time behind its last record.", None, None, None, "small", _unended(10)),
    ("unended-beyond-twice-a-checkpoint", "The same, a second later.", None, None, None, "small", _unended(11)),
    ("unended-of-less-than-a-microsecond", "A journal without an end, sealed at the time of its last record.", None, None, None, "small", _unended(0)),
    ("unended-beside-a-gap-of-its-reason", "A journal without an end, whose last second is a gap for the same reason.", None, None, None, "small", _unended_beside_its_like),
    ("phase-of-a-gap-without-a-ceiling", "A gap of unknown length is a phase's, and one beside it is not: that has a ceiling.", None, None, None, "small", _gap_of_a_phase),
    ("unended-before-its-last-record", "A journal without an end, sealed before its last record.", None, None, None, "small", _unended(-1)),
    ("energy-of-a-time-elsewhere", "Energy and work of five seconds, and one that is accounted elsewhere.", None, None, None, "small", energy(3000, observed_ns={"activity": 5 * S}, gap_ns={"other_job": S}, energy_ns=5 * S)),
    ("energy-and-a-row-of-nothing", "Energy can be compared, and one tensor pipe did nothing.", None, None, None, "small", energy(3000, sm_cycles={"activity": {"tensor_hmma": 10**12, "tensor_dfma": 0}})),
    ("energy-of-no-work", "Energy was counted, and no pipe did anything.", None, None, None, "small", energy(3000, sm_cycles={"activity": {"tensor_hmma": 0}})),
    ("cycles-of-an-unknown-part", "A device that the table does not have, whose pipes were read.", None, None, None, "small", _unknown_part),
    ("phase-of-unequal-formats", "A process declares a quarter of one format and three of another.", None, None, None, "small", phase("train@bf16:0.25,fp8:0.75", **_cycles(tensor_hmma=10**9, fp32=10**8))),
    ("phase-of-formats-out-of-order", "Formats of a phase are not in the order of their names.", BAD, "TALLY-17", 4, "small", phase("train@fp8:0.75,bf16:0.25", **_cycles(tensor_hmma=10**9))),
    ("phase-of-one-format-with-a-share", "The one format of a phase has a share.", BAD, "TALLY-17", 4, "small", phase("train@bf16:1", **_cycles(tensor_hmma=10**9))),
    ("phase-of-a-share-with-a-zero", "A share of a phase ends in a zero.", BAD, "TALLY-17", 4, "small", phase("train@bf16:0.250,fp8:0.75", **_cycles(tensor_hmma=10**9))),
    ("phase-read-without-work", "Counters were read in a phase, and none moved.", None, None, None, "small", phase("train", whole=_cycles(fp32=10**9))),
    ("busy-by-a-sampled-clock-of-nothing", "A part of the busy cycles was read at random moments, at which no cycle ran.", None, None, None, "small", tally(**BUSY, sampled_busy_sm_cycles=9 * 10**11)),
    ("busy-in-recovered-time-alone", "All that is known of a device is a ceiling of time that was taken for silence.", None, None, None, "small", tally(observed_ns={}, gap_ns={"source_silent": 6 * S}, recovered_ns={"utilization": 6 * S}, busy_sm_cycles=10**12)),
]  # fmt: skip


def _secret_of_no_digest() -> Files:
    """Its lines have codes from a secret without a stated digest."""
    records: list[J] = [dict(line.record()) for line in parsed(tell(small))]
    said = statement_of(chain(records))
    records[0]["code_secret_sha256"] = "none"
    journal = chain(records, {1: bytes(32)})
    name = "invalid/begin-with-a-secret-of-no-digest"
    what = "`code_secret_sha256` of a `begin` is a text that is not a SHA-256."
    return vector(name, what, claimed(journal, said), journal, BAD, "REC-12", "journal:1", schema=None)


@lru_cache(maxsize=1)
def limits_vectors() -> Files:
    return {**made_of(CASES), **_secret_of_no_digest()}

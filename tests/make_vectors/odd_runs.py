"""Vectors of journals and of entries with an unusual shape: just allowed beside just refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flopsd.core.envelope import encode64, parse_envelope
from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.statement import SealFacts, encode, statement
from flopsd.core.model import GapReason
from flopsd.core.session_protocol import FactsDeclared, SessionOpened, WorkCounted
from tests.make_vectors import runs
from tests.make_vectors.edges import BF16, counted, phases, tally
from tests.make_vectors.edits import Edit, edits, facts, in_last_tally, put, users
from tests.make_vectors.entries import ALONE, FREE, accepted, attempts, basis, of_one_node, with_basis
from tests.make_vectors.entries import Case as CaseOfEntries
from tests.make_vectors.envelopes import dump, envelope, nested
from tests.make_vectors.files import P256, Files, claimed, facts_of, lines_of, parsed, statement_of, vector
from tests.make_vectors.merged import Child, entry_of, merged, node
from tests.make_vectors.records import Case, made_of
from tests.make_vectors.refused_merges import ENERGY
from tests.second_implementation.laws import PIPES
from tests.support.story import H100, VERSION, Story, chain, table, tell
from tests.support.story import gap as gap_work

J = dict[str, Any]
M = "record_malformed"
S = 10**9


@edits
def again(records: list[J], edit: Callable[[J], object]) -> None:
    """One more checkpoint without time, with the edited tally of the last one."""
    at = max(at for at, record in enumerate(records) if record["kind"] == "checkpoint")
    record = copy.deepcopy(records[at]) | {"gaps": []}
    record.pop("sessions", None)
    edit(record["devices"][0])
    records.insert(at + 1, record)


def gap(change: Callable[[list[Any]], object]) -> Edit:
    """Edits the first gap that is listed."""
    return lambda records: change(next(one for record in records for one in record.get("gaps", ())))


def running(**changed: Any) -> Edit:
    """Edit the running counters of the last checkpoint, or drop a member."""

    def edit(found: J) -> None:
        (read,) = found["running"].values()
        read.update({name: value for name, value in changed.items() if value is not ...})
        for name in (name for name, value in changed.items() if value is ...):
            del read[name]

    return in_last_tally(edit)


def _read_before_the_boot(records: list[J]) -> None:
    for record in (record for record in records if record["kind"] == "checkpoint"):
        for read in record["devices"][0]["running"].values():
            read["ns"] = -5


@edits
def _session_facts(records: list[J], stated: Any) -> None:
    next(one for record in records for one in record.get("sessions", ()) if one.get("facts"))["facts"] = stated


def _idle(records: list[J]) -> None:
    for record in records:
        if record["kind"] == "begin":
            record["declared"]["phase"] = "train"
        for device in record["devices"] if record["kind"] == "checkpoint" else ():
            device.pop("sm_cycles", None)


def _tracked_for_no_time(records: list[J]) -> None:
    """The second start tracks a device from within the first start's time, and reads nothing of it."""
    begin = next(at for at, record in enumerate(records) if record["kind"] == "begin" and record["incarnation"] == 2)
    found = [record for record in records[begin:] if record["kind"] in ("begin", "source", "device")]
    for record in found:
        if record["kind"] == "device":
            record["to_ns"] = records[2]["to_ns"] + S
    records[begin:] = found


def _first_without_time(records: list[J]) -> None:
    """The first start declares training and reads nothing; the second declares generation."""
    begin = next(at for at, record in enumerate(records) if record["kind"] == "begin" and record["incarnation"] == 2)
    records[0]["declared"]["phase"], records[begin]["declared"]["phase"] = "train", "generate"
    first = [record for record in records[:begin] if record["kind"] in ("begin", "source", "device")]
    records[:begin] = [*first, {**records[-1], "incarnation": 1, "ns": first[0]["ns"], "utc": first[0]["utc"]}]


def _share(**changed: Any) -> Edit:
    """Shares of a tally of six seconds, one of which has `changed`."""
    shares = {
        "train": {"to_ns": S, "observed_ns": {"activity": S}},
        "evaluate": {"to_ns": S, "observed_ns": {"activity": S}},
    }
    return tally(phases={**shares, "train": {**shares["train"], **changed}})


@edits
def _named(records: list[J], name: str) -> None:
    """A share with another name, in all checkpoints."""
    for record in records:
        for device in record["devices"] if record["kind"] == "checkpoint" else ():
            if "phases" in device:
                device["phases"] = {
                    name if old == "evaluate@tf32" else old: one for old, one in device["phases"].items()
                }


ALL_SHARES: J = {
    "bf16": 400_000, "fp16": 99_995, "fp4": 5, "fp6": 100_000, "fp64": 100_000, "fp8": 100_000, "int8": 100_000,
    "tf32": 100_000,
}  # fmt: skip
LABEL = "bf16:0.4,fp16:0.199995,fp4:5e-06,tf32:0.4"


@edits
def _declarers(records: list[J], *names: str) -> None:
    """Each daemon start has its own declarer of one format."""
    for record in records:
        if record["kind"] == "device":
            record["precision"] = {**BF16, "declared_by": names[record["incarnation"] - 1]}


def _energy_to_the_seal(records: list[J]) -> None:
    """Energy of a nanosecond more than the run had, which has no end: its seal is later."""
    records.pop()
    records[-1]["devices"][0].update(energy_ns=6 * S + 1)


CASES: list[Case] = [
    ("format-of-nothing", "The settings declare a format and nothing in it.", M, "REC-10", 1, "small", put(0, "precision", value={**BF16, "shares_ppm": {"bf16": 10**6, "fp8": 0}})),
    ("format-of-nothing-of-a-device", "The same of a device.", M, "REC-10", 3, "small", put(2, "precision", value={**BF16, "shares_ppm": {"bf16": 10**6, "fp8": 0}})),
    ("format-of-a-part-without-formats", "A format is declared for a chip that is rated as a whole, by a name that JavaScript knows.", None, None, None, "neuron", put(2, "precision", value={**BF16, "shares_ppm": {"toString": 10**6}})),
    ("format-declared-by-nobody-first", "The first of two declarers has no name.", None, None, None, "activity", _declarers("", "config")),
    ("base-of-no-flop", "The base model's compute is 0.", M, "REC-14", 1, "phases", put(0, "declared", "base", "flop", value="0")),
    ("base-of-the-least-flop-that-is-none", "The base model's compute is 10^39 FLOP.", M, "REC-14", 1, "phases", put(0, "declared", "base", "flop", value=str(10**39))),
    ("base-of-the-most-flop", "The same less 1.", None, None, None, "phases", put(0, "declared", "base", "flop", value=str(10**39 - 1))),
    ("base-with-a-reason-that-is-none", "`reason` of the base model is null.", M, "REC-14", 1, "phases", put(0, "declared", "base", "reason", value=None)),
    ("base-without-a-printable-name", "The base model's name is empty.", None, None, None, "phases", put(0, "declared", "base", "name", value="")),
    ("energy-of-the-time-to-the-seal", "Energy covers a nanosecond after the last record of a run without an end.", "law_11", "LAW-11", None, "small", _energy_to_the_seal),
    ("entry-of-zero-in-no-share", "An entry of 0, whose cycles are uncertain, is in no share.", None, None, None, "small", tally(sm_cycles={"activity": {"tensor": 0, "fp64": 5}}, uncertainty_sm_cycles={"activity": {"tensor": 7}}, phases={"train": {"to_ns": S, "observed_ns": {"activity": S}, "sm_cycles": {"activity": {"fp64": 5}}}})),
    ("tally-that-stands-still", "A checkpoint has the tally of the one before it.", None, None, None, "small", again(dict)),
    ("tally-that-stands-still-but-for-zeros", "The same, with amounts of 0 that are as absent ones.", None, None, None, "small", again(lambda t: (t.update(busy_sm_cycles=0, unread_ns={"fp16": 0}, uncertainty_sm_cycles={"activity": {"fp16": 0}}, square_sum={"activity": {}}), t["observed_ns"].update(count=0)))),
    ("counters-that-change-in-no-time", "A counter changes and no time passes.", "law_4", "LAW-4", None, "small", again(lambda t: t["counters"].update(energy_mj=t["counters"]["energy_mj"] + 1))),
    ("counters-that-go-in-no-time", "A counter is gone and no time passed.", "law_4", "LAW-4", None, "small", again(lambda t: t.pop("counters"))),
    ("energy-read-anew-in-no-time", "Energy was read at another time, and no time passed.", "law_4", "LAW-4", None, "small", again(lambda t: t.update(energy_at_ns=t["to_ns"] - 1))),
    ("energy-read-at-that-time", "The time of the energy is stated, which is the one that it is without.", None, None, None, "small", again(lambda t: t.update(energy_at_ns=t["to_ns"]))),
    ("pipe-that-appears-in-no-time", "A row of no cycles appears and no time passes.", "law_4", "LAW-4", None, "small", again(lambda t: t["sm_cycles"]["activity"].update(fp16=0))),
    ("cycles-in-no-time", "Cycles grow and no time passes.", "law_4", "LAW-4", None, "small", again(lambda t: t["sm_cycles"]["activity"].update(fp32=t["sm_cycles"]["activity"]["fp32"] + 1))),
    ("running-counters-that-change-in-no-time", "A running counter changes and no time passes.", "law_4", "LAW-4", None, "cycles", again(lambda t: next(iter(t["running"].values())).update(fp16=1))),
    ("share-that-appears-in-no-time", "A share appears and no time passes.", "law_4", "LAW-4", None, "lying", again(lambda t: t["phases"].update(generate={"to_ns": 0}))),
    ("share-of-nothing-that-goes", "A share of no time is missing from the next tally.", "law_4", "LAW-9", None, "small", lambda r: r[3]["devices"][0].update(phases={"train": {"to_ns": 0}})),
    ("shares-of-more-time-than-all", "Two shares have more time than the whole, and not more of anything else.", "law_9", "LAW-9", None, "small", _share(to_ns=5 * S + 1)),
    ("share-of-other-time", "Of a share observed time is not its span.", "law_5", "LAW-9", None, "small", _share(to_ns=S + 1)),
    ("share-of-all-there-is", "Two shares have all the time there is.", None, None, None, "small", _share(to_ns=5 * S, observed_ns={"activity": 5 * S})),
    ("device-tracked-for-no-time", "A second start tracks a device within the time of the first, for no time.", None, None, None, "activity", _tracked_for_no_time),
    ("start-without-time", "A start reads nothing, and its phase has no figure.", None, None, None, "activity", _first_without_time),
    ("one-of-two-users-the-same", "One of two users of daemons is the job's.", None, None, None, "activity", users((10, 9), 9)),
    ("user-of-another-start-the-same", "The job of one start has the daemon's user of another.", None, None, None, "activity", users((10, 9), 7, 10)),
    ("job-of-root-and-another", "Of two users of jobs one is root.", None, None, None, "activity", users((10, 9), 5, 0)),
    ("begin-with-a-precision-of-no-formats", "`shares_ppm` has no format.", M, "REC-10", 1, "small", put(0, "precision", value={"shares_ppm": {}, "declared_by": "config"})),
    ("gap-of-five", "A gap has five members.", M, "REC-6", None, "activity", gap(lambda g: g.append(0))),
    ("gap-of-three", "A gap has three members.", M, "REC-6", None, "activity", gap(lambda g: g.pop())),
    ("gap-of-a-device-in-a-text", "The device of a gap is a text.", M, "REC-6", None, "activity", gap(lambda g: g.__setitem__(0, "0"))),
    ("gap-of-a-device-below-zero", "The device of a gap is -1.", M, "REC-6", None, "activity", gap(lambda g: g.__setitem__(0, -1))),
    ("gap-that-begins-in-a-text", "The begin of a gap is a text.", M, "REC-6", None, "activity", gap(lambda g: g.__setitem__(1, str(g[1])))),
    ("gap-that-ends-in-a-text", "The end of a gap is a text.", M, "REC-6", None, "activity", gap(lambda g: g.__setitem__(2, str(g[2])))),
    ("gap-of-no-length", "A gap ends when it begins.", "law_6", "LAW-6", None, "small", lambda r: r[4].update(gaps=[[0, r[4]["devices"][0]["to_ns"], r[4]["devices"][0]["to_ns"], "stale"]])),
    ("running-since-before-the-boot", "Running counters were read before the boot.", None, None, None, "cycles", _read_before_the_boot),
    ("running-counter-below-zero", "A running counter is below zero.", M, "LAW-2", None, "cycles", running(fp32=-1)),
    ("running-without-elapsed", "Running counters without elapsed cycles.", M, "TALLY-18", None, "cycles", running(elapsed=...)),
    ("running-at-no-time", "Running counters without a time.", M, "TALLY-18", None, "cycles", running(ns=...)),
    ("running-of-no-pipe", "A running counter of a pipe that there is not.", M, "LAW-2", None, "cycles", running(fp8=1)),
    ("share-without-a-time", "A share has no `to_ns`.", M, "TALLY-17", None, "small", tally(phases={"train": {"observed_ns": {}, "busy_sm_cycles": 0}})),
    ("tallies-of-which-one-has-no-time", "Of two devices in a checkpoint one has no `to_ns`.", M, "TALLY-3", None, "activity", lambda r: r[-2]["devices"][-1].pop("to_ns")),
    ("energy-of-no-joules", "There was time between readings of energy, and no energy.", None, None, None, "small", tally(sm_cycles={"activity": {"tensor_hmma": 10**12}}, energy_ns=6 * S)),
    ("gap-of-no-device", "A gap is of a device that is not there.", M, "REC-6", None, "activity", gap(lambda g: g.__setitem__(0, 7))),
    ("facts-in-a-list", "`facts` of a session are a list.", "law_10", "LAW-10", None, "lying", _session_facts([])),
    ("facts-of-a-model-in-a-text", "`model_config` is a text.", "law_10", "LAW-10", None, "lying", facts(model_config="llama")),
    ("identity-of-a-number", "`model` of an identity is a number.", M, "REC-5", None, "named_late", lambda r: next(one for one in r if "identity" in one)["identity"].update(model=7)),
    ("two-notes-of-which-one-is-none", "Of two notes of a daemon start one has no code.", M, "REC-15", 1, "small", put(0, "recovered", value={"cutBytes": "7", "cutSha256": "cd" * 32, "keptAs": None, "reasons": [{"code": "tail_not_known"}, {"code": "no_idea"}]})),
    ("squares-of-all-sizes", "The clock was read at moments that differ by little and by much, by pipe.", None, None, None, "small", tally(sm_cycles={"activity": dict.fromkeys(PIPES, 10**12)}, square_sum={"activity": {pipe: 7 * 10 ** (17 + at) for at, pipe in enumerate(PIPES)}})),
    ("squares-of-more-sizes", "The same, of other sizes.", None, None, None, "small", tally(sm_cycles={"activity": dict.fromkeys(PIPES, 10**12)}, square_sum={"activity": {pipe: 3 * 10 ** (17 + at) + 1 for at, pipe in enumerate(PIPES)}})),
    ("energy-of-no-published-format", "All work is in a format of which no energy is published.", None, None, None, "small", tally(sm_cycles={"activity": {"tensor_dfma": 10**10}}, energy_mj=3000, energy_ns=6 * S)),
    ("read-and-idle-beside-bounded", "In one phase one device was read and idle, and another one only bounded.", None, None, None, "activity", _idle),
    ("training-elsewhere", "The time of training is accounted elsewhere.", None, None, None, "small", phases(train={"to_ns": S, "gap_ns": {"other_job": S}}, generate=counted(500))),
    ("running-of-two-origins", "Running counters of two origins.", M, "TALLY-18", None, "cycles", in_last_tally(lambda t: t["running"].update(another=next(iter(t["running"].values()))))),
    ("facts-of-all-formats", "A process declares all formats there are.", None, None, None, "lying", facts(precision=ALL_SHARES)),
    ("facts-of-formats-that-are-less", "The shares of formats are a millionth less than all.", "law_10", "LAW-10", None, "lying", facts(precision={"bf16": 999_999})),
    ("facts-of-a-format-of-nothing", "A format has a share of 0.", "law_10", "LAW-10", None, "lying", facts(precision={"bf16": 10**6, "fp8": 0})),
    ("facts-of-a-format-below-zero", "A format has a share below zero.", "law_10", "LAW-10", None, "lying", facts(precision={"bf16": 1_000_001, "fp8": -1})),
    ("facts-of-a-format-of-no-tensor-core", "A format is none of the tensor cores.", "law_10", "LAW-10", None, "lying", facts(precision="fp32")),
    ("facts-of-a-mix-with-another-format", "One of two formats is none of the tensor cores.", "law_10", "LAW-10", None, "lying", facts(precision={"bf16": 500_000, "int4": 500_000})),
    ("facts-of-formats-in-a-list", "`precision` is a list.", "law_10", "LAW-10", None, "lying", facts(precision=["bf16"])),
    ("share-of-four-formats", "A share has four formats in its name, one of them of five millionths.", None, None, None, "lying", _named(f"evaluate@{LABEL}")),
    ("share-of-formats-out-of-order", "The formats of a share are not in the order of their names.", M, "REC-16", None, "lying", _named("evaluate@fp8:0.5,bf16:0.5")),
    ("share-of-a-format-in-full", "A share has one format with a share of 1.", M, "REC-16", None, "lying", _named("evaluate@bf16:1")),
    ("share-of-formats-with-a-zero-more", "A share of a format has a zero at its end.", M, "REC-16", None, "lying", _named("evaluate@bf16:0.50,fp8:0.5")),
    ("share-of-formats-that-are-less", "The shares of formats are a millionth less than all.", M, "REC-16", None, "lying", _named("evaluate@bf16:0.5,fp8:0.499999")),
    ("share-of-a-format-twice", "A format is there twice.", M, "REC-16", None, "lying", _named("evaluate@bf16:0.5,bf16:0.5")),
    ("share-of-a-format-of-no-tensor-core", "A format is none of the tensor cores.", M, "REC-16", None, "lying", _named("evaluate@fp32")),
    ("share-of-a-mix-of-no-shares", "Two formats, and no shares.", M, "REC-16", None, "lying", _named("evaluate@bf16,fp8")),
    ("share-of-no-format", "The name of a share ends in `@`.", M, "REC-16", None, "lying", _named("evaluate@")),
]  # fmt: skip


def odd_vectors() -> Files:
    return {
        **made_of(CASES, "odd-"),
        **_no_records(),
        **_operators(),
        **_sealed_at(),
        **_texts(),
        **_signatures(),
        **_entries(),
        **_at_hand(),
    }


def _operators() -> Files:
    """Operators of two phases: more than was measured, and less than was possible in the time."""

    def story(folder: Path) -> bytes:
        run, process = Story(folder, (H100,)), "ab" * 16
        run.says(SessionOpened(process, 4711, 1000, "0.1.0"), FactsDeclared(process, {"device": H100.uid}))
        run.during(2, {H100: runs.TRAINING})
        run.during(2, {H100: gap_work(GapReason.DRIVER_TIMEOUT)})
        counted = {phase: {"operator_flop": 5 * 10**14 + 1} for phase in ("evaluate", "generate", "train")}
        run.says(WorkCounted(process, counted))
        run.during(1, {H100: runs.TRAINING})
        return run.finish()

    journal = tell(story)
    what = "Operators of three phases, and room for those of two."
    return vector("valid/odd-operators-of-three-phases", what, statement_of(journal), journal)


def _sealed_at() -> Files:
    """The time after the last record, up to where its length is known: two checkpoints of five seconds."""
    files: Files = {}
    journal = tell(lambda folder: runs.small(folder))
    records = [dict(line.record()) for line in parsed(journal)][:-1]
    journal = chain(records)
    for name, what, at in (
        ("at-its-last-record", "Sealed at the time of the last record.", "26.000000"),
        ("a-microsecond-later", "Sealed a microsecond after the last record.", "26.000001"),
        ("half-a-second-later", "Sealed half a second after the last record, with one digit.", "26.5"),
        ("two-microseconds-later", "Sealed two microseconds after the last record.", "26.000002"),
        ("before-its-last-record", "Sealed a microsecond before the last record.", "25.999999"),
        ("two-checkpoints-later", "Sealed when a second checkpoint was due.", "36"),
        ("a-nanosecond-less-than-two-microseconds-later", "Sealed two microseconds less a nanosecond after the last record.", "26.000001999"),
        ("more-than-two-checkpoints-later", "Sealed a microsecond later than that.", "36.000001"),
    ):  # fmt: skip
        seal = SealFacts(VERSION, f"2026-09-21T14:13:{at}Z")
        said = statement(read_history(iter(records)), table(), facts_of(journal), seal)
        files |= vector(f"valid/sealed-{name}", what, said, journal)
    # As rolling seals leave it: the record of the previous seal comes after the last checkpoint.
    early = b"".join(lines_of(journal)[:4])
    before = EarlierSeal(len(early), parsed(early)[-1].head.hex(), "0" * 64, "2026-09-21T14:13:30.000000Z")
    records.append(before.for_journal(1))
    journal = chain(records)
    seal = SealFacts(VERSION, "2026-09-21T14:13:34.000000Z")
    said = statement(read_history(iter(records)), table(), facts_of(journal), seal)
    what = "The record of an earlier seal is the last one: the time behind it is that behind the last checkpoint."
    return files | vector("valid/sealed-behind-an-earlier-seal", what, said, journal)


OF_TEXTS = {
    "json_not_utf8": "JSON-1", "json_malformed": "JSON-2", "json_duplicate_member": "JSON-3", "json_number": "JSON-4",
    "json_too_deep": "JSON-7",
}  # fmt: skip


def _no_records() -> Files:
    """A statement over a journal without records."""
    name = "invalid/odd-no-records"
    what = "The journal has no records, and the statement is of none."
    return vector(name, what, claimed(b"", statement_of(tell(runs.small))), b"", "law_1", "LAW-1")


def _texts() -> Files:
    """Envelopes with two faults, one of which is the reason."""
    payload = encode(statement_of(tell(runs.small)))
    wide = dump(envelope(payload)).rstrip()[:-1]
    files: Files = {}
    for name, what, code, more in (
        ("deep-and-not-utf8", "Too deep, and before that no UTF-8.", "json_too_deep", b', "x": "\xff", "y": ' + nested(101) + b"}"),
        ("not-utf8-and-malformed", "A member without a value, and behind it no UTF-8.", "json_not_utf8", b', "x": , "y": "\xff"}'),
        ("malformed-and-number", "A member without a value, and behind it a fraction.", "json_malformed", b', "x": , "y": 1.5}'),
        ("number-and-malformed", "A fraction, and behind it a member without a value.", "json_number", b', "y": 1.5, "x": }'),
        ("twice-and-number", "A member twice, and a fraction in the same object.", "json_number", b', "x": {"a": 1, "a": 2, "b": 1.5}}'),
        ("twice-and-number-behind", "A member twice, and a fraction behind its object.", "json_duplicate_member", b', "x": {"a": 1, "a": 2}, "b": 1.5}'),
        ("twice-and-malformed", "A member twice, in an object without an end.", "json_malformed", b', "x": {"a": 1, "a": 2'),
        ("twice-within-twice", "A member twice, the second of which has one twice.", "json_duplicate_member", b', "x": 1, "x": {"a": 1, "a": 2}}'),
        ("surrogate-and-twice", "Half a character, and behind it a member twice.", "json_duplicate_member", b', "z": "\\ud800", "x": {"a": 1, "a": 2}}'),
        ("surrogate-and-malformed", "Half a character, and text behind the end.", "json_malformed", b', "z": "\\ud800"}}'),
        ("list-without-a-comma", "A list of two without a comma, and a fraction behind it.", "json_malformed", b', "x": [1 2], "y": 1.5}'),
        ("object-without-a-comma", "An object of two without a comma, and a fraction behind it.", "json_malformed", b', "x": {"a": 1 "b": 2}, "y": 1.5}'),
        ("name-in-other-quotes", "A member named in single quotes, and a fraction behind it.", "json_malformed", b", 'x\": 1, \"y\": 1.5}"),
        ("object-without-a-colon", "An object without a colon, and a fraction behind it.", "json_malformed", b', "x": {"a" 1}, "y": 1.5}'),
        ("bracket-that-closes-none", "A bracket that closes none, and 101 in each other behind it.", "json_malformed", b', "x": 1}}}' + nested(103)),
        ("depth-in-a-text-with-an-escape", "Brackets in a text with a quote in it are not levels.", "json_number", b', "x": "\\"' + b"[" * 101 + b'", "y": 1e5}'),
    ):  # fmt: skip
        full = f"invalid/two-faults-{name}"
        files |= vector(
            full, what, wide + more, tell(runs.small), code, OF_TEXTS[code], "envelope", schema="not applicable"
        )
    return files


def _signatures() -> Files:
    """Signatures that are not valid DER."""
    journal = tell(runs.small)
    said, second = statement_of(journal), 0
    good = b"\0" * 5
    while good[4] == 0:  # until r needs no leading zero
        said["predicate"]["method"]["sealedAt"] = f"2026-09-21T15:00:{second:02d}Z"
        second, payload = second + 1, encode(said)
        _, good = P256.sign(payload)
    r = good[4 : 4 + good[3]]
    s = good[6 + good[3] :]

    def der(*parts: tuple[int, bytes], tag: int = 0x30, more: int = 0) -> bytes:
        inner = b"".join(bytes([kind, len(number)]) + number for kind, number in parts)
        return bytes([tag, len(inner) + more]) + inner

    files: Files = {}
    for name, what, changed in (
        ("of-a-set", "The signature is a set, not a sequence.", der((2, r), (2, s), tag=0x31)),
        ("of-another-length", "The sequence is said to be a byte longer.", der((2, r), (2, s), more=1)),
        ("of-bits", "r is a string of bits.", der((3, r), (2, s))),
        ("of-bits-at-last", "s is a string of bits.", der((2, r), (3, s))),
        ("with-a-zero-more", "r has a zero before it that it does not need.", der((2, b"\0" + r), (2, s))),
        ("below-zero", "r is below zero.", der((2, b"\xff" + r.lstrip(b"\0")[1:]), (2, s))),
        ("of-one-number", "There is no s.", der((2, r))),
        ("of-three-numbers", "There is a third number.", der((2, r), (2, s), (2, b"\1"))),
        ("of-no-bytes", "r has no bytes.", der((2, b""), (2, s))),
        ("of-nothing", "The signature is empty.", b""),
    ):  # fmt: skip
        full = f"invalid/key-p256-{name}"
        changed_envelope = dump(envelope(payload, signatures=[{"sig": encode64(changed)}]))
        files |= vector(full, what, changed_envelope, journal, "too_few_signatures", "ENV-2", "envelope", keys=(P256,))
    return files


def _notes(*codes: str) -> Any:
    return [{"code": code} for code in codes]


def _reasons(*of_each: list[J]) -> Callable[[list[J]], object]:
    def edit(entries: list[J]) -> None:
        for entry, notes in zip(entries, of_each, strict=True):
            entry["totals"].update(architecture=None, architectureAbsentReasons=notes)

    return edit


def _names_against_ranks(entries: list[J]) -> None:
    """Names in another order than ranks, and each node with another attempt."""
    for entry, name in zip(entries, ("node-b", "node-a"), strict=True):
        entry.update(node=name, name=f"{name}/{entry['sha256'][:16]}")
    attempts(("0",), ("1",))(entries)


def _entries() -> Files:
    """Merged ledgers made only of entries."""
    five, four = ("no_model_declared", "no_process", "no_work"), ("no_work", "total_is_zero")
    cases: list[CaseOfEntries] = [
        ("with-five-reasons", "Five reasons why there is no architecture basis, of which four are listed.", "job", _reasons(_notes(*five), _notes("no_model_declared", "no_tokens", "no_work")), {}),
        ("with-four-reasons", "Four reasons, all of which are listed.", "job", _reasons(_notes(*five), _notes(*four)), {}),
        ("with-more-reasons", "One reason, and more of one child.", "job", _reasons(_notes("no_work", "more_reasons"), _notes("no_work")), {}),
        ("with-names-against-ranks", "Ranks in another order than names, and of each an attempt is missing.", "job", _names_against_ranks, FREE),
    ]  # fmt: skip
    cases += [
        ("in-an-order-by-run-alone", "Two jobs in the order of their runs, which is not that of their digests.", "lineage", _by_run_alone, {}),
        ("of-a-job-with-two-bases", "The nodes of one of two jobs declare different base models.", "lineage", _bases_differ, {}),
        ("of-a-base-that-starts-doubt", "The daemon starts of one node declare different base models, the other node one.", "job", _starts_differ, {}),
        ("with-a-silent-segment-of-another-node", "A segment without work is of another node than the one with a basis.", "run", _silent_of_another, FREE),
        ("with-energy-of-as-much-doubt", "Of the work with energy as much is in doubt as was measured.", "job", _in_doubt, {}),
        ("with-a-node-on-two-boots-the-later-first", "Two ledgers of one node on two boots: by the wall clock the second ends where the first begins.", "job", lambda e: of_one_node(e, bootId="another boot", beginNs="999000000000", endNs="999999999993", wallOffsetNs="1789999000000000007"), ALONE),
    ]  # fmt: skip
    kinds = {"job": "job", "run": "job", "lineage": "lineage"}
    named = [(f"{kinds[base]}-{name}", what, base, edit, stated) for name, what, base, edit, stated in cases]
    return accepted(named)


def _in_doubt(entries: list[J]) -> None:
    figures = {"low": "250", "measured": "500", "high": None}
    entries[0]["reconciliation"] = [{**ENERGY, "doubtFlop": ENERGY["measuredFlop"], "fjPerFlop": figures}]


def _by_run_alone(entries: list[J]) -> None:
    """Sorted by run, but not by digest."""
    for entry, digit in zip(entries, "f0", strict=True):
        entry.update(sha256=digit * 64, name=f"{entry['run']}/{digit * 16}")


def _bases_differ(entries: list[J]) -> None:
    entries[0]["declared"].update(method="full", base=None, conflict=["bases_differ"])
    entries[1]["declared"].update(method="full")


def _starts_differ(entries: list[J]) -> None:
    said = {"name": "BASE_MODEL_DIFFERS", "code": "start_base_differs"}
    entries[0]["declared"].update(method="lora", base=None, contradictions=[said])
    base = {"name": "m", "kind": "known", "flop": "10", "method": None, "systemic": False, "declaredBy": "config"}
    entries[1]["declared"].update(method="lora", base=base)


def _silent_of_another(entries: list[J]) -> None:
    del entries[2]
    with_basis(basis(7 * 10**14, 10**15, "shape"), "no_work")(entries)
    entries[1].update(node="node-9", rank=1, name=f"node-9/{entries[1]['sha256'][:16]}")
    entries[1]["segment"].update(number=1, continues=None)


# Valid vectors that are the only child of a job, and present.
CHILDREN = (
    "accounted-elsewhere", "rebooted", "cycles-recovered", "declared-phases", "journal-replaced", "recovered-tail", "named-late",
    "lying-declarations", "declared-by-settings", "operator-count", "neuron-count", "energy-as-published", "no-device", "codes-checked", "earlier-seal",
    "model-of-two-refused", "busy-in-recovered-time-alone",
)  # fmt: skip


def _at_hand() -> Files:
    """Jobs of one node, whose entry follows from its journal."""
    from tests.make_vectors.files import valid
    from tests.make_vectors.limits import limits_vectors
    from tests.make_vectors.models import shapes_vectors

    files: Files = {}
    made = {**valid(), **shapes_vectors(), **limits_vectors()}
    for name in CHILDREN:
        ledger, journal = made[f"valid/{name}/ledger.json"], made[f"valid/{name}/ledger.journal.jsonl"]
        child = parse_envelope(ledger).payload
        run = json.loads(child)["predicate"]["run"]
        entry = entry_of(child, journal)
        statement_ = merged("job", [Child(entry, {})], run=run, **ALONE)
        full = f"merged/alone-{name}"
        files |= {f"{full}/children/ledger.json": ledger, f"{full}/children/ledger.journal.jsonl": journal}
        what = f"A job whose only child is the vector {name}, which is at hand."
        files |= vector(full, what, statement_, None, more=("--children", "children", "--allow-replay"))
    holed, beside = merged("job", [node(0)]), ("--children", "children")
    name = "merged/job-with-a-ledger-too-many"
    what = "A ledger lies beside the children that is of no entry's node: it is ignored."
    files |= vector(name, what, holed, None, more=beside)
    for rank in (0, 1):
        files |= {f"{name}/children/{path}": data for path, data in node(rank).files.items()}
    name = "merged/job-with-another-ledger-alone"
    what = "The only child is not at hand, and a ledger of another node is: it is ignored."
    files |= vector(name, what, holed, None, more=beside)
    files[f"{name}/children/ledger.json"] = node(1).files["node-1/ledger.json"]
    return files

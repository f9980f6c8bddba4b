"""Journals that no daemon writes: each single fault is refused, and the message names it.

The published vectors cover the rules of the format.
"""

import copy
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.declarations import NOTHING_DECLARED
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.model import GapReason, Growth
from flopsd.core.session_protocol import FactsDeclared, PhaseChanged, SessionOpened, WorkCounted
from flopsd.errors import JournalDamagedError
from tests.make_vectors.files import parsed, statement_of
from tests.support.columns import by_device, in_columns
from tests.support.story import A100, CYCLES_H100, Second, Story, chain, gap, tell

J = dict[str, Any]
SESSION = "5e55" * 8


@cache
def _journal() -> tuple[J, ...]:
    """Two daemon starts: a GPU with running counters that works, one that has gaps, and a process that declares."""

    def story(folder: Path) -> bytes:
        run = Story(folder, (CYCLES_H100, A100), declared=NOTHING_DECLARED)

        def work(_: Second) -> Growth:
            return Growth(())

        def plan(seconds: int, reason: GapReason) -> None:
            run.during(seconds, {CYCLES_H100: work, A100: gap(reason)})

        run.says(SessionOpened(SESSION, 1, 2, "0.1.0"), FactsDeclared(SESSION, {"method": "lora"}))
        run.says(PhaseChanged(SESSION, "train"), WorkCounted(SESSION, {"train": {"tokens": 7}}))
        plan(6, GapReason.DRIVER_TIMEOUT)
        run.says(WorkCounted(SESSION, {"train": {"tokens": 9}}))
        plan(6, GapReason.OTHER_JOB)
        run.kill(for_seconds=2)
        run.start()
        plan(6, GapReason.DRIVER_TIMEOUT)
        return run.finish()

    return tuple(dict(line.record()) for line in parsed(tell(story)))


def edited(edit: Callable[[list[J]], object]) -> list[J]:
    records = by_device(copy.deepcopy(list(_journal())))
    edit(records)
    return in_columns(records)


def of(records: list[J], kind: str, number: int = 0) -> J:
    return [record for record in records if record["kind"] == kind][number]


def reads(records: list[J]) -> History:
    return read_history(records)


def test_the_unedited_journal_is_read() -> None:
    history = reads(list(_journal()))
    assert len(history.incarnations) == 2
    assert history.ended
    assert history.sessions[SESSION].work == {"train": {"tokens": 9}}


def tally(records: list[J], checkpoint: int, number: int) -> J:
    return next(entry for entry in of(records, "checkpoint", checkpoint)["devices"] if entry["number"] == number)


WRONG: list[tuple[str, Callable[[list[J]], object], str]] = [
    ("no begin", lambda r: r.pop(0), "the first record is not a 'begin'"),
    ("of another start", lambda r: of(r, "source").update(incarnation=2), "record of incarnation 2 within incarnation 1"),
    ("a word after the end", lambda r: r.append(of(r, "source", 1)), "a 'source' record after the incarnation's end"),
    ("a start left out", lambda r: of(r, "begin", 1).update(incarnation=3), "incarnation 3, expected 2"),
    ("a start twice", lambda r: of(r, "begin", 1).update(incarnation=1), "incarnation 1, expected 2"),
    ("another run", lambda r: of(r, "begin", 1).update(run="other"), "run is 'other', not 'vector'"),
    ("another node", lambda r: of(r, "begin", 1).update(node="other"), "node is 'other', not 'node-0'"),
    ("a number left out", lambda r: of(r, "device").update(number=1), "numbered out of order or named twice"),
    ("a device twice", lambda r: of(r, "device", 1).update(uuid=CYCLES_H100.uid), "numbered out of order or named twice"),
    ("counted before", lambda r: of(r, "device").update(energy_mj=1), "counts before its first reading"),
    ("worked before", lambda r: of(r, "device").update(sm_cycles={"activity": {"tensor": 1}}), "counts before its first reading"),
    ("tracked before", lambda r: of(r, "device").update(to_ns=of(r, "begin")["ns"] - 1), "account begins before the first daemon start"),
    ("totals fell", lambda r: tally(r, 1, 1)["gap_ns"].update(driver_timeout=0), "totals of device .* fell"),
    ("a gap left out", lambda r: of(r, "checkpoint")["gaps"].pop(), "listed gaps do not add up"),
    ("an empty gap", lambda r: of(r, "checkpoint")["gaps"].append([1, 5, 5, GapReason.OTHER_JOB.value]), "overlaps another one or lies outside"),
    ("an unknown reason", lambda r: of(r, "checkpoint")["gaps"][0].__setitem__(3, "tired"), "not a record of"),
    ("time back", lambda r: of(r, "checkpoint", 1).update(ns=of(r, "checkpoint")["ns"] - 1), "time runs backwards: the record is 1 ns before"),
    ("two processes", lambda r: sessions(r)[1].update(pid=77), "belongs to two processes"),
    ("two users", lambda r: sessions(r)[1].update(uid=77), "belongs to two processes"),
    ("two clients", lambda r: sessions(r)[1].update(client="x"), "belongs to two processes"),
    ("counters fell", lambda r: sessions(r)[1]["work"]["train"].update(tokens=6), "the counters of session .* decreased"),
    ("odd facts", lambda r: sessions(r)[0].update(facts={"method": "guessing"}), "has unreadable declarations or counters"),
    ("an odd phase", lambda r: sessions(r)[0].update(work={"sleep": {"tokens": 1}}), "has unreadable declarations or counters"),
    ("a share of a share", lambda r: shares(r).update(phases={"train": {"to_ns": 1}}), "members that only a device.s totals may have"),
    ("a share with totals", lambda r: shares(r).update(running={"x": {"ns": 1, "elapsed": 1}}), "members that only a device.s totals may have"),
    ("a share with counters", lambda r: shares(r).update(counters={"energy_mj": 1}), "members that only a device.s totals may have"),
    ("a share too large", lambda r: shares(r).update(to_ns=shares(r)["to_ns"] + 10**12), "exceed its totals"),
    ("a share's time", lambda r: shares(r).update(to_ns=shares(r)["to_ns"] - 1), "time of a phase of device"),
    ("a true count", lambda r: tally(r, 0, 1).update(counted_flop=True), "is not a count"),
    ("a fraction", lambda r: tally(r, 0, 1).update(counted_flop=1.0), "is not a count"),
    ("no context", lambda r: r[0].pop("context"), "its context cannot be read"),
    ("a time as text", lambda r: tally(r, 0, 1).update(to_ns="x"), "is not a count"),
    ("less context", lambda r: r[0]["context"]["run"].pop("jobName"), "lacks a member or has an unknown one"),
    ("more context", lambda r: r[0]["context"].update(more=1), "lacks a member or has an unknown one"),
    ("nodes", lambda r: r[0]["context"]["node"].update(jobNodes="node-0"), "jobNodes must be a list"),
    ("a node", lambda r: r[0]["context"]["node"].update(jobNodes=[0]), "0 is not text"),
    ("a rank", lambda r: r[0]["context"]["node"].update(rank=-1), "-1 is not a count"),
    ("an instance", lambda r: r[0]["context"]["node"].update(instanceType=1), "1 is not text"),
    ("a job", lambda r: r[0]["context"]["run"].update(jobName=1), "1 is not text"),
    ("an attempt", lambda r: r[0]["context"].update(attempt=None), "null is not text"),
    ("a clock", lambda r: r[0].update(wall_ns="1"), "'1' is not a count"),
    ("a boot", lambda r: r[0].update(boot_id=1), "1 is not text"),
    ("a renamed run", lambda r: r[0]["context"]["run"].update(id="another"), "lacks a member or has an unknown one"),
    ("a renamed node", lambda r: r[0]["context"]["node"].update(name="another"), "lacks a member or has an unknown one"),
    ("SMs as a list", lambda r: of(r, "device").update(sm_count=[1, 2, 3]), "is not a count"),  # a list times 10**15 is long
    ("a true clock", lambda r: of(r, "device").update(sm_clock_max_mhz=True), "is not a count"),
    ("a name as a list", lambda r: of(r, "device").update(uuid=["GPU-h"]), "is not text"),
    ("no index", lambda r: of(r, "device").update(index=None), "is not a count"),
    ("a share as a list", lambda r: of(r, "device").update(precision={"shares_ppm": {"bf16": [1]}, "declared_by": "config"}), "is not a count"),
    ("a row as a mapping", lambda r: of(r, "device").update(peak_row={}), "is not text"),
    ("a true start", lambda r: of(r, "device").update(incarnation=True), "is not a count"),
    ("a peak table", lambda r: r[0].update(peak_table_sha256=None), "is not a SHA-256"),
]  # fmt: skip


def sessions(records: list[J]) -> list[J]:
    return [one for record in records if record["kind"] == "checkpoint" for one in record.get("sessions", ())]


def shares(records: list[J]) -> J:
    """The share of a declared phase in the first tally that has one."""
    found: J = next(
        share
        for record in records
        if record["kind"] == "checkpoint"
        for entry in record["devices"]
        for share in entry.get("phases", {}).values()
    )
    return found


COLUMNS: list[tuple[str, Callable[[J], object], str]] = [
    ("too short a column", lambda c: c["tallies"]["to_ns"].pop(), "'to_ns' has 1 values for 2 devices"),
    ("a column too long", lambda c: c["tallies"]["gap_ns"]["driver_timeout"].append(1), "has 3 values for 2 devices"),
    ("an amount as no column", lambda c: c["tallies"].update(busy_sm_cycles=1), "not a record of"),
    ("a column of columns", lambda c: c["tallies"].update(to_ns=[c["tallies"]["to_ns"]] * 2), "is not a count"),
    ("a deep column", lambda c: c["tallies"].update(a={"b": {"c": {"d": {"e": {"f": [1, 1]}}}}}), "nested too deeply"),
    ("no device", lambda c: c["tallies"]["to_ns"].__setitem__(1, None), "not a record of"),
    ("two origins", lambda c: c["tallies"]["running"].update(x={"ns": [1, None], "elapsed": [1, None]}), "not a record of"),
    ("a strange pipe", lambda c: next(iter(c["tallies"]["running"].values())).update(x=[1, None]), "not a record of"),
    ("a device twice", lambda c: c.update(devices=[0, 0]), "devices of a checkpoint are not in order"),
    ("a device before another", lambda c: c.update(devices=[1, 0]), "devices of a checkpoint are not in order"),
    ("a true device", lambda c: c.update(devices=[0, True]), "is not a count"),
    ("a strange device", lambda c: c.update(devices=[0, 9]), "not a record of"),
    ("no columns", lambda c: c.pop("tallies"), "not a record of"),
]  # fmt: skip


@pytest.mark.parametrize("at", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize(("name", "edit", "reason"), COLUMNS, ids=[name for name, _, _ in COLUMNS])
def test_malformed_columns_are_refused(
    name: str,  # noqa: ARG001
    edit: Callable[[J], object],
    reason: str,
    at: int,
) -> None:
    records = copy.deepcopy(list(_journal()))
    edit(of(records, "checkpoint", at))
    with pytest.raises(JournalDamagedError, match=reason):
        reads(records)


@pytest.mark.parametrize(("name", "edit", "reason"), WRONG, ids=[name for name, _, _ in WRONG])
def test_bad_records_are_refused(name: str, edit: Callable[[list[J]], object], reason: str) -> None:  # noqa: ARG001
    with pytest.raises(JournalDamagedError, match=reason) as fault:
        reads(edited(edit))
    assert str(fault.value).startswith("journal line ")
    assert not re.search(r"Error\(|None|True", str(fault.value)), "in words, not as Python writes it"


def test_a_device_is_tracked_from_the_begin_record_on() -> None:
    reads(edited(lambda r: of(r, "device").update(to_ns=of(r, "begin")["ns"])))


def last(records: list[J]) -> J:
    """The last tally of the GPU with running counters."""
    return next(e for r in records[::-1] if r["kind"] == "checkpoint" for e in r["devices"] if e["number"] == 0)


UNSEALABLE: list[tuple[str, Callable[[list[J]], object], str]] = [
    ("an unknown row", lambda r: of(r, "device").update(peak_row="h900"), "h900.*peak table does not have"),
    ("too much recovered", lambda r: last(r).update(recovered_ns={"cycles": 10**15}), "more gap time was recovered than its gaps have"),
    ("too much energy", lambda r: last(r).update(energy_ns=10**15), "energy covers more time than the device's job time"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "reason"), UNSEALABLE, ids=[name for name, _, _ in UNSEALABLE])
def test_impossible_amounts_are_not_sealed(name: str, edit: Callable[[list[J]], object], reason: str) -> None:  # noqa: ARG001
    with pytest.raises(JournalDamagedError, match=reason):
        statement_of(chain(edited(edit)))

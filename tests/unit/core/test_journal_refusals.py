"""Journals that no daemon writes: each fault is refused, and the message names it. Here are those that no published
vector has: `test_each_vector_gives_its_expected_outcome` has all others."""

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
from tests.make_vectors.files import parsed
from tests.support.columns import by_device, in_columns
from tests.support.story import A100, CYCLES_H100, Second, Story, gap, tell

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
    ("no context", lambda r: r[0].pop("context"), "its context cannot be read"),
    ("a time as text", lambda r: tally(r, 0, 1).update(to_ns="x"), "is not a count"),
    ("a row as a mapping", lambda r: of(r, "device").update(peak_row={}), "is not text"),
]  # fmt: skip


COLUMNS: list[tuple[str, Callable[[J], object], str]] = [
    ("an amount as no column", lambda c: c["tallies"].update(busy_sm_cycles=1), "not a record of"),
    ("no device", lambda c: c["tallies"]["to_ns"].__setitem__(1, None), "not a record of"),
    ("no columns", lambda c: c.pop("tallies"), "not a record of"),
]  # fmt: skip


@pytest.mark.parametrize("at", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize(("edit", "reason"), [row[1:] for row in COLUMNS], ids=[row[0] for row in COLUMNS])
def test_malformed_columns_are_refused(edit: Callable[[J], object], reason: str, at: int) -> None:
    records = copy.deepcopy(list(_journal()))
    edit(of(records, "checkpoint", at))
    with pytest.raises(JournalDamagedError, match=reason):
        reads(records)


@pytest.mark.parametrize(("edit", "reason"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_bad_records_are_refused(edit: Callable[[list[J]], object], reason: str) -> None:
    with pytest.raises(JournalDamagedError, match=reason) as fault:
        reads(edited(edit))
    assert str(fault.value).startswith("journal line ")
    assert not re.search(r"Error\(|None|True", str(fault.value)), "in words, not as Python writes it"


def test_a_device_is_tracked_from_the_begin_record_on() -> None:
    reads(edited(lambda r: of(r, "device").update(to_ns=of(r, "begin")["ns"])))


@pytest.mark.parametrize("changed", [{"more": 1}, {"files_private": 1}, {"job_container": 0}])
def test_an_isolation_that_no_daemon_writes_is_refused(changed: J) -> None:
    def change(records: list[J]) -> None:
        of(records, "begin")["isolation"].update(changed)

    with pytest.raises(JournalDamagedError):
        read_history(edited(change))

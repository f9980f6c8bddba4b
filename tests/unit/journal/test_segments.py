"""Segments on disk: the chain that the journal continues, and a rotation interrupted by a kill."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.ledger.segments import Continued, SegmentFacts
from flopsd.errors import JournalError
from flopsd.journal.framing import GENESIS, frame
from flopsd.journal.head import Head, KnownJournal
from flopsd.journal.reading import read_journal
from flopsd.journal.segments import (
    ClosedSegment,
    closed_name,
    closed_segments,
    continued_by,
    heads_in_chain,
    newest_closed,
    settle_next,
)
from flopsd.journal.state_dir import StateDir
from tests.support.os_calls import failing, replace_call


def written(path: Path, *records: dict[str, Any]) -> Head:
    path.parent.mkdir(exist_ok=True)
    head, lines = GENESIS, b""
    for record in records:
        line, head = frame(head, record)
        lines += line
    path.write_bytes(lines)
    return Head(len(records), head.hex())


def going_on(number: int, head: Head) -> tuple[SegmentFacts, dict[str, Any]]:
    """A segment that ended with this head, and the first record of the next one."""
    before = SegmentFacts(number, "d" * 64, 9, head.records, head.sha256)
    return before, {"kind": "begin", "continues": Continued(before, 0, 0, ()).for_journal()}


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    folder = StateDir(tmp_path)
    folder.segments.mkdir()
    return folder


def chain(state: StateDir, numbers: tuple[int, ...] = (1, 2, 3)) -> list[tuple[str, Head]]:
    """Closed segments with these numbers and the journal after them; names and heads, the last first."""
    found, record = list[tuple[str, Head]](), dict[str, Any](kind="begin")
    for number in numbers:
        head = written(path := state.segments / "any", record, {"n": number})
        before, record = going_on(number, head)
        path.rename(state.segments / closed_name(before))
        found.insert(0, (closed_name(before), head))
    written(state.journal, record, {"n": 0})
    return found


def test_the_chain_names_each_earlier_segment_and_its_required_head(state: StateDir) -> None:
    found = chain(state)
    assert list(heads_in_chain(state)) == found
    assert [name[:5] for name, _ in found] == ["0003-", "0002-", "0001-"]
    assert [path.name for path in closed_segments(state)] == [name for name, _ in reversed(found)]
    (state.segments / found[1][0]).unlink()
    assert list(heads_in_chain(state)) == found[:2], "what one that is gone went on from is not known"
    state.journal.unlink()
    assert list(heads_in_chain(state)) == []


def test_the_newest_segment_is_the_one_that_no_other_continues(state: StateDir) -> None:
    """An interrupted rotation began another segment 2, after the wall clock had been set back."""
    found = chain(state)
    for age, (name, _) in enumerate(found):
        os.utime(state.segments / name, ns=(0, age))
    state.journal.unlink()
    newest = newest_closed(state)
    assert newest is not None
    assert newest.name == found[0][0]


@pytest.mark.parametrize("numbers", [(2, 2, 3), (3, 2, 3), (7, 8, 10)])
def test_a_segment_without_the_preceding_number_ends_the_chain(state: StateDir, numbers: tuple[int, ...]) -> None:
    found = chain(state, numbers)
    assert list(heads_in_chain(state)) == found[: 2 if numbers[1] == numbers[2] - 1 else 1]


@pytest.mark.parametrize("continues", [None, 7, "x", [], {}, {"segment": 1}, {"run": []}])
def test_an_invalid_continuation_continues_nothing(state: StateDir, continues: Any) -> None:
    written(state.journal, {"kind": "begin", "continues": continues})
    assert list(heads_in_chain(state)) == []


def test_segments_are_ordered_by_number_and_the_newest_is_the_last_written(state: StateDir) -> None:
    assert newest_closed(state) is None
    names = [f"{number}-{'a' * 16}.journal.jsonl" for number in ("0002", "0010", "9999", "10000")]
    for age, name in enumerate(names):
        (state.segments / name).touch()
        os.utime(state.segments / name, ns=(0, 100 - age))
    for other in ("002-a.journal.jsonl", "x0002-a.journal.jsonl", "0002-a.json"):
        (state.segments / other).touch()
    assert [path.name for path in closed_segments(state)] == names
    newest = newest_closed(state)
    assert newest is not None
    assert newest.name == names[0]
    facts = SegmentFacts(12, "", 1, 1, "0123456789abcdef0")
    assert (ClosedSegment(facts, False).to_move, ClosedSegment(facts, True).to_move) == (
        "0012-0123456789abcdef.journal.jsonl", None
    )  # fmt: skip


def test_a_journal_without_a_record_continues_nothing(state: StateDir) -> None:
    state.journal.write_bytes(b"")
    assert continued_by(state.journal) is None
    written(state.journal, {"kind": "begin"})
    assert continued_by(state.journal) is None


@pytest.mark.parametrize("is_known", [True, False, None])
@pytest.mark.parametrize("old", ["there", "moved"])
@pytest.mark.parametrize("begun", ["whole", "first", "torn", "empty", "none"])
def test_a_rotation_is_finished_exactly_where_the_begun_journal_is_known(
    state: StateDir, begun: str, old: str, is_known: bool | None
) -> None:
    """`first`: a journal that continues no other."""
    ended = written(state.journal, {"kind": "begin"}, {"n": 1})
    before, record = going_on(1, ended)
    closed = state.segments / closed_name(before)
    if old == "moved":
        state.journal.rename(closed)
    head = written(state.next_journal, {"kind": "begin"} if begun == "first" else record, {"n": 2})
    whole = state.next_journal.read_bytes()
    if begun in ("torn", "empty"):
        state.next_journal.write_bytes(whole[:-1] if begun == "torn" else b"")
    if begun == "none":
        state.next_journal.unlink()
    known = None if is_known is None else KnownJournal(head if is_known else ended, None, None, "run")
    kept = (state.journal if old == "there" else closed).read_bytes()
    settle_next(state, known)
    assert not state.next_journal.exists()
    is_finished = is_known is True and begun in ("whole", "first")
    assert (state.journal.exists() and state.journal.read_bytes() == whole) is is_finished
    if not is_finished:
        assert (state.journal if old == "there" else closed).read_bytes() == kept
    elif begun == "whole":
        assert closed.read_bytes() == kept


def written_next(state: StateDir, *more: dict[str, Any], other: bool = False) -> tuple[SegmentFacts, bytes]:
    ended = written(state.journal, {"kind": "begin"}, {"n": 1})
    before, record = going_on(1, Head(2, "e" * 64) if other else ended)
    written(state.next_journal, record, *more)
    return before, state.next_journal.read_bytes()


@pytest.mark.parametrize("old", ["there", "moved"])
def test_a_begun_journal_in_which_the_run_continued_is_used_by_the_next_start(state: StateDir, old: str) -> None:
    """A disk refused the last step of a rotation for an hour, and then the daemon and its launcher were killed."""
    before, whole = written_next(state, {"kind": "device"}, {"kind": "checkpoint"}, {"n": 1})
    ended, closed = state.journal.read_bytes(), state.segments / closed_name(before)
    if old == "moved":
        state.journal.rename(closed)
    state.next_journal.write_bytes(whole + b'{"h":"to')
    settle_next(state, None)
    assert state.journal.read_bytes() == whole + b'{"h":"to', "recovery cuts what is torn, as of any journal"
    assert (closed.read_bytes(), state.next_journal.exists()) == (ended, False)


def test_a_begun_journal_of_another_segment_is_never_continued(state: StateDir) -> None:
    written_next(state, {"kind": "checkpoint"}, other=True)
    ended = state.journal.read_bytes()
    settle_next(state, None)
    assert (state.journal.read_bytes(), state.next_journal.exists()) == (ended, False)


def test_the_launcher_may_know_fewer_records_than_the_begun_journal_has(state: StateDir) -> None:
    written_next(state, {"kind": "device"}, {"n": 3})
    begun = list(read_journal(state.next_journal))
    settle_next(state, KnownJournal(Head(2, begun[1].head.hex()), None, None, "run"))
    assert [line.head for line in read_journal(state.journal)] == [line.head for line in begun]


@pytest.mark.parametrize("call", ["replace", "unlink", "fsync"])
def test_a_rotation_that_cannot_be_finished_now_keeps_everything(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    _, whole = written_next(state, *([] if call == "unlink" else [{"kind": "checkpoint"}]))
    ended = state.journal.read_bytes()
    with monkeypatch.context() as sick:
        replace_call(sick, call, failing(errno.EIO))
        with pytest.raises(JournalError, match=r"cannot finish the interrupted rotation of .*: Input/output error"):
            settle_next(state, None)
    assert (state.journal.read_bytes(), state.next_journal.read_bytes()) == (ended, whole)
    settle_next(state, None)
    assert state.journal.read_bytes() == (ended if call == "unlink" else whole)


def test_an_unlistable_folder_of_closed_segments_is_not_treated_as_empty(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "listdir", failing(errno.ESTALE))
    with pytest.raises(JournalError, match=f"cannot list the closed segments in {state.segments}: Stale"):
        newest_closed(state)
    with pytest.raises(JournalError, match=f"cannot list the state folder {state.path}: Stale"):
        state.data_files("peaks", ())

"""The journal file: what survives a crash at any byte, what is never accepted, and what is synced before it counts
as durable."""

import errno
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flopsd.core.notes import note
from flopsd.core.untrusted import parse_json
from flopsd.errors import JournalError, JournalReplacedError, NotVerifiedError, StateDirBusyError, UnreadableRecordError
from flopsd.journal import framing
from flopsd.journal.framing import GENESIS, MAX_LINE_BYTES, frame, line_ends_at, looks_like_records, read_lines
from flopsd.journal.head import NOT_ANY, KnownJournal
from flopsd.journal.journal import Journal
from flopsd.journal.reading import newest_pending, read_journal
from flopsd.journal.sealed_prefix import durable_prefix
from flopsd.journal.state_dir import LOCK_NAME, StateDir
from tests.support.extent import examples
from tests.support.os_calls import Killed, failing


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    folder = StateDir(tmp_path / "state")
    folder.acquire()
    yield folder
    folder.release()


def opened(state: StateDir) -> Journal:
    journal = Journal(state)
    journal.recover("aside")
    return journal


def write(state: StateDir, count: int) -> list[dict[str, int]]:
    journal = Journal(state)
    assert journal.recover("aside") is None
    records = [{"n": n} for n in range(journal.records, journal.records + count)]
    for record in records:
        journal.append(record)
    journal.close()
    return records


def read(state: StateDir) -> list[object]:
    return [line.record() for line in read_journal(state.journal)]


def test_after_a_failed_sync_the_file_is_cut_and_read_whole_once(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(state, 3)
    journal, read_whole = Journal(state), Journal._read_own
    journal.recover("aside")
    reads = 0

    def count(of: Journal) -> None:
        nonlocal reads
        reads += 1
        read_whole(of)

    monkeypatch.setattr(Journal, "_read_own", count)
    journal.append({"n": 3})
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(JournalError, match="cannot write the journal .*Input/output error"):
            journal.append({"n": 4})
    assert len(read(state)) == 4
    journal.append({"n": 4})
    journal.append({"n": 5})
    journal.close()
    assert reads == 1
    assert read(state) == [{"n": n} for n in range(6)]


@pytest.mark.parametrize("length", [1, 10**4, 10**5, 10**6])
def test_a_line_of_any_length_is_found_by_its_end(tmp_path: Path, length: int) -> None:
    first, head = frame(GENESIS, {"n": 0})
    second, last = frame(head, {"text": "x" * length})
    (path := tmp_path / "journal").write_bytes(first + second)
    with path.open("rb") as file:
        assert line_ends_at(file.fileno(), len(first + second), last.hex())
        assert line_ends_at(file.fileno(), len(first), head.hex())
        for end in (-1, 0, len(first) - 1, len(first + second) - 1, len(first + second) + 1):
            assert not line_ends_at(file.fileno(), end, last.hex())


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(10**38, 10**42),
        st.integers(-(10**42), -(10**38)),
        st.floats(),
        st.text(),
        st.sampled_from(["\ud800", "\udc00", "😀", "1.5]", "1e+16,", "7" * 60, '"', "\\u0041", b"x"]),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.one_of(st.text(), st.integers()), inner)),
)


@pytest.mark.long
@settings(max_examples=examples(200))
@given(values)
@example("\ud800")
@example(1.5)
@example(1e22)
@example(10**41)
def test_a_record_is_framed_exactly_if_it_can_be_read_back(value: object) -> None:
    record = {"kind": "any", "value": value}
    try:
        text = json.dumps(record, sort_keys=True, allow_nan=False)
        shown = parse_json(text.encode("ascii"), "the record")
    except (TypeError, ValueError, NotVerifiedError):
        with pytest.raises(UnreadableRecordError, match="of kind 'any' cannot be journalled"):
            frame(GENESIS, record)
        return
    framed, head = frame(GENESIS, record)
    (line,) = read_lines(io.BytesIO(framed))
    assert line.head == head
    assert line.record() == shown


def test_a_line_longer_than_readers_accept_is_not_written(tmp_path: Path) -> None:
    spare = MAX_LINE_BYTES - len(frame(GENESIS, {"x": ""})[0])
    framed, _ = frame(GENESIS, {"x": "y" * spare})
    assert len(list(read_lines(io.BytesIO(framed)))) == 1
    before, head = frame(GENESIS, {"n": 0})
    longest, last = frame(head, {"x": "y" * spare})
    (journal := tmp_path / "journal").write_bytes(before + longest)
    with journal.open("rb") as file:
        assert line_ends_at(file.fileno(), len(before + longest), last.hex())
    with pytest.raises(UnreadableRecordError, match="the limit of a line is 4194304"):
        frame(GENESIS, {"x": "y" * (spare + 1)})


@pytest.mark.parametrize(
    ("data", "is_altered"),
    [
        (b"", False), (b"x\n", False), (b'{"h":"x', False), (b'{"h":"\n', True), (b"x}}\n", True), (b"x}}", False),
        (b'x\n\n{"h":"\n', True), (b'{"h":"x\0', False), (bytes(40), False), (b'\n{"h":', False), (b'{"h":\n', False),
        # A chunk has 16 bytes: only the first chunk of a line shows its beginning.
        (b"x" * 16 + b'{"h":"\n', False), (b'{"h":"' + b"x" * 40 + b"\n", True), (b"x" * 40 + b"}}\n", True),
        (b'{"h":"' + b"x" * 40, False), (b"x" * 20 + b'\n{"h":"\n', True), (b'{"h":"' + b"x" * 9 + b"\n" + b"y\n", True),
        # After a power cut, only the last block of a line may be on the disk.
        (bytes(9) + b"x}}\n", False), (b'{"h":"' + bytes(20) + b"x}}\n", False), (bytes(3) + b'\n{"h":"\n', True),
    ],
)  # fmt: skip
def test_a_whole_altered_line_is_not_mistaken_for_a_crash(
    monkeypatch: pytest.MonkeyPatch, data: bytes, is_altered: bool
) -> None:
    monkeypatch.setattr(framing, "MAX_LINE_BYTES", 16)
    assert looks_like_records(io.BytesIO(data)) is is_altered


def test_invalid_complete_lines_are_put_aside(state: StateDir) -> None:
    """The lines before them are kept: their chain is intact, and checkpoint lines that left the host still lie on
    it."""
    write(state, 5)
    lines = state.journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"n":2', b'"n":7')
    for turn, kept_as in enumerate(("aside.jsonl", "1-aside.jsonl", "2-aside.jsonl")):
        state.journal.write_bytes(b"".join(lines))
        journal = Journal(state)
        recovery = journal.recover("aside.jsonl")
        assert recovery is not None
        assert (recovery.kept_as, recovery.cut_bytes) == (kept_as, len(b"".join(lines[2:])))
        assert recovery.reasons == (note("line_invalid", refusal="journal_chain", line="3"),)
        assert (state.path / kept_as).read_bytes() == b"".join(lines[2:])
        assert (state.path / kept_as).stat().st_mode & 0o777 == 0o600
        assert journal.records == 2
        journal.append({"turn": turn})
        journal.close()
        assert read(state) == [{"n": 0}, {"n": 1}, {"turn": turn}]


@pytest.mark.parametrize("how", ["removed", "replaced", "longer"])
def test_a_journal_that_another_process_replaced_is_put_back(state: StateDir, how: str) -> None:
    write(state, 1)
    journal = opened(state)
    before = state.journal.read_bytes()
    if how != "longer":
        state.journal.unlink()
    if how != "removed":
        state.journal.write_bytes(before * (2 if how == "longer" else 1))
    journal.append({"n": 1})
    journal.close()
    assert journal.put_back == 1
    assert state.journal.read_bytes().startswith(before)
    assert [line.record() for line in read_journal(state.journal)][-1] == {"n": 1}
    assert (state.path / "not-ours.journal.jsonl").exists() is (how != "removed")


def test_files_left_by_a_kill_while_restoring_a_journal_are_removed(state: StateDir) -> None:
    write(state, 1)
    left = [path.with_name(f".{path.name}.{'0' * 16}") for path in (state.journal, state.next_journal)]
    for path in left:
        path.write_bytes(b"half")
    write(state, 1)
    assert [path for path in left if path.exists()] == []


@pytest.mark.parametrize("gone", ["lock", "folder"])
def test_a_removed_lock_or_folder_is_recreated_with_everything_written(state: StateDir, gone: str) -> None:
    journal = opened(state)
    journal.append({"n": 0})
    if gone == "lock":
        (state.path / "lock").unlink()
    else:
        shutil.rmtree(state.path)
    journal.append({"n": 1})
    journal.note({"n": 2})
    journal.close()
    assert read(state) == [{"n": 0}, {"n": 1}]
    assert state.pending.stat().st_size
    with pytest.raises(StateDirBusyError):
        StateDir(state.path).acquire()


def test_a_folder_taken_over_by_another_daemon_is_not_written_to(state: StateDir) -> None:
    journal, other = Journal(state), StateDir(state.path)
    journal.recover("aside")
    journal.append({"n": 0})
    before = state.journal.read_bytes()
    (state.path / "lock").unlink()
    other.acquire()
    for _ in range(2):
        with pytest.raises(StateDirBusyError, match=f"process {os.getpid()} "):
            journal.append({"n": 1})
        journal.note({"n": 2})
        assert (state.journal.read_bytes(), state.pending.read_bytes()) == (before, b"")
    other.release()
    journal.append({"n": 1})
    journal.close()
    assert read(state) == [{"n": 0}, {"n": 1}]


@pytest.mark.parametrize("name", ["journal.jsonl", "pending.jsonl"])
@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_a_foreign_file_in_the_state_folder_is_neither_waited_for_nor_written_to(
    state: StateDir, name: str, kind: str
) -> None:
    path, elsewhere = state.path / name, state.path / "elsewhere"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        elsewhere.write_text("precious\n")
        path.symlink_to(elsewhere)
    journal = Journal(state)
    with pytest.raises(JournalError, match=f"{name}: (not a regular file|it is a symbolic link)"):
        journal.recover("aside")
    journal.close()
    assert kind == "fifo" or elsewhere.read_text() == "precious\n"


def test_a_journal_altered_in_place_is_not_continued(state: StateDir) -> None:
    write(state, 2)
    journal = opened(state)
    altered = state.journal.read_bytes().replace(b'"n":0', b'"n":7')
    state.journal.write_bytes(altered + b"\n")
    with pytest.raises(JournalReplacedError, match="is not the journal that was written"):
        journal.append({"n": 2})
    journal.close()


def test_records_added_by_another_process_are_not_continued(state: StateDir) -> None:
    """A daemon was killed, and another process continued in its files before the restart."""
    write(state, 2)
    journal = opened(state)
    journal.note({"n": 2})
    known = KnownJournal.parse(str(journal.as_known_journal("run-1")))
    journal.note({"n": 3})
    journal.close()
    genuine = state.pending.read_bytes()
    forger = opened(state)
    forger.append({"n": 9})
    forger.close()
    state.pending.write_bytes(genuine)
    journal = Journal(state)
    recovery = journal.recover("aside", known)
    journal.close()
    assert recovery is not None
    assert recovery.kept_as == "aside"
    assert [line.record()["n"] for line in read_journal(state.journal)] == [0, 1, 2]


@pytest.mark.parametrize("records", [0, 1, 3])
def test_a_journal_that_lacks_known_records_is_not_recovered(state: StateDir, records: int) -> None:
    """Cut off, or replaced by another journal."""
    write(state, 2)
    journal = opened(state)
    known = KnownJournal.parse(str(journal.as_known_journal("run-1")))
    journal.close()
    state.journal.unlink()
    state.pending.unlink(missing_ok=True)
    forger = opened(state)
    for number in range(records):
        forger.append({"n": 9 * number})
    forger.close()
    with pytest.raises(JournalReplacedError, match="is not the journal that was written"):
        Journal(state).recover("aside", known)


def test_no_journal_is_recovered_if_what_the_launcher_knew_cannot_be_read(state: StateDir) -> None:
    write(state, 2)
    with pytest.raises(JournalReplacedError, match="is not the journal that was written"):
        Journal(state).recover("aside", NOT_ANY)


@pytest.mark.parametrize("is_written", [True, False])
def test_a_kill_while_a_record_is_written_loses_no_reading(state: StateDir, is_written: bool) -> None:
    """A rolling seal may have covered the record, so that a journal without it would contradict a signed ledger."""
    write(state, 2)
    journal = opened(state)
    journal.note({"n": 2})
    before, announced = state.journal.read_bytes(), list[KnownJournal]()
    journal.append({"n": 3}, lambda: announced.append(KnownJournal.parse(str(journal.as_known_journal("run-1")))))
    assert journal.as_known_journal("run-1").next_sha256 is None
    if not is_written:
        state.journal.write_bytes(before)
    killed, journal = journal, Journal(state)
    assert journal.recover("aside", announced[0]) is None
    assert [line.record()["n"] for line in read_journal(state.journal)] == [0, 1, 3 if is_written else 2]
    journal.close()
    killed.close()


def test_a_record_after_the_announced_one_is_not_continued(state: StateDir) -> None:
    write(state, 2)
    journal, announced = opened(state), list[KnownJournal]()
    journal.append({"n": 2}, lambda: announced.append(journal.as_known_journal("run-1")))
    journal.append({"n": 9})
    killed, journal = journal, Journal(state)
    recovery = journal.recover("aside", announced[0])
    assert recovery is not None
    assert recovery.reasons == (note("tail_not_known"),)
    assert [line.record()["n"] for line in read_journal(state.journal)] == [0, 1, 2]
    journal.close()
    killed.close()


def test_a_record_that_was_not_announced_is_not_continued_and_costs_no_reading(state: StateDir) -> None:
    write(state, 2)
    journal = opened(state)
    journal.note({"n": 2})
    known = KnownJournal.parse(str(journal.as_known_journal("run-1")))
    journal.append({"n": 3})
    killed, journal = journal, Journal(state)
    recovery = journal.recover("aside", known)
    assert recovery is not None, "whose the record is cannot be known"
    assert [line.record()["n"] for line in read_journal(state.journal)] == [0, 1, 2]
    journal.close()
    killed.close()


def test_a_kill_after_pending_totals_were_recovered_is_not_taken_for_a_forged_record(state: StateDir) -> None:
    """The launcher does not know of a recovered record before the next one is written."""
    write(state, 2)
    journal = opened(state)
    journal.note({"n": 2})
    journal.note({"n": 3})
    known = KnownJournal.parse(str(journal.as_known_journal("run-1")))
    for _ in range(2):
        killed, journal = journal, Journal(state)
        assert journal.recover("aside", known) is None
        killed.close()
        assert [line.record()["n"] for line in read_journal(state.journal)] == [0, 1, 3]
    journal.close()


def test_a_launcher_that_does_not_know_of_recovered_totals_loses_none(state: StateDir) -> None:
    """A daemon start that fails after its recovery, in order, leaves them for the next start."""
    write(state, 2)
    journal = opened(state)
    journal.note({"n": 2})
    known = KnownJournal.parse(str(journal.as_known_journal("run-1")))
    for _ in range(2):
        journal.close()
        journal = Journal(state)
        assert journal.recover("aside", known) is None
    assert read(state) == [{"n": 0}, {"n": 1}, {"n": 2}]
    journal.append({"n": 3})
    journal.close()
    assert state.pending.read_bytes() == b""


@pytest.mark.parametrize("is_launched", [True, False])
@pytest.mark.parametrize(("call", "kept"), [("pwrite", 1), ("ftruncate", 2)])
def test_a_kill_while_totals_replace_others_leaves_the_others_or_them(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, call: str, kept: int, *, is_launched: bool
) -> None:
    """Else figures would be lost that were shown already."""
    write(state, 1)
    journal, announced = opened(state), list[KnownJournal]()
    journal.note({"n": 1, "shorter": False})
    journal.append({"kind": "declaration"})

    def kill(*_: object) -> None:
        raise Killed

    def announce() -> None:
        announced.append(KnownJournal.parse(str(journal.as_known_journal("run-1"))))

    with monkeypatch.context() as killed:
        killed.setattr(os, call, kill)
        with pytest.raises(Killed):
            journal.note({"n": 2}, announce)
    killed_one, journal = journal, Journal(state)
    assert journal.recover("aside", announced[0] if is_launched else None) is None
    assert [line.record().get("n") for line in read_journal(state.journal)] == [0, None, kept]
    journal.close()
    killed_one.close()


@pytest.mark.parametrize("is_launched", [True, False])
@pytest.mark.parametrize("kind", ["sealed", "declaration", "device"])
def test_a_record_without_totals_leaves_the_pending_totals(state: StateDir, kind: str, is_launched: bool) -> None:
    """A seal or declarations precede a checkpoint, and a kill may come between them. Older device records have no
    totals."""
    write(state, 2)
    journal = opened(state)
    journal.note({"n": 2})
    journal.note({"n": 3})
    journal.append({"kind": kind})
    journal.append({"kind": "sealed"})
    known = KnownJournal.parse(str(journal.as_known_journal("run-1")))
    killed, journal = journal, Journal(state)
    assert journal.recover("aside", known if is_launched else None) is None
    assert [line.record().get("n", "") for line in read_journal(state.journal)] == [
        0, 1, "", "", *([3] if kind != "device" else [])
    ]  # fmt: skip
    journal.close()
    killed.close()


def test_records_pending_on_a_full_disk_survive_a_seal_of_the_rest(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(state, 2)
    journal = opened(state)
    journal.note({"n": 2})
    killed, journal = journal, Journal(state)

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", failing(errno.ENOSPC))
        journal.recover("aside")
        journal.close()
    journal = opened(state)
    assert [line.record()["n"] for line in read_journal(state.journal)] == [0, 1, 2]
    journal.close()
    killed.close()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_not_reported_as_a_running_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder = StateDir(tmp_path / "state")
    monkeypatch.setattr(fcntl, "flock", failing(code))
    with pytest.raises(JournalError, match=f"cannot lock the state folder .*: {os.strerror(code)}") as caught:
        folder.acquire()
    assert not isinstance(caught.value, StateDirBusyError)
    assert "--state-dir" in caught.value.hint
    assert not folder.is_held()


def test_a_second_owner_or_an_unusable_state_folder_is_refused_by_name(state: StateDir) -> None:
    with pytest.raises(StateDirBusyError, match=rf"is in use by a running flopsd: process {os.getpid()} ") as caught:
        StateDir(state.path).acquire()
    assert "--state-dir" in caught.value.hint
    assert StateDir(state.path).is_held()
    state.release()
    assert not StateDir(state.path).is_held()
    (state.path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot use the state folder"):
        StateDir(state.path / "file" / "state").acquire()


def test_checking_the_lock_keeps_no_daemon_from_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looks = fcntl.flock, 2

    def flock(lock: int, how: int) -> None:
        nonlocal looks
        if how & fcntl.LOCK_EX and looks:
            looks -= 1
            raise BlockingIOError
        real(lock, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    folder = StateDir(tmp_path / "looked-at")
    folder.acquire()
    assert looks == 0
    folder.release()


@pytest.fixture
def journal(state: StateDir) -> Iterator[Journal]:
    journal = opened(state)
    yield journal
    journal.close()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes of all files synced from now on."""
    found: list[int] = []
    sync = os.fsync

    def noting(fd: int) -> None:
        found.append(os.fstat(fd).st_ino)
        sync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_removed_pending_file_is_recreated(journal: Journal, state: StateDir) -> None:
    journal.append({"n": 0})
    before = descriptors()
    state.pending.unlink()
    journal.append({"n": 1})
    journal.note({"n": 2})
    assert newest_pending(state.pending, bytes.fromhex(journal.head.sha256)) == {"n": 2}
    assert descriptors() == before


def test_a_journal_put_aside_is_kept_whole_and_replaced_by_an_empty_one(journal: Journal, state: StateDir) -> None:
    before = descriptors()
    journal.append({"n": 0})
    journal.note({"n": 1})
    written = state.journal.read_bytes()
    kept = [journal.put_aside("aside.jsonl"), journal.put_aside("aside.jsonl")]
    assert [(state.path / name).read_bytes() for name in kept] == [written, b""]
    assert (state.journal.read_bytes(), list(journal.read()), journal.records) == (b"", [], 0)
    assert newest_pending(state.pending, GENESIS) is None
    journal.append({"n": 2})
    assert ([line.record() for line in read_journal(state.journal)], descriptors()) == ([{"n": 2}], before)


def test_without_a_pending_file_no_other_file_is_written_to(journal: Journal, state: StateDir, tmp_path: Path) -> None:
    journal.append({"n": 0})
    state.pending.unlink()
    state.pending.symlink_to(tmp_path / "elsewhere")
    journal.append({"n": 1})
    with (tmp_path / "other").open("wb") as other:  # it has the descriptor that the pending file had
        with pytest.raises(JournalError, match="cannot write .*pending"):
            journal.note({"n": 2})
        other.write(b"goes on")
    assert (tmp_path / "other").read_bytes() == b"goes on"
    assert not (tmp_path / "elsewhere").exists()
    before = descriptors()
    state.pending.unlink()
    for n in (2, 3):
        journal.append({"n": n})
        journal.note({"n": -n})
        assert newest_pending(state.pending, bytes.fromhex(journal.head.sha256)) == {"n": -n}
        assert descriptors() == before + 1


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_failed_write_leaks_no_descriptor(
    journal: Journal, state: StateDir, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    journal.append({"n": 0})
    before = descriptors()
    with monkeypatch.context() as broken:
        broken.setattr(os, call, failing(errno.EIO))
        for _ in range(20):
            with pytest.raises(JournalError, match="cannot write the journal .*: Input/output error"):
                journal.append({"n": 1})
    assert descriptors() <= before
    journal.append({"n": 1})
    assert descriptors() == before
    journal.close()
    journal.close()  # closes no descriptor that another file has meanwhile
    assert descriptors() == before - 2
    assert [line.record() for line in read_journal(state.journal)] == [{"n": 0}, {"n": 1}]


def test_a_note_partly_written_on_a_full_disk_is_ignored_and_overwritten(
    journal: Journal, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_at = os.pwrite
    journal.note({"n": 0})
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", lambda fd, line, at: write_at(fd, line[:-1], at))
        with pytest.raises(JournalError, match=r"cannot write .*pending\.jsonl: No space left on device"):
            journal.note({"text": "x" * 999})
    for n in range(5):
        assert newest_pending(state.pending, GENESIS) == {"n": n}
        journal.note({"n": n + 1})


def test_remains_of_a_failed_write_are_cut_before_the_next_record(
    journal: Journal, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_at = os.pwrite

    def tear(fd: int, line: bytes, at: int) -> int:
        write_at(fd, line[:5], at)
        raise OSError(errno.EIO, "Input/output error")

    journal.append({"n": 0})
    size, files = state.journal.stat().st_size, sorted(state.path.iterdir())
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", tear)
        broken.setattr(os, "ftruncate", failing(errno.EROFS))
        with pytest.raises(JournalError, match="Input/output error"):
            journal.append({"n": 1})
    assert state.journal.stat().st_size == size + 5
    journal.append({"n": 1})
    assert sorted(state.path.iterdir()) == files, "none is kept as that of another process"
    assert [line.record() for line in read_journal(state.journal)] == [{"n": 0}, {"n": 1}]
    with state.journal.open("ab") as other:
        other.write(b"what another process writes later\n")
    journal.append({"n": 2})
    assert sorted(state.path.iterdir()) == sorted([*files, state.path / "not-ours.journal.jsonl"])
    assert read(state) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_new_journal_is_synced_into_its_folder_and_each_record_before_it_counts(
    state: StateDir, synced: list[int]
) -> None:
    fresh = opened(state)
    assert state.path.stat().st_ino in synced
    synced.clear()
    fresh.append({"n": 0})
    assert synced == [state.journal.stat().st_ino]
    fresh.close()


def test_the_next_segments_journal_contains_nothing_begun_before_a_kill(journal: Journal, state: StateDir) -> None:
    state.next_journal.write_bytes(b"x" * 4096)
    journal.append({"n": 0})
    journal.begin_next()
    was_next = journal.is_next
    journal.append({"n": 1})
    assert [line.record() for line in read_journal(state.next_journal)] == [{"n": 1}]
    journal.take_over(None)
    assert (was_next, journal.is_next) == (True, False)
    journal.append({"n": 2})
    assert read(state) == [{"n": 1}, {"n": 2}]


def test_the_state_folder_is_readable_only_by_its_owner(tmp_path: Path) -> None:
    folder = StateDir(tmp_path / "of" / "state")
    folder.acquire()
    folder.move_to_segments("one")
    assert [path.stat().st_mode & 0o777 for path in (folder.path, folder.segments)] == [0o700, 0o700]
    folder.release()


def test_notes_after_a_journal_was_put_aside_belong_to_the_new_one(journal: Journal, state: StateDir) -> None:
    journal.append({"n": 0})
    journal.note({"n": 1})
    assert journal.put_aside("old") == "old"
    assert journal.as_known_journal("run-1").pending_sha256 is None
    journal.note({"n": 2})
    journal.close()
    write(state, 0)
    assert read(state) == [{"n": 2}]


def test_the_journal_put_aside_and_the_cut_are_synced(journal: Journal, state: StateDir, synced: list[int]) -> None:
    for n in range(3):
        journal.append({"n": n})
    journal.close()
    lines = state.journal.read_bytes().splitlines(keepends=True)
    state.journal.write_bytes(lines[0] + lines[1].replace(b'"n":1', b'"n":7') + lines[2])
    synced.clear()
    recovery = Journal(state).recover("aside")
    assert recovery is not None
    assert recovery.kept_as == "aside"
    assert (state.path / "aside").stat().st_ino in synced
    assert state.journal.stat().st_ino in synced


def test_sealed_records_are_synced_before_the_seal(journal: Journal, state: StateDir, synced: list[int]) -> None:
    journal.append({"n": 0})
    synced.clear()
    assert durable_prefix(state.journal, lambda _: None).facts.size_bytes == state.journal.stat().st_size
    assert synced == [state.journal.stat().st_ino]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EROFS, errno.ENOTSUP])
def test_a_file_system_without_sync_can_be_sealed(
    journal: Journal, state: StateDir, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    journal.append({"n": 0})

    monkeypatch.setattr(os, "fsync", failing(number))
    assert durable_prefix(state.journal, lambda _: None).facts.size_bytes == state.journal.stat().st_size


def test_a_failing_disk_is_named_when_it_is_sealed(
    journal: Journal, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append({"n": 0})

    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(JournalError, match="cannot read the journal .*: Input/output error"):
        durable_prefix(state.journal, lambda _: None)


def test_a_state_folder_has_one_open_file_only_while_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, other, before = StateDir(tmp_path), StateDir(tmp_path), descriptors()
    held.acquire()
    with pytest.raises(StateDirBusyError):
        other.acquire()
    assert other.is_held()
    held.mark_open(is_open=True)
    (tmp_path / LOCK_NAME).unlink()
    held.keep()
    with monkeypatch.context() as broken:
        broken.setattr("fcntl.flock", failing(errno.ENOLCK))
        with pytest.raises(JournalError, match="cannot lock the state folder"):
            other.acquire()
    assert descriptors() == before + 1
    held.release()
    assert (descriptors(), other.is_held()) == (before, False)

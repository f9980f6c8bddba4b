"""The crash matrix of a real run's journal: cut, filled with NULs or flipped at every byte, and copied while written.

Lines before the damage are kept. Lines after it are reported and never accepted. The run continues and verifies.
"""

import hashlib
import io
import json
import os
import resource
import signal
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.daemon.writing.write_queue import WriteQueue
from flopsd.errors import JournalError, UnreadableRecordError
from flopsd.journal.framing import read_lines
from flopsd.journal.journal import Journal
from flopsd.journal.reading import newest_pending, read_journal, read_live
from flopsd.journal.recovery import Recovery
from flopsd.journal.state_dir import StateDir
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.extent import Extent, sampled
from tests.support.runs import H100, Run, finished, verified


@dataclass(frozen=True)
class Left:
    journal: bytes
    pending: bytes
    ends: tuple[int, ...]  # of the journal's lines

    def lines_before(self, at: int) -> int:
        return sum(end <= at for end in self.ends)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    run = Run(tmp_path_factory.mktemp("killed") / "state", devices=(H100,))
    run.meter(24)
    run.kill()
    journal, pending = run.state.journal.read_bytes(), run.state.pending.read_bytes()
    ends = tuple(at + 1 for at, byte in enumerate(journal) if byte == 10)
    assert len(ends) == 5
    assert pending.count(b"\n") == 4
    return Left(journal, pending, ends)


class Place:
    def __init__(self, folder: Path) -> None:
        self.state = StateDir(folder / "state")
        self.state.acquire()
        self.key, _ = ensure_key(None, folder)
        self.outcomes: Counter[str] = Counter()

    def recover(self, journal: bytes, pending: bytes, *, kept: int) -> Recovery | None:
        """Recover from `journal`, append, read back; exactly the first `kept` lines of it must be there."""
        self.state.journal.write_bytes(journal)
        self.state.pending.write_bytes(pending)
        writer = Journal(self.state)
        recovery = writer.recover("aside")
        records = list(writer.read())
        writer.append({"kind": "next"})
        writer.close()
        assert self.state.pending.read_bytes() == b""
        honest = [json.loads(raw)["r"] for raw in journal.splitlines()[:kept]]
        assert records[:kept] == honest
        assert len(records) in (kept, kept + 1)  # one more from the pending file, if it continues the kept lines
        lines = list(read_live(self.state.journal))
        assert [line.record() for line in lines] == [*records, {"kind": "next"}]
        size = lines[kept - 1].end if kept else 0
        assert self.state.journal.read_bytes()[:size] == journal[:size]
        if recovery is not None:
            rest = journal[size:]
            assert (recovery.cut_bytes, recovery.cut_sha256) == (len(rest), hashlib.sha256(rest).hexdigest())
            if recovery.kept_as is not None:
                aside = self.state.path / recovery.kept_as
                assert aside.read_bytes() == rest
                aside.unlink()
        self.outcomes["whole" if recovery is None else "cut" if recovery.kept_as is None else "put aside"] += 1
        return recovery

    def go_on(self, journal: bytes) -> None:
        """A whole new incarnation on the remains of a crash, sealed and verified."""
        self.state.journal.write_bytes(journal)
        self.state.pending.write_bytes(b"")
        self.state.release()
        clock = FakeClock()
        clock.advance(60 * NS_PER_S)
        run = finished(self.state.path, 3, devices=(H100,), clock=clock)
        sealed = seal_journal(run.state.journal, self.key, self.state.path.parent / "ledger.json", FakeClock())
        verified(sealed)
        self.state.acquire()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """In memory where available: the test is about reading, and thousands of fsyncs take minutes."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Place(Path(folder))


@sampled(20)
def test_a_journal_cut_at_every_byte(left: Left, place: Place, extent: Extent) -> None:
    around = {0, *(end + d for end in left.ends for d in (-1, 0, 1) if end + d <= len(left.journal))}
    sizes = extent.of(range(len(left.journal) + 1), always=around)
    for size in sizes:
        kept = left.lines_before(size)
        recovery = place.recover(left.journal[:size], left.pending, kept=kept)
        assert (recovery is None) == (size in (0, *left.ends))
        assert recovery is None or recovery.kept_as is None
    for size in sorted({*around, *range(0, len(left.journal), 211 * extent.step)}):
        place.go_on(left.journal[:size])


@sampled(20)
@pytest.mark.parametrize("pattern", [0x01, 0x80, 0xFF])
def test_a_journal_flipped_at_every_byte(left: Left, place: Place, pattern: int, extent: Extent) -> None:
    """Whole lines that were changed are put aside; a part that may be torn is cut off, and its digest recorded."""
    places = extent.of(range(len(left.journal)))
    for at in places:
        flipped = bytearray(left.journal)
        flipped[at] ^= pattern
        kept = left.lines_before(at)
        recovery = place.recover(bytes(flipped), left.pending, kept=kept)
        assert recovery is not None
        assert recovery.kept_as == "aside" or at == len(left.journal) - 1  # the last newline: that looks torn
    assert place.outcomes["whole"] == 0
    for at in range(0, len(left.journal), 307 * extent.step):
        place.go_on(left.journal[:at] + bytes([left.journal[at] ^ pattern]) + left.journal[at + 1 :])


@sampled(20)
def test_a_tail_of_nuls_from_every_byte(left: Left, place: Place, extent: Extent) -> None:
    for size in extent.of(range(len(left.journal))):
        nuls = b"\0" * (len(left.journal) - size)
        place.recover(left.journal[:size] + nuls, b"", kept=left.lines_before(size))
    for end in left.ends:
        for count in (1, 511, 4096, 70_000):
            place.recover(left.journal[:end] + b"\0" * count, b"", kept=left.lines_before(end))
    assert place.outcomes["put aside"] == place.outcomes["whole"] == 0


@pytest.mark.long
@sampled(20)
def test_a_pending_file_cut_or_flipped_at_every_byte(left: Left, place: Place, extent: Extent) -> None:
    lines = left.pending.splitlines(keepends=True)
    honest = [json.loads(raw)["r"] for raw in lines]
    ends = [len(b"".join(lines[: i + 1])) for i in range(len(lines))]
    for at in extent.of(range(len(left.pending))):
        good = sum(end <= at for end in ends)
        flipped = left.pending[:at] + bytes([left.pending[at] ^ 0x04]) + left.pending[at + 1 :]
        for damaged in (left.pending[:at], flipped, left.pending[:at] + b"\0" * 99):
            place.recover(left.journal, damaged, kept=len(left.ends))
            found = [line.record() for line in read_live(place.state.journal)][len(left.ends) : -1]
            assert found == honest[good - 1 : good] if good else found == []


@pytest.mark.long
def test_ten_gigabytes_of_garbage_are_refused_at_the_first_line_in_little_memory(place: Place) -> None:
    with place.state.journal.open("wb") as file:
        file.truncate(10 << 30)  # NULs that take no space
    tracemalloc.start()
    with pytest.raises(JournalError, match="journal line 1: no newline at its end"):
        list(read_journal(place.state.journal))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    with place.state.journal.open("wb") as file:
        file.write(b'{"h":"' + b"0" * 64 + b'","r":{}}\n')
        file.truncate(60 << 20)
    tracemalloc.reset_peak()
    writer = Journal(place.state)
    recovery = writer.recover("aside")
    assert recovery is not None
    assert (recovery.kept_as, recovery.cut_bytes, writer.records) == ("aside", 60 << 20, 0)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    writer.close()
    (place.state.path / "aside").unlink()


def test_an_invalid_pending_record_with_a_valid_hash_is_left_out(left: Left, place: Place) -> None:
    *_, last = read_lines(io.BytesIO(left.journal))
    body = b'{"kind":"checkpoint","kind":"end"}'
    after = hashlib.sha256(last.head + body).digest()
    place.state.journal.write_bytes(left.journal)
    place.state.pending.write_bytes(b'{"h":"%s","r":%s}\n' % (after.hex().encode(), body))
    assert newest_pending(place.state.pending, last.head) is None
    place.recover(left.journal, place.state.pending.read_bytes(), kept=len(left.ends))


def test_a_full_disk_at_recovery_keeps_the_newest_totals(left: Left, place: Place) -> None:
    """A journal that cannot grow is still read; the pending totals are counted, and written when there is space."""
    place.state.journal.write_bytes(left.journal)
    place.state.pending.write_bytes(left.pending)
    newest = json.loads(left.pending.splitlines()[-1])["r"]
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = Journal(place.state)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(left.journal) + 20, limits[1]))  # half a line fits, as on a disk
    try:
        assert writer.recover("aside") is None
        assert list(writer.read())[-1] == newest
        with pytest.raises(JournalError, match="cannot write the journal"):
            writer.append({"kind": "next"})
        assert place.state.journal.read_bytes() == left.journal
        assert place.state.pending.read_bytes() == left.pending
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    writer.append({"kind": "next"})
    assert [line.record() for line in read_live(place.state.journal)][-2:] == [newest, {"kind": "next"}]
    assert newest_pending(place.state.pending, bytes.fromhex(writer.head_sha256)) is None
    writer.close()


class FullDisk(Journal):
    def append(self, *_: object, **__: object) -> None:
        raise JournalError("cannot write the journal")

    def note(self, *_: object) -> None:
        raise JournalError("cannot write the pending file")


def test_a_full_disk_is_logged_once_for_each_file(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    outbox = WriteQueue(FullDisk(place.state), FakeClock())
    for _ in range(50):
        assert not outbox.append({"kind": "checkpoint"})
        outbox.note(dict)
    assert len(caplog.records) == 2
    assert outbox.fault == "cannot write the pending file"


def test_a_record_that_cannot_be_read_back_does_not_block_later_ones(place: Place) -> None:
    journal = Journal(place.state)
    journal.recover("aside")
    outbox = WriteQueue(journal, FakeClock())
    assert outbox.append({"kind": "begin"})
    with pytest.raises(UnreadableRecordError):
        outbox.append({"kind": "source", "facts": {"x": 1.5}})
    assert not outbox.append({"kind": "checkpoint", "devices": 10**41})  # the next record repeats it
    assert "a record of kind 'checkpoint'" in outbox.fault
    outbox.note(lambda: {"kind": "checkpoint", "devices": 10**41})
    assert outbox.append({"kind": "end"})
    assert outbox.fault == ""
    assert [line.record()["kind"] for line in read_live(place.state.journal)] == ["begin", "end"]
    journal.close()

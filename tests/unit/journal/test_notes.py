"""Notes next to a journal, which any process of the user can write: which are read, and which are refused."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.errors import StorageError
from flopsd.journal import delivery_note, seal_note
from flopsd.journal.delivery_note import Delivery, Destination, NotedLedger, read_deliveries, write_deliveries
from flopsd.journal.framing import GENESIS, frame
from flopsd.journal.seal_note import noted_seal, read_note, write_note

DIGEST = "0" * 64
PLACES = tuple(Destination(f"s3://b/{one.value}.json?lock=governance&days=1", one, "why") for one in Delivery)
LEDGERS = (
    NotedLedger(Path("/out/a \udcff.json"), {"ledger": DIGEST, "publicKey": DIGEST}, PLACES),
    NotedLedger(Path("/b"), {"ledger": DIGEST, "publicKey": DIGEST, "journal": DIGEST, f"peaks-{DIGEST[:16]}.yaml": DIGEST}, ()),
)  # fmt: skip


def test_deliveries_survive_a_round_trip_and_are_readable_only_by_the_owner(tmp_path: Path) -> None:
    note = tmp_path / "deliveries.json"
    assert read_deliveries(note) == ()
    write_deliveries(note, LEDGERS)
    assert read_deliveries(note) == LEDGERS
    assert note.stat().st_mode & 0o777 == 0o600
    assert [one.state for one in LEDGERS[0].undelivered] == [Delivery.PENDING, Delivery.REFUSED]
    assert [Destination(address).name for address in ("s3://b/k.json?days=1", "/a/b?c.json")] == [
        "s3://b/k.json",
        "/a/b?c.json",
    ]


def entry(**changed: Any) -> bytes:
    place = {"address": "/a", "state": "pending", "reason": ""}
    whole = {"ledger": "/l", "sha256": {"ledger": DIGEST, "publicKey": DIGEST}, "destinations": [place]} | changed
    return json.dumps({"ledgers": [{name: value for name, value in whole.items() if value is not None}]}).encode()


@pytest.mark.parametrize(
    ("data", "is_taken"),
    [
        (entry(), True), (b'{"ledgers":[]}', True), (b"", False), (b"[]", False), (b"{}", False), (b'{"ledgers":7}', False),
        pytest.param(b"[" * 100_000, False, id="nested"), (b'{"ledgers":[7]}', False),
        *((entry(**{name: None}), False) for name in ("ledger", "sha256", "destinations")),
        (entry(ledger=7), False), (entry(destinations=[{"address": "/a"}]), False),
        (entry(destinations=[{"address": "/a", "state": "lost", "reason": ""}]), False),
        (entry(sha256={"ledger": DIGEST, "publicKey": DIGEST[1:]}), False),
        (entry(sha256={"ledger": DIGEST}), False), (entry(sha256={"publicKey": DIGEST}), False),
        (entry(sha256={"ledger": DIGEST, "publicKey": DIGEST, "journal": DIGEST}), True),
        (entry(sha256={"ledger": DIGEST, "publicKey": DIGEST, "../key.pem": DIGEST}), False),
        (entry(sha256={"ledger": DIGEST, "publicKey": DIGEST, f"peaks-{DIGEST[:16]}.yaml": DIGEST}), True),
    ],
)  # fmt: skip
def test_a_file_that_flopsd_did_not_write_is_no_deliveries_note(tmp_path: Path, data: bytes, is_taken: bool) -> None:
    (note := tmp_path / "deliveries.json").write_bytes(data)
    if is_taken:
        read_deliveries(note)
        return
    with pytest.raises(
        StorageError, match="to be copied: .*deliveries.json: its content is not as flopsd writes it"
    ) as caught:
        read_deliveries(note)
    assert "flopsd copy" in caught.value.hint


def test_an_unreadable_deliveries_note_gives_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="Is a directory"):
        read_deliveries(tmp_path)
    write_deliveries(note := tmp_path / "deliveries.json", LEDGERS)
    monkeypatch.setattr(delivery_note, "MAX_NOTE_BYTES", note.stat().st_size)
    assert read_deliveries(note) == LEDGERS
    monkeypatch.setattr(delivery_note, "MAX_NOTE_BYTES", note.stat().st_size - 1)
    with pytest.raises(StorageError, match="larger than"):
        read_deliveries(note)


SEAL = EarlierSeal(7, DIGEST, DIGEST, "2026-11-28T06:00:00.000000Z")


@pytest.mark.parametrize(
    ("change", "is_one"),
    [
        (lambda seal, _: seal, True),
        (lambda seal, _: replace(seal, head_sha256=DIGEST), False),
        (lambda seal, end: replace(seal, size_bytes=end - 1), False),
        (lambda seal, end: replace(seal, size_bytes=end + 1), False),
        (lambda seal, _: replace(seal, size_bytes=0), False),
    ],
)
def test_a_seal_belongs_to_the_journal_whose_record_ends_there(
    tmp_path: Path, change: Callable[[EarlierSeal, int], EarlierSeal], is_one: bool
) -> None:
    first, head = frame(GENESIS, {"n": 0})
    second, last = frame(head, {"n": 1})
    (journal := tmp_path / "journal").write_bytes(first + second)
    note = tmp_path / "newest-seal.json"
    fd = os.open(journal, os.O_RDONLY)
    try:
        for end, chain in ((len(first), head), (len(first + second), last)):
            seal = change(replace(SEAL, size_bytes=end, head_sha256=chain.hex()), end)
            write_note(note, seal)
            assert read_note(note) == seal
            assert noted_seal(note, fd, len(first + second)) == (seal if is_one else None)
            assert noted_seal(note, fd, end - 1) is None, "beyond what was written"
    finally:
        os.close(fd)
    assert note.stat().st_mode & 0o777 == 0o600
    write_note(note, replace(SEAL, size_bytes=len(first), head_sha256=head.hex()))
    assert noted_seal(note, fd, len(first)) is None, "a journal that cannot be read"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"7",
        b"[]",
        b"{}",
        pytest.param(b"[" * 100_000, id="nested"),
        json.dumps({**SEAL.for_journal(0), "bytes": -1}).encode(),
    ],
)
def test_an_invalid_seal_note_is_ignored(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "newest-seal.json"
    assert read_note(note) is None
    note.write_bytes(data)
    assert read_note(note) is None
    write_note(note, SEAL)
    monkeypatch.setattr(seal_note, "MAX_NOTE_BYTES", note.stat().st_size - 1)
    assert read_note(note) is None
    monkeypatch.setattr(seal_note, "MAX_NOTE_BYTES", note.stat().st_size)
    assert read_note(note) == SEAL

"""Logs and archives that unpack to far more than their size: refused, and honest ones are not."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from flopsd.attestation import log_export
from flopsd.attestation.log_export import SkippedLines, find_anchors
from flopsd.attestation.merge import archives
from flopsd.attestation.merge.find_ledgers import find_ledgers
from flopsd.errors import LedgerError, NotVerifiedError
from tests.support.paths import VECTORS
from tests.support.process import in_little_memory

NODE = VECTORS / "valid" / "activity-and-gaps"


def bomb(path: Path, piece: bytes, times: int, head: bytes = b"") -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(times):
            file.write(piece)


def verify(log: Path, reason: str) -> tuple[tuple[str, ...], int, str]:
    return ("verify", str(NODE / "ledger.json"), "--key", str(NODE / "ledger.pub"), "--peaks",
            str(VECTORS / "peaks.yaml"), "--anchors", str(log)), 3, reason  # fmt: skip


BOMBS = [
    (b"x\n", b"step\n" * 200_000, "unpacks to more than 100 times its size"),
    (b'{"events":[{"message":"x"}],"a":"', b"x" * 1_000_000, "valid JSON: Unterminated string"),
    (b'{"events":[{"message":"x"}', b',{"":""}' * 125_000, "objects have less than 48 characters on average"),
    (b'{"events":[{"message":"x"}]', (b',"a":[' + b"[]," * 330 + b"[]]") * 1000, "has more than 4194304 characters"),
]


@pytest.mark.long
def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    for number, (head, piece, _) in enumerate(BOMBS):
        bomb(tmp_path / f"{number}.log.gz", piece, 10 if b"a" in piece else 100, head)
    in_little_memory(*(verify(tmp_path / f"{number}.log.gz", reason) for number, (_, _, reason) in enumerate(BOMBS)))


@pytest.mark.long
def test_an_archive_is_unpacked_no_further_than_its_size_warrants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_UNPACKED_BYTES", 1_000_000)
    for name, data, refused in (("a.tgz", bytes(30_000_000), True), ("b.tgz", os.urandom(3_000_000), False)):
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            member = tarfile.TarInfo("weights.bin")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        with pytest.raises(LedgerError, match="100 times its size" if refused else "no ledger found"):
            list(find_ledgers([str(tmp_path / name)], tmp_path, lambda _: None))


@pytest.mark.long
def test_a_highly_compressible_log_of_many_lines_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_export, "FREE_BYTES", 1000)
    log = tmp_path / "log.gz"
    log.write_bytes(
        gzip.compress(b"".join(b"2026-11-26T10:00:%02d step %d loss\n" % (i % 60, i) for i in range(99_999)))
    )
    assert list(find_anchors(log, "run-1", "node-0", SkippedLines())) == []
    bomb(log, b"step\n" * 200_000, 5)
    with pytest.raises(NotVerifiedError, match="100 times its size"):
        list(find_anchors(log, "run-1", "node-0", SkippedLines()))


@pytest.mark.long
def test_a_sparse_file_or_an_endless_log_is_not_read(tmp_path: Path) -> None:
    hole, pipe, endless = (tmp_path / name for name in ("hole", "pipe", "endless"))
    hole.write_text("step 1\n")
    os.truncate(hole, 20 * 10**9)
    os.mkfifo(pipe)
    endless.symlink_to("/dev/zero")
    in_little_memory(
        verify(hole, "zero bytes in a row"), verify(pipe, "not a regular file"), verify(endless, "not a regular file")
    )

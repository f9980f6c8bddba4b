"""What a journal must contain to be sealed as the journal of its run."""

import errno
import os
from pathlib import Path

import pytest

from flopsd.errors import JournalReplacedError
from flopsd.journal.head import Head, KnownJournal, RequiredHead
from flopsd.journal.reading import read_journal
from tests.support.os_calls import failing
from tests.support.process import in_process
from tests.support.runs import Run, verified


@pytest.mark.parametrize("text", ["", "1", "1:", "x:" + "0" * 64, "1:" + "0" * 63, "1:" + "0" * 64 + "\n2"])
def test_an_invalid_head_is_refused_and_not_ignored(text: str) -> None:
    with pytest.raises(ValueError, match="is not a head of a journal"):
        Head.parse(text)
    assert in_process("seal", "--head", text).returncode == 2


@pytest.mark.parametrize("following", ["-", "b" * 64])
@pytest.mark.parametrize("pending", ["-", "a" * 64])
def test_a_launchers_knowledge_of_a_journal_survives_a_round_trip(pending: str, following: str) -> None:
    text = f"7:{'0' * 64} {pending} {following} a run"
    digest = {"-": None}
    known = KnownJournal(Head(7, "0" * 64), digest.get(pending, pending), digest.get(following, following), "a run")
    assert (str(known), KnownJournal.parse(text)) == (text, known)
    for wrong in (
        f"7:{'0' * 64} {pending} {following} ",
        f"7:{'0' * 64} {pending} {following}",
        f"7:{'0' * 64} {pending}",
        f"7:{'0' * 64}",
        f"7:{'0' * 64} {pending[1:]} {following} r",
        f"7:{'0' * 64} {pending} {following[1:]} r",
        f"7 {pending} {following} r",
    ):
        with pytest.raises(ValueError, match="is not a head of|does not describe a"):
            KnownJournal.parse(wrong)


def test_a_journal_belongs_to_the_run_if_the_head_is_on_its_chain(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    run.meter(3)
    head = Head(run.journal.records, run.journal.head_sha256)
    run.meter(12)
    run.finish()
    path, whole = run.state.journal, run.state.journal.read_bytes().splitlines(keepends=True)
    assert Head.parse(str(head)) == head
    require(path, head)
    for other in (Head(head.records, "0" * 64), Head(head.records + 1, head.sha256), Head(10**6, head.sha256)):
        with pytest.raises(JournalReplacedError, match="is not the journal that was written"):
            require(path, other)
    path.write_bytes(b"".join(whole[: head.records - 1]))
    with pytest.raises(JournalReplacedError):
        require(path, head)


def require(path: Path, head: Head) -> None:
    required = RequiredHead(head)
    for line in read_journal(path):
        required.take(line)
    required.require(path)


def test_a_run_whose_journal_was_lost_continues_once_another_can_be_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "state")
    run.meter(12)
    run.state.journal.write_bytes(b"x")
    with monkeypatch.context() as full:
        full.setattr(os, "rename", failing(errno.ENOSPC))
        run.meter(12)
    run.meter(12)
    run.finish()
    begin = next(read_journal(run.state.journal)).record()
    assert [one["code"] for one in begin["recovered"]["reasons"]] == ["journal_replaced"]
    figures = verified(run.seal(tmp_path / "ledger.json")).statement["predicate"]["totals"]["executed"]
    assert (int(figures["low"]) > 0, figures["high"]) == (True, None)

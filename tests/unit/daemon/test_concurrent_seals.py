"""A sealing process outlives its daemon: the restarted daemon rotates the journal meanwhile, and seals it too."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.attestation.signing.keys import ensure_key
from flopsd.attestation.signing.pem import PemKey
from flopsd.attestation.storage.deliveries import Deliveries
from flopsd.daemon.ledgers import sealing
from flopsd.daemon.ledgers.closed_segments import seal_closed
from flopsd.daemon.ledgers.sealing import seal, seal_ended
from flopsd.errors import JournalReplacedError, LedgerError
from flopsd.journal.head import Head, KnownJournal
from flopsd.journal.reading import read_journal
from flopsd.journal.segments import closed_segments
from flopsd.settings.schema import Settings
from tests.support.os_calls import Killed, replace_call
from tests.support.process import in_process
from tests.support.runs import H100, Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(12)
    return run


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state_dir=str(tmp_path / "state"), ledger=str(tmp_path / "out" / "run.json"), rotate_every="1d", evidence=(),
        ledger_copies=(str(tmp_path / "copy" / "run.json"),),
    )  # fmt: skip


def files(tmp_path: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for name in ("out", "copy") for path in (tmp_path / name).iterdir()}


def while_signing(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Have another process `do` something while the first signature is made."""
    sign, left = PemKey.sign, [do]

    def signed(key: PemKey, message: bytes) -> bytes:
        while left:
            left.pop()()
        return sign(key, message)

    monkeypatch.setattr(PemKey, "sign", signed)


@pytest.mark.parametrize("is_copied", [True, False])
def test_two_processes_that_seal_a_segment_make_one_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, settings: Settings, *, is_copied: bool
) -> None:
    """Other bytes would replace those that a destination has already, which may refuse them for ever."""
    assert run.writer.rotate()
    settings = replace(settings, ledger_copies=settings.ledger_copies if is_copied else ())
    (tmp_path / "copy").mkdir()
    first: dict[str, bytes] = {}

    def seal_too() -> None:
        run.clock.advance(1000)
        assert seal_closed(run.state, settings, run.clock, {}, for_daemon=True).sealed
        first.update(files(tmp_path))

    while_signing(monkeypatch, seal_too)
    done = seal_closed(run.state, settings, run.clock, {}, for_daemon=True)
    assert (done.sealed, done.not_sealed) == ([], [])
    assert len(first) == 3
    assert files(tmp_path) == first
    Deliveries(run.state, run.clock).deliver(60)
    assert Deliveries(run.state, run.clock).undelivered() == []
    run.finish()


@pytest.mark.parametrize("is_headless", [True, False])
def test_a_rolling_seal_of_a_journal_that_is_rotated_meanwhile_leaves_the_segments_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, settings: Settings, *, is_headless: bool
) -> None:
    def rotate_and_seal() -> None:
        assert run.writer.rotate()
        assert seal_closed(run.state, settings, run.clock, {}).sealed

    head = None if is_headless else run.journal.head
    while_signing(monkeypatch, rotate_and_seal)
    with pytest.raises(LedgerError, match=r"journal\.jsonl was replaced while it was sealed, as when its run is rotat"):
        seal(run.state.journal, run.state, settings, run.clock, live=True, head=head)
    assert sorted(Path(path).name for path in files(tmp_path)) == sorted(
        2 * ["run-0001.journal.jsonl", "run-0001.json", "run-0001.pub"]
    )
    run.finish()


def test_a_rolling_seal_in_the_moment_without_a_journal_says_that_the_run_is_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, settings: Settings
) -> None:
    while_signing(monkeypatch, lambda: run.state.journal.rename(tmp_path / "closed"))
    with pytest.raises(LedgerError, match="was replaced while it was sealed"):
        seal(run.state.journal, run.state, settings, run.clock, live=True)
    run.kill()


def test_a_segment_gets_no_ledger_of_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, settings: Settings
) -> None:
    def rotated_first(uri: str | None, folder: Path) -> tuple[str, bool]:
        assert run.writer.rotate()
        return ensure_key(uri, folder)

    monkeypatch.setattr(sealing, "ensure_key", rotated_first)  # after the ledger's name is known
    with pytest.raises(JournalReplacedError):
        seal(run.state.journal, run.state, settings, run.clock, live=True)
    assert not (tmp_path / "out").exists()
    run.finish()


def test_a_seal_finishes_a_rotation_that_a_kill_left_without_a_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    replaced = os.replace

    def kill(source: object, target: Path) -> None:
        if target == run.state.journal:
            raise Killed
        replaced(source, target)  # type: ignore[arg-type]

    with monkeypatch.context() as killed:
        replace_call(killed, "replace", kill)
        with pytest.raises(Killed):
            run.writer.rotate()
    run.kill()
    assert not run.state.journal.exists()
    (*_, last) = read_journal(run.state.next_journal)
    known = KnownJournal(Head(last.number, last.head.hex()), None, None, "run-1")
    where = ("--state-dir", str(run.state.path), "--ledger", str(tmp_path / "run.json"), "--rotate-every", "1d")
    in_process("seal", *where, "--evidence", "off", "--at-end", "--known-journal", str(known), code=0)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["run-0001.json", "run-0002.json"]
    assert closed_segments(run.state) == []


def test_a_seal_of_closed_segments_alone_seals_nothing_else(run: Run, settings: Settings) -> None:
    assert run.writer.rotate()
    run.kill()
    run.state.journal.unlink()
    assert seal_ended(settings, {}, run.clock) is None
    assert [one.name for one in seal_closed(run.state, settings, run.clock, {}).sealed] == ["run-0001.json"]

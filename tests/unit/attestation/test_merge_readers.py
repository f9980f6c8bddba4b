"""Merging with several processes: the same result and the same refusals, and no process is left behind."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flopsd.attestation.merge import readers
from flopsd.attestation.merge.merge import MergeRequest, merge_ledgers
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.testing import FakeClock
from tests.support.jobs import Nodes, sagemaker

NAMES = tuple(f"algo-{number}" for number in range(1, 7))


@pytest.fixture
def folder(nodes: Nodes) -> Path:
    for rank in range(len(NAMES)):
        nodes.ledger(sagemaker(rank, NAMES), seconds=1)
    return nodes.folder / "ledgers"


@pytest.fixture(autouse=True)
def _none_is_left() -> Iterator[None]:
    before = psutil.Process().children()
    yield
    assert [one for one in psutil.Process().children() if one not in before] == []


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "FEW", 1)
    monkeypatch.setattr(readers, "BATCH", 2)
    monkeypatch.setattr(readers, "_processes", lambda: 2)


@pytest.mark.long
def test_several_processes_give_the_same_result_as_one(
    nodes: Nodes, folder: Path, request: pytest.FixtureRequest
) -> None:
    alone = nodes.merge(folder).ledger.read_bytes()
    request.getfixturevalue("processes")
    assert nodes.merge(folder).ledger.read_bytes() == alone


@pytest.mark.long
@pytest.mark.usefixtures("processes")
def test_the_first_refused_ledger_is_named_before_a_refused_folder(nodes: Nodes, folder: Path) -> None:
    for name in ("algo-4", "algo-5"):
        journal = folder / name / "ledger.journal.jsonl"
        journal.write_bytes(journal.read_bytes()[:-9])
    (folder / "algo-6" / "ledger.json").unlink()  # a journal without a ledger, seen while algo-4 is read
    with pytest.raises(NotVerifiedError, match="algo-4/ledger.json"):
        nodes.merge(folder)


@pytest.mark.usefixtures("processes")
def test_a_reader_process_that_dies_fails_the_merge(
    nodes: Nodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_START", "raise SystemExit(7)")
    with pytest.raises(LedgerError, match="a process that read ledgers ended with 7"):
        nodes.merge(folder)


def test_a_busy_reader_process_is_killed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_START", "import time; time.sleep(600)")
    with readers._Process() as busy:
        assert busy._process.poll() is None
    assert busy._process.returncode == -signal.SIGKILL


@pytest.mark.long
@pytest.mark.usefixtures("processes")
def test_an_interrupt_leaves_no_process(nodes: Nodes, folder: Path) -> None:
    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    request = MergeRequest([str(folder)], [str(nodes.public)], nodes.key, nodes.folder / "job.json")
    with pytest.raises(KeyboardInterrupt):
        merge_ledgers(request, FakeClock(), lambda _: None, interrupt)
    assert not request.ledger.exists()

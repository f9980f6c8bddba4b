"""Sealed ledgers are delivered until all destinations have the sealed bytes, whatever fails, changes or is in the
way."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.client import BaseClient

from flopsd.attestation.countersign import countersign
from flopsd.attestation.merge.s3_ledgers import in_s3
from flopsd.attestation.signed_statement import open_ledger
from flopsd.attestation.signing.pem import make_pem
from flopsd.attestation.signing.public_key import load_public
from flopsd.attestation.storage import copies, s3
from flopsd.attestation.storage.copies import CopyResult
from flopsd.attestation.storage.deliveries import Deliveries
from flopsd.attestation.verify import verify_ledger
from flopsd.daemon.ledgers.copying import copy_sealed
from flopsd.daemon.ledgers.sealing import seal, seal_ended
from flopsd.errors import LedgerError, StorageError
from flopsd.journal.delivery_note import COPIED_BYTES_PER_S, Delivery
from flopsd.journal.state_dir import StateDir
from flopsd.settings.locations import S3Location, parse_location
from flopsd.settings.schema import Settings
from flopsd.testing import FakeClock
from tests.support.jobs import Nodes, sagemaker
from tests.support.process import in_process
from tests.support.runs import Run, finished

ENDS = (".json", ".journal.jsonl", ".pub")


class Sealer:
    """One state folder: seals its journal, and copies the ledger to `places`."""

    def __init__(self, folder: Path, *places: Path) -> None:
        self.folder, self.places, self.clock = StateDir(folder), places, FakeClock()
        self.deliveries = Deliveries(self.folder, self.clock)
        self.settings = Settings(state_dir=str(folder), ledger_copies=tuple(map(str, places)))

    def seal(self) -> dict[Path, str | None]:
        """Seal; for each place that was tried, return the reason why it lacks the ledger, or None."""
        self.clock.advance(10**9)
        sealed = seal_ended(self.settings, {}, self.clock)
        assert sealed is not None
        now_ns = self.clock.boottime_ns()
        return {
            Path(str(one.location)): one.fault
            for one in copy_sealed(self.settings, sealed, self.clock, now_ns, self.folder)
        }

    def deliver(self, *, by_hand: bool = False) -> dict[Path, str | None]:
        done = self.deliveries.deliver(60, by_hand=by_hand)
        return {Path(str(one.copy.location)): one.copy.fault for one in done}

    @property
    def states(self) -> list[Delivery]:
        return [place.state for one in self.deliveries.undelivered() for place in one.destinations]


def blocked(tmp_path: Path) -> Path:
    """A destination that cannot be written until `unblock`."""
    (tmp_path / "mnt").write_text("no folder")
    return tmp_path / "mnt" / "job.json"


def unblock(place: Path) -> None:
    place.parent.unlink()


def same(one: Path, other: Path) -> bool:
    return all(one.with_suffix(end).read_bytes() == other.with_suffix(end).read_bytes() for end in ENDS)


@pytest.mark.parametrize("killed", [False, True])
def test_the_sealed_bytes_are_delivered_however_often_the_run_is_sealed(
    tmp_path: Path, killed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    run, late = Run(tmp_path / "state"), blocked(tmp_path)
    run.meter(12)
    if killed:
        run.kill()
        with run.state.journal.open("ab") as file:
            file.write(b'{"half')
    else:
        run.finish()
    good = tmp_path / "not UTF-8: \udcff" / "job.json"
    sealer = Sealer(tmp_path / "state", good, late)
    first = sealer.seal()
    assert ("the journal was damaged at its end" in caplog.text) == killed
    assert ("6 bytes are left out" in caplog.text) == killed
    assert first[good] is None
    assert first[late] is not None
    ledger = tmp_path / "state" / "run-1.ledger.json"
    bytes_before, deliveries = ledger.read_bytes(), sealer.deliveries
    assert deliveries.is_noted(ledger)
    assert not deliveries.is_delivered(ledger, 60)
    assert list(sealer.seal()) == [late]
    unblock(late)
    assert sealer.seal() == {late: None}
    assert ledger.read_bytes() == bytes_before
    assert same(ledger, late)
    assert same(late, good)
    assert deliveries.is_delivered(ledger, 60)
    assert sealer.seal() == sealer.deliver() == {}


def test_a_fifo_in_place_of_the_public_key_does_not_block_a_seal(tmp_path: Path) -> None:
    finished(tmp_path / "state", 12)
    sealer, key = Sealer(tmp_path / "state"), tmp_path / "state" / "run-1.ledger.pub"
    sealer.seal()
    key.unlink()
    os.mkfifo(key)
    sealer.seal()
    assert key.is_file()


def spoil(end: str, how: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda ledger: how(ledger.with_suffix(end))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (spoil(".json", lambda path: path.write_bytes(path.read_bytes() + b" ")), "ledger.json is not the file that was sealed"),
        (spoil(".journal.jsonl", lambda path: path.write_bytes(b"{}")), "ledger.journal.jsonl is not the file that was"),
        (spoil(".pub", Path.unlink), "ledger.pub: No such file"),
        (spoil(".json", Path.unlink), "ledger.json: No such file"),
    ],
)  # fmt: skip
def test_a_changed_or_missing_file_is_named_not_delivered_and_not_forgotten(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    finished(tmp_path / "state", 12)
    late = blocked(tmp_path)
    sealer = Sealer(tmp_path / "state", late)
    sealer.seal()
    unblock(late)
    ledger = tmp_path / "state" / "run-1.ledger.json"
    shutil.copytree(tmp_path / "state", tmp_path / "saved")
    change(ledger)
    (fault,) = sealer.deliver().values()
    assert fault is not None
    assert said in fault
    assert not late.exists()
    assert sealer.states == [Delivery.PENDING]
    for end in ENDS:
        shutil.copy(tmp_path / "saved" / ledger.with_suffix(end).name, ledger.with_suffix(end))
    assert sealer.deliver() == {late: None}
    assert same(ledger, late)


def test_a_later_rolling_seal_does_not_lose_the_undelivered_ledger(tmp_path: Path) -> None:
    """The run continues after its final seal, like that of a pod that was moved: its first ledger is still to be
    delivered."""
    run, late = Run(tmp_path / "state"), blocked(tmp_path)
    run.meter(12)
    run.finish()
    sealer = Sealer(tmp_path / "state", late)
    sealer.seal()
    ledger = tmp_path / "state" / "run-1.ledger.json"
    first = ledger.read_bytes()
    run.start()
    run.meter(25)
    for _ in range(2):
        seal(run.state.journal, run.state, sealer.settings, sealer.clock, live=True)
        run.meter(12)
    run.kill()
    assert ledger.read_bytes() != first
    (kept,) = ledger.parent.glob("run-1.ledger-until-*.json")
    unblock(late)
    assert sealer.deliver() == {late: None}
    assert late.read_bytes() == kept.read_bytes() == first
    assert sealer.seal() == {late: None}  # the longer ledger replaces it there
    assert same(ledger, late)


def test_a_countersigned_ledger_survives_later_seals(tmp_path: Path) -> None:
    """A killed run: its ledger is sealed, countersigned, sealed again by hand, and continued."""
    run, ledger = Run(tmp_path / "state"), tmp_path / "state" / "run-1.ledger.json"
    run.meter(12)
    run.kill()
    sealer = Sealer(tmp_path / "state")
    sealer.seal()
    trusted = [load_public(str(ledger.with_suffix(".pub")))]
    countersign(verify_ledger(open_ledger(ledger, trusted)), ledger, make_pem(tmp_path / "second.pem"))
    both = ledger.read_bytes()
    sealer.seal()
    assert ledger.read_bytes() == both
    run.start()
    run.meter(25)
    seal(run.state.journal, run.state, sealer.settings, sealer.clock, live=True)
    run.kill()
    (kept,) = ledger.parent.glob("run-1.ledger-until-*.json")
    assert kept.read_bytes() == both != ledger.read_bytes()
    assert verify_ledger(open_ledger(kept, trusted)).records < verify_ledger(open_ledger(ledger, trusted)).records


def test_a_later_run_keeps_a_shared_destination_and_the_earlier_one_is_named(tmp_path: Path) -> None:
    late, other = blocked(tmp_path), tmp_path / "other.json"
    ledger = tmp_path / "ledger.json"
    for name in ("run-1", "run-2"):
        finished(tmp_path / "state", 12, run_id=name)
        sealer = Sealer(tmp_path / "state", late)
        sealer.settings = Settings(state_dir=str(tmp_path / "state"), ledger=str(ledger), ledger_copies=(str(late),))
        assert list(sealer.seal()) == [late]
        (tmp_path / "state" / "journal.jsonl").unlink()
    unblock(late)
    assert sealer.states == [Delivery.REFUSED, Delivery.PENDING]
    assert sealer.deliver() == {late: None}
    assert same(ledger, late)
    (kept,) = tmp_path.glob("ledger-until-*.json")
    state = ("--state-dir", str(tmp_path / "state"))
    in_process("copy", str(kept), "--to", str(other), *state, code=0)
    assert same(kept, other)
    left = json.loads(in_process("copy", "--json", *state, "--give-up", str(late), code=0).stdout)
    assert left == {"copies": [], "undeliveredLedgers": 0}
    in_process("copy", *state, "--give-up", str(late), code=1, says=f"no ledger still has to reach {late}")


def test_one_of_two_destinations_can_be_given_up_and_zero_time_tries_none(tmp_path: Path) -> None:
    one = blocked(tmp_path)
    finished(tmp_path / "state", 12)
    sealer = Sealer(tmp_path / "state", one, one.with_name("two.json"))
    sealer.seal()
    assert sealer.deliveries.deliver(0) == []
    (had,) = sealer.deliveries.give_up([str(one)])
    assert [Path(place.address).name for place in had.destinations] == ["job.json", "two.json"]
    (left,) = sealer.deliveries.undelivered()
    assert [Path(place.address).name for place in left.destinations] == ["two.json"]


def test_copy_takes_only_whole_ledgers_and_reports_its_actions(tmp_path: Path, nodes: Nodes) -> None:
    finished(tmp_path / "state", 12)
    sealer, state = Sealer(tmp_path / "state"), ("--state-dir", str(tmp_path / "state"))
    sealer.seal()
    ledger, there = tmp_path / "state" / "run-1.ledger.json", tmp_path / "far" / "{run}-{node}.json"
    done = json.loads(in_process("copy", str(ledger), "--to", str(there), "--json", *state, code=0).stdout)
    (copy,) = done["copies"]
    assert (copy["destination"], copy["copied"]) == (str(tmp_path / "far" / "run-1-node-0.json"), True)
    assert same(ledger, tmp_path / "far" / "run-1-node-0.json")
    assert in_process("copy", *state, code=0).stdout == f"nothing is pending in {tmp_path / 'state'}\n"
    without_hint = in_process("copy", "--to", "x.json", *state, code=2).stderr
    assert without_hint == "flopsd: copy: --to needs the LEDGER to copy\n"
    in_process("copy", str(ledger), "--to", str(ledger), *state, code=2, says=f"--to: {ledger} is the ledger itself")
    in_process("copy", str(tmp_path / "none.json"), *state, code=1, says="none.json: No such file")
    in_process("copy", "--state-dir", str(tmp_path / "none"), code=1, says="there is no folder")
    in_process("copy", str(ledger), "--to", "ftp://x/y.json", *state, code=2, says="ftp:// is not known")
    (tmp_path / "notes.json").write_text("{}")
    in_process("copy", str(tmp_path / "notes.json"), "--to", "x.json", *state, code=3)
    (tmp_path / "file").touch()
    two = ("--to", str(tmp_path / "file" / "x.json"), "--to", str(tmp_path / "far" / "y.json"))
    failed = in_process("copy", str(ledger), *two, *state, code=1, says="NOT COPIED to ")
    assert failed.stdout == f"copied {ledger} to {tmp_path / 'far' / 'y.json'}\n"
    assert in_process("copy", str(ledger), *two[2:], "--quiet", *state, code=0).stdout == ""
    ledger.with_suffix(".journal.jsonl").unlink()
    in_process("copy", str(ledger), "--to", "x.json", *state, code=1, says="a copy without it cannot be verified")
    nodes.merge(nodes.ledger(sagemaker(0)), nodes.ledger(sagemaker(1)))
    merged, far = nodes.folder / "out" / "job.json", tmp_path / "far" / "job.json"
    for _ in range(2):
        in_process("copy", str(merged), "--to", str(far), *state, code=0)
    assert {path.name for path in far.parent.glob("job*")} == {"job.json", "job.pub"}
    assert far.read_bytes() == merged.read_bytes()


def test_a_copy_not_read_back_from_s3_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path / "state", 12)
    Sealer(tmp_path / "state").seal()
    for call, answer in (("upload", None), ("compare", "s3://bucket/x.json cannot be read: nothing was compared")):
        monkeypatch.setattr(f"flopsd.attestation.storage.s3.{call}", lambda *_, answer=answer: answer)
    ledger = tmp_path / "state" / "run-1.ledger.json"
    copy = ("copy", str(ledger), "--to", "s3://bucket/x.json", "--state-dir", str(tmp_path))
    assert "\n  s3://bucket/x.json cannot be read: nothing was compared\n" in in_process(*copy, code=0).stdout
    (facts,) = json.loads(in_process(*copy, "--json", code=0).stdout)["copies"]
    assert facts["notReadBack"] == "s3://bucket/x.json cannot be read: nothing was compared"


def test_any_error_of_a_store_library_is_a_store_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example RecursionError, where a store redirects to itself: the copy used to end and be reported as
    unfinished."""

    def raises(*_: object, **__: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setattr(BaseClient, "_make_api_call", raises)
    with pytest.raises(StorageError, match=r"s3://bucket/x.json: RecursionError: too deep"):
        s3.compare({S3Location("bucket", "x.json"): b""})
    with pytest.raises(LedgerError, match="cannot read s3://bucket/x: too deep"):
        list(in_s3("s3://bucket/x", Path(), lambda _: None))


def test_a_slow_failing_store_is_tried_once_a_round_and_no_ledger_takes_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = FakeClock(), list[tuple[str, list[str], float]]()
    pending = Deliveries(StateDir(tmp_path), clock)
    ledgers = [finished(tmp_path / name, 12).seal(tmp_path / f"{name}.json").ledger for name in "abc"]
    for ledger in ledgers:
        pending.note(ledger, [tmp_path / store / ledger.name for store in ("slow", "well")])
    takes_seconds = 6

    def copy_files(_: object, to: list[Path], __: object, seconds: float, **___: object) -> list[CopyResult]:
        asked.append((to[0].stem, [place.parent.name for place in to], seconds))
        clock.advance(takes_seconds * 10**9)
        return [CopyResult(place, "it hangs" if place.parent.name == "slow" else None) for place in to]

    monkeypatch.setattr("flopsd.attestation.storage.deliveries.copy_files", copy_files)
    pending.deliver(40)
    assert asked == [("a", ["slow", "well"], 20), ("b", ["well"], 17), ("c", ["well"], 14)]
    takes_seconds = 5
    asked.clear()
    pending.deliver(8)
    assert asked == [("a", ["slow"], 4), ("b", ["slow"], 1.5)], "none where no time is left"
    asked.clear()
    pending.deliver(40, only=ledgers[1])
    assert asked == [("b", ["slow"], 40)]


def test_the_daemon_copies_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, nice = list[tuple[float, dict[str, object]]](), list[int]()

    def deliver(_: object, seconds: float, **how: object) -> list[object]:
        asked.append((seconds, how))
        return []

    monkeypatch.setattr("flopsd.cli.copy.be_nice", lambda: nice.append(1))
    monkeypatch.setattr(Deliveries, "deliver", deliver)
    for more in ((), ("--background",)):
        in_process("copy", "--state-dir", str(tmp_path), *more, code=0)
    hand, background = asked
    assert (hand[1], background[1]) == ({"only": None, "by_hand": True}, {"only": None, "by_hand": False})
    assert (hand[0], background[0]) == (86400.0, 600.0)
    assert nice == [1]


def noted(ledger: str, address: object) -> str:
    place = {"address": address, "state": "pending", "reason": ""}
    digests = dict.fromkeys(("ledger", "publicKey"), "0" * 64)
    return json.dumps({"ledgers": [{"ledger": ledger, "sha256": digests, "destinations": [place]}]})


@pytest.mark.parametrize(
    "note",
    [
        "", "{}", '{"ledgers": [{"ledger": "x", "sha256": {}, "destinations": []}]}', "{\n" * 99, noted("x", 5),
        noted("x", "ftp://x"), noted("x", "s3://x"), noted("x\0", "y"), noted("\ud800", "y"), noted("x", "\ud800"),
    ],
)  # fmt: skip
def test_a_foreign_note_costs_no_ledger_and_is_not_replaced(tmp_path: Path, note: str) -> None:
    finished(tmp_path / "state", 12)
    sealer = Sealer(tmp_path / "state", tmp_path / "far.json")
    sealer.folder.deliveries.write_text(note)
    assert sealer.seal() == {tmp_path / "far.json": None}
    assert sealer.folder.deliveries.read_text() == note
    with pytest.raises(StorageError, match="cannot tell which ledgers still have to be copied"):
        sealer.deliver()


@pytest.mark.parametrize(
    "options", ["", "?lock=compliance&days=3&overwrite=never", "?rolling=off", "?lock=governance&days=7"]
)
def test_an_address_is_kept_as_given(options: str) -> None:
    location = parse_location(f"s3://bucket/a/b.json{options}")
    assert not isinstance(location, Path)
    assert location.address == f"s3://bucket/a/b.json{options}"


def test_a_copy_that_nothing_waits_for_gets_the_time_its_size_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow seal on a busy node used all of --stop-seconds, and the rolling ledger was never copied."""
    finished(tmp_path / "state", 12)
    sealer, given = Sealer(tmp_path / "state", tmp_path / "copy" / "l.json"), list[float]()
    sealed = seal_ended(sealer.settings, {}, sealer.clock)
    assert sealed is not None
    large = replace(sealed, seal=replace(sealed.seal, size_bytes=400 * COPIED_BYTES_PER_S))

    def copied(_ledger: Path, _to: object, _clock: object, seconds: float, **_: object) -> list[object]:
        given.append(seconds)
        return []

    monkeypatch.setattr(copies, "copy_ledger", copied)
    now_ns = sealer.clock.boottime_ns()
    for stopped_ns in (None, now_ns, now_ns - 100 * 10**9):
        copy_sealed(sealer.settings, large, sealer.clock, stopped_ns, None)
    assert given == [458, 58, 1]

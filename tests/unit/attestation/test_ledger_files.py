"""Sealing over existing files: nothing is lost, no ledger goes back, and no reader sees half a file."""

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.countersign import countersign
from flopsd.attestation.ledger_files import (
    LedgerFiles,
    kept_aside,
    ledger_files_lock,
    names_in,
    read_ledger_files,
    write_ledger_files,
)
from flopsd.attestation.seal import Sealed, seal_journal
from flopsd.attestation.signed_statement import open_ledger
from flopsd.attestation.signing.keys import ensure_key
from flopsd.attestation.signing.pem import make_pem
from flopsd.attestation.signing.public_key import load_public
from flopsd.attestation.signing.refused_pin import RefusedPin
from flopsd.attestation.verify import verify_ledger
from flopsd.daemon.ledger_places import local_ledger
from flopsd.daemon.ledgers.copying import copy_sealed
from flopsd.daemon.ledgers.sealing import seal, seal_file
from flopsd.errors import JournalDamagedError, LedgerError, SigningKeyError
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.second_implementation.arithmetic import payload_of
from tests.support.extent import Extent, sampled
from tests.support.jobs import Nodes, sagemaker
from tests.support.runs import Run, finished


def believed(ledger: Path) -> int:
    """The number of records that a verified ledger seals."""
    return verify_ledger(open_ledger(ledger, [load_public(str(ledger.with_suffix(".pub")))])).records


def rolling(run: Run, ledger: Path) -> Sealed:
    return run.seal(ledger, live=True, rolling=True, lock=run.state.seal_lock)


@pytest.mark.long
@sampled(8)
def test_a_verifier_never_finds_files_that_do_not_match(tmp_path: Path, extent: Extent) -> None:
    run, ledger = Run(tmp_path / "state"), tmp_path / "out" / "ledger.json"
    run.meter(11)
    rolling(run, ledger)
    key = [load_public(str(ledger.with_suffix(".pub")))]
    done, seen, refused = threading.Event(), list[int](), list[str]()

    def look() -> None:
        while not done.is_set():
            try:
                found = verify_ledger(open_ledger(ledger, key))
            except Exception as fault:  # noqa: BLE001 - whatever it is, it is what this test looks for
                refused.append(repr(fault))
                return
            seen.append(found.records)

    lookers = [threading.Thread(target=look, daemon=True) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(80 // extent.step):
            run.meter(11)
            rolling(run, ledger)
    finally:
        done.set()
    for looker in lookers:
        looker.join()
    assert refused == []
    assert len(seen) >= 40 // extent.step
    assert len(set(seen)) > 16 // extent.step


def test_the_ledger_of_another_run_or_key_is_kept_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second, ledger = finished(tmp_path / "a", 12), Run(tmp_path / "b"), tmp_path / "ledger.json"
    records = first.seal(ledger).journal.read_bytes().count(b"\n")
    second.meter(25)
    rolling(second, ledger)
    (kept,) = tmp_path.glob("ledger-until-*.json")
    assert believed(kept) == records
    before = believed(ledger)
    assert before == ledger.with_name("ledger.journal.jsonl").read_bytes().count(b"\n")
    second.meter(12)
    second.finish()
    (tmp_path / "other").mkdir()
    second.seal(ledger, ensure_key(None, tmp_path / "other")[0])
    (again,) = set(tmp_path.glob("ledger-until-*.json")) - {kept}
    assert believed(again) == before < believed(ledger)
    said = [f"or that others signed: it is kept as {one}" for one in (kept, again)]
    assert [text.endswith(end) for text, end in zip(caplog.messages, said, strict=True)] == [True, True]


def test_files_of_two_runs_are_never_mixed_while_one_replaces_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, ledger = finished(tmp_path / "a", 12), finished(tmp_path / "b", 12), tmp_path / "ledger.json"
    first.seal(ledger)
    other = read_ledger_files(second.seal(tmp_path / "other.json").ledger)
    with monkeypatch.context() as failing:
        failing.setattr("flopsd.attestation.ledger_files.put_file", full_disk)
        with pytest.raises(OSError, match="full"):
            write_ledger_files(ledger, other, second.clock)
    assert not ledger.exists()
    first.seal(ledger)
    write_ledger_files(ledger, LedgerFiles(other.ledger, None, other.public_key), second.clock)
    assert ledger.read_bytes() == (tmp_path / "other.json").read_bytes()
    assert not ledger.with_name("ledger.journal.jsonl").exists()


def test_files_without_a_ledger_are_kept_if_they_are_another_runs(tmp_path: Path) -> None:
    first, second = finished(tmp_path / "a", 12), finished(tmp_path / "b", 12, run_id="run-2")
    ledger = tmp_path / "ledger.json"
    first.seal(ledger)
    ledger.unlink()
    journal, key = (ledger.with_name(f"ledger{ending}").read_bytes() for ending in (".journal.jsonl", ".pub"))
    second.seal(ledger)
    (kept,) = tmp_path.glob("ledger-until-*.journal.jsonl")
    assert (kept.read_bytes(), kept.with_name(kept.name.replace("journal.jsonl", "pub")).read_bytes()) == (journal, key)
    assert believed(ledger)
    ledger.unlink()
    second.seal(ledger)  # its own files, from a seal that did not finish
    assert len(list(tmp_path.glob("ledger-until-*"))) == 2


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_two_ledgers_put_aside_at_the_same_time_are_both_kept(tmp_path: Path) -> None:
    """The wall clock stands still where a virtual machine is resumed or NTP sets it back."""
    ledger, records = tmp_path / "ledger.json", []
    for name, seconds in (("a", 12), ("b", 25), ("c", 38)):
        run = finished(tmp_path / name, seconds)
        run.clock.step_wall(FakeClock().wall_ns() - run.clock.wall_ns())
        run.seal(ledger)
        records.append(believed(ledger))
    kept = sorted(believed(path) for path in tmp_path.glob("ledger-until-*.json"))
    assert [*kept, believed(ledger)] == records


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_ledgers_are_readable_by_all_and_keys_only_by_their_owner(tmp_path: Path, nodes: Nodes, umask: int) -> None:
    """Nor is anything written through a link in place of a temporary file of this process."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"dear")
    second = make_pem(tmp_path / "second.pem")
    before = os.umask(umask)
    try:
        one, two = nodes.ledger(sagemaker(0)), nodes.ledger(sagemaker(1))
        (nodes.folder / "out").mkdir()
        for path in (one, nodes.folder / "out" / "job.json", nodes.folder / "out" / "job.pub"):
            (path.parent / f".{path.name}.{os.getpid()}").symlink_to(victim)
        countersign(verify_ledger(open_ledger(one, [load_public(str(nodes.public))])), one, second)
        nodes.merge(one, two)
    finally:
        os.umask(before)
    made = {path: path.stat().st_mode & 0o777 for path in nodes.folder.rglob("*") if not path.is_symlink()}
    ledgers = [path for path in made if {"ledgers", "out"} & {*path.parent.parts} and path.is_file()]
    secrets = [path for path in made if path.suffix == ".pem" or path.name == "journal.jsonl"]
    assert (len(ledgers), {made[path] for path in ledgers}) == (8, {0o644})
    assert (len(secrets), {made[path] for path in secrets}) == (4, {0o600})
    assert {made[path] for path in (nodes.folder / "state").iterdir()} == {0o700}
    assert victim.read_bytes() == b"dear"


def test_a_new_journal_does_not_replace_the_sealed_ledger(tmp_path: Path) -> None:
    run, ledger = Run(tmp_path / "state"), tmp_path / "ledger.json"
    run.meter(95)
    rolling(run, ledger)
    run.kill()
    before, data = believed(ledger), bytearray(run.state.journal.read_bytes())
    data[len(data) // 2] ^= 1
    run.state.journal.write_bytes(bytes(data))
    with pytest.raises(JournalDamagedError):
        rolling(run, ledger)
    assert believed(ledger) == before
    run.start()
    run.meter(12)
    rolling(run, ledger)
    assert believed(next(tmp_path.glob("ledger-until-*.json"))) == before
    assert believed(ledger) < before
    run.kill()


def test_a_ledger_never_goes_back(tmp_path: Path) -> None:
    run, ledger = Run(tmp_path / "state"), tmp_path / "ledger.json"
    run.meter(12)
    older = tmp_path / "older.jsonl"
    older.write_bytes(run.state.journal.read_bytes())
    run.meter(12)
    run.finish()
    run.seal(ledger)
    whole = ledger.read_bytes()
    for only_longer in (True, False):
        with pytest.raises(LedgerError, match="bytes of this journal, this seal only"):
            run.seal(ledger, journal=older, live=True, rolling=only_longer)
    run.clock.advance(1000)
    with pytest.raises(LedgerError, match="bytes of this journal, and this seal no more"):
        rolling(run, ledger)  # equal is not longer: a late child must not replace the final ledger
    assert ledger.read_bytes() == whole
    run.seal(ledger)  # a final seal may be repeated


def test_a_rolling_seal_of_nothing_new_leaves_the_ledger_and_is_no_fault(tmp_path: Path) -> None:
    """An operator sealed by hand right before the daemon did."""
    run = Run(tmp_path / "state")
    run.meter(12)
    settings = Settings(state_dir=str(run.state.path), ledger_copies=(str(tmp_path / "copy.json"),))

    def rolling_seal() -> Sealed:
        run.clock.advance(1000)
        sealed = seal(run.state.journal, run.state, settings, run.clock, live=True)
        assert [one.fault for one in copy_sealed(settings, sealed, run.clock, None, run.state, rolling=True)] == [None]
        return sealed

    first = rolling_seal()
    assert first.is_new
    whole, copy = first.ledger.read_bytes(), (tmp_path / "copy.json").read_bytes()
    again = rolling_seal()
    assert not again.is_new
    assert (again.ledger.read_bytes(), (tmp_path / "copy.json").read_bytes()) == (whole, copy)
    run.meter(12)
    assert rolling_seal().is_new


def test_a_seal_killed_before_its_ledger_is_made_good_by_the_next(tmp_path: Path) -> None:
    run, ledger = Run(tmp_path / "state"), tmp_path / "ledger.json"
    run.meter(12)
    before = believed(rolling(run, ledger).ledger)
    run.meter(12)
    ledger.with_suffix(".journal.jsonl").write_bytes(run.state.journal.read_bytes())
    rolling(run, ledger)
    assert believed(ledger) > before


def test_a_lone_journal_can_be_sealed_anywhere_without_its_torn_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path / "state")
    run.meter(25)
    data = run.state.journal.read_bytes()
    run.kill()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = elsewhere / "copied.jsonl"
    copy.write_bytes(data + b'{"h":"00')
    sealed = seal_file(copy, Settings(), FakeClock())
    assert sealed.ledger == elsewhere / "run-1.ledger.json"
    assert believed(sealed.ledger) == data.count(b"\n")
    assert "8 bytes at the end of" in caplog.text
    assert copy.read_bytes() == data + b'{"h":"00'
    with pytest.raises(LedgerError, match="is of run 'run-1', not of 'other'"):
        seal_file(copy, Settings(run_id="other"), FakeClock())
    (elsewhere / "empty.jsonl").write_bytes(b"")
    with pytest.raises(LedgerError, match="holds no complete record"):
        seal_file(elsewhere / "empty.jsonl", Settings(), FakeClock())


@pytest.mark.parametrize("name", [".", "/", "folder", "fifo", "null", "/dev/of-no-device"])
def test_a_folder_or_device_is_never_renamed_to_make_room_for_a_ledger(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path / "state")
    run.meter(3)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "null").symlink_to("/dev/null")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(LedgerError, match="is a folder|is not a regular file"):
        rolling(run, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_named_like_a_path_stays_in_its_folder(tmp_path: Path) -> None:
    for run in ("../../etc/x", "/etc/x", "a/b"):
        assert local_ledger(Settings(), tmp_path, run, "n").parent == tmp_path
    assert local_ledger(Settings(), tmp_path, "run-1", "n").name == "run-1.ledger.json"


def test_files_left_by_killed_sealers_are_removed(tmp_path: Path) -> None:
    run, ledger = Run(tmp_path / "state"), tmp_path / "out" / "ledger.json"
    run.meter(12)
    ledger.parent.mkdir()
    strange = ledger.parent / ".ledger.json.backup"
    strange.write_text("mine")
    for name in (".ledger.json", ".ledger.journal.jsonl", ".ledger.pub"):
        (ledger.parent / f"{name}.0123456789abcdef").write_text("half")
    rolling(run, ledger)
    assert sorted(path.name for path in ledger.parent.glob(".*")) == [strange.name]
    run.kill()


def test_sealers_take_turns_and_a_dead_lock_costs_no_ledger(tmp_path: Path) -> None:
    lock, clock, order = tmp_path / "seal.lock", FakeClock(), list[str]()
    inside, go = threading.Event(), threading.Event()

    def first() -> None:
        with ledger_files_lock(lock, FakeClock()):
            inside.set()
            go.wait()
            order.append("first")

    holder = threading.Thread(target=first)
    holder.start()
    inside.wait()
    with ledger_files_lock(lock, clock):  # on a clock that jumps: the holder does not let go for five seconds
        order.append("impatient")
    assert clock.boottime_ns() >= FakeClock().boottime_ns() + 5 * NS_PER_S
    go.set()
    holder.join()
    with (
        ledger_files_lock(lock, FakeClock()),
        ledger_files_lock(None, FakeClock()),
        ledger_files_lock(tmp_path / "no" / "folder", FakeClock()),
    ):
        order.append("second")
    assert order == ["impatient", "first", "second"]


def test_concurrent_key_creation_makes_one_whole_key(tmp_path: Path) -> None:
    made, begin = list[tuple[str, bool]](), threading.Barrier(8)

    def make() -> None:
        begin.wait()
        made.append(ensure_key(None, tmp_path))

    makers = [threading.Thread(target=make) for _ in range(8)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len({uri for uri, _ in made}) == 1
    assert sum(fresh for _, fresh in made) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["flopsd-key.pem"]
    with pytest.raises(SigningKeyError, match="cannot create "):
        ensure_key(None, tmp_path / "missing")


def test_a_rolling_seal_asks_only_the_witness_and_sealing_a_file_asks_nobody(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    run.meter(12)

    def kinds(sealed: Sealed) -> list[str]:
        return [item["type"] for item in payload_of(sealed.ledger)["predicate"]["evidence"]]

    def rolling_seal(**more: str) -> Sealed:
        settings = Settings(state_dir=str(run.state.path), **more)  # type: ignore[arg-type]
        return seal(run.state.journal, run.state, settings, run.clock, live=True)

    assert kinds(rolling_seal(witness_url="http://127.0.0.1:9")) == ["witness"]
    (copy := tmp_path / "copy.jsonl").write_bytes(run.state.journal.read_bytes())
    assert kinds(seal_file(copy, Settings(witness_url="http://127.0.0.1:9"), FakeClock())) == []
    run.meter(12)
    assert kinds(rolling_seal()) == []


def test_a_refused_pin_is_noted_in_the_state_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = Run(tmp_path / "state"), list[Path | None]()
    run.meter(12)

    def asking(*given: Any, refused_pin: RefusedPin | None, **more: Any) -> Sealed:
        asked.append(None if refused_pin is None else refused_pin.path)
        return seal_journal(*given, refused_pin=refused_pin, **more)

    monkeypatch.setattr("flopsd.attestation.seal.seal_journal", asking)
    seal(run.state.journal, run.state, Settings(state_dir=str(run.state.path)), run.clock, live=True)
    (copy := tmp_path / "copy.jsonl").write_bytes(run.state.journal.read_bytes())
    seal_file(copy, Settings(), FakeClock())
    assert asked == [run.state.refused_pin, None]


def test_the_lock_of_ledger_files_is_closed_after_use(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for lock in (tmp_path / "lock", tmp_path / "missing" / "lock", None):
        with ledger_files_lock(lock, FakeClock()):
            assert len(os.listdir("/proc/self/fd")) == before + (lock == tmp_path / "lock")
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_kept_for_another_ledger_are_found_by_name_despite_special_characters(tmp_path: Path) -> None:
    ledger = tmp_path / "run[1]*.json"
    names = ["run[1]*-until-20261128T194901613043Z.json", "run1x-until-20261128T194901613043Z.json", ledger.name]
    for name in names:
        (tmp_path / name).touch()
    assert kept_aside(ledger, names_in(tmp_path)) == [tmp_path / names[0]]
    assert names_in(tmp_path / "nowhere") == []
    with pytest.raises(NotADirectoryError):
        names_in(ledger)

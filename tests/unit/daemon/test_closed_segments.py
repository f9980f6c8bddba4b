"""Closed segments of a rotated run: sealed once, copied, and removed only where every destination has them."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.attestation.signing.pem import make_pem
from flopsd.attestation.storage.deliveries import Deliveries
from flopsd.core.model import Growth, Pipe, Reading, Sweep, Totals
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.ledgers.closed_segments import seal_closed
from flopsd.daemon.ledgers.copying import RESERVE_SECONDS, copy_sealed, keep_journal
from flopsd.errors import ConfigError
from flopsd.journal.segments import closed_segments
from flopsd.report.ledger_text import sealed_text
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S
from tests.support.os_calls import replace_call
from tests.support.process import in_process
from tests.support.runs import H100, Run, verified
from tests.support.settings import load_settings


def rotated(tmp_path: Path, times: int, after: Callable[[Run, int], object] = lambda *_: None) -> Run:
    run = Run(tmp_path / "state", devices=(H100,))
    for number in range(1, times + 1):
        run.meter(12)
        assert run.writer.rotate()
        after(run, number)
    return run


def settings(tmp_path: Path, *copies: Path, keep: int | None = None) -> Settings:
    places = tuple(str(place / "run.json") for place in copies)
    return Settings(
        state_dir=str(tmp_path / "state"), ledger=str(tmp_path / "out" / "run.json"), ledger_copies=places,
        rotate_every="1d", keep_segments=keep, evidence=(),
    )  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.json"))


def test_a_segment_is_removed_once_every_destination_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, bytes_of = settings(tmp_path, tmp_path / "copy", tmp_path / "late", keep=1), {}
    (tmp_path / "late").write_text("no folder yet")

    def seal(run: Run, number: int) -> None:
        done = seal_closed(run.state, wanted, run.clock, {})
        assert [ledger.name for ledger in done.sealed] == [f"run-{number:04d}.json"]
        assert run.state.newest_seal.exists(), "later ledgers list it"
        bytes_of[number] = done.sealed[0].read_bytes()

    run = rotated(tmp_path, 3, seal)
    everything = [f"run-{number:04d}.json" for number in (1, 2, 3)]
    assert (
        names(tmp_path / "out") == names(tmp_path / "copy") == everything
    )  # no segment is removed that one destination lacks
    (tmp_path / "late").unlink()
    for _ in range(2):  # failed deliveries are repeated, and the segments removed with the next seal
        assert seal_closed(run.state, wanted, run.clock, {}).sealed == []
    assert names(tmp_path / "out") == everything[2:]
    assert names(tmp_path / "late") == everything
    assert (tmp_path / "late" / "run-0001.json").read_bytes() == bytes_of[1]
    assert list(run.state.segments.iterdir()) == []
    monkeypatch.setattr(Deliveries, "is_delivered", None)  # a removed segment is not looked up with every seal
    seal_closed(run.state, wanted, run.clock, {})
    run.finish()


@pytest.mark.parametrize("keeps", [b"", b"truncated", None])
def test_a_segment_whose_copy_is_gone_stays_and_is_copied_again(
    tmp_path: Path, keeps: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    run, wanted = rotated(tmp_path, 2), settings(tmp_path, tmp_path / "copy", keep=2)
    assert seal_closed(run.state, wanted, run.clock, {}).all_done
    there = tmp_path / "copy" / "run-0001.journal.jsonl"
    there.unlink() if keeps is None else there.write_bytes(keeps)
    wanted = replace(wanted, keep_segments=1)
    seal_closed(run.state, wanted, run.clock, {})
    assert "run-0001.json does not hold" in caplog.text
    assert Deliveries(run.state, run.clock).deliver(60)
    assert there.read_bytes() == (tmp_path / "out" / "run-0001.journal.jsonl").read_bytes()
    seal_closed(run.state, wanted, run.clock, {})
    assert names(tmp_path / "out") == ["run-0002.json"]
    run.finish()


def test_an_interrupted_removal_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, wanted, unlink = rotated(tmp_path, 4), settings(tmp_path, tmp_path / "copy", keep=4), os.unlink
    assert seal_closed(run.state, wanted, run.clock, {}).all_done
    wanted = replace(wanted, keep_segments=1)

    def fails(path: str | Path) -> None:
        if Path(path).name == "run-0002.pub":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        unlink(path)

    with monkeypatch.context() as sick:
        replace_call(sick, "unlink", fails)
        seal_closed(run.state, wanted, run.clock, {})
        assert "run-0002.json" in names(tmp_path / "out")
    seal_closed(run.state, wanted, run.clock, {})
    assert {path.name.split(".")[0] for path in (tmp_path / "out").iterdir()} == {"run-0004"}
    run.finish()


def test_an_altered_segment_is_not_sealed_and_does_not_hold_up_others(tmp_path: Path) -> None:
    run = rotated(tmp_path, 2)
    first, second = sorted(run.state.segments.iterdir())
    first.write_bytes(second.read_bytes())
    done = seal_closed(run.state, settings(tmp_path), run.clock, {})
    assert [ledger.name for ledger in done.sealed] == ["run-0002.json"]
    assert "is not the journal that was written" in done.not_sealed[0]
    assert first.exists()
    run.finish()


def test_a_segment_that_cannot_be_removed_does_not_hold_up_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = rotated(tmp_path, 3)
    first, second, _ = sorted(run.state.segments.iterdir())

    def fails(path: str | Path) -> None:
        if Path(path) == first:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        unlink(path)

    unlink = os.unlink
    with monkeypatch.context() as sick:
        replace_call(sick, "unlink", fails)
        done = seal_closed(run.state, settings(tmp_path), run.clock, {})
    assert ([ledger.name for ledger in done.sealed], done.all_done) == ([f"run-000{n}.json" for n in (1, 2, 3)], True)
    assert f"{first} is sealed and copied, but cannot be removed: Input/output error" in caplog.text
    assert second.exists(), "it says what the first one must contain"
    assert seal_closed(run.state, settings(tmp_path), run.clock, {}).sealed == []
    assert closed_segments(run.state) == []
    run.finish()


def test_a_segment_that_cannot_be_sealed_keeps_no_delivered_one_on_disk(tmp_path: Path) -> None:
    wanted = settings(tmp_path, tmp_path / "copy", keep=1)

    def seal(run: Run, number: int) -> None:
        for path in closed_segments(run.state)[number == 1 :]:
            path.write_bytes(b"altered")
        seal_closed(run.state, wanted, run.clock, {})

    run = rotated(tmp_path, 3, seal)
    assert (names(tmp_path / "out"), names(tmp_path / "copy")) == ([], ["run-0001.json"])
    run.finish()


def test_segments_without_time_left_to_seal_stay_for_the_next_start(tmp_path: Path) -> None:
    run, wanted = rotated(tmp_path, 2), settings(tmp_path)
    stopped_ns = run.clock.boottime_ns() - round((wanted.stop_seconds - RESERVE_SECONDS) * NS_PER_S)
    assert seal_closed(run.state, wanted, run.clock, {}, stopped_ns=stopped_ns).sealed == []
    assert len(closed_segments(run.state)) == 2
    assert len(seal_closed(run.state, wanted, run.clock, {}, stopped_ns=stopped_ns + 30 * NS_PER_S).sealed) == 2
    run.finish()


def test_the_daemon_delivers_in_its_own_process_and_removes_nothing_before(tmp_path: Path) -> None:
    wanted, run = settings(tmp_path, tmp_path / "copy"), rotated(tmp_path, 2)
    for _ in range(2):
        done = seal_closed(run.state, wanted, run.clock, {}, for_daemon=True)
        assert (len(done.to_deliver), done.not_copied, len(closed_segments(run.state))) == (2, [], 2)
    assert not (tmp_path / "copy").exists()
    Deliveries(run.state, run.clock).deliver(60)
    assert names(tmp_path / "copy") == ["run-0001.json", "run-0002.json"]
    assert seal_closed(run.state, wanted, run.clock, {}, for_daemon=True).all_done
    assert closed_segments(run.state) == []
    run.finish()


def test_segments_of_an_earlier_run_are_sealed_whichever_run_is_metered(tmp_path: Path) -> None:
    left = rotated(tmp_path, 2)
    left.finish()
    left.journal.put_aside("run-1.journal.jsonl")
    run = Run(left.state.path, devices=(H100,), run_id="next")
    of_next = replace(settings(tmp_path), run_id="next")
    done = seal_closed(run.state, of_next, run.clock, {})
    assert (names(tmp_path / "out"), done.not_sealed) == (["run-0001.json", "run-0002.json"], [])
    assert list(run.state.segments.iterdir()) == []
    run.finish()


def test_the_seal_command_for_a_kept_journal_can_be_pasted(tmp_path: Path) -> None:
    run = Run(tmp_path / "state of [a] job", devices=(H100,))
    run.finish()
    kept = keep_journal(Settings(), run.state, run.clock, None)
    assert f"`flopsd seal --state-dir '{run.state.path}'`" in kept


@pytest.mark.parametrize("rolling", [True, False])
def test_only_a_final_ledger_is_noted_and_each_is_copied(tmp_path: Path, *, rolling: bool) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.finish()
    sealed = run.seal(tmp_path / "out" / "run.json")
    assert copy_sealed(settings(tmp_path), sealed, run.clock, None, run.state, rolling=rolling) == []
    assert Deliveries(run.state, run.clock).is_noted(sealed.ledger) is not rolling
    (copy,) = copy_sealed(settings(tmp_path, tmp_path / "copy"), sealed, run.clock, None, run.state, rolling=rolling)
    assert Deliveries(run.state, run.clock).is_noted(sealed.ledger) is not rolling
    assert (copy.fault, (tmp_path / "copy" / "run.json").read_bytes()) == (None, sealed.ledger.read_bytes())


def test_a_copy_of_a_kept_journal_that_fails_is_stated(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.finish()
    (tmp_path / "file").touch()
    kept = keep_journal(settings(tmp_path, tmp_path / "file" / "copy"), run.state, run.clock, None)
    assert f"; it was NOT COPIED to {tmp_path / 'file'}" in kept


def test_a_copy_at_the_ledgers_own_path_does_not_count_and_nothing_is_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, linked = tmp_path / "out", tmp_path / "link"
    own.mkdir()
    linked.symlink_to(own)
    wanted = settings(tmp_path, linked, tmp_path / "copy", keep=1)
    run = rotated(tmp_path, 2, lambda run, _: seal_closed(run.state, wanted, run.clock, {}))
    assert names(own) == ["run-0001.json", "run-0002.json"]
    assert f"{linked / 'run-0001.json'} is the ledger {own / 'run-0001.json'} itself, not a copy" in caplog.text
    run.finish()


def test_a_segment_waiting_for_a_copy_is_not_sealed_again_with_another_key(tmp_path: Path) -> None:
    """The destination that already has the ledger may refuse different bytes for ever."""
    wanted = settings(tmp_path, tmp_path / "copy", tmp_path / "late")
    (tmp_path / "late").write_text("no folder yet")
    run = rotated(tmp_path, 1, lambda run, _: seal_closed(run.state, wanted, run.clock, {}))
    before = (tmp_path / "out" / "run-0001.json").read_bytes()
    make_pem(tmp_path / "another.pem")
    wanted = replace(wanted, key=str(tmp_path / "another.pem"))
    (tmp_path / "late").unlink()
    done = seal_closed(run.state, wanted, run.clock, {})
    assert (done.sealed, done.all_done, closed_segments(run.state)) == ([], True, [])
    assert {(tmp_path / place / "run-0001.json").read_bytes() for place in ("out", "copy", "late")} == {before}
    run.finish()


def test_each_ledger_of_a_rotated_run_says_which_part_of_it_it_is(tmp_path: Path) -> None:
    run = rotated(tmp_path, 2)
    ledgers = seal_closed(run.state, settings(tmp_path), run.clock, {}).sealed
    run.finish()
    for number, ledger in enumerate(ledgers, 1):
        said = in_process("verify", str(ledger), "--key", str(ledger.with_suffix(".pub")), code=0).stdout
        assert f"SEGMENT: segment {number} of a rotated run" in said
    assert len(ledgers) == 2
    text = sealed_text(run.seal(tmp_path / "last.json"))
    assert "SEGMENT     segment 3 of a rotated run" in text
    assert "answer" not in text  # on a part of the run


def test_removal_without_a_copy_is_refused() -> None:
    with pytest.raises(ConfigError, match="--keep-segments removes only copied segments"):
        load_settings({"keep_segments": "3"}, {}, None, ())


@pytest.mark.parametrize("idle_seconds", [0, 30])
def test_counters_running_ahead_of_the_clock_leave_a_sealed_segment(tmp_path: Path, idle_seconds: int) -> None:
    """Each reading exceeds the limit by no more than a late renewal explains, but their sum exceeds what the device
    can do."""
    run, possible, cycles = Run(tmp_path / "state", devices=(H100,)), 132 * 1980 * 10**6, 10**15
    for second in range(60):
        run.clock.advance(NS_PER_S)
        cycles += possible * 108 // 100 if second >= idle_seconds else 0
        totals = Totals("GPM", 10**15 + second * possible, {Pipe.TENSOR_HMMA: cycles})
        reading = Reading(H100.uid, run.since_ns, run.clock.boottime_ns(), Growth(), {}, totals)
        run.since_ns = reading.end_ns
        run.writer.take(Message("sim", reading.end_ns, run.devices, Sweep((reading,)), read_seconds=0.001))
        assert second != 29 or run.writer.rotate()
    run.finish()
    figures = verified(run.seal(tmp_path / "out" / "run.json")).statement["predicate"]["totals"]["executed"]
    assert int(figures["high"]) >= 4096 * 30 * possible

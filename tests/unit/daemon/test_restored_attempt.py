"""A journal saved elsewhere and continued on another machine: which one is taken, which is not, and which files
remain."""

import base64
import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.attestation.ledger_files import journal_beside
from flopsd.attestation.merge.merge import MergeRequest, merge_ledgers
from flopsd.attestation.signing.keys import ensure_key
from flopsd.core.ledger.history import History
from flopsd.core.ledger.isolation import Continues
from flopsd.core.ledger.run_view import view_of
from flopsd.core.model import Sweep
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.continued_run import continue_run
from flopsd.daemon.ledgers.closed_segments import seal_closed
from flopsd.daemon.ledgers.sealing import seal
from flopsd.daemon.recovery.code_secrets import CodeSecrets
from flopsd.daemon.recovery.restored_attempt import is_sealed_whole, restore
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.journal.journal import Journal
from flopsd.journal.recovery import Recovery
from flopsd.journal.segments import closed_segments
from flopsd.journal.state_dir import StateDir
from flopsd.settings.data_files import load_policies
from flopsd.settings.platform import Context
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.own_files import Own
from tests.support.runs import A100, CONTEXT, H100, Run, history_of, verified
from tests.support.strategies import table

BOUNDS = ("low_flop", "measured_flop", "high_flop")


def on(boot: str, node: str = "algo-1", job: str = "job-1") -> Context:
    return Context("sagemaker-training", job, node, boot, boot, 0, job_nodes=(node,))


def first_attempt(tmp_path: Path, *, ended: bool = False, run_id: str = "job-1") -> Run:
    """Fifty seconds on one machine, a state saved after forty of them, and an end with or without notice."""
    run = Run(tmp_path / "one", context=on("boot-1"), run_id=run_id)
    run.meter(40)
    run.writer.checkpoint()
    if not ended:
        save(run, tmp_path)
    run.meter(10)
    if ended:
        run.finish("sigterm")
        save(run, tmp_path)
    else:
        run.kill()
    return run


def save(run: Run, tmp_path: Path) -> None:
    run.seal(tmp_path / "saved" / "algo-1.json")


def again(tmp_path: Path, *, run: str = "job-1", node: str = "algo-1", peaks: str = "") -> Recovery | None:
    folder = StateDir(tmp_path / "two")
    folder.path.mkdir(exist_ok=True)
    saved, out = tmp_path / "saved" / "algo-1.json", tmp_path / "out" / "algo-1.json"
    return restore(folder, [saved], out, run, node, peaks or table().sha256)


def second_attempt(tmp_path: Path, later: int, boot_ns: int = 7 * NS_PER_S) -> Run:
    """Another machine, just booted, with other GPUs, `later` seconds of wall clock after the first began."""
    clock = FakeClock()
    wall_ns = clock.wall_ns() + later * NS_PER_S
    clock = FakeClock(boot_ns, wall_ns)
    devices = tuple(replace(device, uid=f"{device.uid}-new") for device in (H100, A100))
    return Run(tmp_path / "two", context=on("boot-2"), run_id="job-1", clock=clock, devices=devices)


@pytest.mark.parametrize("ended", [True, False])
def test_a_restored_run_continues_and_unrecorded_time_is_a_gap_with_a_ceiling(tmp_path: Path, ended: bool) -> None:
    first_attempt(tmp_path, ended=ended)
    saved = view_of(history_of(tmp_path / "saved/algo-1.journal.jsonl"), table()).figures
    shown = again(tmp_path)
    assert shown is not None
    (reason,) = shown.for_journal()["reasons"]
    assert (reason["code"], reason["sealed"]) == ("restored", reason["records"])
    run = second_attempt(tmp_path, later=600)
    run.meter(5)
    run.finish()
    found = history_of(run.state.journal)
    assert [incarnation.boot_id for incarnation in found.incarnations] == ["boot-1", "boot-2"]
    second = found.incarnations[1]
    total = view_of(found, table()).figures
    alone = view_of(History([second]), table()).figures
    assert [getattr(total, bound) for bound in BOUNDS] == [getattr(saved, b) + getattr(alone, b) for b in BOUNDS]
    if ended:
        assert set(second.tallies) == {"GPU-h-new", "GPU-a-new"}
    else:
        for uid in ("GPU-h", "GPU-a"):  # from the record after 40 s to the new begin after 600 s, and no further
            tally = second.tallies[uid]
            assert tally.total_gap_ns == tally.span_ns == (600 - 40) * NS_PER_S
            assert tally.watermark_ns == second.begin["ns"]
            assert tally.begin_ns < 0  # this machine was not yet up then
        really = view_of(history_of(tmp_path / "one/journal.jsonl"), table()).figures
        assert (total.high_flop or 0) > (really.high_flop or 0) + (alone.measured_flop or 0)
    verified(run.seal(tmp_path / "out" / "algo-1.json"))


def test_a_kill_before_the_first_checkpoint_loses_nothing_of_the_earlier_attempt(tmp_path: Path) -> None:
    first_attempt(tmp_path)
    again(tmp_path)
    second_attempt(tmp_path, later=300).kill()
    (tmp_path / "two" / "pending.jsonl").unlink(missing_ok=True)
    clock = FakeClock(9 * NS_PER_S, FakeClock().wall_ns() + 900 * NS_PER_S)
    third = Run(tmp_path / "two", context=on("boot-3"), run_id="job-1", clock=clock)
    third.meter(1)
    third.finish()
    spans = [
        inc.tallies["GPU-h"].span_ns for inc in history_of(third.state.journal).incarnations if "GPU-h" in inc.tallies
    ]
    assert sum(spans[1:]) == (900 - 40 + 1) * NS_PER_S  # this time the card came back, and counting continues


def test_a_forged_note_keeps_no_run_from_continuing_or_being_sealed(tmp_path: Path) -> None:
    """Any process of the user can write such a note."""
    first_attempt(tmp_path)
    assert again(tmp_path) == again(tmp_path) is not None
    note = tmp_path / "two" / "restored.json"
    true = json.loads(note.read_bytes())
    for changes in (
        {"code": "another"}, {"code": "journal_missing", "parameters": {}}, {"parameters": {"ledger": "x"}},
        {"parameters": {**true["parameters"], "ledger": "\ud800"}}, {"parameters": {**true["parameters"], "ledger": 1.5}},
        {"parameters": {**true["parameters"], "ledger": ["x"]}}, {"parameters": None}, {"head": 1},
    ):  # fmt: skip
        note.write_text(json.dumps({**true, **changes}))
        assert again(tmp_path) is None, changes
    note.write_text("[" * 100_000)
    assert again(tmp_path) is None


def test_a_device_that_returns_late_continues_without_a_hole(tmp_path: Path) -> None:
    first_attempt(tmp_path)
    again(tmp_path)
    run = second_attempt(tmp_path, later=100)
    run.meter(3)
    assert run.writer.checkpoint()
    run.devices = (*run.devices, H100)
    run.meter(4)
    run.finish()
    tally = history_of(run.state.journal).incarnations[1].tallies["GPU-h"]
    assert tally.total_observed_ns + tally.total_gap_ns == tally.span_ns == (100 - 40 + 7) * NS_PER_S


def test_the_policies_of_the_earlier_attempt_are_restored_too(tmp_path: Path) -> None:
    """The journal can then be sealed before another start names policies."""
    own, run = Own.in_folder(tmp_path / "own"), Run(tmp_path / "one", context=on("boot-1"), run_id="job-1")
    run.kill()
    run.policies = load_policies(own.policies)
    run.start()
    run.meter(2)
    run.finish()
    sealed = run.seal(tmp_path / "saved" / "algo-1.json", policy_files=own.policies)
    assert len(sealed.companions) == 2
    assert again(tmp_path) is not None
    kept = StateDir(tmp_path / "two").companions("policy")
    assert sorted(path.read_bytes() for path in kept) == sorted(path.read_bytes() for path in sealed.companions)


@pytest.mark.parametrize("other", [{"run": "job-2"}, {"node": "algo-2"}])
def test_another_run_or_node_is_not_restored(tmp_path: Path, other: dict[str, str]) -> None:
    first_attempt(tmp_path)
    assert again(tmp_path, **other) is None
    assert not (tmp_path / "two/journal.jsonl").exists()
    assert not (tmp_path / "out").exists()


def test_a_state_with_another_peak_table_stays_a_separate_mergeable_ledger(tmp_path: Path) -> None:
    first_attempt(tmp_path, ended=True)
    before = os.umask(0o077)
    try:
        assert again(tmp_path, peaks="0" * 64) is None
    finally:
        os.umask(before)
    (kept,) = (tmp_path / "out").glob("algo-1-attempt-*.json")
    assert {path.stat().st_mode & 0o777 for path in kept.parent.iterdir()} == {0o644}
    run = second_attempt(tmp_path, later=600)
    run.meter(5)
    run.finish()
    sealed = run.seal(tmp_path / "out" / "algo-1.json")
    key, _ = ensure_key(None, tmp_path / "two")
    trust = [str(sealed.public_key), str(kept.with_suffix(".pub"))]
    request = MergeRequest([str(tmp_path / "out")], trust, key, tmp_path / "job.json")
    merged = merge_ledgers(request, FakeClock(), lambda _: None)
    assert (merged.ledgers, merged.completeness.complete) == (2, True)


def _torn(journal: Path) -> None:
    journal.write_bytes(journal.read_bytes()[:-20])


def _nested(journal: Path) -> None:
    """The job can write to this folder: a deeply nested payload must not stop the daemon's start."""
    envelope = json.loads((journal.parent / "algo-1.json").read_bytes())
    envelope["payload"] = base64.b64encode(b"[" * 100_000).decode("ascii")
    (journal.parent / "algo-1.json").write_text(json.dumps(envelope))


def _older(journal: Path) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))


@pytest.mark.parametrize("damage", [_torn, _older, _nested])
def test_a_truncated_state_is_continued_and_reported(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    first_attempt(tmp_path)
    damage(tmp_path / "saved/algo-1.journal.jsonl")
    shown = again(tmp_path)
    assert shown is not None
    assert [one.code for one in shown.reasons] == ["restored_unsealed"]
    assert shown.for_journal()["cutBytes"] == "0"
    run = second_attempt(tmp_path, later=100)
    run.finish()
    assert len(history_of(run.state.journal).incarnations) == 2


def test_an_invalid_saved_journal_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first_attempt(tmp_path)
    (tmp_path / "saved/algo-1.journal.jsonl").write_bytes(b"\0" * 100)
    assert again(tmp_path) is None
    assert "only the first 0 records are valid" in caplog.text
    assert "NOT RESTORED" in caplog.text
    shutil.rmtree(tmp_path / "saved")
    assert again(tmp_path) is None


def test_the_newest_of_several_states_is_restored_and_its_prefixes_are_ignored(tmp_path: Path) -> None:
    first_attempt(tmp_path)
    ledger = tmp_path / "saved/algo-1.json"
    for where in (Path, journal_beside):
        shutil.copy(where(ledger), where(ledger.with_name("algo-1-until-20260101T000000000Z.json")))
    longer = (tmp_path / "one/journal.jsonl").read_bytes()
    journal_beside(ledger).write_bytes(longer)
    shown = again(tmp_path)
    assert shown is not None
    assert (tmp_path / "two/journal.jsonl").read_bytes() == longer
    assert not (tmp_path / "out").exists()
    assert again(tmp_path) == shown  # no daemon has recorded the restore yet
    second_attempt(tmp_path, 100).kill()
    assert again(tmp_path) is None


def test_an_unlistable_folder_of_copies_keeps_no_daemon_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first_attempt(tmp_path)
    real = os.listdir

    def fails(path: Path) -> list[str]:
        if path == tmp_path / "saved":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path)

    with monkeypatch.context() as sick:
        sick.setattr(os, "listdir", fails)
        assert again(tmp_path) is None
    assert f"NOT RESTORED: {tmp_path / 'saved' / 'algo-1.journal.jsonl'}" in caplog.text
    assert again(tmp_path) is not None


def saved_segments(tmp_path: Path) -> Run:
    """A run on one machine with two sealed and saved segments."""
    run = Run(tmp_path / "one", context=on("boot-1"), run_id="job-1")
    for number in (1, 2):
        run.meter(40)
        assert run.writer.rotate()
        shutil.copy(max(run.state.segments.iterdir()), run.state.path / "closed")
        run.seal(tmp_path / "saved" / f"algo-1-{number:04d}.json", journal=run.state.path / "closed")
    run.kill()
    return run


@pytest.mark.parametrize("seconds", [5, 30])
def test_a_kill_after_restoring_a_segment_makes_no_second_ledger_of_it(tmp_path: Path, seconds: int) -> None:
    """The next ledger covers the machine that is gone completely, with or without a checkpoint before its end."""
    run, state = saved_segments(tmp_path), StateDir(tmp_path / "two")
    clock = FakeClock(7 * NS_PER_S, run.clock.wall_ns() + 100 * NS_PER_S)
    settings = Settings(
        run_id="job-1", state_dir=str(state.path), ledger=str(tmp_path / "out" / "algo-1.json"), rotate_every="1d",
        ledger_copies=(str(tmp_path / "saved" / "algo-1.json"),), evidence=(),
    )  # fmt: skip
    for is_killed in (True, False):
        state.acquire()
        journal = Journal(state)
        found = continue_run(settings, on("boot-2"), table(), journal, clock, CodeSecrets(None), None)
        assert found.recovered.recovery is not None
        assert [reason.code for reason in found.recovered.recovery.reasons] == ["restored"]
        assert found.continues is Continues.NOTHING
        if is_killed:
            journal.close()
            state.release()
    writer = Writer(journal, table(), WriterSettings(NS_PER_S, 10 * NS_PER_S, "0" * 64, None, ("sim",)), on("boot-2"), clock,
                    run.lines.append)  # fmt: skip
    found.begin(writer)
    for _ in range(seconds):
        clock.advance(NS_PER_S)
        writer.tick()
    assert writer.close("sigterm")
    journal.close()
    state.release()
    assert seal_closed(state, settings, clock, {}).sealed == []
    sealed = seal(state.journal, state, settings, clock)
    assert sealed.ledger.name == "algo-1-0003.json"
    parts = [*sorted((tmp_path / "saved").glob("*.json")), sealed.ledger]
    assert [path.name for path in parts] == [f"algo-1-000{number}.json" for number in (1, 2, 3)]
    trust, key = [str(path.with_suffix(".pub")) for path in parts[1:]], str(state.path / "flopsd-key.pem")
    request = MergeRequest([*map(str, parts)], trust, key, tmp_path / "job.json", nodes=1)
    assert merge_ledgers(request, clock, lambda _: None).completeness.complete


def test_a_run_killed_before_its_next_segment_continues_the_closed_one(tmp_path: Path) -> None:
    """The next segment's journal had not taken its place yet; the copies elsewhere end before it."""
    saved_segments(tmp_path)
    (tmp_path / "one").rename(tmp_path / "two")
    state = StateDir(tmp_path / "two")
    state.journal.unlink()
    for path in (tmp_path / "saved").glob("algo-1-0002*"):
        path.unlink()
    assert again(tmp_path) is None
    assert not state.journal.exists()


def test_a_rotated_run_continues_with_its_last_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved_segments(tmp_path)
    restored = again(tmp_path)
    assert restored is not None
    assert is_sealed_whole(restored)
    history = history_of(tmp_path / "two" / "journal.jsonl")
    assert (history.segment, history.is_rotated) == (2, True)
    assert not (tmp_path / "out").exists()  # the previous segment is named, and stays where it was
    whole = view_of(history, table(), whole_run=True)
    assert whole.span_ns == 2 * 80 * NS_PER_S
    # It has its ledger and is not sealed again with another key, even if the next one takes over late.
    state, run.clock = StateDir(tmp_path / "two"), FakeClock()
    state.journal.unlink()
    state.acquire()
    saved = (str(tmp_path / "saved" / "algo-1.json"),)
    settings = Settings(run_id="job-1", ledger=str(tmp_path / "out" / "algo-1.json"), ledger_copies=saved)
    found = continue_run(settings, on("boot-2"), table(), Journal(state), run.clock, CodeSecrets(None), None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: os.stat(tmp_path / "no disk"))
        run.state, run.journal = state, Journal(state)
        wanted = WriterSettings(NS_PER_S, 10 * NS_PER_S, "0" * 64, None, ("sim",))
        run.writer = Writer(run.journal, table(), wanted, on("boot-2"), run.clock, run.lines.append)
        found.begin(run.writer)
    run.finish()
    assert history_of(state.journal).segment == 3
    assert closed_segments(state) == []


def test_a_run_with_the_name_of_a_segment_hides_no_segment(tmp_path: Path) -> None:
    """Like runs `algo-1` and `algo-1-2025` whose copies go to one folder."""
    saved_segments(tmp_path)
    other = Run(tmp_path / "other", context=on("boot-0", job="algo-1-2025"), run_id="algo-1-2025")
    other.meter(10)
    other.finish()
    other.seal(tmp_path / "saved" / "algo-1-2025.json")
    assert again(tmp_path) is not None
    assert history_of(tmp_path / "two" / "journal.jsonl").segment == 2
    assert not (tmp_path / "out").exists()


def test_a_start_records_its_grounds_for_continuing_and_none_for_foreign_state(tmp_path: Path) -> None:
    def continues(folder: Path, mode: int, *, is_known: bool) -> str:
        run = Run(folder, run_id="job-1")
        run.meter(1)
        known = run.journal.as_known_journal("job-1") if is_known else None
        run.kill()
        folder.chmod(mode)
        state = StateDir(folder)
        state.acquire()
        found = continue_run(
            Settings(), on("boot-1"), table(), journal := Journal(state), run.clock, CodeSecrets(None), known
        )
        journal.close()
        return found.continues.value

    assert continues(tmp_path / "own", 0o700, is_known=False) == "file_owner"
    assert continues(tmp_path / "open", 0o777, is_known=False) == "nothing"
    assert continues(tmp_path / "known", 0o777, is_known=True) == "launcher"


@pytest.mark.parametrize(("run_id", "is_new"), [(None, True), ("job-1", True), ("my-training", False)])
def test_a_job_with_a_reused_number_continues_no_earlier_job(tmp_path: Path, run_id: str | None, is_new: bool) -> None:
    """Slurm's controller may lose its state and begin with 1 again. A run with its own name continues in each job."""
    run = Run(tmp_path / "state", run_id=run_id or "job-1")
    run.meter(1)
    run.finish()
    run.state.acquire()
    later = replace(CONTEXT, job_name="job-1", job_began_s=run.clock.wall_ns() // NS_PER_S + 7200)
    journal, settings = Journal(run.state), Settings(run_id=run_id)
    found = continue_run(settings, later, table(), journal, run.clock, CodeSecrets(None), None)
    journal.close()
    assert (found.run, found.recovered.history.incarnations == []) == (run_id or "job-1", is_new)


@pytest.mark.parametrize("is_same_table", [True, False])
def test_under_one_launcher_no_time_of_the_job_is_left_out(tmp_path: Path, is_same_table: bool) -> None:
    """While the daemon is down the host is renamed, and perhaps flopsd is upgraded to another peak table."""
    run = Run(tmp_path / "state", run_id="job-1", devices=(H100,))
    began_ns = run.clock.boottime_ns()
    run.meter(3)
    known = run.journal.as_known_journal("job-1")
    run.kill()
    run.clock.advance(NS_PER_S)
    run.state.acquire()
    by = table() if is_same_table else replace(table(), sha256="1" * 64)
    renamed = replace(CONTEXT, node="elsewhere")
    journal, settings = Journal(run.state), Settings(run_id="job-1")
    found = continue_run(settings, renamed, by, journal, run.clock, CodeSecrets(None), known)
    wanted = WriterSettings(NS_PER_S, 10 * NS_PER_S, "0" * 64, None, ("sim",))
    writer = Writer(journal, by, wanted, found.context, run.clock, lambda _: None)
    found.begin(writer, began_ns)
    writer.take(Message("sim", run.clock.boottime_ns(), (H100,), Sweep(())))
    assert writer.close("job_ended")
    journal.close()
    run.state.release()
    history = history_of(run.state.journal)
    assert (history.node, len(history.incarnations)) == (CONTEXT.node, 2) if is_same_table else ("elsewhere", 1)
    assert view_of(history, by, whole_run=True).span_ns == run.clock.boottime_ns() - began_ns

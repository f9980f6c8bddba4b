"""The parts of a state folder that `flopsd seal` seals, and its output."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from flopsd.daemon.ledgers.rolling_seal import NOT_SIGNED, SEALED_NOT_COPIED
from flopsd.settings.data_files import config_dir
from tests.support.process import Done, in_process
from tests.support.runs import H100, Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with two closed segments that is still running."""
    run = Run(tmp_path / "state", devices=(H100,))
    for _ in range(2):
        run.meter(12)
        assert run.writer.rotate()
    run.meter(12)
    return run


def seal(run: Run, *arguments: str, code: int = 0) -> Done:
    places = ("--state-dir", str(run.state.path), "--ledger", str(run.state.path.with_name("out") / "run.json"))
    return in_process("seal", *places, "--evidence", "off", *arguments, env={}, code=code)


def names(run: Run) -> list[str]:
    return sorted(path.name for path in run.state.path.with_name("out").glob("*.json"))


def test_a_run_that_ended_is_sealed_with_its_closed_segments(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.finish()
    steps = []
    monkeypatch.setattr("flopsd.cli.seal.waiting", lambda *_: nullcontext(lambda *step: steps.append(step)))
    printed = seal(run).stdout
    assert steps == [("copying the ledger", 0, 0)]
    out = run.state.path.with_name("out")
    assert [f"sealed a closed segment of the run: {out / f'run-{n:04d}.json'}" in printed for n in (1, 2)] == [True] * 2
    assert f"sealed {out / 'run-0003.json'}" in printed
    assert "SEGMENT     segment 3 of a rotated run" in printed
    assert names(run) == ["run-0001.json", "run-0002.json", "run-0003.json"]
    again = seal(run).stdout
    assert "was already sealed and is unchanged" in again
    assert "closed segment" not in again


def test_a_run_killed_between_two_segments_is_said_to_lack_the_next(run: Run, tmp_path: Path) -> None:
    assert run.writer.rotate()
    where = ("status", "--state-dir", str(run.state.path))
    run.state.journal.unlink()
    in_process(*where, code=1, says=("is just being rotated", "ask again"))
    run.kill()
    in_process(*where, code=1, says=("killed after it closed one and before it began the next", "start the daemon of"))
    assert "start the daemon of that run here once more, and stop it" in seal(run).stderr
    ledgers, key = [str(path) for path in (tmp_path / "out").glob("*.json")], str(run.state.path / "flopsd-key.pem")
    trust = str(tmp_path / "out" / "run-0001.pub")
    merge = ("merge", "--nodes", "1", "--trust", trust, "--key", key, "--ledger", str(tmp_path / "job.json"))
    in_process(*merge, *ledgers, code=1, says="no ledger of segment 4, the next after ledger node-0/")
    run.start()
    run.meter(1)
    run.finish()
    seal(run)
    assert "COMPLETE: " in in_process(*merge, str(tmp_path / "out"), code=0).stdout


def test_a_journal_is_sealed_alone_and_quietly(run: Run) -> None:
    run.finish()
    done = in_process("seal", "--journal", str(run.state.journal), "--state-dir", str(run.state.path), "--evidence",
                      "off", "--quiet", env={}, code=0)  # fmt: skip
    assert done.stdout == ""
    assert sorted(p.name for p in run.state.path.glob("*.json")) == ["run-1.ledger-0003.json"]
    assert names(run) == []
    lock = run.state.path / "lock"  # as on the disk of a dead machine, mounted read-only
    lock.unlink()
    lock.symlink_to("nowhere")
    in_process("seal", "--state-dir", str(run.state.path), env={}, code=1, says="give --state-dir the copy")


def test_policies_and_tables_other_than_the_runs_are_reported_as_unused(run: Run) -> None:
    run.finish()
    given = ("--policy", "us-ca-sb-53", "--peaks", str(config_dir() / "peaks.yaml"))
    said = seal(run, *given).stderr
    assert "not judged by us-ca-sb-53: the policies are those that the run was started with" in said
    assert "peaks.yaml was not used" not in said, "it is the one"
    (other := run.state.path.with_name("other.yaml")).write_text("#")
    assert (
        f"{other} was not used: the run was metered with flopsd's own peak table"
        in seal(run, "--peaks", str(other)).stderr
    )


def test_a_file_of_another_kind_is_named(run: Run) -> None:
    run.finish()
    ledger = run.state.path.with_name("out") / "run-0003.json"
    seal(run)
    in_process("seal", "--journal", str(ledger), env={}, code=1, says=f"{ledger} is not a journal: it begins otherwise")
    in_process("seal", "--state-dir", str(ledger), env={}, code=1, says=f"there is no journal in {ledger}")
    given = (str(ledger), "--key", str(ledger.with_suffix(".pub")), "--journal", str(ledger))
    in_process("verify", *given, env={}, code=3, says=f"hint: {ledger} is not a journal: name NAME.journal.jsonl with")


@pytest.fixture
def as_the_daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    nice = []
    monkeypatch.setattr(
        "flopsd.cli.seal.be_nice", lambda: nice.append(1)
    )  # otherwise it would apply to all later tests
    yield ("--rolling",)
    assert nice, "it runs beside the job"


def test_the_daemon_has_its_segments_sealed_while_it_runs(run: Run, as_the_daemon: tuple[str, ...]) -> None:
    closed = seal(run, *as_the_daemon, "--closed-only").stdout
    assert names(run) == ["run-0001.json", "run-0002.json"]
    assert closed.count("sealed a closed segment of the run") == 2
    assert "verify it with" not in closed
    rolling = seal(run, *as_the_daemon, "--policy", "us-ca-sb-53")
    assert "ROLLING     the journal has no end" in rolling.stdout
    assert "not judged by" not in rolling.stderr, "each rolling seal would repeat it"
    run.finish()


def test_the_exit_code_tells_a_key_failure_from_a_copy_failure(run: Run, as_the_daemon: tuple[str, ...]) -> None:
    (key := run.state.path / "broken.pem").write_text("no key")
    unsigned = seal(run, *as_the_daemon, "--key", str(key), code=NOT_SIGNED)
    assert "is not a PEM private key of a supported kind; " in unsigned.stderr
    assert names(run) == []
    copy = ("--ledger-copy", str(key / "copy.json"))
    assert "copy" in seal(run, *as_the_daemon, *copy, code=SEALED_NOT_COPIED).stderr
    run.finish()
    assert "copy" in seal(run, *copy, code=1).stderr


def test_an_altered_segment_is_named_after_all_others_are_sealed(run: Run) -> None:
    first, second = sorted(run.state.segments.iterdir())
    first.write_bytes(second.read_bytes())
    run.finish()
    done = seal(run, code=1)
    assert "is not the journal that was written" in done.stderr
    assert names(run) == ["run-0002.json", "run-0003.json"]

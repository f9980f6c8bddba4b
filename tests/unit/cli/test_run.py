"""What `flopsd run` passes to the daemon: its settings, and the command lines of the processes that the daemon
starts."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from flopsd.cli.run import ME
from flopsd.daemon.ledgers.custody import Commands
from flopsd.system.clock import SystemClock
from tests.support.process import environment, flopsd, in_process

SEAL = ("--run-id", "r", "--ledger", "l.json", "--ledger-copy", "a.json", "--ledger-copy", "b.json")
PUSH = ("--push", "otlp+http://a:1/v1/metrics", "--push-every", "30")


@pytest.mark.parametrize("well", [True, False])
@pytest.mark.parametrize(
    ("words", "loud", "is_configured"), [((), [], False), (("-q",), ["--quiet"], True), (("-v",), ["--verbose"], False)]
)
def test_flags_are_passed_to_the_processes_that_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], loud: list[str], *,
    is_configured: bool, well: bool,
) -> None:  # fmt: skip
    (tmp_path / "flopsd.yaml").write_text("interval_seconds: 2\n")
    config = ("--config", str(tmp_path / "flopsd.yaml")) if is_configured else ()
    found: dict[str, Any] = {}

    def run_daemon(*given: object, **more: object) -> bool:
        found.update(given=given, more=more)
        return well

    monkeypatch.setattr("flopsd.daemon.run.run_daemon", run_daemon)
    state, key = ("--state-dir", str(tmp_path)), ("--key", str(tmp_path / "later.pem"))
    in_process("run", *words, *config, *state, *key, *SEAL, *PUSH, "--interval", "3", "--wait-for-source", "true", "--progress",
               "--lifeline", "5", "--head-file", "6", "--job-began", "7", "--run-lock", "8",
               env={"PATH": "/bin"}, code=0 if well else 1)  # fmt: skip
    settings, environment, clock, _, _, commands = found["given"]
    assert (settings.interval_seconds, settings.run_id, settings.key) == (3, "r", key[1])
    assert (environment, type(clock)) == (os.environ, SystemClock)
    assert found["more"] == {
        "progress": "-q" not in words,
        "lifeline": 5,
        "head_file": 6,
        "job_began_ns": 7,
        "run_lock": 8,
    }
    assert commands == Commands(
        check_key=[*ME, "key", "check", "--json", *config, *state, key[1]],
        seal=[*ME, "seal", "--rolling", *loud, *config, *state, *SEAL[:2], *key, *SEAL[2:]],
        push=[*ME, "push", "--fed", *loud, *config, *PUSH],
        copy=[*ME, "copy", "--background", *loud, *config, *state],
    )
    assert ME[0] == sys.executable


@pytest.mark.parametrize(
    ("words", "code"),
    [((), 2), (("--no-seal",), 0), (("--lifeline", "5"), 0), (("--wait-for-source", "true"), 0), (("--progress",), 2)],
)
def test_an_unusable_key_stops_the_start_unless_another_may_still_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    commands: list[Commands] = []

    def run_daemon(*given: Any, progress: bool, **_: object) -> bool:
        commands.append(given[5])
        return not progress

    monkeypatch.setattr("flopsd.daemon.run.run_daemon", run_daemon)
    done = in_process("run", "--state-dir", str(tmp_path), "--key", str(tmp_path / "none.pem"), *words, code=code)
    assert ("--key: cannot read" in done.stderr) == (code == 2)
    assert ["--no-seal" in one.seal for one in commands] == [False] * (code == 0), "it seals, or is not started"


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_problems_that_stop_a_run_are_named_before_anything_starts(tmp_path: Path, verb: str) -> None:
    """Under `exec` the job used to run to its end unmetered."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "bad.yaml").write_text("a: 1")
    words = ["--peaks", str(tmp_path / "bad.yaml"), "--policy", str(tmp_path / "none"), "--method", "pretraining"]
    words += ["--base-flop", "1e24", "--ledger", str(tmp_path / "null"), "--ledger-copy", str(tmp_path)]
    words += ["--ledger-copy", str(tmp_path / "fifo"), "--ledger-copy", str(tmp_path / "copy.json")]
    job = [] if verb == "run" else ["--", "touch", str(tmp_path / "started")]
    done = in_process(verb, "--state-dir", str(tmp_path / "state"), *words, *job, code=2)
    names = ("null is not a regular file", f"{tmp_path} is a folder", "fifo is not a regular file", "bad.yaml: peak table is",
             "none: cannot be read", "--method pretraining has no base model")  # fmt: skip
    assert all(name in line for name, line in zip(names, done.stderr.splitlines(), strict=False)), done.stderr
    assert done.stderr.splitlines()[len(names)].startswith("flopsd: hint: "), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml", "fifo", "null"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a job as another user")
def test_a_slurm_task_that_does_not_meter_starts_its_job_as_the_user_too(tmp_path: Path) -> None:
    env = environment(None, PATH=os.defpath, SLURM_JOB_ID="7", SLURM_LOCALID="1")
    options = ("--job-user", "65534", "--state-dir", str(tmp_path))
    done = flopsd("exec", *options, "--", "sh", "-c", "id -u; id -g; id -G", env=env, code=0)
    assert set(done.stdout.split()) == {"65534"}


def test_the_jobs_exit_code_is_kept_in_an_environment_that_asks_python_for_a_prompt(tmp_path: Path) -> None:
    files = ("--state-dir", str(tmp_path / "state"), "--ledger", str(tmp_path / "l.json"), "--listen", "off")
    done = flopsd("exec", *files, "--", "sh", "-c", "exit 7", env=environment(None, PYTHONINSPECT="1"), code=7)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "l.json").exists()

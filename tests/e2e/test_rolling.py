"""Rolling seals with the real program: the files left when everything is killed at once, and their cost for
metering."""

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flopsd.attestation.storage.deliveries import Deliveries
from flopsd.core.ledger.history_from_records import read_history
from flopsd.journal.delivery_note import Delivery, read_deliveries
from flopsd.journal.reading import read_live
from flopsd.settings.data_files import config_dir
from tests.support.process import (
    FLOPSD,
    PATIENCE_SECONDS,
    Program,
    daemon_pid,
    fill,
    in_process,
    predicate,
    small_disk,
    started,
    wait_until,
)
from tests.support.runs import finished

# Not libcrypto, which hashlib itself uses for the journal's chain.
SIGNING = ("cryptography", "libssl", "boto", "_rust", "_cffi")


def arguments(tmp_path: Path, *more: str) -> tuple[str, ...]:
    return ("--state-dir", str(tmp_path / "state"), "--ledger", str(tmp_path / "out" / "ledger.json"), "--listen", "off",
            "--interval", "0.2", "--seal-every", "1", *more)  # fmt: skip


def replaced(ledger: Path, times: int) -> None:
    """Wait until a ledger was put in place `times` times."""
    seen = set[tuple[int, int]]()

    def look() -> bool:
        if ledger.exists():
            here = ledger.stat()
            seen.add((here.st_ino, here.st_mtime_ns))  # inode numbers are reused
        return len(seen) >= times

    wait_until(look, f"{times} rolling seals")


def kill_all(program: Program) -> None:
    """Like the end of a container: kill launcher, daemon, job and sealing child at once, so that none sees another
    end."""
    family = [psutil.Process(program.process.pid), *psutil.Process(program.process.pid).children(recursive=True)]
    for signal_number in (signal.SIGSTOP, signal.SIGKILL):
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal_number)
    program.process.wait()
    psutil.wait_procs(family)


def last_seconds(journal: Path) -> tuple[float, str]:
    history = read_history(line.record() for line in read_live(journal))
    return history.incarnations[-1].last_ns / 1e9, history.incarnations[-1].last_utc


def test_a_killed_container_leaves_a_ledger_that_verifies(tmp_path: Path, env: dict[str, str]) -> None:
    state, ledger = tmp_path / "state", tmp_path / "out" / "ledger.json"
    with started("exec", *arguments(tmp_path), "--", "sleep", "600", env=env) as program:
        replaced(ledger, 3)
        kill_all(program)
    found = predicate(ledger)
    assert found["incarnations"][-1]["endReason"] is None
    assert int(found["totals"]["executed"]["measured"]) > 0
    sealed, lasting = last_seconds(ledger.with_name("ledger.journal.jsonl")), last_seconds(state / "journal.jsonl")
    assert lasting[0] - sealed[0] < 10  # one second, and the time that two busy processors need to seal
    text = in_process("verify", str(ledger), "--key", str(ledger.with_suffix(".pub"))).stdout
    flat = " ".join(text.split())  # lines are wrapped
    assert (
        f"ROLLING: sealed while the run went on, or after it was killed. It covers the time up to {sealed[1]}" in flat
    )

    alone = tmp_path / "elsewhere" / "saved.jsonl"
    alone.parent.mkdir()
    shutil.copy(state / "journal.jsonl", alone)
    lone = in_process("seal", "--journal", str(alone), "--ledger", str(alone.with_name("l.json")), code=0)
    assert "the journal has no end: the figures are up to its last record" in lone.stdout
    assert predicate(alone.with_name("l.json"))["method"]["journal"]["lastRecordAt"] == lasting[1]

    in_process("seal", "--state-dir", str(state), "--ledger", str(ledger), code=0)
    closed = predicate(ledger)
    assert int(closed["method"]["earlierSeals"]["count"]) >= 2  # the rolling ones that the daemon knew of
    assert closed["method"]["journal"]["lastRecordAt"] >= lasting[1]  # with the pending totals
    assert int(closed["totals"]["executed"]["measured"]) >= int(found["totals"]["executed"]["measured"])
    assert not list(ledger.parent.glob("*until*"))


def waiting_child(daemon: int, verb: str, lock: Path) -> psutil.Process | None:
    """The child of the daemon that runs `verb` and has opened the lock."""
    with suppress(psutil.NoSuchProcess, FileNotFoundError):
        for child in psutil.Process(daemon).children():
            opened = [os.path.realpath(link) for link in Path(f"/proc/{child.pid}/fd").iterdir()]
            if verb in child.cmdline() and str(lock) in opened:
                return child
    return None


@pytest.mark.parametrize("verb", ["seal", "copy"])
def test_a_seal_or_copy_does_not_outlive_its_daemon(tmp_path: Path, env: dict[str, str], verb: str) -> None:
    """It would go on beside those of the next daemon or of the launcher, and overwrite a final copy."""
    state, copy = tmp_path / "state", tmp_path / "late" / "earlier.json"
    earlier = finished(state, 2, run_id="earlier")
    sealed = earlier.seal(tmp_path / "earlier.json")
    Deliveries(earlier.state, earlier.clock).note(sealed.ledger, [copy])
    lock = os.path.realpath(state / "seal.lock")
    often = ("--seal-every", "1" if verb == "seal" else "off")
    with open(lock, "wb") as held, started("run", *arguments(tmp_path, *often), env=env) as program:
        fcntl.flock(held, fcntl.LOCK_EX)
        child = wait_until(lambda: waiting_child(program.process.pid, verb, Path(lock)), f"a {verb} at the lock")
        program.process.kill()
        assert psutil.wait_procs([child], timeout=PATIENCE_SECONDS)[1] == []
        assert not (tmp_path / "out").exists()
        assert [one.state for one in read_deliveries(state / "deliveries.json")[0].destinations] == [Delivery.PENDING]


def test_the_daemon_loads_no_signing_code_and_a_full_disk_leaves_the_older_ledger(
    tmp_path: Path, env: dict[str, str]
) -> None:
    ledger = tmp_path / "out" / "ledger.json"
    with small_disk(tmp_path / "out", "1m") as small, started("run", *arguments(tmp_path), env=env) as program:
        wait_until(ledger.exists, "a first rolling seal")
        process = psutil.Process(daemon_pid(tmp_path / "state"))
        before = process.memory_info().rss
        replaced(ledger, 6)
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        after = process.memory_info().rss
        filler = fill(small)
        program.wait_for("NO ROLLING SEAL: cannot write the ledger .*No space left on device.*metering goes on")
        predicate(ledger)
        filler.unlink()
        program.wait_for("rolling seals succeed again")
        predicate(ledger)
        program.process.send_signal(signal.SIGTERM)
        assert program.finish() == 0, program.text
        found = predicate(ledger)
        assert "ROLLING" not in in_process("verify", str(ledger), "--key", str(ledger.with_suffix(".pub"))).stdout
    assert "python" in maps
    assert [name for name in SIGNING if name in maps] == []
    assert after - before < 2 << 20
    assert found["incarnations"][-1]["endReason"] == "sigterm"
    assert set(found["coverage"]["gapSecondsByReason"]) <= {"starting", "stopping"}


def test_the_journal_of_a_full_disk_is_kept_where_its_ledger_would_be(tmp_path: Path, env: dict[str, str]) -> None:
    copy, options = tmp_path / "far" / "l.json", ("--seal-every", "off", "--checkpoint", "0.2")
    with small_disk(tmp_path / "state", "64k") as small:
        with started("run", *arguments(tmp_path, "--ledger-copy", str(copy), *options), env=env) as program:
            wait_until(
                lambda: any(b"activity" in file.read_bytes() for file in small.glob("pending.jsonl")), "a reading"
            )
            fill(small)
            program.wait_for("metering goes on in memory")
            program.process.send_signal(signal.SIGTERM)
            assert program.finish() == 1, program.text
        assert "the journal lacks the end of the run" in program.text
        assert f"and {copy.with_suffix('.journal.jsonl')}; seal it with" in program.text
    in_process("seal", "--journal", str(copy.with_suffix(".journal.jsonl")), "--ledger", str(copy), code=0)
    assert predicate(copy)["incarnations"][-1]["endReason"] is None


def test_rolling_seals_with_own_policy_and_peak_table_verify_by_the_printed_command(
    tmp_path: Path, env: dict[str, str]
) -> None:
    """The printed command is run as it is, in another folder."""
    policy, peaks = tmp_path / "my policy.yaml", tmp_path / "peaks.yaml"
    policy.write_text((config_dir() / "policies" / "eu-ai-act.yaml").read_text() + "# our own\n")
    peaks.write_text((config_dir() / "peaks.yaml").read_text() + "# our own\n")
    ledger, own = tmp_path / "out" / "ledger.json", ("--policy", str(policy), "--peaks", str(peaks))
    with started("exec", *arguments(tmp_path, *own), "--", "sleep", "600", env=env) as program:
        replaced(ledger, 2)
        os.kill(daemon_pid(tmp_path / "state"), signal.SIGKILL)
        program.wait_for("daemon start 2")
        program.process.send_signal(signal.SIGTERM)
        assert program.finish() == 128 + signal.SIGTERM, program.text
    assert "NO ROLLING SEAL" not in program.text
    again = in_process("seal", "--state-dir", str(tmp_path / "state"), "--ledger", str(ledger), *own)
    for said in (program.text, again.stdout):
        _, _, command = said.partition("verify it with:\n")
        verified = subprocess.run([*FLOPSD, *shlex.split(command.splitlines()[0])[1:]], cwd="/", capture_output=True,
                                  text=True, check=False)  # fmt: skip
        assert verified.returncode == 0, f"{said}{verified.stderr}"


def test_rolling_seals_can_be_switched_off(tmp_path: Path, env: dict[str, str]) -> None:
    journal, ledger = tmp_path / "state" / "journal.jsonl", tmp_path / "out" / "ledger.json"
    off = ("--seal-every", "off", "--checkpoint", "0.2", "--checkpoint-output", "off")
    with started("run", *arguments(tmp_path), *off, env=env) as program:
        wait_until(lambda: journal.exists() and journal.read_bytes().count(b'"checkpoint"') > 15, "checkpoints")
        assert not ledger.exists()
        program.process.send_signal(signal.SIGTERM)
        assert program.finish() == 0, program.text
    predicate(ledger)

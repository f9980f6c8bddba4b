"""`flopsd exec`: the job comes first, whatever happens to the metering."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.own_files import Own
from tests.support.paths import ROOT
from tests.support.process import (
    FLOPSD,
    PATIENCE_SECONDS,
    UNPRIVILEGED,
    Done,
    accepting,
    daemon_pid,
    environment,
    flopsd,
    in_process,
    predicate,
    small_disk,
    started,
    wait_until,
)
from tests.support.runs import history_of
from tests.support.scenario import BUSY, Fault, Scenario, compile_standin, h100


def arguments(tmp_path: Path, *command: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    state, ledger = tmp_path / "state", tmp_path / "ledger.json"
    return ("exec", "--state-dir", str(state), "--ledger", str(ledger), "--listen", "off", *options, "--", *command)


def run(tmp_path: Path, env: dict[str, str], *command: str, options: tuple[str, ...] = (), **expected: Any) -> Done:
    return flopsd(*arguments(tmp_path, *command, options=options), env=env, **expected)


METERED = ("sh", "-c", 'while ! grep -q activity "$0"/pending.jsonl 2>/dev/null; do sleep 0.2; done; eval "$1"')


def metered(tmp_path: Path, then: str) -> tuple[str, ...]:
    """A job that runs until the daemon has measured something, and then does `then`."""
    return (*METERED, str(tmp_path / "state"), then)


@pytest.mark.parametrize(
    ("then", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)]
)
def test_the_jobs_exit_code_is_returned_and_the_ledger_sealed(
    tmp_path: Path, env: dict[str, str], then: str, code: int
) -> None:
    done = run(tmp_path, env, *metered(tmp_path, then), code=code)
    sealed = predicate(tmp_path / "ledger.json")
    assert sealed["incarnations"][0]["childExitCode"] == code
    assert sealed["incarnations"][0]["endReason"] == "job_ended"
    assert int(sealed["totals"]["executed"]["measured"]) > 0
    assert "made the Ed25519 key" in done.stderr
    assert "flopsd verify" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGRTMIN])
def test_signals_reach_the_jobs_whole_process_group(
    tmp_path: Path, env: dict[str, str], number: signal.Signals
) -> None:
    job = (
        "import os, signal, sys, subprocess\n"
        f"child = subprocess.Popen([sys.executable, '-c', "
        f"\"import signal, sys, time; signal.signal({int(number)}, lambda *_: sys.exit(7)); print('up', flush=True); [time.sleep(0.02) for _ in iter(int, 1)]\"], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        f"signal.signal({int(number)}, lambda *_: None)\n"
        "sys.stderr.write('job is up\\n'); sys.stderr.flush()\n"
        "sys.exit(40 + child.wait())\n"
    )
    with started(*arguments(tmp_path, sys.executable, "-c", job), env=env) as program:
        program.wait_for("job is up")
        os.kill(program.process.pid, number)
        assert program.finish() == 47, program.text
    assert predicate(tmp_path / "ledger.json")["incarnations"][0]["childExitCode"] == 47


def test_a_command_that_cannot_run_is_127_or_126(tmp_path: Path, env: dict[str, str]) -> None:
    for command, code in (("no-such-command-anywhere", 127), (str(tmp_path / "file"), 126)):
        (tmp_path / "file").write_text("")
        done = run(tmp_path, env, command)
        assert done.returncode == code
        assert re.fullmatch(
            r"flopsd: ERROR: cannot run \S+: [\w ]+; nothing was metered, and no ledger is sealed\n", done.stderr
        )
        assert [path.name for path in tmp_path.rglob("*") if "ledger" in path.name] == []


def test_the_jobs_own_output_is_untouched(tmp_path: Path, env: dict[str, str]) -> None:
    done = run(tmp_path, env, "printf", r"a\0b\n", options=("--checkpoint-output", "stderr"))
    assert done.stdout == "a\0b\n"
    assert "flopsd-checkpoint run=" in done.stderr


def test_the_job_gets_the_locale_that_was_given(tmp_path: Path, env: dict[str, str]) -> None:
    unset = {name: value for name, value in env.items() if name not in ("LANG", "LC_ALL", "LC_CTYPE")}
    for given in ({}, {"LC_CTYPE": "C.UTF-8"}, {"LC_CTYPE": "POSIX"}):
        done = run(tmp_path, {**unset, **given}, "env")
        assert dict(line.split("=", 1) for line in re.findall("^LC_.*", done.stdout, re.MULTILINE)) == given


def test_without_a_driver_the_job_runs_and_the_ledger_states_no_measurement(tmp_path: Path) -> None:
    """Also with a Python built for a C library without memfd_create."""
    (tmp_path / "sitecustomize.py").write_text("import os\ndel os.memfd_create\n")
    env = {**environment(None), "PYTHONPATH": str(tmp_path)}
    run(tmp_path, env, "sh", "-c", "sleep 1; exit 5", code=5,
        says=("NVML Shared Library Not Found", "nothing was measured"))  # fmt: skip
    executed = predicate(tmp_path / "ledger.json")["totals"]["executed"]
    assert (executed["low"], executed["measured"], executed["high"]) == ("0", None, None)


def test_a_driver_that_comes_late_is_used(tmp_path: Path, standin: Path) -> None:
    scenario, file = Scenario((h100(BUSY),), driver_from_ms=86_400_000), tmp_path / "scenario.txt"
    late = environment(standin, scenario.write(file))
    with started(*arguments(tmp_path, *metered(tmp_path, "exit 0")), env=late) as program:
        program.wait_for("Driver Not Loaded")
        replace(scenario, driver_from_ms=0).write(tmp_path / "with-driver.txt").replace(file)
        assert program.finish() == 0, program.text
    sealed = predicate(tmp_path / "ledger.json")
    assert int(sealed["totals"]["executed"]["measured"]) > 0
    assert len(sealed["devices"]) == 1
    observed, gaps = sealed["coverage"]["observedSeconds"], sealed["coverage"]["gapSecondsByReason"]
    whole = Decimal(observed) + sum(map(Decimal, gaps.values()))
    assert whole == Decimal(sealed["coverage"]["spanSeconds"]), "the whole wait is a gap"
    assert Decimal(gaps["starting"]) > 0


@pytest.mark.parametrize("define", ["WITHOUT_GPM", "WITHOUT_SAMPLES"])
def test_a_driver_without_some_symbols_still_meters_what_it_can(tmp_path: Path, define: str) -> None:
    old = compile_standin(tmp_path / "old", define).parent
    scenario = Scenario((h100(BUSY, gpm=define == "WITHOUT_SAMPLES"),)).write(tmp_path / "scenario.txt")
    run(tmp_path, environment(old, scenario), "sleep", "3", code=0)
    sealed = predicate(tmp_path / "ledger.json")
    assert list(sealed["totals"]["executed"]["byEvidence"])[-1] == ("utilization" if define == "WITHOUT_GPM" else "gap")
    assert sealed["devices"][0]["evidence"] == ("utilization" if define == "WITHOUT_GPM" else "activity")


def test_a_taken_port_is_reported_and_stops_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(tmp_path, env, *metered(tmp_path, "exit 3"), options=("--listen", address))
    assert done.returncode == 3
    assert f"cannot listen on {address}: Address already in use" in done.stderr
    predicate(tmp_path / "ledger.json")


def test_an_unreadable_key_is_reported_at_the_start_and_loses_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    """The state folder may disappear with its machine, so the journal is kept where its ledger was to be."""
    missing, copies = str(tmp_path / "missing.pem"), tmp_path / "copies"
    copies.mkdir()
    (copies / "old.journal.jsonl").write_text("another run's")
    places = ("--ledger-copy", str(copies / "l.json"), "--ledger-copy", str(copies / "old.json"))
    own = Own.in_folder(tmp_path / "own")
    options = ("--key", missing, "--peaks", own.peaks, "--policy", own.policies[0], *places)
    done = run(
        tmp_path, env, *metered(tmp_path, f"rm -r {tmp_path}/own; echo the job ends >&2; exit 3"), options=options
    )
    assert done.returncode == 3
    begun, _, ended = done.stderr.partition("the job ends")
    assert f"THE LEDGER WILL NOT BE SEALED unless this is fixed: cannot read the key {missing}" in begun
    assert "NOT SEALED" in ended
    assert not (tmp_path / "ledger.json").exists()
    assert (copies / "old.journal.jsonl").read_text() == "another run's"
    (beside,) = copies.glob("old-unsealed-*.journal.jsonl")
    shutil.rmtree(tmp_path / "state")
    for kept in (tmp_path / "ledger.journal.jsonl", copies / "l.journal.jsonl", beside):
        assert str(kept) in ended
        given = accepting(Path(str(kept).replace(".journal.jsonl", ".json")))
        assert len(given) == 4
        in_process("seal", "--journal", str(kept), *given, "--ledger", str(tmp_path / "later" / "l.json"), code=0)
        sealed = predicate(tmp_path / "later" / "l.json")
        assert int(sealed["totals"]["executed"]["measured"]) > 0
        assert sealed["incarnations"][0]["endReason"] == "job_ended"
        shutil.rmtree(tmp_path / "later")


def test_a_run_with_a_key_that_cannot_sign_does_not_begin(tmp_path: Path, env: dict[str, str]) -> None:
    done = flopsd("run", "--state-dir", str(tmp_path / "state"), "--key", str(tmp_path / "missing.pem"), env=env)
    assert done.returncode == 2
    assert "--key: cannot read the key" in done.stderr
    assert not (tmp_path / "state").exists()
    sidecar = ("--wait-for-source", "true", "--listen", "off", "--duration", "2")
    flopsd("run", "--state-dir", str(tmp_path / "state"), "--key", str(tmp_path / "missing.pem"), *sidecar, env=env,
           code=1, says="THE LEDGER WILL NOT BE SEALED unless this is fixed")  # fmt: skip
    assert (tmp_path / "state" / "journal.jsonl").stat().st_size > 0


def test_a_ledger_of_an_earlier_job_is_never_named_as_this_jobs(tmp_path: Path, env: dict[str, str]) -> None:
    """The daemon cannot begin, and the folder still contains an earlier job of the same run, none of which is this
    job's."""
    options = ("--run-id", "r")
    assert run(tmp_path, env, *metered(tmp_path, "exit 0"), options=options).returncode == 0
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif 'run' in sys.orig_argv: os._exit(1)\n")
    dying = {**env, "PYTHONPATH": str(tmp_path)}
    done = run(
        tmp_path, dying, "sh", "-c", "exit 3", options=options, code=3, says="NOT SEALED: see above; this `flopsd exec`"
    )
    assert "ledger.json" not in done.stderr


def test_the_account_begins_with_the_job_even_if_its_daemon_starts_late(tmp_path: Path, env: dict[str, str]) -> None:
    """For example with a slow file system: the job's work until then used to be in no account."""
    (tmp_path / "sitecustomize.py").write_text("import sys, time\nif 'run' in sys.orig_argv: time.sleep(2)\n")
    run(tmp_path, {**env, "PYTHONPATH": str(tmp_path)}, "sleep", "6", code=0)
    sealed = predicate(tmp_path / "ledger.json")
    assert float(sealed["deviceSeconds"]) >= 6
    assert float(sealed["coverage"]["gapSecondsByReason"]["starting"]) >= 2


def test_a_state_folder_used_by_another_daemon_leaves_no_time_of_the_job_out(
    tmp_path: Path, env: dict[str, str]
) -> None:
    """The second job's daemon begins when the first job's has ended."""
    with started(*arguments(tmp_path, "sleep", "60"), env=env) as first:
        first.wait_for("daemon start 1")
        with started(*arguments(tmp_path, "sleep", "5"), env=env) as second:
            second.wait_for("METERING INTERRUPTED")
            first.process.send_signal(signal.SIGTERM)
            first.finish()
            assert second.finish() == 0, second.text
    sealed = predicate(tmp_path / "ledger.json")
    assert sealed["incarnations"][0]["number"] == 1
    assert float(sealed["deviceSeconds"]) >= 5


def test_an_unusable_state_folder_is_reported_and_the_job_runs(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "file").write_text("")
    flopsd("exec", "--state-dir", str(tmp_path / "file" / "x"), "--listen", "off", "--", "sh", "-c", "exit 3", env=env,
           code=3, says=("cannot use the state folder", "NOT SEALED: see above; this `flopsd exec` wrote no record"))  # fmt: skip


def test_between_two_starts_of_its_daemon_no_other_run_begins_in_the_folder(
    tmp_path: Path, env: dict[str, str]
) -> None:
    state = str(tmp_path / "state")
    with started(*arguments(tmp_path, "sleep", "60"), env=env) as program:
        program.wait_for("daemon start 1")
        program.process.send_signal(signal.SIGSTOP)
        os.kill(daemon_pid(tmp_path / "state"), signal.SIGKILL)
        says = f"the state folder {state} is in use by a running flopsd: process {program.process.pid} "
        flopsd("run", "--state-dir", state, "--listen", "off", "--duration", "1", env=env, code=1, says=says)
        program.process.send_signal(signal.SIGCONT)
        program.wait_for("daemon start 2")
        program.process.send_signal(signal.SIGTERM)
        program.finish()
    assert predicate(tmp_path / "ledger.json")["totals"]["executed"]["high"] is not None


def test_a_full_disk_is_reported_and_the_job_runs(tmp_path: Path, env: dict[str, str]) -> None:
    """A real file system of 64 kB that the job itself fills, and frees before its end."""
    with small_disk(tmp_path / "small", "64k") as small:
        fill = (
            f"while ! grep -q activity {small}/state/pending.jsonl; do sleep 0.2; done; "
            f"cat /dev/zero > {small}/fill 2>/dev/null; sleep 3; rm {small}/fill; sleep 1; exit 3"
        )
        done = flopsd("exec", "--state-dir", str(small / "state"), "--ledger", str(tmp_path / "ledger.json"), "--listen",
                      "off", "--checkpoint", "0.3", "--interval", "0.1", "--", "sh", "-c", fill, env=env)  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "o space left on" in done.stderr
    assert "the journal can be written again" in done.stderr
    sealed = predicate(tmp_path / "ledger.json")
    assert set(sealed["coverage"]["gapSecondsByReason"]) <= {
        "starting",
        "stopping",
    }  # no work during the full time is lost


def test_a_repeatedly_killed_daemon_is_restarted_unnoticed_by_the_job(tmp_path: Path, env: dict[str, str]) -> None:
    """Three times, while its journal rotates: no nanosecond is lost between its segments, and their sum is complete.
    Before each kill a settings file is made invalid: the run continues with its initial settings."""
    job, state = "trap 'exit 9' USR1; while :; do sleep 0.2; done", tmp_path / "state"
    config, own = tmp_path / "flopsd.yaml", Own.in_folder(tmp_path / "own")
    config.write_text("interval_seconds: 0.1\ncheckpoint_seconds: 0.2\nrotate_every: 10kB\nevidence: off\n")
    files = ("--config", str(config), "--peaks", own.peaks, "--policy", own.policies[0])
    spoil = (
        config.unlink,
        lambda: Path(own.peaks).write_text(""),
        lambda: Path(own.policies[0]).write_text("rules: ["),
    )
    with started(*arguments(tmp_path, "sh", "-c", job, options=files), env=env) as program:
        for start in range(1, 5):
            said = program.wait_for(f"daemon start {start},|the daemon ended with exit code")[0]
            assert said == f"daemon start {start},", program.text
            wait_until(lambda: b"activity" in _read(state / "pending.jsonl"), f"a reading of daemon start {start}")
            if start < 4:
                spoil[start - 1]()
                if start == 1:
                    wait_until(lambda: any(tmp_path.glob("ledger-*.json")), "a rolling seal without the settings file")
                os.kill(daemon_pid(state), signal.SIGKILL)
        program.wait_for("METERING INTERRUPTED: the daemon ended with signal 9")
        program.wait_for("segment ([2-9]|[0-9]{2}) of the run is closed")  # a kill may have come before it was logged
        for file in (str(config), own.peaks, own.policies[0]):
            program.wait_for(f"WARNING: {file} was changed or cannot be read since the job started")
        os.kill(program.process.pid, signal.SIGUSR1)
        assert program.finish() == 9, program.text
    assert "the journal was damaged" not in program.text
    ledgers = sorted(tmp_path.glob("ledger-*.json"))
    parts = [predicate(ledger) for ledger in ledgers]
    assert [one["segment"]["number"] for one in parts] == list(range(1, len(parts) + 1))
    assert [start["endReason"] for one in parts for start in one["incarnations"]].count(None) == 3
    assert "daemon_down" in {reason for one in parts for reason in one["coverage"]["gapSecondsByReason"]}
    histories = [history_of(ledger.with_suffix(".journal.jsonl")) for ledger in ledgers]
    tallies = [tally for part in histories for start in part.incarnations for tally in start.tallies.values()]
    assert all(before.watermark_ns == after.begin_ns for before, after in pairwise(tallies))
    keys = ("--trust", str(ledgers[0].with_suffix(".pub")), "--key", str(state / "flopsd-key.pem"))
    done = in_process("merge", *map(str, ledgers), *accepting(ledgers[0]), *keys, "--nodes", "1",
                      "--ledger", str(tmp_path / "job.json"), code=0)  # fmt: skip
    assert predicate(tmp_path / "job.json")["completeness"]["complete"] is True, done.stdout


def test_a_daemon_stopped_by_the_job_continues_at_its_end_and_seals(tmp_path: Path, env: dict[str, str]) -> None:
    """The job's end is not delayed by the time after which a daemon is killed."""
    lock = tmp_path / "state" / "lock"
    done = run(tmp_path, env, *metered(tmp_path, f"kill -STOP $(cat {lock}); sleep 4; exit 3"), code=3)
    assert "did not end" not in done.stderr
    sealed = predicate(tmp_path / "ledger.json")
    assert [one["endReason"] for one in sealed["incarnations"]] == ["job_ended"]
    assert float(sealed["wallSeconds"]) > 4


def test_a_stop_of_all_processes_is_metered_until_the_job_has_saved_its_state(
    tmp_path: Path, env: dict[str, str]
) -> None:
    save = "trap : USR1; trap 'sleep 2; exit 3' TERM; echo up >&2; while :; do sleep 0.2; done"
    with started(*arguments(tmp_path, *metered(tmp_path, save)), env=env) as program:
        program.wait_for("^up")
        launcher = psutil.Process(program.process.pid)
        for number in (signal.SIGUSR1, signal.SIGTERM):
            for process in [*launcher.children(recursive=True), launcher]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        assert program.finish() == 3, program.text
    assert "METERING INTERRUPTED" not in program.text
    assert [one["endReason"] for one in predicate(tmp_path / "ledger.json")["incarnations"]] == ["job_ended"]


def test_the_job_finds_the_daemon_and_its_declarations_are_sealed(tmp_path: Path, env: dict[str, str]) -> None:
    job = tmp_path / "job.py"
    job.write_text(
        "import flopsd.client\n"
        "client = flopsd.client.connect()\n"
        "client.declare(method='lora')\n"
        "client.set_phase('train')\n"
        "client.count('train', tokens=4096)\n"
    )
    run(tmp_path, env, *metered(tmp_path, f"{sys.executable} {job}"), code=0)
    [session] = predicate(tmp_path / "ledger.json")["declared"]["sessions"]
    assert session["facts"] == {"method": "lora"}
    assert session["work"] == {"train": {"tokens": "4096"}}


FORGERY = """
import json, os, pathlib, sys, threading
from flopsd.journal.framing import GENESIS, frame
journal = pathlib.Path(sys.argv[1])
while journal.read_bytes().count(b'"checkpoint"') < 2:  # so the launcher has learnt of the first
    threading.Event().wait(0.05)
records = [json.loads(line)["r"] for line in journal.read_bytes().splitlines()]
upto = next(at for at, record in enumerate(records) if record["kind"] == "checkpoint")
end = {"kind": "end", "incarnation": 1, "ns": records[0]["ns"] + 1, "utc": records[0]["utc"], "reason": "job_ended", "child_exit_code": 0}
forged, head = journal.with_name("forged"), GENESIS
with forged.open("wb") as file:
    for record in [*records[:upto], end]:
        line, head = frame(head, record)
        file.write(line)
os.replace(forged, journal)
"""


KILL = "os.kill(int((journal.parent / 'lock').read_text().split()[0]), 9)\n"
AWAIT = "while b'activity' not in (journal.parent / 'pending.jsonl').read_bytes():\n    threading.Event().wait(0.05)\n"
PUT = "os.replace(forged, journal)\n"
SPOIL = FORGERY.replace(PUT, "journal.write_bytes(forged.read_bytes())\n")
DEAD = FORGERY.replace(PUT, KILL + PUT)  # first the daemon, which would put its journal back


@pytest.mark.parametrize(
    ("job", "is_lost"),
    [(FORGERY, False), (SPOIL, True), (DEAD, True), (DEAD + AWAIT, True)],
    ids=["replaced", "overwritten", "replaced after a kill", "replaced before a restart"],
)
def test_a_journal_forged_by_the_job_is_not_sealed_as_the_runs(
    tmp_path: Path, env: dict[str, str], job: str, is_lost: bool
) -> None:
    """A prefix of the daemon's own journal with an end record made by the job: it would verify, with next to no
    FLOP. A daemon that still has its file open puts it back; otherwise the ledger states the event, and has no upper
    bound."""
    script, state = tmp_path / "job.py", tmp_path / "state"
    script.write_text(job)
    command = metered(tmp_path, f"{sys.executable} {script} {state / 'journal.jsonl'}")
    done = run(tmp_path, env, *command, options=("--checkpoint", "0.5"), code=0)
    assert ("is not the journal that was written" if is_lost else "it was put back") in done.stderr
    assert (state / "not-ours.journal.jsonl").exists()
    sealed = predicate(tmp_path / "ledger.json")
    reasons = {gap["reason"] for gap in sealed["coverage"]["gaps"]}
    recovered = sealed["incarnations"][0]["recovered"]
    assert (sealed["totals"]["executed"]["high"] is None) is is_lost
    assert (recovered is not None and recovered["reasons"][0]["code"] == "journal_replaced") is is_lost
    assert ("journal_replaced" in reasons) is (is_lost and bool(sealed["devices"]))


RESTARTED = "while (journal.parent / 'lock').read_text() == killed:\n    threading.Event().wait(0.05)\n" + AWAIT
ALTER = """
import os, pathlib, sys, threading
journal = pathlib.Path(sys.argv[1])
killed = (journal.parent / "lock").read_text()
with journal.open("r+b") as file:
    at = file.read().index(b'"m":"') + 5
    digit = os.pread(file.fileno(), 1, at)
    os.pwrite(file.fileno(), b"1" if digit == b"0" else b"0", at)
"""


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (ALTER, "another process replaced or altered the journal"),
        (ALTER + KILL, "journal line 1 has a wrong code"),
        (ALTER + KILL + RESTARTED, "journal line 1 has a wrong code"),
    ],
    ids=["while the daemon runs", "after a kill", "before a restart"],
)
def test_a_code_altered_by_the_job_is_found_though_no_chain_breaks(
    tmp_path: Path, env: dict[str, str], job: str, says: str
) -> None:
    (tmp_path / "job.py").write_text(job)
    alter = f"{sys.executable} {tmp_path / 'job.py'} {tmp_path / 'state' / 'journal.jsonl'}"
    run(tmp_path, env, *metered(tmp_path, alter), code=0, says=says)
    sealed = predicate(tmp_path / "ledger.json")
    assert sealed["totals"]["executed"]["high"] is None


def test_the_launcher_discloses_the_secret_of_a_killed_daemon(tmp_path: Path, env: dict[str, str]) -> None:
    run(tmp_path, env, *metered(tmp_path, 'kill -KILL $(cat "$0/lock")'), code=0, says="seals what is in its journal")
    (start,) = predicate(tmp_path / "ledger.json")["incarnations"]
    assert (start["endReason"], start["codes"]) == (None, "checked")


SPY = """
import os, sys
launcher, daemon = os.getppid(), int(open(sys.argv[1] + "/lock").read())
for pid in (launcher, daemon):
    for name in ("mem", "environ", "fd/0", "maps"):
        path = f"/proc/{pid}/{name}"
        try:
            open(path, "rb").close()
            print("open", pid, name)
        except PermissionError:
            print("refused")
print("open" if open("/proc/self/mem", "rb") else "")
"""


@pytest.mark.tool(*UNPRIVILEGED[:1])
def test_a_job_of_the_same_user_cannot_read_launcher_or_daemon(tmp_path: Path, env: dict[str, str]) -> None:
    """Without capabilities, like a job in a container, where none of its capabilities counts here."""
    (tmp_path / "spy.py").write_text(SPY)
    job = metered(tmp_path, f'exec {sys.executable} {tmp_path / "spy.py"} "$0"')
    done = subprocess.run(
        [*UNPRIVILEGED, *FLOPSD, *arguments(tmp_path, *job, options=("--checkpoint-output", "off"))],
        capture_output=True, text=True, env=env, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.stdout == "refused\n" * 8 + "open\n", done.stdout + done.stderr
    sealed = predicate(tmp_path / "ledger.json")
    assert int(sealed["totals"]["executed"]["measured"]) > 0
    assert sealed["incarnations"][0]["codes"] == "checked"


def test_a_job_that_floods_its_meter_with_declarations_is_metered_to_its_end(
    tmp_path: Path, env: dict[str, str]
) -> None:
    """Eighty short processes of 60 KB each: more in one checkpoint than a journal line may have."""
    job = tmp_path / "job.py"
    job.write_text(
        "import flopsd.client\n"
        "facts = {'text%d' % n: 'x' * 200 for n in range(280)}\n"
        "for _ in range(80):\n"
        "    client = flopsd.client.connect()\n"
        "    client.declare(model_config=facts)\n"
        "    client.close(30)\n"
        "import threading\n"
        "threading.Event().wait(3)\n"
    )
    done = run(tmp_path, env, *metered(tmp_path, f"{sys.executable} {job}"), code=0)
    stated = predicate(tmp_path / "ledger.json")
    assert "processes declared more than 4 MiB in this run" in done.stderr
    assert stated["incarnations"][-1]["endReason"] == "job_ended"
    (device,) = stated["devices"]
    assert float(device["spanSeconds"]) > 3


def test_a_state_folder_too_deep_for_a_socket_is_reported_and_the_job_finds_the_daemon(
    tmp_path: Path, env: dict[str, str]
) -> None:
    state = tmp_path / ("deep" * 20) / ("deeper" * 10)
    with started("exec", "--state-dir", str(state), "--listen", "off", "--no-seal", "--", sys.executable, "-c",
                 "import flopsd.client as c, threading; k = c.connect(); k.count('train', tokens=1); threading.Event().wait(600)",
                 env=env) as program:  # fmt: skip
        program.wait_for("too long for a socket")
        wait_until(
            lambda: b'"tokens":1' in _read(state / "pending.jsonl") + _read(state / "journal.jsonl"), "the count"
        )


def test_a_killed_launcher_leaves_a_sealed_ledger(tmp_path: Path, env: dict[str, str]) -> None:
    """The ledger covers the whole job, which does not end with the launcher."""
    job = "while [ ! -e go ]; do sleep 0.2; done"
    with started(*arguments(tmp_path, "sh", "-c", f"cd {tmp_path}; {job}"), env=env) as program:
        wait_until(lambda: b"activity" in _read(tmp_path / "state" / "pending.jsonl"), "a first reading")
        os.kill(program.process.pid, signal.SIGKILL)
        program.wait_for("the launcher was killed and its job goes on")
        threading.Event().wait(3)
        assert not (tmp_path / "ledger.json").exists()
        (tmp_path / "go").touch()
        wait_until((tmp_path / "ledger.json").exists, "the ledger of an orphaned daemon")
    sealed = predicate(tmp_path / "ledger.json")
    assert float(sealed["deviceSeconds"]) > 3
    assert float(sealed["coverage"]["observedSeconds"]) > 3
    (start,) = sealed["incarnations"]
    assert (start["endReason"], start["codes"]) == ("launcher_gone", "not_checkable")  # the secret died with it


def test_a_driver_that_hangs_for_good_delays_neither_the_job_nor_the_seal(tmp_path: Path, standin: Path) -> None:
    """The driver hangs for good: its time is a gap, and the end does not wait for the driver."""
    scenario = Scenario((h100(BUSY, (Fault(3000, 10**9, "hang"),)),))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    silent = 'while ! grep -q source_silent "$0"/*.jsonl 2>/dev/null; do sleep 0.2; done'
    done = run(tmp_path, env, "sh", "-c", silent, str(tmp_path / "state"), code=0)
    assert "GPU 0: the driver hangs; its time is a gap until it answers" in done.stderr
    sealed = predicate(tmp_path / "ledger.json")
    assert float(sealed["coverage"]["gapSecondsByReason"]["source_silent"]) > 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a job as another user")
def test_a_job_of_another_user_connects_and_cannot_touch_its_meter(tmp_path: Path, env: dict[str, str]) -> None:
    state = tmp_path / "state"
    python, sees = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin"), {"PYTHONPATH": str(ROOT)}
    if (
        python is None
        or subprocess.run([python, "-c", "import flopsd.client"], env=sees, user=65534, check=False).returncode
    ):
        pytest.skip("another user has no interpreter here, or cannot read this folder")
    job = (
        "import os, pathlib, sys\n"
        f"state = pathlib.Path({str(state)!r})\n"
        "assert os.getuid() == 65534 and not os.access(state, os.R_OK | os.X_OK)\n"
        "import flopsd.client\n"
        "flopsd.client.connect().declare(method='lora')\n"
        "try:\n"
        "    os.kill(os.getppid(), 0)\n"
        "except PermissionError:\n"
        "    sys.exit(7)\n"
    )
    run(
        tmp_path,
        {**env, **sees},
        str(python),
        "-c",
        job,
        options=("--job-user", "65534", "--checkpoint", "0.5"),
        code=7,
    )
    isolation = predicate(tmp_path / "ledger.json")["isolation"]
    assert (isolation["daemonUsers"], isolation["jobUsers"]) == (["0"], ["65534"])
    assert (isolation["jobCouldWriteJournal"], isolation["jobCouldReadKey"]) == (False, False)
    said = in_process("verify", str(tmp_path / "ledger.json"), "--key", str(tmp_path / "ledger.pub"), code=0)
    assert "The job could not have written this journal: it ran as user 65534" in " ".join(said.stdout.split())

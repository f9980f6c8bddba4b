"""The other verbs as a user types them: their output and exit codes; standard streams that are missing, full or
closed."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from flopsd.sources.registry import BUILT_IN
from tests.support.own_files import Own
from tests.support.paths import ROOT
from tests.support.process import (
    FLOPSD,
    PATIENCE_SECONDS,
    Done,
    as_expected,
    environment,
    flopsd,
    get,
    in_process,
    predicate,
    started,
    wait_until,
)
from tests.support.scenario import BUSY, Fault, Scenario, a100, h100


def test_a_replay_is_labelled_everywhere_and_is_no_evidence(tmp_path: Path) -> None:
    state, ledger = tmp_path / "state", tmp_path / "ledger.json"
    with started("run", "--source", "replay", "--state-dir", str(state), "--ledger", str(ledger), "--listen",
                 "127.0.0.1:0", "--progress", env=environment(None)) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]
        program.wait_for("WARNING: source replay: REPLAY of a recording: no hardware is metered")
        wait_until(lambda: get(f"{url}/-/ready")[0] == 200, "readiness")
        assert 'replay="true"' in get(f"{url}/metrics")[1]
        assert ">REPLAY of a recording: no hardware is metered" in get(url)[1]
        assert "REPLAY of a recording" in in_process("status", "--url", url).stdout
        assert "REPLAY of a recording" in in_process("status", "--state-dir", str(state)).stdout
        program.wait_for("REPLAY, no hardware: +[0-9]+ s  measured")
        program.process.send_signal(signal.SIGINT)
        assert program.finish() == 0, program.text
    replayed = "REPLAY read from the recording h100x2.jsonl: no hardware was metered, and this is not evidence"
    assert replayed in " ".join(program.text.split())
    key = str(ledger.with_suffix(".pub"))
    refused = in_process("verify", str(ledger), "--key", key, code=3)
    assert (
        "NOT VERIFIED: this ledger is a replay of the recording 'h100x2.jsonl': no hardware was metered"
        in refused.stdout
    )
    accepted = in_process("verify", str(ledger), "--key", key, "--allow-replay", code=0)
    assert "REPLAY: read from the recording h100x2.jsonl" in " ".join(accepted.stdout.split())
    sealed = predicate(ledger)
    assert sealed["replay"]["origin"].startswith("simulation")
    assert all(device["uuid"].startswith("REPLAY-") for device in sealed["devices"])


def test_a_first_run_ends_with_the_live_page_and_the_report(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "first_run.py"), "--seconds", "2", "--dir", str(tmp_path)]
    env = environment(None, FLOPSD_LISTEN="127.0.0.1:0", FLOPSD_EVIDENCE="off")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS * 3)
    live, report = done.stdout.splitlines()[-2:]
    assert live.split()[:3] == ["live", "page", re.findall("metrics at (.*)/metrics", done.stderr)[0]]
    assert report == f"HTML report  {tmp_path / 'report.html'}"
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_an_interrupted_first_run_is_sealed_and_reported(tmp_path: Path) -> None:
    """As with Ctrl-C: after watching the live page, the user still gets the report."""
    command = [sys.executable, str(ROOT / "scripts" / "first_run.py"), "--seconds", "600", "--dir", str(tmp_path)]
    env = environment(None, FLOPSD_LISTEN="127.0.0.1:0", FLOPSD_EVIDENCE="off")
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("The live page") for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert said.endswith(f"HTML report  {tmp_path / 'report.html'}\n")
    assert predicate(tmp_path / "ledger.json")["incarnations"][-1]["endReason"] == "sigint"


def test_closing_the_terminal_ends_a_run_with_its_seal(tmp_path: Path) -> None:
    """Like a broken ssh connection: later output is lost."""
    ours, theirs = os.openpty()
    ledger = tmp_path / "ledger.json"

    def in_a_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored by tests under nohup, and then by the run too
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    command = [*FLOPSD, "run", "--source", "replay", "--state-dir", str(tmp_path / "state"), "--ledger", str(ledger)]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--evidence", "off"], env=environment(None), start_new_session=True,
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=in_a_terminal,
    ) as process:  # fmt: skip
        os.close(theirs)
        with open(ours, errors="replace") as terminal:
            assert any("metrics at" in line for line in terminal)
        assert process.wait(PATIENCE_SECONDS) == 0
    assert predicate(ledger)["incarnations"][-1]["endReason"] == "sighup"


def test_run_without_an_accelerator_is_exit_4_with_a_remedy_unless_told_to_wait(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.json"
    run = ("run", "--state-dir", str(tmp_path / "state"), "--listen", "off", "--ledger", str(ledger), "--duration", "1")
    flopsd(*run, code=4, says=("NVML Shared Library Not Found", "hint: install the NVIDIA driver"))
    assert not (tmp_path / "state").exists()
    flopsd(*run, "--wait-for-source", "true", code=0)
    found = predicate(ledger)
    assert (found["devices"], found["totals"]["executed"]["measured"]) == ([], None)


def test_an_unknown_source_is_exit_4_and_names_the_known_ones(tmp_path: Path) -> None:
    flopsd("run", "--source", "tpu", "--state-dir", str(tmp_path), code=4,
           says=("there is no source named 'tpu'", f"sources here: {', '.join(sorted(BUILT_IN))}"))  # fmt: skip


def test_bad_settings_are_exit_2_all_at_once(tmp_path: Path) -> None:
    flopsd("run", "--interval", "soon", "--listen", "x", "--state-dir", str(tmp_path), code=2,
           says=("--interval: 'soon'", "--listen: 'x'"))  # fmt: skip
    assert in_process("run", "--no-such-flag").returncode == 2
    assert in_process("exec", "--").returncode == 2
    assert flopsd().returncode == 2


def test_a_run_is_continued_after_a_kill_and_restarted_after_its_end(tmp_path: Path, standin: Path) -> None:
    env = environment(standin, Scenario((h100(BUSY),)).write(tmp_path / "scenario.txt"))
    state = tmp_path / "state"
    common = ("run", "--state-dir", str(state), "--listen", "off")
    with started(*common, env=env) as program:
        first = program.wait_for(r"run (\S+), daemon start 1,")[1]
        wait_until(lambda: b"activity" in (state / "pending.jsonl").read_bytes(), "a reading")
        for command, remedy in ((common, "another --state-dir"), (("seal", "--state-dir", str(state)), "--rolling")):
            busy = flopsd(*command, env=env)
            assert busy.returncode == 1
            assert f"is in use by a running flopsd: process {program.process.pid}" in busy.stderr
            assert remedy in busy.stderr
        program.process.kill()
        program.process.wait()
    with started(*common, "--phase", "evaluate", "--precision", "bf16", env=env) as program:
        assert program.wait_for(r"run (\S+), daemon start 2,")[1] == first
        program.process.send_signal(signal.SIGTERM)
        assert program.finish() == 0
    assert all(f"was killed and had another {one}" in program.text for one in ("--phase", "--precision"))
    found = predicate(state / f"{first}.ledger.json")
    assert found["declared"]["phase"] is None
    assert "bf16" not in json.dumps(found["devices"])
    with started(*common, env=env) as program:
        assert program.wait_for(r"run (\S+), daemon start 1,")[1] != first
        program.process.send_signal(signal.SIGTERM)
        assert program.finish() == 0
    assert json.loads(in_process("status", "--state-dir", str(state), "--json").stdout)["endReason"] == "sigterm"
    assert len(list(state.glob(f"{first}-until-*.journal.jsonl"))) == 1  # no file is overwritten
    assert len(list(state.glob("*.ledger.json"))) == 2


def test_doctor_explains_that_confidential_computing_disables_the_counters(tmp_path: Path, standin: Path) -> None:
    scenario = Scenario((h100(BUSY),), confidential="on").write(tmp_path / "scenario.txt")
    done = flopsd("doctor", env=environment(standin, scenario, FLOPSD_STATE_DIR=str(tmp_path / "state")))
    said = " ".join(done.stdout.split())
    assert "confidential_computing on: performance counters are then off, according to NVIDIA's documentation" in said
    assert "evidence utilization by nvml, only a ceiling" in said
    assert "-> none in this mode: an SPDM report and counters exclude each other" in said


def test_doctor_names_devices_evidence_and_remedies(tmp_path: Path, standin: Path) -> None:
    stranger = h100(BUSY, name="NVIDIA H20", pci=0x232910DE)
    scenario = Scenario((h100(BUSY, counters="sum"), h100(BUSY), a100(BUSY), stranger, h100(BUSY, mig=True)))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"), FLOPSD_STATE_DIR=str(tmp_path / "state"))
    done = flopsd("doctor", env=env, code=0)
    assert max(map(len, done.stdout.splitlines())) <= 100
    findings = re.sub(r"\n {6}(?!why not better|->)", " ", done.stdout).splitlines()

    def about(number: int) -> list[str]:
        """The unwrapped lines about one device: its evidence, the reason why it is not better, and the remedy."""
        at = next(n for n, line in enumerate(findings) if f"device {number}:" in line)
        return [findings[at], *(line for line in findings[at + 1 : at + 3] if line.startswith("      "))]

    assert about(0)[0] == (
        f"ok    device 0: NVIDIA H100 80GB HBM3 ({scenario.uuid(0)}), row h100-sxm5-80gb (published), 132 SMs: "
        "evidence activity by nvml, a measurement, margin 9 %"
    )
    assert "the scale of the running cycle counters is not proven yet" in about(0)[1]
    assert about(1)[0].startswith("ok    device 1")
    assert "evidence activity by nvml" in about(1)[0]
    assert about(1)[1:] == ["      why not better: this driver has no running cycle counters for this GPU"]
    assert about(2)[0].startswith("warn  device 2: NVIDIA A100-SXM4-80GB")
    assert "evidence utilization by nvml, only a ceiling" in about(2)[0]
    assert "no GPM on this GPU" in about(2)[1]
    assert "dcgm-exporter" in about(2)[2]
    assert "add a row with its exact name" in about(3)[1]
    assert "evidence gap by nvml, nothing" in about(4)[0]
    assert "no instance is visible" in about(4)[1]
    assert "NVIDIA_MIG_MONITOR_DEVICES=all" in about(4)[2]
    checks = json.loads(flopsd("doctor", "--json", env=env).stdout)
    assert [c["meters"] for c in checks if c["name"].startswith("device")] == [True, True, True, False, False]
    assert flopsd("doctor", env=environment(None)).returncode == 4


def test_status_shows_a_lost_source(tmp_path: Path, standin: Path) -> None:
    scenario = Scenario((h100(BUSY), h100(BUSY, (Fault(2000, 10**9, "gpu_lost"),))))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    with started("run", "--state-dir", str(tmp_path / "s"), "--listen", "127.0.0.1:0", "--no-seal", env=env) as program:
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]
        wait_until(lambda: 'reason="device_lost"' in get(f"{url}/metrics")[1], "the loss in the metrics")
        page = get(f"{url}/metrics")[1]
        answer = json.loads(in_process("status", "--url", url, "--json").stdout)
        exact = json.loads(in_process("status", "--state-dir", str(tmp_path / "s"), "--json").stdout)
        program.process.send_signal(signal.SIGTERM)
        assert program.finish() == 0
    assert 'flopsd_source_errors_total{reason="device_lost",source="nvml"}' in page
    assert [float(d["gapSeconds"]) > 0 for d in answer["devices"]] == [True, True]
    assert float(answer["devices"][1]["gapSeconds"]) > float(answer["devices"][0]["gapSeconds"])
    assert exact["daemon"] == "running"
    for verb in ("status", "seal"):
        in_process(verb, "--state-dir", str(tmp_path / "none"), code=1)
    assert in_process("status", "--url", url).returncode == 1


def test_status_uses_the_table_and_policies_of_the_run(tmp_path: Path) -> None:
    own, state = Own.in_folder(tmp_path / "own"), str(tmp_path / "s")
    custom = Path(own.peaks)
    flopsd("run", "--source", "replay", "--state-dir", state, "--listen", "off", "--duration", "1.5", "--peaks",
           own.peaks, *(word for file in own.policies for word in ("--policy", file)), code=0)  # fmt: skip
    digest = hashlib.sha256(custom.read_bytes()).hexdigest()
    shutil.rmtree(tmp_path / "own")
    assert "x10^15 FLOP" in in_process("status", "--state-dir", state).stdout, "by what the daemon kept"
    shown = in_process("status", "--state-dir", state, "--peaks", str(custom)).stdout
    assert "x10^15 FLOP" in shown
    assert f"peak table not flopsd's own: SHA-256 {digest}; every FLOP" in " ".join(shown.split())
    for kept in Path(state).glob("peaks-*.yaml"):
        kept.unlink()
    in_process("status", "--state-dir", state, code=1, says="hint: give --peaks the table")


def test_an_unknown_device_is_named_and_leaves_no_upper_bound(tmp_path: Path, standin: Path) -> None:
    env = environment(
        standin, Scenario((h100(BUSY, name="NVIDIA X9000", pci=0x999910DE),)).write(tmp_path / "scenario.txt")
    )
    flopsd("run", "--state-dir", str(tmp_path / "s"), "--ledger", str(tmp_path / "ledger.json"), "--listen", "off",
           "--duration", "1.5", env=env, code=0,
           says=("'NVIDIA X9000' with PCI id 0x9999 is not in the peak table", "no upper bound is known"))  # fmt: skip
    executed = predicate(tmp_path / "ledger.json")["totals"]["executed"]
    assert (executed["measured"], executed["high"]) == (None, None)


def test_help_describes_every_verb() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    narrow = {**os.environ, "COLUMNS": "100"}
    shown = subprocess.run(
        [sys.executable, "-m", "flopsd", "--help"], env=narrow, capture_output=True, text=True, check=True
    )
    # Python versions align the columns differently.
    assert " ".join(shown.stdout.split()) in " ".join(page.split()), (
        "the page's help block is not what `flopsd --help` prints"
    )
    for verb in ("run", "exec", "seal", "verify", "merge", "key", "countersign", "export", "status", "doctor"):
        assert in_process(verb, "--help").returncode == 0
    assert in_process("--version").stdout == "flopsd 0.1.0\n"


def shell(script: str, tmp_path: Path, encoding: str = "utf-8", code: int | None = None) -> Done:
    """Run a script in which $F is flopsd without hardware, on its own state folder."""
    env = environment(None) | {
        "F": " ".join(FLOPSD), "FLOPSD_SOURCE": "replay", "FLOPSD_LISTEN": "off", "PYTHONIOENCODING": encoding,
        "PYTHONUNBUFFERED": "",  # as a service starts it, whatever runs the tests
    }  # fmt: skip
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    return as_expected(done, code, ())


@pytest.fixture(scope="module")
def unsealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a run that ended and was not sealed."""
    folder = tmp_path_factory.mktemp("unsealed")
    assert shell("$F run --no-seal --state-dir s --duration 1", folder).returncode == 0
    return folder / "s"


EXEC = "$F exec --run-id r --evidence off --state-dir s --ledger o/l.json --ledger-copy copy/l.json --"


@pytest.mark.parametrize(
    "streams", ["2>/dev/full", ">/dev/full", "2>&1 | head -1", "<&-", "<&- >&- 2>&-"]
)  # fmt: skip
def test_with_broken_streams_the_exit_code_is_returned_and_the_ledger_copied(tmp_path: Path, streams: str) -> None:
    shell(f"{EXEC} sh -c 'sleep 1; exit 7' {streams}; exit ${{PIPESTATUS[0]}}", tmp_path, code=7)
    wait_until((tmp_path / "copy" / "l.json").exists, "the copy")
    assert [one["endReason"] for one in predicate(tmp_path / "copy" / "l.json")["incarnations"]] == ["job_ended"]


@pytest.mark.parametrize("streams", ["2>/dev/full", "--progress 2>&1 | head -1", "2>&- >&-"])
def test_a_run_with_closed_streams_seals_and_copies(tmp_path: Path, streams: str) -> None:
    done = shell(
        f"$F run --metric-line 1 --evidence off --state-dir s --ledger l.json --ledger-copy copy/l.json --duration 3 {streams};"
        "exit ${PIPESTATUS[0]}",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy" / "l.json").exists()


@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "2>/dev/full"])
def test_sealing_copies_before_it_prints(tmp_path: Path, unsealed: Path, streams: str) -> None:
    seal = f"$F seal --evidence off --state-dir {unsealed} --ledger l.json --ledger-copy copy/l.json"
    done = shell(f"{seal} {streams}", tmp_path, code=0)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "copy" / "l.json").exists()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_path_that_the_terminal_cannot_encode_is_printed_with_escapes(
    tmp_path: Path, unsealed: Path, encoding: str
) -> None:
    seal = f"$F seal --evidence off --state-dir {unsealed} --ledger 日.json --ledger-copy c/日.json"
    done = shell(seal, tmp_path, encoding, code=0)
    name = "日" if encoding == "utf-8" else r"\u65e5"
    assert f"/{name}.json" in done.stdout
    assert f"/c/{name}.json" in done.stdout


@pytest.mark.parametrize("buffering", ["", "PYTHONUNBUFFERED=1 "])  # it fails at the last flush, or at the first print
def test_data_that_could_not_be_written_is_a_failure(tmp_path: Path, buffering: str) -> None:
    done = shell(f"{buffering}$F config show >/dev/full", tmp_path, code=1)
    assert done.stderr == "flopsd: cannot write to standard output: No space left on device\n"

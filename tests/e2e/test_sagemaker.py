"""A training job as run by SageMaker: the real toolkit runs a script, flopsd is process 1 of its container."""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flopsd.telemetry.metric_lines import metric_definitions
from tests.support.process import PATIENCE_SECONDS, in_process, predicate, wait_until
from tests.support.sagemaker import FLOPSD, JOB, SAMPLES, TRAIN, Job, entrypoint
from tests.support.scenario import BUSY, Scenario, h100
from tests.support.tools import missing

pytestmark = [pytest.mark.tool("unshare", "ip", "hostname"), pytest.mark.package("sagemaker_training")]
SCRIPT = Path(__file__).resolve().parents[1] / "support" / "train_script.py"
HOMOGENEOUS = json.loads((SAMPLES / "resourceconfig_homogeneous_awsdocs.json").read_text())
ONE = {**HOMOGENEOUS, "hosts": ["algo-1"]}

BOUNDS = ("low", "measured", "high")
Make = Callable[..., Job]


def scenario() -> Scenario:
    return Scenario((h100(BUSY),))


@pytest.fixture
def make(tmp_path: Path, standin: Path) -> Make:
    """A job of one host whose script the toolkit runs, in the given mode."""
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False).returncode:
        missing("no right to make namespaces")

    def made(mode: str, name: str = "job", *, checkpoints: bool = False, patience: float = 0, **variables: str) -> Job:
        hyperparameters = {"mode": mode, "patience": patience, "sagemaker_program": SCRIPT.name,
                           "sagemaker_submit_directory": "/opt/ml/code"}  # fmt: skip
        return Job(tmp_path / name, standin, ONE, hyperparameters, variables, SCRIPT, checkpoints)

    return made


@pytest.mark.parametrize("mode", ["succeed", "exit", "crash", "segfault"])
def test_exit_code_and_failure_file_are_the_scripts_and_the_ledger_is_kept(make: Make, mode: str) -> None:
    """The same job with and without flopsd in front of it: the platform sees the same end."""
    alone = make(mode, "alone").machine("algo-1", scenario())
    without = alone.run(TRAIN)
    machine = make(mode).machine("algo-1", scenario())
    done = machine.run(*entrypoint(TRAIN))
    assert done.code == without.code, done.stderr
    assert (done.code == 0) == (mode == "succeed")
    assert machine.failure() == alone.failure()
    assert (machine.failure() is None) == (mode == "succeed")
    assert (machine.ml / "output/success").exists() == (alone.ml / "output/success").exists() == (mode == "succeed")
    sealed = predicate(machine.ledger)
    assert sealed["run"] == {"id": JOB, "jobName": JOB, "platform": "sagemaker-training",
                           "jobArn": f"arn:aws:sagemaker:eu-west-1:123456789012:training-job/{JOB}"}  # fmt: skip
    assert sealed["node"] == {"name": "algo-1", "rank": 0, "jobNodes": ["algo-1"], "instanceType": None}
    assert sealed["incarnations"][0]["childExitCode"] == done.code
    assert int(sealed["totals"]["executed"]["measured"]) > 0
    kept = sorted(
        str(path.relative_to(machine.ml / "output")) for path in (machine.ml / "output").rglob("*") if path.is_file()
    )
    end = "success" if mode == "succeed" else "failure"
    assert kept == [
        "data/flopsd/algo-1.journal.jsonl", "data/flopsd/algo-1.json", "data/flopsd/algo-1.pub", "data/metrics.json",
        end,
    ]  # fmt: skip


def test_the_metric_definitions_match_the_metric_line(make: Make) -> None:
    machine = make("stop", FLOPSD_METRIC_LINE="1").machine("algo-1", scenario())
    rates = next(one["Regex"] for one in metric_definitions() if one["Name"] == "flopsd:rate_flop_per_second")
    true_rate = 1755 * 10**6 * 132 * 4096 // 2  # half of the tensor cycles of an H100 at 1755 MHz

    def near_the_true_rate(text: str) -> bool:
        return any(abs(int(value) - true_rate) < true_rate / 2 for value in re.findall(rates, text))

    with machine.container(*entrypoint(TRAIN)) as container:
        container.metered()
        # The first line's rate is far too low where the counters covered only part of its time.
        wait_until(lambda: near_the_true_rate(container.stdout), "a metric line with the true rate")
        container.stop(PATIENCE_SECONDS)
    printed = json.loads(in_process("sagemaker", "metric-definitions").stdout)
    assert printed == metric_definitions()
    found = {one["Name"]: re.findall(one["Regex"], container.stdout) for one in printed}
    lines = [line for line in container.stdout.splitlines() if line.startswith("flopsd: ")]
    executed = predicate(machine.ledger)["totals"]["executed"]
    for bound in ("measured", "low", "high"):
        values = [int(value) for value in found[f"flopsd:{bound}_flop"]]
        assert len(values) == len([line for line in lines if f"{bound}_flop=unknown" not in line])
        assert values == sorted(values)
        assert str(values[-1]) == executed[bound]  # the last line is the ledger's figure
    assert all(0 < float(value) <= 100 for value in found["flopsd:coverage_percent"])


def test_a_script_that_saves_its_state_on_sigterm_has_time_for_it(make: Make) -> None:
    """The toolkit dies of SIGTERM at once, but its script does not: process 1 must not end before it."""
    machine = make("stop", patience=2, FLOPSD_STOP_WINDOW="30").machine("algo-1", scenario())
    with machine.container(*entrypoint(TRAIN)) as container:
        container.metered()
        assert container.stop(30) == 143, container.stderr  # the toolkit's exit code
    assert (machine.ml / "model/algo-1.bin").read_text() == "saved in time"
    sealed = predicate(machine.ledger)
    assert sealed["incarnations"][0]["childExitCode"] == 143
    assert float(sealed["wallSeconds"]) > 2  # metered to the end of the saving


def test_the_account_of_a_script_that_does_not_stop_is_closed_within_the_window(make: Make) -> None:
    """The toolkit has ended and its script ignores the signal: the last third of the window is reserved for the
    ledger."""
    machine = make("deaf", FLOPSD_STOP_WINDOW="12").machine("algo-1", scenario())
    with machine.container(*entrypoint(TRAIN)) as container:
        container.metered()
        assert container.stop(PATIENCE_SECONDS) == 143, container.stderr
    assert predicate(machine.ledger)["incarnations"][-1]["endReason"] == "job_ended"


def test_a_job_that_does_not_stop_is_killed_and_leaves_a_ledger(make: Make) -> None:
    """SIGTERM, and SIGKILL when the window is over: rolling seals since SIGTERM are in the persistent folder."""
    machine = make("", checkpoints=True).machine("algo-1", scenario())
    with machine.container(
        *entrypoint("sh", "-c", "trap '' TERM; echo training; while :; do sleep 1; done")
    ) as container:
        container.metered()
        assert not machine.ledger.exists()  # the first rolling seal would come in a quarter of an hour
        container.first().send_signal(signal.SIGTERM)
        wait_until(machine.saved.exists, "a seal since the end is near")
        container.kill()
        assert container.code == 137
    for ledger in (machine.ledger, machine.saved):
        sealed = predicate(ledger)
        assert sealed["incarnations"][-1]["endReason"] is None
        assert int(sealed["totals"]["executed"]["measured"]) > 0


def _has_work(ledger: Path) -> bool:
    return ledger.exists() and predicate(ledger)["totals"]["executed"]["measured"] is not None


@pytest.mark.parametrize("notice", [True, False])
def test_after_a_spot_stop_the_account_continues_on_a_new_machine(make: Make, notice: bool) -> None:
    """Two attempts under one name: other boot, other GPUs, only the checkpoint folder in common."""
    job = make("stop", checkpoints=True, FLOPSD_SEAL_EVERY="1", FLOPSD_INTERVAL="0.2")
    first = job.machine("algo-1", scenario(), 1)
    command = (TRAIN,) if notice else ("sh", "-c", "echo training; exec sleep 600")
    with first.container(*entrypoint(*command)) as container:
        container.metered()
        if notice:
            container.stop(PATIENCE_SECONDS)
        else:
            wait_until(lambda: _has_work(first.saved), "a rolling ledger with work in the checkpoint folder")
            container.kill()
    first.sync()
    saved = predicate(first.saved)
    assert (saved["incarnations"][0]["endReason"] == "job_ended") == notice

    job.hyperparameters = {**job.hyperparameters, "mode": "succeed"}
    second = job.machine("algo-1", scenario(), 2, cards="0ther000")
    done = second.run(*entrypoint(TRAIN))
    assert done.code == 0, done.stderr
    assert "this run continues it" in done.stderr
    sealed = predicate(second.ledger)
    assert [one["number"] for one in sealed["incarnations"]] == [1, 2]
    assert len(sealed["attempts"]) == len({one["bootId"] for one in sealed["incarnations"]}) == 2
    assert sealed["incarnations"][1]["recovered"]["reasons"][0]["ledger"] == "algo-1.json"
    mine = {device["uuid"]: device for device in sealed["devices"]}
    before = {device["uuid"]: device for device in saved["devices"]}
    assert len(mine) == 2
    for uid, device in before.items():  # neither lost nor counted twice
        assert mine[uid]["executed"]["measured"] == device["executed"]["measured"]
    gaps = [gap for gap in sealed["coverage"]["gaps"] if gap["reason"] == "daemon_down"]
    if notice:
        assert not gaps
    else:  # the work after the last saved record has a ceiling, and is not measured
        (gap,) = gaps
        assert gap["device"] in before
        assert gap["incarnation"] == 2
        assert int(gap["ceiling"]) > 0
        assert float(gap["endSeconds"]) == 0
    executed, earlier = sealed["totals"]["executed"], saved["totals"]["executed"]
    assert int(executed["measured"]) > int(earlier["measured"]) > 0
    assert int(executed["high"]) > int(earlier["high"]) + sum(int(gap["ceiling"]) for gap in gaps)

    trust = ("--trust", str(second.ledger.with_suffix(".pub")), "--trust", str(first.saved.with_suffix(".pub")))
    out = second.folder / "job.json"
    common = (*trust, "--key", str(second.state / "flopsd-key.pem"), "--ledger", str(out), "--json")
    merged = in_process("merge", str(job.pack([second])), *common, code=0)
    total = json.loads(merged.stdout)["predicate"]["totals"]["executed"]
    assert [total[bound] for bound in BOUNDS] == [executed[bound] for bound in BOUNDS]
    # The same from the checkpoint folder alone, as if the output was lost, since it contains the last state.
    kept = in_process("merge", str(second.saved), *common, code=0)
    assert json.loads(kept.stdout)["predicate"]["totals"]["executed"] == total
    twice = in_process("merge", str(second.ledger), str(first.saved), *common, code=1)
    assert "node 'algo-1' is given twice for the same time" in twice.stderr


def test_process_1_reaps_orphans_and_their_zombies(make: Make) -> None:
    job = make("succeed")
    machine = job.machine("algo-1", scenario())
    orphans = "(setsid sleep 0.1 &); (setsid sleep 0.1 &); echo training"
    orphan = f"{orphans}; while [ ! -e /opt/ml/model/go ]; do sleep 0.05; done; exit 5"
    with machine.container(*entrypoint("sh", "-c", orphan)) as container:
        container.metered()
        first = container.first()
        # A zombie keeps its name. They become children of process 1 once the shells that started them are gone.
        wait_until(lambda: not [p for p in first.children() if p.name() == "sleep"], "orphans that are gone")
        (machine.ml / "model/go").touch()
        assert container.wait() == 5
    predicate(machine.ledger)


FOUR: dict[str, Any] = {
    "current_host": "algo-1",
    "hosts": ["algo-1", "algo-2", "algo-3", "algo-4"],
    "network_interface_name": "eth0",
    "instance_groups": [
        {"instance_group_name": "train1", "instance_type": "ml.p5.48xlarge", "hosts": ["algo-1", "algo-2"]},
        {"instance_group_name": "train2", "instance_type": "ml.p5.4xlarge", "hosts": ["algo-3", "algo-4"]},
    ],
}
LONE = {**FOUR, "hosts": ["algo-1"], "instance_groups": [{**FOUR["instance_groups"][0], "hosts": ["algo-1"]}]}


def test_a_model_trainer_command_fails_as_it_does_alone(make: Make) -> None:
    """Bash is process 1, and flopsd is a command of the script made by the SDK."""
    code = 9
    work = f"sh -c 'while [ -d /var/lib/flopsd ] && ! grep -q activity /var/lib/flopsd/pending.jsonl; do sleep 0.05; done; exit {code}'"
    job, other = make("", "alone"), make("")
    job.resources = other.resources = LONE
    alone, machine = (one.machine("algo-1", scenario()) for one in (job, other))
    without = alone.run(*alone.lay_model_trainer(work))
    metered = f"{' '.join(FLOPSD)} exec -- {work.replace('[ -d /var/lib/flopsd ] && ', '')}"
    done = machine.run(*machine.lay_model_trainer(metered))
    assert done.code == without.code == code, done.stderr
    assert machine.failure() == alone.failure()
    assert "Training Execution failed" in str(machine.failure())
    sealed = predicate(machine.ledger)
    assert sealed["incarnations"][0]["childExitCode"] == code
    assert int(sealed["totals"]["executed"]["measured"]) > 0


def test_four_hosts_of_two_instance_groups_become_one_job_and_a_missing_one_is_named(
    make: Make, tmp_path: Path
) -> None:
    work = "echo training; while [ ! -e /opt/ml/model/go ]; do sleep 0.1; done"
    key, job = tmp_path / "key.pem", make("", checkpoints=False, FLOPSD_KEY="/opt/ml/input/data/train/key.pem")
    job.resources = FOUR
    in_process("key", "new", str(key), code=0)
    with ExitStack() as running:
        machines = [job.machine(host, scenario(), cards=f"{rank:08x}") for rank, host in enumerate(job.hosts)]
        containers = []
        for machine in machines:
            shutil.copy(key, machine.ml / "input/data/train/key.pem")
            command = machine.lay_model_trainer(f"{' '.join(FLOPSD)} exec -- sh -c '{work}'")
            containers.append(running.enter_context(machine.container(*command)))
        for container in containers:
            container.metered()
        for machine in machines:
            (machine.ml / "model/go").touch()
        assert [container.wait() for container in containers] == [0, 0, 0, 0], containers[0].stderr
    nodes = [predicate(machine.ledger) for machine in machines]
    assert [(sealed["node"]["rank"], sealed["node"]["instanceType"]) for sealed in nodes] == [
        (0, "ml.p5.48xlarge"), (1, "ml.p5.48xlarge"), (2, "ml.p5.4xlarge"), (3, "ml.p5.4xlarge")
    ]  # fmt: skip
    public, out = str(machines[0].ledger.with_suffix(".pub")), tmp_path / "job.json"
    common = ("--trust", public, "--key", str(key), "--ledger", str(out), "--json")
    merged = in_process("merge", str(job.pack(machines)), *common, code=0)
    sealed = json.loads(merged.stdout)["predicate"]
    assert (sealed["completeness"]["complete"], sealed["ledgerCount"], sealed["jobNodes"]) == (True, "4", job.hosts)
    for bound in BOUNDS:
        total = sum(int(node["totals"]["executed"][bound]) for node in nodes)
        assert int(sealed["totals"]["executed"][bound]) == total
        assert total > 0 or bound == "low"  # a clock that was polled only briefly gives no lower bound
    in_process("verify", str(out), "--key", str(out.with_suffix(".pub")), code=0)
    three = in_process("merge", str(job.pack([machines[0], machines[1], machines[3]])), *common, code=1)
    assert "rank 2 (algo-3): no ledger" in three.stderr

"""A SageMaker training job without SageMaker: containers as namespaces, with /opt/ml at its real path.

Each container has its own mount, process, network and host-name namespaces: its first process is process 1, there is
no network and there are no credentials, and /opt/ml, /var/lib, /etc/hosts and the boot id are those of its machine.
Nothing on the real machine is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.support.process import PATIENCE_SECONDS, environment, wait_until
from tests.support.scenario import Scenario

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests" / "samples"
FLOPSD = (sys.executable, "-m", "flopsd")
TRAIN = str(Path(sys.executable).with_name("train"))  # of the sagemaker-training toolkit
JOB = "flopsd-emulated-2026-11-25-12-00-00-000"

# Process 1 runs this before it becomes the container's entrypoint. It mounts a new /opt, so that /opt/ml need not
# exist.
ENTER = r"""
set -euo pipefail
machine=$1 host=$2; shift 2
mkdir -p "$machine/opt"
mount -t tmpfs opt "$machine/opt"
for one in /opt/*; do
  [ -d "$one" ] || continue
  mkdir -p "$machine/opt/${one##*/}"; mount --rbind "$one" "$machine/opt/${one##*/}"
done
mkdir -p "$machine/opt/ml"
mount --bind "$machine/ml" "$machine/opt/ml"
mount --rbind "$machine/opt" /opt
mount --bind "$machine/lib" /var/lib
mount --bind "$machine/hosts" /etc/hosts
mount --bind "$machine/boot_id" /proc/sys/kernel/random/boot_id
ip link set lo up
hostname "$host"
exec "$@"
"""


@dataclass
class Job:
    """A training job: its roster as in a real resourceconfig.json, its requests, and its bucket for checkpoints."""

    folder: Path
    standin: Path
    resources: Mapping[str, Any]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    script: Path | None = None  # the script that the toolkit runs
    checkpoints: bool = False

    @property
    def hosts(self) -> list[str]:
        return list(self.resources["hosts"])

    @property
    def bucket(self) -> Path:
        """The S3 prefix with which all hosts' checkpoint folders are synced."""
        return self.folder / "bucket"

    def machine(self, host: str, scenario: Scenario, attempt: int = 1, *, cards: str = "") -> Machine:
        """A new machine for `host`, with the checkpoints restored. `cards` gives its GPUs new names."""
        folder = self.folder / f"attempt-{attempt}" / host
        machine = Machine(folder, host, self)
        for name in ("ml/input/config", "ml/input/data/train", "ml/model", "ml/output/data", "lib"):
            (folder / name).mkdir(parents=True)
        found = {**self.resources, "current_host": host}
        for group in found.get("instance_groups", ()):
            if host in group["hosts"]:
                found |= {"current_group_name": group["instance_group_name"]}
                found |= {"current_instance_type": group["instance_type"]}
        config = {
            "resourceconfig": found,
            "hyperparameters": {k: json.dumps(v) for k, v in self.hyperparameters.items()},
        }
        config["inputdataconfig"] = json.loads((SAMPLES / "inputdataconfig_awsdocs.json").read_text())
        if self.checkpoints:
            config["checkpointconfig"] = {"LocalPath": "/opt/ml/checkpoints", "S3Uri": "s3://bucket/checkpoints"}
            self.bucket.mkdir(exist_ok=True)
            shutil.copytree(self.bucket, machine.ml / "checkpoints")
            files = (path for path in (machine.ml / "checkpoints").rglob("*") if path.is_file())
            machine.restored.update((path, path.stat().st_mtime_ns) for path in files)
        for name, document in config.items():
            (machine.ml / "input/config" / f"{name}.json").write_text(json.dumps(document))
        if self.script is not None:
            (machine.ml / "code").mkdir()
            shutil.copy(self.script, machine.ml / "code")
        (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"127.0.0.1 {name}\n" for name in self.hosts))
        scenario.write(folder / "scenario.txt")
        if cards:
            text = (folder / "scenario.txt").read_text().replace("GPU-5a4d0000", f"GPU-{cards}")
            (folder / "scenario.txt").write_text(text)
        return machine

    def pack(self, machines: Sequence[Machine]) -> Path:
        """output.tar.gz of all hosts, as the platform makes it. Fails where two hosts have the same file name in it."""
        archive = self.folder / "output.tar.gz"
        with tarfile.open(archive, "w:gz") as packed:
            seen: dict[str, str] = {}
            for machine in machines:
                data = machine.ml / "output/data"
                for path in sorted(data.rglob("*")):
                    name = str(path.relative_to(data))
                    if path.is_file():
                        assert name not in seen, f"{name} is of {seen[name]} and of {machine.host}"
                        seen[name] = machine.host
                        packed.add(path, arcname=name)
        return archive


@dataclass
class Machine:
    """One instance of a job, before, while and after its container runs."""

    folder: Path
    host: str
    job: Job
    restored: dict[Path, int] = field(default_factory=dict)  # last modification times of the files restored from S3

    @property
    def ml(self) -> Path:
        return self.folder / "ml"

    @property
    def ledger(self) -> Path:
        """The place from which the platform keeps the final ledger."""
        return self.ml / "output/data/flopsd" / f"{self.host}.json"

    @property
    def saved(self) -> Path:
        """The place where the next attempt finds rolling ledgers."""
        return self.ml / "checkpoints/flopsd" / JOB / f"{self.host}.json"

    @property
    def state(self) -> Path:
        return self.folder / "lib/flopsd"

    def lay_model_trainer(self, command: str) -> tuple[str, ...]:
        """Put the files that ModelTrainer uploads for `command` where the platform does. Returns the entrypoint that
        it requests."""
        samples, drivers = SAMPLES / "model_trainer", self.ml / "input/data/sm_drivers"
        for folder in ("scripts", "common"):
            (drivers / folder).mkdir(parents=True)
            (drivers / folder / "__init__.py").touch()
        (self.ml / "input/data/code").mkdir()
        for name, where in (("environment.py", "scripts"), ("utils.py", "common")):
            shutil.copy(samples / f"{name}.txt", drivers / where / name)
        for name in ("sm_train.sh", "sourcecode.json", "distributed.json"):
            text = (samples / name).read_text()
            (drivers / name).write_text(text.replace("flopsd exec -- torchrun --nproc_per_node=8 train.py", command))
        script = "/opt/ml/input/data/sm_drivers/sm_train.sh"
        return ("/bin/bash", "-c", f"chmod +x {script} && {script}")

    def failure(self) -> str | None:
        path = self.ml / "output/failure"
        return path.read_text() if path.exists() else None

    def sync(self) -> None:
        """What the platform does continuously: changes in the checkpoint folder go to S3, where nothing is deleted.
        Restored files of other hosts stay as they are."""
        for path in (self.ml / "checkpoints").rglob("*"):
            if path.is_file() and self.restored.get(path) != path.stat().st_mtime_ns:
                there = self.job.bucket / path.relative_to(self.ml / "checkpoints")
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, there)

    @contextmanager
    def container(self, *entrypoint: str) -> Iterator[Container]:
        """The running container, with only the variables of the platform and of the request."""
        clean = environment(self.job.standin, self.folder / "scenario.txt")
        arn = f"arn:aws:sagemaker:eu-west-1:123456789012:training-job/{JOB}"
        variables = {
            **{k: v for k, v in clean.items() if k in ("LANG", "LD_LIBRARY_PATH", "NVML_STANDIN_SCENARIO", "FLOPSD_NEURON_MONITOR")},
            "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}", "HOME": "/root", "TRAINING_JOB_NAME": JOB, "TRAINING_JOB_ARN": arn, "PYTHONPATH": str(ROOT),
            "AWS_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true", **self.job.environment,
        }  # fmt: skip
        out, err = (self.folder / name for name in ("stdout", "stderr"))
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--uts", "bash", "-c",
                 ENTER, "enter", str(self.folder), self.host, *entrypoint],
                env=variables, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_err, start_new_session=True,
            )  # fmt: skip
        with process:
            try:
                yield Container(self, process)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def run(self, *entrypoint: str) -> Container:
        """Run the container until it ends by itself."""
        with self.container(*entrypoint) as container:
            container.wait()
            return container


@dataclass
class Container:
    """The container as SageMaker sees it: its output, first process and exit code."""

    machine: Machine
    process: subprocess.Popen[bytes]

    @property
    def stdout(self) -> str:
        return (self.machine.folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.machine.folder / "stderr").read_text(errors="replace")

    @property
    def code(self) -> int:
        """The exit code as the platform reports it."""
        code = self.process.returncode
        return code if code >= 0 else 128 - code

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        self.process.wait(timeout=seconds)
        return self.code

    def first(self) -> psutil.Process:
        """Process 1, as seen from outside."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def metered(self) -> None:
        """Wait until the job is working and some of its work has been measured."""
        pending = self.machine.state / "pending.jsonl"
        wait_until(lambda: pending.exists() and b"activity" in pending.read_bytes(), "a reading")
        wait_until(lambda: "training\n" in self.stdout, "a job at work")

    def stop(self, within_seconds: float) -> int:
        """As `docker stop -t`: SIGTERM to process 1, and SIGKILL when the time is over."""
        self.first().send_signal(signal.SIGTERM)
        try:
            return self.wait(within_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.code

    def kill(self) -> None:
        """An end without notice: the whole process namespace dies with process 1."""
        self.first().send_signal(signal.SIGKILL)
        self.process.wait(timeout=PATIENCE_SECONDS)


def entrypoint(*command: str, options: Sequence[str] = ()) -> tuple[str, ...]:
    return (*FLOPSD, "exec", *options, "--", *command)

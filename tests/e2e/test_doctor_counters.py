"""What `flopsd doctor` says of profiling counters, with the /proc, the capabilities and the platform of each place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import PATIENCE_SECONDS, environment
from tests.support.scenario import Scenario, Segment, a100

BUSY = (Segment(1000, hmma=0.5, util=100, watts=300),)
# A namespace whose /proc has the parameters in $1; then the rest of the command line.
ENTER = (
    'mount -t tmpfs none /proc/driver && mkdir /proc/driver/nvidia && printf "%s" "$1" >/proc/driver/nvidia/params && '
    'shift && exec "$@"'
)
ADMIN_ONLY = "ModifyDeviceFiles: 0\nRmProfilingAdminOnly: 1\n"
NONE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
NO_CAPABILITY = (
    "closed to this process: the driver keeps them to administrators (RmProfilingAdminOnly is 1), and it has"
)

SITUATIONS = {
    "open": ("RmProfilingAdminOnly: 0\n", (), {}, "open to every process", "run a dcgm-exporter: flopsd reads them"),
    "root": (ADMIN_ONLY, (), {}, "open to this process: it has CAP_SYS_ADMIN", "run a dcgm-exporter: flopsd reads them"),
    "perfmon": (
        ADMIN_ONLY, ("setpriv", "--bounding-set=-all,+perfmon", "--inh-caps=-all"), {},
        "not known to be open: this process has CAP_PERFMON", "run a dcgm-exporter: flopsd reads them",
    ),
    "host": (ADMIN_ONLY, NONE, {}, NO_CAPABILITY, "load the module with NVreg_RestrictProfilingToAdminUsers=0"),
    "rootless": (
        ADMIN_ONLY, ("unshare", "--user", "--map-root-user"), {},
        "its capabilities are those of a user namespace", "load the module with NVreg_RestrictProfilingToAdminUsers=0",
    ),
    "sagemaker": (ADMIN_ONLY, NONE, {"TRAINING_JOB_NAME": "job"}, NO_CAPABILITY, "give --precision and declare"),
    "pod": (
        "RestrictProfilingToAdminUsers: 1\n", NONE, {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAME": "train-0"},
        NO_CAPABILITY, "run dcgm-exporter's DaemonSet",
    ),
    "slurm": (ADMIN_ONLY, NONE, {"SLURM_JOB_ID": "7"}, NO_CAPABILITY, "as root with the node"),
    "unknown": ("ModifyDeviceFiles: 0\n", (), {}, "not known to be open", "load the module with"),
}  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give itself a /proc")
@pytest.mark.tool("unshare", "setpriv")
def test_doctor_says_whether_profiling_counters_are_open_and_the_one_thing_to_do(tmp_path: Path, standin: Path) -> None:
    scenario = Scenario((a100(BUSY),)).write(tmp_path / "scenario.txt")

    def doctor(name: str, *enter: str, **variables: str) -> subprocess.Popen[str]:
        env = environment(standin, scenario, FLOPSD_STATE_DIR=str(tmp_path / name), **variables)
        command = [*enter, sys.executable, "-m", "flopsd", "doctor"]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)

    def check(process: subprocess.Popen[str], *wanted: str) -> None:
        said = " ".join(process.communicate(timeout=PATIENCE_SECONDS)[0].split())
        assert process.returncode == 0
        warned = said[said.index("warn profiling counters:") :]
        for words in (*wanted, "; device 0 cannot be measured without"):
            assert words in warned
        assert ("its profiling counters are closed to this process" in said) == ("closed to this process:" in warned)

    running = {
        name: doctor(name, "unshare", "--mount", "sh", "-c", ENTER, "sh", parameters, *enter, **variables)
        for name, (parameters, enter, variables, *_) in SITUATIONS.items()
    }
    for name, process in running.items():
        check(process, *SITUATIONS[name][3:])
    engine = tmp_path / "nv-hostengine"  # every process above this one sees it too
    shutil.copy("/bin/sleep", engine)
    own_processes = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")
    script = f'"{engine}" 60 >/dev/null & {ENTER}'
    check(
        doctor("engine", *own_processes, script, "sh", ADMIN_ONLY),
        "open to this process: it has",
        "a DCGM hostengine runs here: run `dcgm-exporter --remote-hostengine-info localhost:5555` beside it; flopsd",
    )

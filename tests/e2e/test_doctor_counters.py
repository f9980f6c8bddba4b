"""`flopsd doctor`'s findings about profiling counters, with the /proc, the capabilities and the platform of each
place."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.own_exporter import Installed
from tests.support.process import PATIENCE_SECONDS, environment
from tests.support.scenario import Scenario, Segment, a100, h100
from tests.support.tools import missing

BUSY = (Segment(1000, hmma=0.5, util=100, watts=300),)
OWN_PROCESSES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")
# A namespace whose /proc has the parameters in $1; then the rest of the command line.
ENTER = (
    'mount -t tmpfs none /proc/driver && mkdir /proc/driver/nvidia && printf "%s" "$1" >/proc/driver/nvidia/params && '
    'shift && exec "$@"'
)
CAPABILITIES = (
    "mount -t tmpfs none /proc/driver && mkdir -p /proc/driver/nvidia/capabilities/mig && "
    "cd /proc/driver/nvidia/capabilities/mig && "
    'echo "DeviceFileMinor: 2" >monitor && echo "DeviceFileMinor: 1" >config && cd / && exec "$@"'
)
ADMIN_ONLY = "ModifyDeviceFiles: 0\nRmProfilingAdminOnly: 1\n"
NONE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
NO_CAPABILITY = "closed to this process: the driver reserves them for administrators (RmProfilingAdminOnly is 1), and this process has"

SITUATIONS = {
    "open": ("RmProfilingAdminOnly: 0\n", (), {}, "open to every process", "flopsd starts it if nothing else uses the counters; or run one"),
    "root": (ADMIN_ONLY, (), {}, "open to this process: it has CAP_SYS_ADMIN", "flopsd starts it if nothing else uses the counters; or run one"),
    "perfmon": (
        ADMIN_ONLY, ("setpriv", "--bounding-set=-all,+perfmon", "--inh-caps=-all"), {},
        "not known to be open: this process has CAP_PERFMON, not CAP_SYS_ADMIN", "flopsd starts it if nothing else uses the counters; or run one",
    ),
    "host": (ADMIN_ONLY, NONE, {}, NO_CAPABILITY, "load the module with NVreg_RestrictProfilingToAdminUsers=0"),
    "rootless": (
        ADMIN_ONLY, ("unshare", "--user", "--map-root-user"), {},
        "does not accept the capabilities of a user namespace", "load the module with NVreg_RestrictProfilingToAdminUsers=0",
    ),
    "sagemaker": (ADMIN_ONLY, NONE, {"TRAINING_JOB_NAME": "job"}, NO_CAPABILITY, "declare the number formats with --precision"),
    "pod": (
        "RestrictProfilingToAdminUsers: 1\n", NONE, {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAME": "train-0"},
        NO_CAPABILITY, "run dcgm-exporter's DaemonSet",
    ),
    "slurm": (ADMIN_ONLY, NONE, {"SLURM_JOB_ID": "7"}, NO_CAPABILITY, "as root with the node"),
    "unknown": ("ModifyDeviceFiles: 0\n", (), {}, "not known to be open", "load the module with"),
}  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give itself a /proc")
@pytest.mark.tool("unshare", "setpriv")
def test_doctor_states_whether_profiling_counters_are_open_and_the_remedy(tmp_path: Path, standin: Path) -> None:
    if subprocess.run(["unshare", "--user", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        missing("no user namespace can be made here")  # as in a chroot
    scenario = Scenario((a100(BUSY),)).write(tmp_path / "scenario.txt")

    def doctor(name: str, *enter: str, **variables: str) -> subprocess.Popen[str]:
        env = environment(standin, scenario, FLOPSD_STATE_DIR=str(tmp_path / name), **variables)
        command = [*enter, sys.executable, "-m", "flopsd", "doctor"]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)

    def check(process: subprocess.Popen[str], *wanted: str, of: str = "profiling counters:", code: int = 0) -> None:
        said = " ".join(process.communicate(timeout=PATIENCE_SECONDS)[0].split())
        assert process.returncode == code
        warned = said[said.index(f"warn {of}") :]
        for words in wanted:
            assert words in warned
        if of != "profiling counters:":
            return
        assert "; without them device 0 cannot be measured" in warned
        assert ("its profiling counters are closed to this process" in said) == ("closed to this process:" in warned)

    running = {
        name: doctor(name, *OWN_PROCESSES, ENTER, "sh", parameters, *enter, **variables)
        for name, (parameters, enter, variables, *_) in SITUATIONS.items()
    }
    for name, process in running.items():
        check(process, *SITUATIONS[name][3:])

    def beside(name: str, parameters: str, **variables: str) -> subprocess.Popen[str]:
        """With a process of this name, visible to every process above this one too."""
        server = tmp_path / name
        shutil.copy("/bin/sleep", server)
        return doctor(
            f"beside-{name}", *OWN_PROCESSES, f'"{server}" 60 >/dev/null & {ENTER}', "sh", parameters, **variables
        )

    installed = Installed(tmp_path / "bin")
    path = f"{installed.folder}{os.pathsep}{os.environ['PATH']}"
    confidential = Scenario((a100(BUSY),), confidential="on").write(tmp_path / "confidential.txt")
    cut = Scenario((replace(h100(BUSY), mig=True),)).write(tmp_path / "cut.txt")
    engine = beside("nv-hostengine", ADMIN_ONLY, PATH=path)
    exporter = beside("dcgm-exporter", ADMIN_ONLY)
    starts = doctor("starts", *OWN_PROCESSES, ENTER, "sh", ADMIN_ONLY, PATH=path)
    secret = doctor("secret", *OWN_PROCESSES, ENTER, "sh", ADMIN_ONLY, NVML_STANDIN_SCENARIO=str(confidential))
    slices = doctor(
        "slices",
        *OWN_PROCESSES,
        CAPABILITIES,
        "sh",
        *NONE,
        NVML_STANDIN_SCENARIO=str(cut),
        KUBERNETES_SERVICE_HOST="10.0.0.1",
        POD_NAME="train-0",
    )
    check(
        engine,
        "open to this process: it has",
        "a DCGM hostengine runs here: also run `dcgm-exporter --remote-hostengine-info localhost:5555`; flopsd",
    )
    check(exporter, "a dcgm-exporter runs here but does not answer at --dcgm-url: give its address")
    check(
        starts,
        "open to this process",
        f"none: `flopsd run` starts {installed.path} to read them, which shuts out other profilers; --dcgm-hostengine off prevents it",
    )
    check(secret, "closed to every process: confidential computing is on", "none in this mode")
    check(
        slices,
        "monitor is closed, config closed to this process, for device 0",
        "NVIDIA_MIG_MONITOR_DEVICES=all; in the chart: gpu.migMonitor=true",
        of="MIG capabilities:",
        code=4,  # it is the only device, and cannot be read
    )
    assert not installed.starts

"""A Slurm cluster of two nodes on this machine: the real slurmctld and slurmd, in namespaces of their own.

Two slurmd share the machine; each node has two GPUs by Slurm's word (device nodes that nobody opens) and by the
stand-in's. Authentication is Slurm's own, so that no munged is needed.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
NODES = ("n1", "n2")
_CONF = """ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/slurm
CredType=cred/slurm
AuthInfo=use_client_ids
SlurmctldPort=16817
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SchedulerType=sched/builtin
MpiDefault=none
ReturnToService=2
GresTypes=gpu
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=17001 CPUs=2 Gres=gpu:2
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=17002 CPUs=2 Gres=gpu:2
PartitionName=all Nodes=n1,n2 Default=YES State=UP
Prolog={script}
Epilog={script}
TaskProlog={script}
PrologFlags=Alloc
"""
# The resolver answers to nobody who has no address but the loopback's.
_BOOT = """set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir -p /etc/flopsd /run/slurm /run/slurmctld
mount -t tmpfs -o mode=755 tmpfs /etc/flopsd
cp {job_conf} /etc/flopsd/slurm-job.conf
ip link set lo up
ip link add net0 type veth peer name net1
ip address add 10.99.0.1/24 dev net0
ip link set net0 up
ip link set net1 up
hostname localhost
slurmctld -c
for node in {nodes}; do slurmd -N "$node"; done
echo up >{folder}/up
exec sleep infinity
"""


@dataclass(frozen=True, slots=True)
class Slurm:
    """Runs commands on the cluster's machine."""

    pid: int
    folder: Path
    env: dict[str, str]

    def run(self, *command: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-n", f"--wdns={self.folder}", *command],
            capture_output=True, text=True, timeout=PATIENCE_SECONDS * 2, check=False, env={**self.env, **more},
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{shlex.join(command)}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done

    def states(self) -> list[str]:
        return self.run("sinfo", "--noheader", "--Node", "--format=%T").stdout.split()

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in self.folder.rglob("*.log")
        )


@contextmanager
def slurm(folder: Path, script: Path, job_conf: str, env: dict[str, str]) -> Iterator[Slurm]:
    """The cluster, up and idle, with `script` as prolog, epilog and task prolog, and the site's file of it."""
    (folder / "state").mkdir()
    for index in (0, 1):
        os.mknod(folder / f"nvidia{index}", 0o020600, os.makedev(1, 3))
    (folder / "slurm.conf").write_text(_CONF.format(folder=folder, script=script))
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/nvidia[0-1]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (folder / "slurm.key").write_bytes(os.urandom(1024))
    (folder / "slurm.key").chmod(0o600)
    (folder / "job.conf").write_text(job_conf)
    boot = folder / "boot.sh"
    boot.write_text(_BOOT.format(folder=folder, nodes=" ".join(NODES), job_conf=folder / "job.conf"))
    env = {**env, "SLURM_CONF": str(folder / "slurm.conf")}
    with (folder / "boot.log").open("wb") as said:
        outer = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", str(boot)],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, env=env,
        )  # fmt: skip
    try:
        wait_until(lambda: outer.poll() is not None or (folder / "up").exists(), "slurm starts")
        assert outer.poll() is None, (folder / "boot.log").read_text()
        pid = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
        cluster = Slurm(pid, folder, env)
        wait_until(lambda: cluster.states() == ["idle", "idle"], f"the nodes are idle: {cluster.logs()}")
        yield cluster
    finally:
        if outer.poll() is None:
            os.killpg(outer.pid, signal.SIGKILL)
        outer.wait()

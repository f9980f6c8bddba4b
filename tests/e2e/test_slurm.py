"""Jobs under the real Slurm: metered by prolog and epilog, and by `flopsd exec` under srun; merged over nodes.

Two slurmd share the machine, in separate namespaces; each node has two GPUs according to Slurm (device nodes that no
process opens) and to the stand-in. Authentication is Slurm's own, so that no munged is needed.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.storage.deliveries import Deliveries
from tests.support.process import PATIENCE_SECONDS, environment, in_process, predicate, wait_until
from tests.support.runs import finished
from tests.support.scenario import BUSY, Scenario, h100

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
SelectTypeParameters=CR_CPU
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
# The resolver answers only if there is an address other than the loopback's.
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
until scontrol ping | grep -q UP; do sleep 0.1; done
for node in {nodes}; do # one in some hundred ends in the background without a log
  until [ -s {folder}/slurmd-"$node".pid ]; do
    slurmd -N "$node"
    for _ in 1 2 3 4 5 6 7 8 9 10; do [ -s {folder}/slurmd-"$node".pid ] || sleep 0.3; done
  done
done
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

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-n", f"--wdns={self.folder}", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env,
        )  # fmt: skip

    def states(self) -> list[str]:
        return self.run("sinfo", "--noheader", "--Node", "--format=%T").stdout.split()

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in self.folder.rglob("*.log")
        )


@contextmanager
def slurm(folder: Path, script: Path, job_conf: str, env: dict[str, str]) -> Iterator[Slurm]:
    """The cluster, up and idle, with `script` as prolog, epilog and task prolog, and the site's settings for it."""
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
        try:
            wait_until(lambda: cluster.states() == ["idle", "idle"], "the nodes are idle", 15)
        except AssertionError:  # a node that started before its controller could answer must register again
            cluster.run("scontrol", "reconfigure", check=False)
            wait_until(lambda: cluster.states() == ["idle", "idle"], f"the nodes are idle: {cluster.logs()}")
        yield cluster
    finally:
        if outer.poll() is None:
            os.killpg(outer.pid, signal.SIGKILL)
        outer.wait()


SCRIPT = ROOT / "slurm" / "flopsd-job"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and Slurm's daemons need root")
CLUSTER = pytest.mark.tool("slurmctld", "slurmd", "srun", "unshare", "nsenter", "ip", "setsid", "pgrep")


@pytest.fixture(scope="module")
def cluster(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    script = shutil.copy(SCRIPT, folder / "flopsd-job")
    for node in NODES:
        scenario = Scenario((h100(BUSY), h100(BUSY))).write(folder / f"{node}.txt")
        scenario.write_text(scenario.read_text().replace("uuid=GPU-", f"uuid=GPU-{node}-"))
    (folder / "flopsd").write_text(
        f"#!/bin/sh\nLD_LIBRARY_PATH={standin} NVML_STANDIN_SCENARIO={folder}/$SLURMD_NODENAME.txt PYTHONPATH={ROOT} "
        f'exec {sys.executable} -m flopsd "$@"\n'
    )
    (folder / "flopsd").chmod(0o755)
    conf = (
        f"FLOPSD={folder}/flopsd\nSTATE={folder}/jobs/$SLURMD_NODENAME\nSOCKETS=/run/jobs-$SLURMD_NODENAME\n"
        f"FLOPSD_FILE_SD={folder}/targets\nexport FLOPSD_INTERVAL=0.2 FLOPSD_NEURON_MONITOR=off\n"
    )
    with slurm(folder, Path(script), conf, environment(None)) as running:
        yield running


@pytest.mark.tool("shellcheck", "dash")
def test_the_script_is_clean_shell() -> None:
    for command in (["shellcheck", str(SCRIPT)], ["dash", "-n", str(SCRIPT)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def exec_ledgers(cluster: Slurm, name: str) -> dict[str, Path]:
    """The ledgers of `flopsd exec` by node, in the folders that flopsd chose itself."""
    found = cluster.run("find", f"/var/lib/flopsd/{name}", "-name", "*.ledger.*").stdout.split()
    out = cluster.folder / "out" / name
    for path in map(Path, found):
        (out / path.parent.name).mkdir(parents=True, exist_ok=True)
        cluster.run("cp", str(path), str(out / path.parent.name / path.name))
    return {path.parent.name: path for path in out.glob("*/*.ledger.json")}


def ledger(folder: Path) -> Path:
    (found,) = wait_until(lambda: list(folder.glob("*.ledger.json")), f"a ledger in {folder}")
    return Path(found)


@contextmanager
def prometheus(cluster: Slurm) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """A real one on the cluster's machine, with the scrape configuration of docs/monitoring.md; it answers queries."""
    (shown,) = re.findall(
        r"^```yaml\n(scrape_configs:.*?)```", (ROOT / "docs" / "monitoring.md").read_text(), re.M | re.S
    )
    file = cluster.folder / "prometheus.yml"
    file.write_text(
        f"global: {{scrape_interval: 1s}}\n{shown}".replace("/run/flopsd-targets", f"{cluster.folder}/targets")
    )
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={cluster.folder}/tsdb",
               "--web.listen-address=127.0.0.1:9090", "--log.level=error"]  # fmt: skip
    process = subprocess.Popen(["nsenter", "-t", str(cluster.pid), "-n", *command])

    def query(expression: str) -> list[dict[str, Any]]:
        url = "http://127.0.0.1:9090/api/v1/query"
        done = cluster.run("curl", "-sf", "--data-urlencode", f"query={expression}", url, check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout)["data"]["result"] if done.stdout else []
        return found

    try:
        yield query
    finally:
        process.kill()
        process.wait()


@pytest.mark.tool("prometheus", "curl")
@CLUSTER
@AS_ROOT
def test_concurrent_jobs_are_metered_and_scraped_separately(cluster: Slurm, tmp_path: Path) -> None:
    """Two jobs share n1, and one of them is on n2 too. The other's daemon is killed at the end, together with the
    process that would restart it."""
    work = """
        from flopsd.client import connect
        import os
        one = connect(); one.declare(method="lora"); one.close(30)
        print(os.environ["SLURM_JOB_ID"], os.environ["SLURM_NODEID"], os.environ["FLOPSD_SOCKET"])
    """
    program, release, targets = cluster.folder / "work.py", cluster.folder / "release", cluster.folder / "targets"
    program.write_text("\n".join(line.strip() for line in work.splitlines()))
    command = f"PYTHONPATH={ROOT} {sys.executable} {program}; until [ -e {release} ]; do sleep 0.05; done"
    kill = f"; kill -s KILL -- -$(cat {cluster.folder}/jobs/n1/$SLURM_JOB_ID/flopsd.pid)"
    targets.mkdir()
    foreign, left = targets / "slurm-9999.n1.json", targets / "slurm-9998.n1.json"
    for path in (foreign, left):
        path.write_text("[]")
    os.chown(foreign, 65534, -1)
    with prometheus(cluster) as query:
        jobs = [
            cluster.start("srun", *where, "--gres=gpu:1", "--ntasks-per-node=1", "sh", "-c", what)
            for where, what in ((["-N2"], command), (["-N1", "-w", "n1"], command + kill))
        ]
        metered = "sum by (run_id, node, slurm_job_id, slurm_user, instance) (flopsd_flop_total) > 0"
        rows = wait_until(lambda: len(query(metered)) == 3 and query(metered), "three are scraped")
        assert (len(list(targets.iterdir())), left.exists()) == (4, False), "a job's start removes what root left"
        release.touch()
        both, one = (job.communicate(timeout=PATIENCE_SECONDS)[0].split() for job in jobs)
        wait_until(lambda: cluster.states() == ["idle", "idle"], "the jobs are over, no node is drained")
        assert list(targets.iterdir()) == [foreign]
        ended = query("last_over_time(flopsd_run_ended[5m]) == 1")
    assert (len(both), len(one)) == (6, 3), "each task reached a daemon"
    expected = {("n1", both[0]): 0, ("n2", both[0]): 1, ("n1", one[0]): 0}  # with the rank
    names = ("run_id", "node", "slurm_job_id", "slurm_user", "instance")
    assert {tuple(row["metric"][name] for name in names) for row in rows} == {
        (f"slurm-{job}", node, job, "root", f"{node}/slurm-{job}") for node, job in expected
    }
    assert {row["metric"]["slurm_job_id"] for row in ended} == {both[0]}
    assert len(ended) == 2, "the last scrape shows the end"
    ledgers = {key: ledger(cluster.folder / "jobs" / key[0] / key[1]) for key in expected}
    sealed = {key: predicate(path) for key, path in ledgers.items()}
    for (node, job), found in sealed.items():
        assert (found["run"]["id"], found["run"]["platform"]) == (f"slurm-{job}", "slurm")
        assert (found["node"]["name"], found["node"]["rank"]) == (node, expected[node, job])
        (uuid,) = [device["uuid"] for device in found["devices"]]
        assert uuid.startswith(f"GPU-{node}-"), "of two GPUs one is the job's"
        assert found["incarnations"][0]["endReason"] == ("sigterm" if job == both[0] else None)
        assert '"lora"' in ledgers[node, job].with_suffix(".journal.jsonl").read_text()
    assert len({found["devices"][0]["uuid"] for found in sealed.values()}) == 3, "no GPU is metered twice"
    key, merged = str(tmp_path / "key.pem"), tmp_path / "job.json"
    two = [ledgers[node, both[0]] for node in NODES]
    trusted = [word for path in two for word in ("--trust", str(path.with_suffix(".pub")))]
    in_process("key", "new", key, code=0)
    in_process("merge", "--nodes", "2", *trusted, "--key", key, "--ledger", str(merged), *map(str, two), code=0)
    each = [int(sealed[node, both[0]]["totals"]["executed"]["measured"]) for node in NODES]
    assert int(predicate(merged)["totals"]["executed"]["measured"]) == sum(each) > 0


@CLUSTER
@AS_ROOT
def test_a_daemon_that_dies_is_restarted_and_the_job_has_one_ledger(cluster: Slurm) -> None:
    before = set((cluster.folder / "jobs" / "n1").glob("*"))
    kill = (
        f"d={cluster.folder}/jobs/n1/$SLURM_JOB_ID; until grep -q activity $d/pending.jsonl; do sleep 0.05; done; "
        'kill -KILL $(cat $d/lock); until grep -q "daemon start 2" $d/flopsd.log; do sleep 0.05; done'
    )
    # An earlier job's copy failed: the end of this one delivers it.
    earlier, late = finished(cluster.folder / "jobs" / "n1" / "900001", 3), cluster.folder / "late" / "ledger.json"
    sealed_earlier = earlier.seal(earlier.state.path / "ledger.json").ledger
    Deliveries(earlier.state, earlier.clock).note(sealed_earlier, [late])
    before.add(earlier.state.path)
    cluster.run("srun", "-N1", "-w", "n1", "--gres=gpu:2", "sh", "-c", kill)
    wait_until(late.exists, "the earlier job's ledger is delivered")
    assert late.read_bytes() == sealed_earlier.read_bytes()
    (folder,) = set((cluster.folder / "jobs" / "n1").glob("*")) - before
    sealed = predicate(ledger(folder))
    assert [one["endReason"] for one in sealed["incarnations"]] == [None, "sigterm"]
    assert len(sealed["devices"]) == 2


@pytest.mark.parametrize(
    "broken", ["FLOPSD=/no/such/command", "if then fi", "exit 3", "STATE=/proc/none", "FLOPSD_FILE_SD=/no/mount"]
)
@CLUSTER
@AS_ROOT
def test_a_job_runs_and_its_node_stays_up_whatever_is_broken(cluster: Slurm, broken: str) -> None:
    (cluster.folder / "broken").write_text(f"{broken}\n")
    conf = cluster.folder / "job.conf"
    cluster.run("sh", "-c", f"(cat {conf}; cat {cluster.folder}/broken) >/etc/flopsd/slurm-job.conf")
    try:
        assert cluster.run("srun", "-N1", "--gres=gpu:1", "echo", "ran").stdout == "ran\n"
        wait_until(lambda: cluster.states() == ["idle", "idle"], "no node is drained")
        cluster.run("test", "!", "-e", "/no")
    finally:
        cluster.run("cp", str(conf), "/etc/flopsd/slurm-job.conf")


@CLUSTER
@AS_ROOT
def test_a_job_without_gpus_is_not_metered(cluster: Slurm) -> None:
    before = set((cluster.folder / "jobs").glob("*/*"))
    cluster.run("srun", "-N1", "true")
    wait_until(lambda: cluster.states() == ["idle", "idle"], "the job is over")
    assert set((cluster.folder / "jobs").glob("*/*")) == before


@CLUSTER
@AS_ROOT
def test_exec_under_srun_meters_each_node_once_and_the_nodes_add_up(cluster: Slurm, tmp_path: Path) -> None:
    """Two tasks per node, one of which meters; without a Slurm GPU, so that the prolog does nothing."""
    key = str(tmp_path / "key.pem")
    assert in_process("key", "new", key).returncode == 0
    # A task that comes late finds the node's run ended: its pending totals are then in the journal, with an end
    # record.
    folder = "/var/lib/flopsd/slurm-$SLURM_JOB_ID/$SLURMD_NODENAME"
    metered = f'grep -qs activity {folder}/pending.jsonl || grep -qs \\"end\\" {folder}/journal.jsonl'
    job = f"until {metered}; do sleep 0.05; done; echo $SLURM_JOB_ID $FLOPSD_SOCKET"
    done = cluster.run(
        "srun", "-N2", "--ntasks-per-node=2", str(cluster.folder / "flopsd"), "exec", "--listen", "off", "--interval", "0.2",
        "--key", key, "--", "sh", "-c", job,
    )  # fmt: skip
    assert done.stderr.count("its devices are metered by task 0") == 2, done.stderr
    lines = sorted(done.stdout.split("\n"))
    name = f"slurm-{done.stdout.split()[0]}"
    for node in NODES:
        said = [line for line in lines if line.endswith(f"/var/lib/flopsd/{name}/{node}/client.sock")]
        assert len(said) == 2, "both tasks reach the node's daemon"
    found = exec_ledgers(cluster, name)
    assert sorted(found) == list(NODES)
    each = [int(predicate(found[node])["totals"]["executed"]["measured"]) for node in NODES]
    public = str(found["n1"].with_suffix(".pub"))
    merged = tmp_path / "job.json"
    merge = ("merge", "--trust", public, "--key", key, "--ledger", str(merged))
    assert in_process(*merge, "--nodes", "2", *map(str, found.values())).returncode == 0
    assert int(predicate(merged)["totals"]["executed"]["measured"]) == sum(each)
    in_process(*merge, "--nodes", "2", str(found["n1"]), code=1, says="rank 1")
    in_process(*merge, str(found["n2"]), code=1, says="rank 0")
